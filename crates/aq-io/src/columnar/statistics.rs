//! The columns of a file of calibration statistics, and what is checked of its rows.
//!
//! A layer has a row for each timestep bucket, from 0 on, and then one with bucket -1, which holds its Hessian. Every layer has a row group
//! of its own.

use std::path::Path;

use arrow2::datatypes::{DataType, Field, Schema};

use super::table::Part;
use crate::{IoError, Result};

/// Names of the columns, in the order of the file.
pub(super) const STATISTICS_COLUMNS: [&str; 12] = [
    "layer",
    "bucket",
    "time",
    "weight",
    "rows",
    "min",
    "max",
    "absmax",
    "mean_square",
    "samples",
    "hessian_block",
    "hessian",
];

/// Index of the first of the three binary columns that follow one another; the fourth is the last column.
pub(super) const ABSMAX: usize = 7;

/// Key and value that tell such a file from others.
pub(super) const KIND: (&str, &str) = ("aq.calibration", "statistics/1");

/// The most columns of a layer.
const MAX_COLS: u64 = 1 << 24;

/// The schema in Arrow's terms. Nothing is nullable.
pub(super) fn statistics_schema() -> Schema {
    let types = [
        DataType::Utf8,
        DataType::Int32,
        DataType::Float64,
        DataType::Float64,
        DataType::Int64,
        DataType::Float32,
        DataType::Float32,
        DataType::Binary,
        DataType::Binary,
        DataType::Binary,
        DataType::Int32,
        DataType::Binary,
    ];
    let fields = STATISTICS_COLUMNS.iter().zip(types).map(|(name, t)| Field::new(*name, t, false));
    Schema::from(fields.collect::<Vec<_>>())
}

/// Statistics of the inputs of one layer, to be written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LayerStatistics {
    /// Name of the weight without `.weight`.
    pub layer: String,
    /// Buckets in the order of the samples.
    pub buckets: Vec<BucketStatistics>,
    /// Rows in the Hessian.
    pub rows: u64,
    /// The sum of their weights.
    pub weight: f64,
    /// Columns of a block of the Hessian.
    pub hessian_block: usize,
    /// `sum(weight x^T x)` over those rows: blocks one after the other, each a row-major square matrix; the last may be smaller.
    pub hessian: Vec<f32>,
}

/// Statistics of one timestep bucket of a layer, to be written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BucketStatistics {
    /// Its time.
    pub time: f64,
    /// What each of its rows counts.
    pub weight: f64,
    /// Rows that were seen.
    pub rows: u64,
    /// Smallest value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
    /// Largest magnitude of each input channel.
    pub absmax: Vec<f32>,
    /// Mean square of each input channel.
    pub mean_square: Vec<f32>,
    /// Some of the rows, as little-endian f16.
    pub samples: Vec<u8>,
}

/// What a file holds of one layer.
#[derive(Debug, Clone, Default)]
pub struct StoredLayer {
    /// Name of the weight without `.weight`.
    pub layer: String,
    /// Input channels.
    pub cols: usize,
    /// Buckets in order; at least one.
    pub buckets: Vec<StoredBucket>,
    /// Rows in the Hessian.
    pub rows: u64,
    /// The sum of their weights.
    pub weight: f64,
    /// Columns of a block of the Hessian, 1 to `cols`.
    pub hessian_block: usize,
    pub(super) hessian: Part,
}

/// What a file holds of one bucket of a layer.
#[derive(Debug, Clone, Default)]
pub struct StoredBucket {
    /// Its time.
    pub time: f64,
    /// What each of its rows counts; not negative.
    pub weight: f64,
    /// Rows that were seen.
    pub rows: u64,
    /// Smallest value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
    /// Rows that are stored.
    pub samples: u64,
    pub(super) absmax: Part,
    pub(super) mean_square: Part,
    pub(super) stored: Part,
}

/// A row as it was read, not yet checked.
#[derive(Debug, Clone, Default)]
pub(super) struct StatisticsRow {
    pub(super) layer: String,
    pub(super) bucket: i32,
    pub(super) time: f64,
    pub(super) weight: f64,
    pub(super) rows: i64,
    pub(super) min: f32,
    pub(super) max: f32,
    pub(super) hessian_block: i32,
    /// `absmax`, `mean_square`, `samples`, `hessian`.
    pub(super) parts: [Part; 4],
}

/// The layers of rows in the order of the file.
///
/// # Errors
/// When rows are missing, repeated or out of order, or numbers or lengths contradict each other; the layer is named.
pub(super) fn layers_of(path: &Path, rows: Vec<StatisticsRow>) -> Result<Vec<StoredLayer>> {
    let mut layers: Vec<StoredLayer> = Vec::new();
    let mut names = std::collections::HashSet::new();
    let mut open: Option<StoredLayer> = None;
    for row in rows {
        let fault = |fact: String| IoError::tensor(path, &row.layer, fact);
        let mut layer =
            open.take().unwrap_or_else(|| StoredLayer { layer: row.layer.clone(), ..StoredLayer::default() });
        if layer.layer != row.layer {
            return Err(fault(format!("its rows begin before those of layer {:?} end", layer.layer)));
        }
        if row.bucket == -1 {
            add_hessian(&mut layer, &row).map_err(fault)?;
            if !names.insert(layer.layer.clone()) {
                return Err(fault("is there twice".into()));
            }
            layers.push(layer);
        } else {
            add_bucket(&mut layer, &row).map_err(fault)?;
            open = Some(layer);
        }
    }
    match open {
        Some(layer) => Err(IoError::tensor(path, &layer.layer, "its Hessian is missing")),
        None => Ok(layers),
    }
}

fn add_bucket(layer: &mut StoredLayer, row: &StatisticsRow) -> Result<(), String> {
    let [absmax, mean_square, stored, hessian] = row.parts;
    let (due, at) = (layer.buckets.len(), row.bucket);
    if usize::try_from(at) != Ok(due) {
        return Err(format!("bucket {at} in place of {due}"));
    }
    let cols = absmax.len / 4;
    if due == 0 {
        layer.cols = cols as usize;
    }
    let cols = cols.clamp(1, MAX_COLS);
    if absmax.len != 4 * cols || cols as usize != layer.cols || mean_square.len != absmax.len {
        return Err(format!(
            "bucket {at}: absmax and mean_square are not one f32 for each of its input channels"
        ));
    }
    let samples = stored.len / (2 * cols);
    let rows = u64::try_from(row.rows).map_err(|_| format!("bucket {at}: {} rows", row.rows))?;
    if stored.len % (2 * cols) != 0 || samples > rows {
        return Err(format!("bucket {at}: {} bytes of samples are not whole rows of {rows}", stored.len));
    }
    let finite = row.time.is_finite() && row.weight.is_finite() && row.min.is_finite() && row.max.is_finite();
    if !finite || row.weight < 0.0 || row.min > row.max {
        return Err(format!("bucket {at}: time, weight, min or max is not finite or contradicts another"));
    }
    if hessian.len != 0 || row.hessian_block != 0 {
        return Err(format!("bucket {at} has a Hessian"));
    }
    let (time, weight, min, max) = (row.time, row.weight, row.min, row.max);
    layer.buckets.push(StoredBucket { time, weight, rows, min, max, samples, absmax, mean_square, stored });
    Ok(())
}

fn add_hessian(layer: &mut StoredLayer, row: &StatisticsRow) -> Result<(), String> {
    let [absmax, mean_square, samples, hessian] = row.parts;
    if layer.buckets.is_empty() {
        return Err("has no buckets".into());
    }
    let (cols, block) = (layer.cols as u64, u64::try_from(row.hessian_block).unwrap_or(0));
    if block == 0 || block > cols {
        return Err(format!("blocks of {} columns of its Hessian do not fit {cols}", row.hessian_block));
    }
    // Below 2^24 each, so that no product passes 64 bits.
    let (whole, rest) = (cols / block, cols % block);
    let bytes = 4 * (whole * block * block + rest * rest);
    if hessian.len != bytes {
        return Err(format!("its Hessian has {} bytes in place of {bytes}", hessian.len));
    }
    if [absmax, mean_square, samples].iter().any(|part| part.len != 0) {
        return Err("the row of its Hessian has values of a bucket".into());
    }
    layer.rows = u64::try_from(row.rows).map_err(|_| format!("{} rows in its Hessian", row.rows))?;
    if !(row.weight >= 0.0 && row.weight.is_finite()) {
        return Err("the weight of its Hessian is negative or not finite".into());
    }
    (layer.weight, layer.hessian_block, layer.hessian) = (row.weight, block as usize, hessian);
    Ok(())
}
