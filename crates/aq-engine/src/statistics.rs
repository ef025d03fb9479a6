//! Statistics that were collected while a model ran, written as `aq calibrate` writes those of samples.

use std::collections::BTreeMap;
use std::path::Path;

use aq_io::{BucketStatistics, LayerStatistics, StatisticsSink};
use aq_kernels::gram;
use half::f16;
use serde_json::json;

use crate::calibration::HeldOut;
use crate::{EngineError, Result};

pub use aq_spatial::hessian_block;

/// What was seen of the inputs of a layer.
#[derive(Debug, Clone)]
pub struct CollectedLayer<'a> {
    /// Name of the weight without `.weight`.
    pub name: &'a str,
    /// By bucket of times; at least one.
    pub buckets: Vec<CollectedBucket<'a>>,
    /// Rows in `hessian`.
    pub rows: u64,
    /// `sum(x^T x)` over those rows, all kept ones among them, in blocks of [`hessian_block`] columns one after the other.
    pub hessian: &'a [f64],
}

/// What was seen in one bucket of times.
#[derive(Debug, Clone)]
pub struct CollectedBucket<'a> {
    /// Its time.
    pub time: f64,
    /// Rows that were seen.
    pub rows: u64,
    /// Smallest value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
    /// Largest magnitude of each input channel.
    pub absmax: &'a [f32],
    /// Mean square of each input channel.
    pub mean_square: &'a [f32],
    /// Whole rows that are kept.
    pub kept: &'a [f16],
}

/// A file of statistics that is written layer by layer. Nothing is at its place before [`StatisticsWriter::finish`].
pub struct StatisticsWriter {
    sink: StatisticsSink,
}

impl StatisticsWriter {
    /// Begins a file beside `path`.
    ///
    /// # Errors
    /// When `path` does not end in `.parquet`, is there already and `force` is not given, or cannot be written.
    pub fn create(path: &Path, force: bool) -> Result<Self> {
        if path.extension().is_none_or(|ending| ending != "parquet") {
            return Err(EngineError::Usage(format!("{}: statistics are a .parquet file", path.display())));
        }
        Ok(Self { sink: StatisticsSink::create(path, force)? })
    }

    /// Appends a layer. The kept rows that are held out to measure on are taken off the Hessian.
    ///
    /// # Errors
    /// When lengths do not fit together or a value is not finite; the layer is named. When it cannot be written.
    pub fn write(&mut self, layer: &CollectedLayer<'_>) -> Result<()> {
        let fault = |fact: &str| EngineError::Config(format!("layer {:?}: {fact}", layer.name));
        let cols = layer.buckets.first().map_or(0, |b| b.absmax.len());
        let block = hessian_block(cols);
        let fits = |b: &CollectedBucket<'_>| {
            (b.absmax.len(), b.mean_square.len()) == (cols, cols) && b.kept.len().is_multiple_of(cols)
        };
        if cols == 0 || !layer.buckets.iter().all(fits) {
            return Err(fault("its buckets do not all have the same channels"));
        }
        if layer.hessian.len() != gram::block_diagonal_len(cols, block) {
            return Err(fault("its Hessian does not fit its channels"));
        }
        let (rows, hessian) = without_held_out(layer, cols, block);
        let finite = |b: &CollectedBucket<'_>| {
            let ends = b.time.is_finite() && b.min.is_finite() && b.max.is_finite();
            ends && [b.absmax, b.mean_square].into_iter().flatten().all(|v| v.is_finite())
                && b.kept.iter().all(|v| v.is_finite())
        };
        if !layer.buckets.iter().all(finite) || !hessian.iter().all(|v| v.is_finite()) {
            return Err(fault("it holds values that are not finite"));
        }
        let buckets = layer.buckets.iter().map(CollectedBucket::stored).collect();
        let (weight, layer) = (rows as f64, layer.name.to_string());
        Ok(self.sink.write(&LayerStatistics {
            layer,
            buckets,
            rows,
            weight,
            hessian_block: block,
            hessian,
        })?)
    }

    /// Writes what times are (`t`, `sigma` or `mask_ratio`) and which layers share the inputs of others, and moves the file to its
    /// place. Gives its bytes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self, time: &str, aliases: &BTreeMap<String, String>) -> Result<u64> {
        let metadata = [("aq.time".into(), time.into()), ("aq.aliases".into(), json!(aliases).to_string())];
        let pending = self.sink.finish(&metadata)?;
        let bytes = pending.bytes();
        pending.commit()?;
        Ok(bytes)
    }
}

impl CollectedBucket<'_> {
    fn stored(&self) -> BucketStatistics {
        BucketStatistics {
            time: self.time,
            weight: 1.0,
            rows: self.rows,
            min: self.min,
            max: self.max,
            absmax: self.absmax.to_vec(),
            mean_square: self.mean_square.to_vec(),
            samples: self.kept.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }
}

/// The Hessian without the kept rows that are held out, and the number of its rows.
fn without_held_out(layer: &CollectedLayer<'_>, cols: usize, block: usize) -> (u64, Vec<f32>) {
    let kept = || layer.buckets.iter().flat_map(|b| b.kept.chunks_exact(cols));
    let held_out = HeldOut::of(kept().count() as u64);
    let (mut rows, mut count) = (Vec::new(), 0);
    for (row, _) in kept().zip(0..).filter(|&(_, number)| held_out.holds(number)) {
        rows.extend(row.iter().map(|v| v.to_f32()));
        count += 1;
    }
    let mut theirs = vec![0.0; layer.hessian.len()];
    gram::add_rows(&rows, cols, 1.0, block, &mut theirs);
    let rest = layer.hessian.iter().zip(theirs).map(|(all, theirs)| (all - theirs) as f32);
    (layer.rows.saturating_sub(count), rest.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_by_layer() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("stats.parquet");
        assert!(StatisticsWriter::create(&folder.path().join("stats.bin"), false).is_err());
        let mut writer = StatisticsWriter::create(&path, false).expect("it is new");
        let (absmax, kept) = ([2.0, 1.0], [f16::ONE; 4]);
        let bucket = CollectedBucket {
            time: 1.0,
            rows: 2,
            min: -1.0,
            max: 2.0,
            absmax: &absmax,
            mean_square: &absmax,
            kept: &kept,
        };
        let good = CollectedLayer { name: "fc", buckets: vec![bucket.clone()], rows: 2, hessian: &[2.0; 4] };
        let bad = [
            CollectedLayer { hessian: &[2.0; 3], ..good.clone() },
            CollectedLayer { hessian: &[f64::NAN; 4], ..good.clone() },
            CollectedLayer { buckets: vec![], ..good.clone() },
            CollectedLayer {
                buckets: vec![CollectedBucket { kept: &kept[1..], ..bucket.clone() }],
                ..good.clone()
            },
            CollectedLayer {
                buckets: vec![bucket.clone(), CollectedBucket { absmax: &[1.0], ..bucket }],
                ..good.clone()
            },
        ];
        for layer in bad {
            let error = writer.write(&layer).expect_err("refused").to_string();
            assert!(error.contains("\"fc\""), "{error}");
        }
        writer.write(&good).expect("it fits");
        assert!(!path.exists());
        let bytes = writer.finish("t", &BTreeMap::new()).expect("a folder to write to");
        assert_eq!(path.metadata().expect("it is there").len(), bytes);
    }
}
