//! What a calibration file says about the inputs of each layer.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use aq_core::StoredTensor;
use aq_io::{Access, IoError, Source};

use crate::weights::WeightReader;
use crate::{Progress, Result};

/// Mean square of each input channel, by weight name.
#[derive(Debug, Default)]
pub(crate) struct Importance {
    by_name: HashMap<String, Vec<f32>>,
}

/// Input rows read at a time.
const ROWS: u64 = 256;

impl Importance {
    /// Reads a samples file: for each layer a tensor `[T, N, in]`, and `aq.aliases` in the metadata.
    ///
    /// # Errors
    /// When the file cannot be read or a shape does not fit its layer. Layers of no tensor are noted and ignored.
    pub(crate) fn read(
        path: Option<&Path>,
        tensors: &[StoredTensor],
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let samples = aq_io::open(path, Access::Positioned)?;
        let aliases = aliases(&*samples)?;
        let index: HashMap<&str, usize> =
            samples.tensors().iter().enumerate().map(|(i, t)| (t.info.name(), i)).collect();
        let mut by_name = HashMap::new();
        let mut used = 0;
        for tensor in tensors {
            let name = tensor.info.name();
            let layer = name.strip_suffix(".weight").unwrap_or(name);
            let layer = aliases.get(layer).map_or(layer, String::as_str);
            let Some(&i) = index.get(layer) else { continue };
            used += 1;
            by_name.insert(name.to_string(), mean_squares(&*samples, i, tensor)?);
        }
        if used == 0 {
            progress.warn(&format!("{}: no layer of this model is in the calibration file", path.display()));
        }
        Ok(Self { by_name })
    }

    /// The importance of the input channels of a weight.
    pub(crate) fn of(&self, name: &str) -> Option<&[f32]> {
        self.by_name.get(name).map(Vec::as_slice)
    }
}

fn aliases(samples: &dyn Source) -> Result<BTreeMap<String, String>> {
    let Some(text) = samples.metadata().get("aq.aliases") else { return Ok(BTreeMap::new()) };
    serde_json::from_str(text)
        .map_err(|e| IoError::malformed(samples.path(), format!("aq.aliases: {e}")).into())
}

fn mean_squares(samples: &dyn Source, index: usize, tensor: &StoredTensor) -> Result<Vec<f32>> {
    let info = &samples.tensors()[index].info;
    let cols = tensor.info.cols();
    if info.shape().last() != Some(&cols) || info.elements() == 0 {
        let reason =
            format!("shape {:?} does not fit the {cols} inputs of {}", info.shape(), tensor.info.name());
        return Err(IoError::tensor(samples.path(), info.name(), reason).into());
    }
    let rows = info.elements() / cols;
    let mut sums = vec![0f64; cols as usize];
    let mut reader = WeightReader::default();
    for first in (0..rows).step_by(ROWS as usize) {
        let n = ROWS.min(rows - first);
        for row in reader.read(samples, index, first * cols, (n * cols) as usize)?.chunks(cols as usize) {
            for (sum, &x) in sums.iter_mut().zip(row) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
    }
    let means: Vec<f32> = sums.iter().map(|s| (s / rows as f64) as f32).collect();
    if means.iter().any(|m| !m.is_finite()) {
        let reason = "holds NaN or infinite values".to_string();
        return Err(IoError::tensor(samples.path(), info.name(), reason).into());
    }
    Ok(means)
}
