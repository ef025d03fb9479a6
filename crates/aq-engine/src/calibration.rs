//! What a calibration file says about the inputs of each layer.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use aq_core::{InputRows, StoredTensor, StrategyError};
use aq_io::{Access, IoError, Source};

use crate::weights::WeightReader;
use crate::{Fallback, Progress, Result};

/// Calibration inputs of the layers of a model.
#[derive(Default)]
pub(crate) struct Calibration {
    by_name: HashMap<String, LayerSamples>,
    fallbacks: Vec<Fallback>,
}

impl Calibration {
    /// Opens a samples file: for each layer a tensor `[T, N, in]`, and `aq.aliases` in the metadata. Every value is looked at
    /// once. A layer whose samples are not all finite has none; [`Calibration::fallbacks`] says so.
    ///
    /// # Errors
    /// When the file cannot be read or a shape does not fit its layer. Layers of no tensor are noted and ignored.
    pub(crate) fn read(
        path: Option<&Path>,
        tensors: &[StoredTensor],
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let samples: Arc<dyn Source> = aq_io::open(path, Access::Positioned)?.into();
        let aliases = aliases(&*samples)?;
        let index: HashMap<&str, usize> =
            samples.tensors().iter().enumerate().map(|(i, t)| (t.info.name(), i)).collect();
        let (mut by_name, mut fallbacks) = (HashMap::new(), Vec::new());
        for tensor in tensors {
            let name = tensor.info.name();
            let layer = name.strip_suffix(".weight").unwrap_or(name);
            let layer = aliases.get(layer).map_or(layer, String::as_str);
            if let Some(&i) = index.get(layer) {
                match LayerSamples::open(samples.clone(), i, tensor)? {
                    Some(samples) => drop(by_name.insert(name.to_string(), samples)),
                    None => fallbacks.push(not_finite(name)),
                }
            }
        }
        if by_name.is_empty() && fallbacks.is_empty() {
            progress.warn(&format!("{}: no layer of this model is in the calibration file", path.display()));
        }
        Ok(Self { by_name, fallbacks })
    }

    /// The layers whose samples cannot be used.
    pub(crate) fn fallbacks(&self) -> &[Fallback] {
        &self.fallbacks
    }

    /// The inputs of the layer of a weight.
    pub(crate) fn of(&self, name: &str) -> Option<&LayerSamples> {
        self.by_name.get(name)
    }
}

fn not_finite(tensor: &str) -> Fallback {
    Fallback {
        tensor: Some(tensor.to_string()),
        from: "calibrated".into(),
        to: "uncalibrated".into(),
        reason: "its calibration samples hold NaN or infinite values".into(),
    }
}

fn aliases(samples: &dyn Source) -> Result<BTreeMap<String, String>> {
    let Some(text) = samples.metadata().get("aq.aliases") else { return Ok(BTreeMap::new()) };
    serde_json::from_str(text)
        .map_err(|e| IoError::malformed(samples.path(), format!("aq.aliases: {e}")).into())
}

/// The input rows of one layer. Some of them are held out: strategies do not see them, and the report measures on them.
pub(crate) struct LayerSamples {
    source: Arc<dyn Source>,
    index: usize,
    cols: usize,
    rows: u64,
    importance: Vec<f32>,
}

/// Rows read at a time.
const BLOCK_ROWS: u64 = 256;
/// Every so many rows one is held out.
const HOLD_OUT: u64 = 8;
/// Fewer rows than this are too few to hold any out.
const MIN_ROWS: u64 = 64;
/// The most rows that are held out.
const MAX_HELD_OUT: u64 = 128;

impl LayerSamples {
    /// `None` when a value is not finite.
    fn open(source: Arc<dyn Source>, index: usize, tensor: &StoredTensor) -> Result<Option<Self>> {
        let info = &source.tensors()[index].info;
        let cols = tensor.info.cols();
        if info.shape().last() != Some(&cols) || info.elements() == 0 {
            let reason =
                format!("shape {:?} does not fit the {cols} inputs of {}", info.shape(), tensor.info.name());
            return Err(IoError::tensor(source.path(), info.name(), reason).into());
        }
        let rows = info.elements() / cols;
        let samples = Self { source, index, cols: cols as usize, rows, importance: Vec::new() };
        let importance = samples.mean_squares()?;
        Ok(importance.map(|importance| Self { importance, ..samples }))
    }

    /// Mean square of each input channel over the rows that are not held out.
    pub(crate) fn importance(&self) -> &[f32] {
        &self.importance
    }

    /// The rows that are held out, one after the other; none when there are few rows.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn held_out(&self) -> Result<Vec<f32>> {
        let mut rows = Vec::new();
        self.each_block(|n, row| {
            if self.is_held_out(n) {
                rows.extend_from_slice(row);
            }
        })?;
        Ok(rows)
    }

    /// At most `limit` of all rows, evenly spread.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn spread(&self, limit: u64) -> Result<Vec<f32>> {
        let step = self.rows.div_ceil(limit.max(1)).max(1);
        let mut rows = Vec::new();
        self.each_block(|n, row| {
            if n % step == 0 {
                rows.extend_from_slice(row);
            }
        })?;
        Ok(rows)
    }

    fn is_held_out(&self, row: u64) -> bool {
        let every = HOLD_OUT.max(self.rows.div_ceil(MAX_HELD_OUT));
        self.rows >= MIN_ROWS && row % every == every - 1
    }

    /// Visits every row with its number.
    fn each_block(&self, mut visit: impl FnMut(u64, &[f32])) -> Result<()> {
        let cols = self.cols as u64;
        let mut reader = WeightReader::default();
        for first in (0..self.rows).step_by(BLOCK_ROWS as usize) {
            let n = BLOCK_ROWS.min(self.rows - first);
            let block = reader.read(&*self.source, self.index, first * cols, (n * cols) as usize)?;
            (first..).zip(block.chunks(self.cols)).for_each(|(n, row)| visit(n, row));
        }
        Ok(())
    }

    fn mean_squares(&self) -> Result<Option<Vec<f32>>> {
        let (mut sums, mut seen, mut finite) = (vec![0f64; self.cols], 0u64, true);
        self.each_block(|n, row| {
            finite &= aq_kernels::metric::first_non_finite(row).is_none();
            if !self.is_held_out(n) {
                seen += 1;
                sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
            }
        })?;
        let means = sums.iter().map(|s| (s / seen as f64) as f32);
        Ok(finite.then(|| means.collect()))
    }
}

impl InputRows for LayerSamples {
    fn visit(&self, visit: &mut dyn FnMut(&[f32], f64)) -> Result<(), StrategyError> {
        let mut block = Vec::with_capacity(BLOCK_ROWS as usize * self.cols);
        let read = self.each_block(|n, row| {
            if !self.is_held_out(n) {
                block.extend_from_slice(row);
            }
            if !block.is_empty() && (block.len() == block.capacity() || n + 1 == self.rows) {
                visit(&block, 1.0);
                block.clear();
            }
        });
        read.map_err(|e| StrategyError::Read {
            tensor: self.source.tensors()[self.index].info.name().to_string(),
            reason: e.to_string(),
        })
    }
}
