//! What a report shows beyond the numbers of each tensor: histograms of the worst, and errors by time.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use aq_io::Source;
use aq_kernels::output::{OutputComparison, compare_outputs};
use aq_timeaware::TimedRows;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::calibration::Calibration;
use crate::compare::Pair;
use crate::report::finite;
use crate::{EngineError, Result};

/// What was measured for a report alone.
#[derive(Debug, Clone, Default)]
pub struct Details {
    /// The tensors of largest error.
    pub histograms: Vec<Histogram>,
    /// Output errors of layers by time; one entry a model with a calibration that has times.
    pub by_time: Vec<ErrorsByTime>,
}

/// Weights of a tensor before and after, counted in equal bins.
#[derive(Debug, Clone)]
pub struct Histogram {
    /// Name of the tensor.
    pub tensor: String,
    /// The bins cover `-limit..limit`, four standard deviations about 0; those at the ends count what lies beyond, too.
    pub limit: f64,
    /// Weights of the original.
    pub before: Vec<u64>,
    /// Decoded weights.
    pub after: Vec<u64>,
}

/// Squared errors of layer outputs over their squares, on calibration rows of each time.
#[derive(Debug, Clone)]
pub struct ErrorsByTime {
    /// What times are: `t`, `sigma` or `mask_ratio`.
    pub time: String,
    /// The times, rising.
    pub times: Vec<f64>,
    /// Name and errors of each layer.
    pub layers: Vec<(String, Vec<f64>)>,
}

/// Tensors whose histograms are taken.
const WORST: usize = 4;
/// Bins of a histogram.
const BINS: usize = 64;
/// Calibration rows of each time that are used.
const ROWS: usize = 16;

/// A tensor that was quantized: its name and its error, by which the worst are found.
pub(crate) struct Measured<'a> {
    pub(crate) name: &'a str,
    pub(crate) error: f64,
}

/// Reads `a` and `b` again and measures what a report shows of `tensors`. Those that `b` does not hold as numbers are left out.
///
/// # Errors
/// When a file cannot be read, or `cancel` is set.
pub(crate) fn measure_details(
    a: &dyn Source,
    b: &dyn Source,
    tensors: &[Measured<'_>],
    calibration: &Calibration,
    cancel: &AtomicBool,
) -> Result<Details> {
    let (in_a, in_b) = (index(a), index(b));
    let pair = |name: &str| {
        let (&i, &j) = (in_a.get(name)?, in_b.get(name)?);
        let (x, y) = (&a.tensors()[i].info, &b.tensors()[j].info);
        (y.dtype().is_float() && x.shape() == y.shape()).then_some(Pair { a, i, b, j })
    };
    let mut worst: Vec<&Measured<'_>> = tensors.iter().collect();
    worst.sort_by(|x, y| y.error.total_cmp(&x.error));
    let worst: Vec<_> = worst.iter().filter_map(|t| Some((t.name, pair(t.name)?))).take(WORST).collect();
    let histograms =
        worst.par_iter().map(|(name, pair)| histogram(name, pair, cancel)).collect::<Result<_>>()?;
    let timed = |t: &Measured<'_>| match (pair(t.name), calibration.of(t.name)) {
        (Some(pair), Some(samples)) if samples.buckets().iter().any(|b| b.time.is_some()) => {
            let rows = samples.timed()?;
            let errors = by_time(&pair, &rows, cancel)?;
            let times: Vec<f64> = rows.steps.iter().map(|step| (step.first + step.last) / 2.0).collect();
            Ok(Some((t.name.to_string(), times, errors)))
        }
        _ => Ok::<_, EngineError>(None),
    };
    let layers = tensors.par_iter().map(timed).collect::<Result<Vec<_>>>()?;
    Ok(Details {
        histograms,
        by_time: joined(calibration.time(), layers.into_iter().flatten()).into_iter().collect(),
    })
}

fn index(source: &dyn Source) -> HashMap<&str, usize> {
    source.tensors().iter().enumerate().map(|(i, t)| (t.info.name(), i)).collect()
}

fn histogram(name: &str, pair: &Pair<'_>, cancel: &AtomicBool) -> Result<Histogram> {
    let (mut squares, mut count) = (0f64, 0u64);
    pair.each_block(cancel, |w, _, _| {
        squares += w.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>();
        count += w.len() as u64;
    })?;
    let deviation = (squares / count.max(1) as f64).sqrt();
    let limit = if deviation > 0.0 { 4.0 * deviation } else { 1.0 };
    let (mut before, mut after) = (vec![0; BINS], vec![0; BINS]);
    pair.each_block(cancel, |w, q, _| {
        w.iter().for_each(|&w| before[bin(w, limit)] += 1);
        q.iter().for_each(|&q| after[bin(q, limit)] += 1);
    })?;
    Ok(Histogram { tensor: name.into(), limit, before, after })
}

fn bin(value: f32, limit: f64) -> usize {
    let at = (f64::from(value) / limit + 1.0) / 2.0 * BINS as f64;
    (at as usize).min(BINS - 1)
}

/// The error of each step of `rows`.
fn by_time(pair: &Pair<'_>, rows: &TimedRows, cancel: &AtomicBool) -> Result<Vec<f64>> {
    let cols = rows.cols;
    let few: Vec<Vec<f32>> = rows
        .steps
        .iter()
        .map(|step| {
            let all = step.rows.len() / cols;
            let every = all.div_ceil(ROWS).max(1);
            step.rows.chunks_exact(cols).step_by(every).flatten().copied().collect()
        })
        .collect();
    let mut sums = vec![OutputComparison::default(); few.len()];
    let mut room = vec![0.0; cols];
    pair.each_block(cancel, |w, q, _| {
        for (w, q) in w.chunks_exact(cols).zip(q.chunks_exact(cols)) {
            for (sum, inputs) in sums.iter_mut().zip(&few) {
                sum.merge(&compare_outputs(inputs, w, q, &mut room));
            }
        }
    })?;
    Ok(sums.iter().map(OutputComparison::relative_error).collect())
}

/// The layers that have the times of the first one; `None` when there are none.
fn joined(time: &str, layers: impl Iterator<Item = (String, Vec<f64>, Vec<f64>)>) -> Option<ErrorsByTime> {
    let mut all: Option<ErrorsByTime> = None;
    for (name, times, errors) in layers {
        let all = all.get_or_insert_with(|| ErrorsByTime {
            time: time.into(),
            times: times.clone(),
            layers: Vec::new(),
        });
        if all.times == times {
            all.layers.push((name, errors));
        }
    }
    all.filter(|all| all.times.len() > 1)
}

impl Details {
    /// Puts the name of a component before those of its tensors.
    pub(crate) fn prefixed(mut self, component: &str) -> Self {
        let prefix = |name: &mut String| *name = format!("{component}.{name}");
        self.histograms.iter_mut().for_each(|h| prefix(&mut h.tensor));
        self.by_time.iter_mut().flat_map(|t| &mut t.layers).for_each(|(name, _)| prefix(name));
        self
    }

    /// Adds those of another component.
    pub(crate) fn merge(&mut self, other: Details) {
        self.histograms.extend(other.histograms);
        self.by_time.extend(other.by_time);
    }

    /// The same as JSON.
    pub(crate) fn json(&self) -> Value {
        let histogram = |h: &Histogram| json!({"tensor": h.tensor, "low": -h.limit, "high": h.limit, "before": h.before, "after": h.after});
        let layer = |(name, errors): &(String, Vec<f64>)| {
            let errors: Vec<Option<f64>> = errors.iter().map(|&e| finite(e)).collect();
            json!({"name": name, "output_error": errors})
        };
        let by_time = |t: &ErrorsByTime| json!({"time": t.time, "times": t.times, "layers": t.layers.iter().map(layer).collect::<Vec<_>>()});
        json!({
            "histograms": self.histograms.iter().map(histogram).collect::<Vec<_>>(),
            "output_error_by_time": self.by_time.iter().map(by_time).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_cover_all_values() {
        for (value, expected) in
            [(-5.0, 0), (-4.0, 0), (-3.9, 0), (0.0, 32), (-0.01, 31), (3.99, 63), (9.0, 63)]
        {
            assert_eq!(bin(value, 4.0), expected, "{value}");
        }
    }

    #[test]
    fn only_layers_with_the_same_times_are_joined() {
        let layer = |name: &str, times: &[f64]| (name.to_string(), times.to_vec(), vec![0.5; times.len()]);
        let joined = |layers: Vec<_>| joined("t", layers.into_iter());
        let all = joined(vec![layer("a", &[1.0, 2.0]), layer("b", &[1.0, 3.0]), layer("c", &[1.0, 2.0])]);
        let names: Vec<String> = all.expect("two times").layers.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "c"]);
        assert!(joined(vec![layer("a", &[1.0])]).is_none());
        assert!(joined(Vec::new()).is_none());
    }
}
