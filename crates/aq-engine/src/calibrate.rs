//! Statistics from activation samples.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aq_io::{Access, BucketStatistics, IoError, LayerStatistics, Source, StatisticsSink};
use aq_kernels::gram;
use half::f16;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::calibration::{HeldOut, LayerSamples, RowSource, TIMES, Times, WEIGHTS, aliases};
use crate::{EngineError, Progress, Result};

/// The most rows that are kept of a bucket, and of a layer.
const KEPT: [u64; 2] = [64, 2048];
/// Rows added to a Hessian at a time.
const BLOCK_ROWS: usize = 64;

/// What statistics were made of.
#[derive(Debug, Clone)]
pub struct Calibrated {
    /// The samples.
    pub input: PathBuf,
    /// The statistics.
    pub output: PathBuf,
    /// Bytes of the statistics.
    pub bytes: u64,
    /// What times are: `t`, `sigma` or `mask_ratio`.
    pub time: String,
    /// Timestep buckets.
    pub buckets: usize,
    /// The layers, in file order.
    pub layers: Vec<CalibratedLayer>,
}

/// What statistics were made of one layer.
#[derive(Debug, Clone)]
pub struct CalibratedLayer {
    /// Name of the weight without `.weight`.
    pub name: String,
    /// Input channels.
    pub cols: usize,
    /// Rows that were seen.
    pub rows: u64,
    /// Rows that are kept.
    pub samples: u64,
    /// Columns of a block of the Hessian.
    pub hessian_block: usize,
    /// Smallest and largest value.
    pub range: (f32, f32),
}

/// Reads activation samples and writes their statistics: of each layer and timestep bucket ranges, mean squares and some rows, and of
/// each layer the Hessian. `threads` layers at a time, which changes no byte.
///
/// # Errors
/// When a file cannot be read or written, the samples have no `timesteps`, or a layer does not fit them or holds values that
/// are not finite; the layer is named. [`EngineError::Usage`] when the output does not end in `.parquet`.
pub fn calibrate(
    samples: &Path,
    output: &Path,
    threads: usize,
    force: bool,
    cancel: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Calibrated> {
    if output.extension().is_none_or(|ending| ending != "parquet") {
        let reason = format!("{}: the output of calibrate is a .parquet file", output.display());
        return Err(EngineError::Usage(reason));
    }
    if aq_io::is_parquet(samples)? {
        return Err(IoError::unsupported(samples, "not a file of activation samples (.safetensors)").into());
    }
    let source: Arc<dyn Source> = aq_io::open(samples, Access::Positioned)?.into();
    let (times, metadata) = (Times::read(&*source)?, metadata(&*source)?);
    let buckets = times.count().ok_or_else(|| IoError::malformed(samples, "has no tensor timesteps"))?;
    let names = source.tensors().iter().map(|t| t.info.name());
    let chosen: Vec<usize> =
        names.zip(0..).filter(|(n, _)| ![TIMES, WEIGHTS].contains(n)).map(|(_, i)| i).collect();
    let mut sink = StatisticsSink::create(output, force)?;
    let bytes = |i: usize| source.tensors()[i].info.bytes();
    progress.start(chosen.iter().map(|&i| bytes(i)).sum(), chosen.len());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|e| EngineError::Internal(e.to_string()))?;
    let mut layers = Vec::new();
    for some in chosen.chunks(threads.max(1)) {
        let of = |&i: &usize| {
            if cancel.load(Ordering::Relaxed) {
                Err(EngineError::Interrupted)
            } else {
                statistics(&source, i, &times)
            }
        };
        let made: Vec<LayerStatistics> = pool.install(|| some.par_iter().map(of).collect::<Result<_>>())?;
        for (&i, layer) in some.iter().zip(&made) {
            sink.write(layer)?;
            progress.advance(bytes(i), &layer.layer);
            layers.push(CalibratedLayer::of(layer));
        }
    }
    let time = metadata[0].1.clone();
    let pending = sink.finish(&metadata)?;
    let bytes = pending.bytes();
    pending.commit()?;
    progress.finish();
    Ok(Calibrated { input: samples.into(), output: output.into(), bytes, time, buckets, layers })
}

/// The key-values of the statistics: what times are, and which layers share inputs.
fn metadata(source: &dyn Source) -> Result<Vec<(String, String)>> {
    aliases(source.path(), source.metadata())?;
    let value = |key: &str, default: &str| {
        (key.to_string(), source.metadata().get(key).map_or(default, String::as_str).to_string())
    };
    Ok(vec![value("aq.time", "t"), value("aq.aliases", "{}")])
}

/// The statistics of the layer whose samples are tensor `index`.
fn statistics(source: &Arc<dyn Source>, index: usize, times: &Times) -> Result<LayerStatistics> {
    let rows = RowSource::Samples { source: source.clone(), index };
    let info = &source.tensors()[index].info;
    if !info.dtype().is_float() || info.elements() == 0 {
        return Err(rows.fault("holds no floating-point samples".into()));
    }
    let cols = info.shape().last().map_or(1, |&cols| cols as usize);
    let name = info.name();
    let Some(samples) = LayerSamples::of_width(rows, Some(times), cols)? else {
        return Err(IoError::tensor(source.path(), name, "holds NaN or infinite values").into());
    };
    let mut layer = Accumulator::new(&samples);
    samples.each_row(|row, bucket, values| layer.add(row, bucket, values))?;
    layer.finish(name)
}

/// The statistics of a layer while its rows pass.
struct Accumulator<'a> {
    samples: &'a LayerSamples,
    buckets: Vec<BucketStatistics>,
    squares: Vec<Vec<f64>>,
    /// Of each bucket every so many rows one is kept.
    steps: Vec<u64>,
    held_out: HeldOut,
    /// Rows kept so far.
    kept: u64,
    block: usize,
    hessian: Vec<f64>,
    rows: u64,
    weight: f64,
    /// Rows of `pending_weight` that the Hessian still lacks.
    pending: Vec<f32>,
    pending_weight: f64,
    overflow: bool,
}

impl<'a> Accumulator<'a> {
    fn new(samples: &'a LayerSamples) -> Self {
        let (cols, all) = (samples.cols(), samples.buckets());
        let starts = [0].into_iter().chain(all.iter().map(|b| b.end));
        let counts: Vec<u64> = all.iter().zip(starts).map(|(b, start)| b.end - start).collect();
        let limit = KEPT[0].min(KEPT[1] / all.len().max(1) as u64).max(1);
        let steps: Vec<u64> = counts.iter().map(|count| count.div_ceil(limit).max(1)).collect();
        let kept = counts.iter().zip(&steps).map(|(count, step)| count.div_ceil(*step)).sum();
        let block = aq_spatial::hessian_block(cols);
        let bucket = |b: &crate::calibration::Bucket| BucketStatistics {
            time: b.time.unwrap_or_default(),
            weight: b.weight,
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
            absmax: vec![0.0; cols],
            ..BucketStatistics::default()
        };
        Self {
            samples,
            buckets: all.iter().map(bucket).collect(),
            squares: vec![vec![0.0; cols]; all.len()],
            steps,
            held_out: HeldOut::of(kept),
            kept: 0,
            block,
            hessian: vec![0.0; gram::block_diagonal_len(cols, block)],
            rows: 0,
            weight: 0.0,
            pending: Vec::new(),
            pending_weight: 0.0,
            overflow: false,
        }
    }

    fn add(&mut self, row: u64, bucket: usize, values: &[f32]) {
        let start = bucket.checked_sub(1).map_or(0, |before| self.samples.buckets()[before].end);
        let own = &mut self.buckets[bucket];
        own.rows += 1;
        for ((&x, absmax), square) in values.iter().zip(&mut own.absmax).zip(&mut self.squares[bucket]) {
            own.min = own.min.min(x);
            own.max = own.max.max(x);
            *absmax = absmax.max(x.abs());
            *square += f64::from(x) * f64::from(x);
        }
        let mut held_out = false;
        if (row - start).is_multiple_of(self.steps[bucket]) {
            held_out = self.held_out.holds(self.kept);
            self.kept += 1;
            for &x in values {
                let half = f16::from_f32(x);
                self.overflow |= half.is_infinite();
                own.samples.extend_from_slice(&half.to_le_bytes());
            }
        }
        let weight = own.weight;
        if !held_out && weight > 0.0 {
            if weight != self.pending_weight || self.pending.len() >= BLOCK_ROWS * values.len() {
                self.flush();
            }
            self.pending_weight = weight;
            self.pending.extend_from_slice(values);
            self.rows += 1;
            self.weight += weight;
        }
    }

    /// Adds the pending rows to the Hessian.
    fn flush(&mut self) {
        let (cols, weight) = (self.samples.cols(), self.pending_weight as f32);
        gram::add_rows(&self.pending, cols, weight, self.block, &mut self.hessian);
        self.pending.clear();
    }

    fn finish(mut self, name: &str) -> Result<LayerStatistics> {
        self.flush();
        let hessian: Vec<f32> = self.hessian.iter().map(|&v| v as f32).collect();
        if self.overflow || aq_kernels::metric::first_non_finite(&hessian).is_some() {
            return Err(self
                .samples
                .fault("holds values too large for f16 samples or an f32 Hessian".into()));
        }
        for (bucket, squares) in self.buckets.iter_mut().zip(&self.squares) {
            let rows = bucket.rows.max(1) as f64;
            bucket.mean_square = squares.iter().map(|sum| (sum / rows) as f32).collect();
        }
        let (rows, weight, hessian_block) = (self.rows, self.weight, self.block);
        Ok(LayerStatistics {
            layer: name.into(),
            buckets: self.buckets,
            rows,
            weight,
            hessian_block,
            hessian,
        })
    }
}

impl CalibratedLayer {
    fn of(layer: &LayerStatistics) -> Self {
        let cols = layer.buckets.first().map_or(0, |b| b.absmax.len());
        let sum = |of: &dyn Fn(&BucketStatistics) -> u64| layer.buckets.iter().map(of).sum();
        Self {
            name: layer.layer.clone(),
            cols,
            rows: sum(&|b| b.rows),
            samples: sum(&|b| (b.samples.len() / (2 * cols.max(1))) as u64),
            hessian_block: layer.hessian_block,
            range: layer
                .buckets
                .iter()
                .fold((0.0, 0.0), |(low, high): (f32, f32), b| (low.min(b.min), high.max(b.max))),
        }
    }
}

impl Calibrated {
    /// The JSON object of `aq calibrate --json`.
    pub fn json(&self) -> Value {
        let layer = |l: &CalibratedLayer| {
            json!({"name": l.name, "cols": l.cols, "rows": l.rows, "samples": l.samples,
                   "hessian_block": l.hessian_block, "min": l.range.0, "max": l.range.1})
        };
        json!({
            "schema": "aq.calibrate/1",
            "version": env!("CARGO_PKG_VERSION"),
            "input": {"path": self.input.display().to_string()},
            "output": {"path": self.output.display().to_string(), "bytes": self.bytes},
            "time": self.time, "buckets": self.buckets,
            "layers": self.layers.iter().map(layer).collect::<Vec<_>>(),
        })
    }
}
