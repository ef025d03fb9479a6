//! The reader of calibration statistics. Numbers are read and checked at once; vectors, samples and Hessians stay on disk.

use std::collections::BTreeMap;
use std::path::Path;

use parquet_format_safe::{RowGroup, Type};

use super::binary::locate;
use super::chunk::Chunk;
use super::footer::{self, Layout};
use super::page::{MAX_PAGE, Page};
use crate::columnar::statistics::{
    ABSMAX, KIND, STATISTICS_COLUMNS, StatisticsRow, StoredBucket, StoredLayer, layers_of,
};
use crate::columnar::table::Part;
use crate::file_bytes::FileBytes;
use crate::{Access, IoError, Result};

#[rustfmt::skip]
const STATISTICS: Layout = Layout {
    what: "a file of calibration statistics",
    names: &STATISTICS_COLUMNS,
    types: &[
        Type::BYTE_ARRAY, Type::INT32, Type::DOUBLE, Type::DOUBLE, Type::INT64, Type::FLOAT, Type::FLOAT,
        Type::BYTE_ARRAY, Type::BYTE_ARRAY, Type::BYTE_ARRAY, Type::INT32, Type::BYTE_ARRAY,
    ],
    list: None,
};

/// An open file of calibration statistics.
pub struct StatisticsFile {
    file: FileBytes,
    metadata: BTreeMap<String, String>,
    layers: Vec<StoredLayer>,
    packed: Vec<Page>,
}

impl StatisticsFile {
    /// Opens a file and checks all its numbers; vectors, samples and Hessians are read when they are asked for.
    ///
    /// # Errors
    /// When it is no such file, is truncated, or numbers in it contradict each other.
    pub fn open(path: &Path) -> Result<Self> {
        let file = FileBytes::open(path, Access::Positioned)?;
        let footer = footer::read(&file, &STATISTICS)?;
        if footer.metadata.get(KIND.0).map(String::as_str) != Some(KIND.1) {
            return Err(IoError::malformed(path, format!("{} is not {:?}", KIND.0, KIND.1)));
        }
        let (mut rows, mut packed) = (Vec::new(), Vec::new());
        for group in &footer.file.row_groups {
            read_group(&file, group, footer.at, &mut rows, &mut packed)?;
        }
        let layers = layers_of(path, rows)?;
        Ok(Self { file, metadata: footer.metadata, layers, packed })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Its key-values.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Its layers in file order. Names are unique.
    pub fn layers(&self) -> &[StoredLayer] {
        &self.layers
    }

    /// The Hessian of a layer of this file: blocks one after the other, each a row-major square matrix.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn hessian(&self, layer: &StoredLayer) -> Result<Vec<f32>> {
        self.floats(&layer.hessian)
    }

    /// The largest magnitude of each input channel in a bucket of this file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn absmax(&self, bucket: &StoredBucket) -> Result<Vec<f32>> {
        self.floats(&bucket.absmax)
    }

    /// The mean square of each input channel in a bucket of this file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn mean_square(&self, bucket: &StoredBucket) -> Result<Vec<f32>> {
        self.floats(&bucket.mean_square)
    }

    /// Fills `dst` with bytes of the samples of a bucket of this file, little-endian f16 values, from byte `start` on.
    ///
    /// # Errors
    /// When there are not so many or the file cannot be read.
    pub fn read_samples(&self, bucket: &StoredBucket, start: u64, dst: &mut [u8]) -> Result<()> {
        let part = &bucket.stored;
        let end = start.saturating_add(dst.len() as u64);
        if end > part.len {
            return Err(IoError::malformed(
                self.path(),
                format!("no sample bytes up to {end} of {}", part.len),
            ));
        }
        self.fill(&Part { at: part.at + start, ..*part }, dst)
    }

    fn floats(&self, part: &Part) -> Result<Vec<f32>> {
        let mut bytes = vec![0; part.len as usize];
        self.fill(part, &mut bytes)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    fn fill(&self, part: &Part, dst: &mut [u8]) -> Result<()> {
        let Some(page) = part.page else { return self.file.read_exact_at(part.at, dst) };
        let fault = |reason: String| IoError::malformed(self.path(), reason);
        let page = self.packed.get(page as usize).ok_or_else(|| fault("no such page".into()))?;
        let plain = page.unpack(&self.file)?.map_err(fault)?;
        let at = part.at as usize;
        let value = plain.get(at..at.saturating_add(dst.len()));
        dst.copy_from_slice(value.ok_or_else(|| fault("page too short for its value".into()))?);
        Ok(())
    }
}

fn read_group(
    file: &FileBytes,
    group: &RowGroup,
    footer: u64,
    rows: &mut Vec<StatisticsRow>,
    packed: &mut Vec<Page>,
) -> Result<()> {
    let fault = |reason: String| IoError::malformed(file.path(), reason);
    if group.columns.len() != STATISTICS_COLUMNS.len() {
        return Err(fault(format!("a row group has {} columns", group.columns.len())));
    }
    let open = |i: usize| Chunk::open(file, &STATISTICS, i, &group.columns[i], footer);
    let names = open(0)?.texts()?;
    let count = names.len();
    if count as i64 != group.num_rows {
        return Err(fault(format!(
            "a row group says it has {} rows, its columns have {count}",
            group.num_rows
        )));
    }
    let short = |i: usize| exactly(open(i)?, count, Chunk::integers::<4>);
    let long = |i: usize| exactly(open(i)?, count, Chunk::integers::<8>);
    let (buckets, times, weights, seen) = (short(1)?, long(2)?, long(3)?, long(4)?);
    let (mins, maxes, blocks) = (short(5)?, short(6)?, short(10)?);
    let limits = vec![MAX_PAGE; count];
    let mut parts = Vec::new();
    for column in [ABSMAX, ABSMAX + 1, ABSMAX + 2, STATISTICS_COLUMNS.len() - 1] {
        parts.push(locate(&open(column)?, &limits, packed)?);
    }
    let part = |column: usize, row: usize| parts[column].get(row).copied().unwrap_or_default();
    rows.extend(names.into_iter().enumerate().map(|(i, layer)| StatisticsRow {
        layer,
        bucket: i32::from_le_bytes(buckets[i]),
        time: f64::from_le_bytes(times[i]),
        weight: f64::from_le_bytes(weights[i]),
        rows: i64::from_le_bytes(seen[i]),
        min: f32::from_le_bytes(mins[i]),
        max: f32::from_le_bytes(maxes[i]),
        hessian_block: i32::from_le_bytes(blocks[i]),
        parts: [part(0, i), part(1, i), part(2, i), part(3, i)],
    }));
    Ok(())
}

/// The values of a column, of which there must be `count`.
fn exactly<'f, T>(
    chunk: Chunk<'f>,
    count: usize,
    read: impl Fn(&Chunk<'f>) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let values = read(&chunk)?;
    match values.len() == count {
        true => Ok(values),
        false => Err(chunk.fault(&format!("{} values in {count} rows", values.len()))),
    }
}
