//! The formulas that factors come from.

use aq_codec::entropy::power;
use aq_core::SmoothingPlan;

use super::sample::Sample;
use crate::octave::log2;

/// Factors are rounded to so many parts of an octave, as a power of two: 64, a step of 1 %.
const FINENESS: u8 = 6;
/// Logarithms of magnitudes have so many parts of an octave, as a power of two.
const LOG_FINENESS: u8 = 10;
/// The largest power of two that a factor is, which leaves room in half precision.
const OCTAVES: i32 = 13;
/// A magnitude below this part of the largest one counts as that.
const FLOOR: f32 = 1e-4;

/// A way to choose factors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Formula {
    /// `a^alpha / w^(1 - alpha)`, alpha in hundredths.
    Ranges(i64),
    /// The mean magnitude of the channel to this power, in hundredths.
    Mean(i64),
    /// `sqrt(a / w)` with a weighted mean over timesteps for `a`.
    Salience,
}

impl Formula {
    /// What a plan lets choose from.
    pub(super) fn candidates(plan: SmoothingPlan) -> Vec<Self> {
        let means = (1..=10).map(|i| Self::Mean(10 * i));
        match plan {
            SmoothingPlan::Off => Vec::new(),
            SmoothingPlan::Alpha(alpha) => vec![Self::Ranges(i64::from(alpha))],
            SmoothingPlan::Awq => means.collect(),
            SmoothingPlan::Ptq4dit => vec![Self::Salience],
            SmoothingPlan::Auto => {
                let ranges = (0..=20).map(|i| Self::Ranges(5 * i));
                ranges.chain(means).chain([Self::Salience]).collect()
            }
        }
    }
}

impl std::fmt::Display for Formula {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ranges(alpha) => write!(f, "ranges, alpha {:.2}", *alpha as f64 / 100.0),
            Self::Mean(power) => write!(f, "mean magnitude to the power of {:.2}", *power as f64 / 100.0),
            Self::Salience => write!(f, "salience over timesteps"),
        }
    }
}

/// Logarithms of what the formulas know of each channel.
pub(super) struct Ranges {
    inputs: Vec<i64>,
    means: Vec<i64>,
    weights: Vec<i64>,
    over_time: Vec<i64>,
}

impl Ranges {
    pub(super) fn new(sample: &Sample) -> Self {
        Self {
            inputs: logarithms(&sample.largest_inputs),
            means: logarithms(&sample.mean_inputs),
            weights: logarithms(&sample.largest_weights),
            over_time: logarithms(&over_time(sample)),
        }
    }

    /// The factors by `formula`: the middle of the smallest and the largest is 1.
    pub(super) fn factors(&self, formula: Formula) -> Vec<f32> {
        let with = |inputs: &[i64], of_inputs: i64, of_weights: i64| -> Vec<i64> {
            inputs.iter().zip(&self.weights).map(|(a, w)| of_inputs * a - of_weights * w).collect()
        };
        let hundredths = match formula {
            Formula::Ranges(alpha) => with(&self.inputs, alpha, 100 - alpha),
            Formula::Mean(power) => with(&self.means, power, 0),
            Formula::Salience => with(&self.over_time, 50, 50),
        };
        let (low, high) = (hundredths.iter().min().unwrap_or(&0), hundredths.iter().max().unwrap_or(&0));
        let (unit, middle, limit) = (100 << (LOG_FINENESS - FINENESS), (low + high) / 2, OCTAVES << FINENESS);
        let level = |v: &i64| ((v - middle + unit / 2).div_euclid(unit) as i32).clamp(-limit, limit);
        hundredths.iter().map(|v| power(level(v), FINENESS)).collect()
    }
}

fn logarithms(magnitudes: &[f32]) -> Vec<i64> {
    let largest = magnitudes.iter().copied().fold(0.0, f32::max);
    let floor = if largest > 0.0 { (largest * FLOOR).max(f32::MIN_POSITIVE) } else { 1.0 };
    magnitudes.iter().map(|&m| i64::from(log2(f64::from(m.max(floor)), u32::from(LOG_FINENESS)))).collect()
}

/// The mean over timesteps of the largest magnitudes of each channel, weighted by `exp(-rho)` for the rank correlation `rho` of a timestep's
/// with those of the weights.
fn over_time(sample: &Sample) -> Vec<f32> {
    let weights = ranks(&sample.largest_weights);
    let (mut sums, mut total) = (vec![0f64; sample.cols], 0.0);
    for bucket in sample.absmax.chunks_exact(sample.cols) {
        let rho = correlation(&ranks(bucket), &weights);
        let level = (-rho * std::f64::consts::LOG2_E * 1024.0).round() as i32;
        let weight = f64::from(power(level, 10));
        total += weight;
        sums.iter_mut().zip(bucket).for_each(|(sum, &a)| *sum += weight * f64::from(a));
    }
    sums.iter().map(|sum| (sum / total) as f32).collect()
}

/// Places in rising order; equal values share the mean of theirs.
fn ranks(values: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for same in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let mean = first as f64 + (same.len() - 1) as f64 / 2.0;
        same.iter().for_each(|&i| ranks[i] = mean);
        first += same.len();
    }
    ranks
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean, b - mean);
        (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
    }
    if aa > 0.0 && bb > 0.0 { ab / (aa * bb).sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(inputs: &[f32], weights: &[f32], absmax: Vec<f32>) -> Sample {
        Sample {
            cols: inputs.len(),
            largest_inputs: inputs.to_vec(),
            mean_inputs: inputs.to_vec(),
            centers: Vec::new(),
            largest_weights: weights.to_vec(),
            absmax,
            inputs: Vec::new(),
            weights: Vec::new(),
        }
    }

    #[test]
    fn factors_follow_the_formulas() {
        let ranges = Ranges::new(&sample(&[1.0, 4.0, 16.0], &[1.0, 1.0, 4.0], vec![1.0, 4.0, 16.0]));
        assert_eq!(ranges.factors(Formula::Ranges(100)), [0.25, 1.0, 4.0]);
        assert_eq!(ranges.factors(Formula::Ranges(0)), [2.0, 2.0, 0.5]);
        let ratio = ranges.factors(Formula::Ranges(50));
        assert_eq!((ratio[1] / ratio[0], ratio[2] / ratio[1]), (2.0, 1.0));
        assert_eq!(ranges.factors(Formula::Mean(50)), [0.5, 1.0, 2.0]);
        assert_eq!(ranges.factors(Formula::Salience), ratio);
    }

    #[test]
    fn timesteps_that_disagree_with_the_weights_count_for_more() {
        let absmax = vec![1.0, 2.0, 3.0, 3.0, 2.0, 1.0];
        let mean = over_time(&sample(&[3.0; 3], &[1.0, 2.0, 3.0], absmax));
        // exp(1) against exp(-1).
        let disagreeing = 1.0 / (1.0 + (-2f32).exp());
        assert!((mean[0] - (1.0 + 2.0 * disagreeing)).abs() < 2e-3, "{mean:?}");
        assert_eq!(mean[1], 2.0);
    }

    #[test]
    fn dead_channels_have_factors() {
        let ranges = Ranges::new(&sample(&[0.0, 4.0], &[0.0, 0.0], vec![0.0, 4.0]));
        for formula in Formula::candidates(SmoothingPlan::Auto) {
            let factors = ranges.factors(formula);
            assert!(factors.iter().all(|&s| s > 6e-5 && s < 65504.0), "{formula}: {factors:?}");
        }
    }

    #[test]
    fn equal_values_share_a_rank() {
        assert_eq!(ranks(&[5.0, 1.0, 5.0]), [1.5, 0.0, 1.5]);
        assert_eq!(correlation(&ranks(&[1.0, 2.0]), &ranks(&[9.0, 3.0])), -1.0);
    }
}
