//! The timestep buckets of a samples file.

use aq_core::TensorInfo;
use aq_io::{IoError, Source, StoredBucket, StoredLayer};

use crate::Result;
use crate::weights::WeightReader;

/// Tensors that are no layer.
pub(crate) const TIMES: &str = "timesteps";
pub(crate) const WEIGHTS: &str = "time_weights";
/// The most buckets of a file.
const MAX_BUCKETS: u64 = 1 << 16;

/// When each bucket is, and what its rows count.
#[derive(Debug, Default)]
pub(crate) struct Times {
    times: Option<Vec<f64>>,
    /// With a mean of 1.
    weights: Option<Vec<f64>>,
}

/// Some rows of a layer, all of one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bucket {
    /// The row after its last.
    pub(crate) end: u64,
    /// Where times are known.
    pub(crate) time: Option<f64>,
    /// What each of its rows counts; not negative, with a mean of 1 over the buckets.
    pub(crate) weight: f64,
}

impl Bucket {
    /// The buckets of the rows that statistics keep of a layer.
    pub(super) fn stored(layer: &StoredLayer) -> Vec<Self> {
        let mut end = 0;
        let bucket = |b: &StoredBucket| {
            end += b.samples;
            Self { end, time: Some(b.time), weight: b.weight }
        };
        layer.buckets.iter().map(bucket).collect()
    }
}

impl Times {
    /// Number of timesteps, where the file has them.
    pub(crate) fn count(&self) -> Option<usize> {
        self.times.as_ref().map(Vec::len)
    }

    /// Reads `timesteps` and `time_weights`, either of which may be missing.
    ///
    /// # Errors
    /// When a time is not finite, a weight is negative or not finite, all weights are 0, or their numbers differ.
    pub(crate) fn read(samples: &dyn Source) -> Result<Self> {
        let (times, weights) = (vector(samples, TIMES)?, vector(samples, WEIGHTS)?);
        let fault = |name: &str, reason: &str| Err(IoError::tensor(samples.path(), name, reason).into());
        if times.iter().flatten().any(|t| !t.is_finite()) {
            return fault(TIMES, "holds NaN or infinite values");
        }
        let Some(mut weights) = weights else { return Ok(Self { times, weights: None }) };
        let sum: f64 = weights.iter().sum();
        if !(weights.iter().all(|&w| w >= 0.0) && sum > 0.0 && sum.is_finite()) {
            return fault(WEIGHTS, "weights are not all finite and at least 0, or none is above 0");
        }
        if times.as_ref().is_some_and(|times| times.len() != weights.len()) {
            return fault(WEIGHTS, "has another number of values than timesteps");
        }
        let (first, count) = (weights[0], weights.len() as f64);
        let same = weights.iter().all(|&w| w == first);
        weights.iter_mut().for_each(|w| *w = if same { 1.0 } else { *w * count / sum });
        Ok(Self { times, weights: Some(weights) })
    }

    /// The buckets of a layer whose samples have the shape of `info`, `[T, N, in]`; one bucket where nothing is said of time.
    ///
    /// # Errors
    /// The fact, when there are not as many as there are times.
    pub(crate) fn buckets(&self, info: &TensorInfo) -> Result<Vec<Bucket>, String> {
        let Some(cols) = info.shape().last().filter(|&&cols| cols > 0) else { return Ok(Vec::new()) };
        let rows = info.elements() / cols;
        let Some(known) = self.times.as_ref().or(self.weights.as_ref()).map(|t| t.len() as u64) else {
            return Ok(vec![Bucket { end: rows, time: None, weight: 1.0 }]);
        };
        if info.shape().len() < 3 || info.shape()[0] != known {
            return Err(format!("shape {:?} does not begin with the {known} timesteps", info.shape()));
        }
        let bucket = |i: usize| Bucket {
            end: rows / known * (i as u64 + 1),
            time: self.times.as_ref().map(|times| times[i]),
            weight: self.weights.as_ref().map_or(1.0, |weights| weights[i]),
        };
        Ok((0..known as usize).map(bucket).collect())
    }
}

fn vector(samples: &dyn Source, name: &str) -> Result<Option<Vec<f64>>> {
    let Some(index) = samples.tensors().iter().position(|t| t.info.name() == name) else { return Ok(None) };
    let info = &samples.tensors()[index].info;
    let count = info.elements();
    if info.shape().len() != 1 || count == 0 || count > MAX_BUCKETS || !info.dtype().is_float() {
        let reason = format!("is not a vector of 1 to {MAX_BUCKETS} floating-point values");
        return Err(IoError::tensor(samples.path(), name, reason).into());
    }
    let mut reader = WeightReader::default();
    let values = reader.read(samples, index, 0, count as usize)?;
    Ok(Some(values.iter().map(|&v| f64::from(v)).collect()))
}
