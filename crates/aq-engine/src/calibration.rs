//! What a calibration file says about the inputs of each layer.

mod held_out;
mod rows;
mod samples;
mod times;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use aq_core::StoredTensor;
use aq_io::{Access, IoError, Source, StatisticsFile};

use crate::{Fallback, Progress, Result};

pub(crate) use held_out::HeldOut;
pub(crate) use rows::RowSource;
pub(crate) use samples::LayerSamples;
pub(crate) use times::{Bucket, TIMES, Times, WEIGHTS};

/// Calibration inputs of the layers of a model.
#[derive(Default)]
pub(crate) struct Calibration {
    by_name: HashMap<String, LayerSamples>,
    fallbacks: Vec<Fallback>,
    time: Option<String>,
}

impl Calibration {
    /// Opens a samples file: for each layer a tensor `[T, N, in]`, `timesteps` and perhaps `time_weights` `[T]`, and `aq.aliases`
    /// in the metadata; or a file of statistics. Every value is looked at once. A layer whose values are not all finite has none;
    /// [`Calibration::fallbacks`] says so.
    ///
    /// # Errors
    /// When the file cannot be read or a shape does not fit its layer. Layers of no tensor are noted and ignored.
    pub(crate) fn read(
        path: Option<&Path>,
        tensors: &[StoredTensor],
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let file = File::open(path)?;
        let aliases = aliases(path, file.metadata())?;
        let index = file.index();
        let (mut by_name, mut fallbacks) = (HashMap::new(), Vec::new());
        for tensor in tensors {
            let name = tensor.info.name();
            let layer = layer_of(name);
            let layer = aliases.get(layer).map_or(layer, String::as_str);
            if let Some(&i) = index.get(layer) {
                match LayerSamples::open(file.rows(i), file.times(), tensor)? {
                    Some(samples) => drop(by_name.insert(name.to_string(), samples)),
                    None => fallbacks.push(not_finite(name)),
                }
            }
        }
        if by_name.is_empty() && fallbacks.is_empty() {
            progress.warn(&format!("{}: no layer of this model is in the calibration file", path.display()));
        }
        let time = file.metadata().get("aq.time").cloned();
        Ok(Self { by_name, fallbacks, time })
    }

    /// The layers whose samples cannot be used.
    pub(crate) fn fallbacks(&self) -> &[Fallback] {
        &self.fallbacks
    }

    /// Divides each input channel of the layer of a weight by its factor.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn divide(&mut self, name: &str, factors: &[f32]) -> Result<()> {
        match self.by_name.remove(name) {
            Some(samples) => {
                self.by_name.extend(samples.divided(factors)?.map(|samples| (name.to_string(), samples)));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The inputs of the layer of a weight.
    pub(crate) fn of(&self, name: &str) -> Option<&LayerSamples> {
        self.by_name.get(name)
    }

    /// What times are: `t`, `sigma` or `mask_ratio`; `t` where the file does not say.
    pub(crate) fn time(&self) -> &str {
        self.time.as_deref().unwrap_or("t")
    }
}

/// The layer of a weight: its name without `.weight`.
pub(crate) fn layer_of(weight: &str) -> &str {
    weight.strip_suffix(".weight").unwrap_or(weight)
}

fn not_finite(tensor: &str) -> Fallback {
    Fallback {
        tensor: Some(tensor.to_string()),
        from: "calibrated".into(),
        to: "uncalibrated".into(),
        reason: "its calibration samples hold NaN or infinite values".into(),
    }
}

/// Reads which layers share the inputs of others.
///
/// # Errors
/// When it is no JSON object of names.
pub(crate) fn aliases(path: &Path, metadata: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let Some(text) = metadata.get("aq.aliases") else { return Ok(BTreeMap::new()) };
    serde_json::from_str(text).map_err(|e| IoError::malformed(path, format!("aq.aliases: {e}")).into())
}

/// A calibration file of either kind.
enum File {
    Samples(Arc<dyn Source>, Times),
    Statistics(Arc<StatisticsFile>),
}

impl File {
    fn open(path: &Path) -> Result<Self> {
        if aq_io::is_parquet(path)? {
            return Ok(Self::Statistics(StatisticsFile::open(path)?.into()));
        }
        let samples: Arc<dyn Source> = aq_io::open(path, Access::Positioned)?.into();
        let times = Times::read(&*samples)?;
        Ok(Self::Samples(samples, times))
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        match self {
            Self::Samples(samples, _) => samples.metadata(),
            Self::Statistics(file) => file.metadata(),
        }
    }

    /// Where each layer is.
    fn index(&self) -> HashMap<&str, usize> {
        match self {
            Self::Samples(samples, _) => samples.tensors().iter().map(|t| t.info.name()).zip(0..).collect(),
            Self::Statistics(file) => file.layers().iter().map(|l| l.layer.as_str()).zip(0..).collect(),
        }
    }

    fn rows(&self, index: usize) -> RowSource {
        match self {
            Self::Samples(samples, _) => RowSource::Samples { source: samples.clone(), index },
            Self::Statistics(file) => RowSource::Statistics { file: file.clone(), layer: index },
        }
    }

    /// What samples say of their buckets; statistics say it themselves.
    fn times(&self) -> Option<&Times> {
        match self {
            Self::Samples(_, times) => Some(times),
            Self::Statistics(_) => None,
        }
    }
}
