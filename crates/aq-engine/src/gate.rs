//! The quality gate: bounds that every quantized tensor has to meet.

mod widen;

use aq_kernels::metric::Comparison;
use aq_kernels::output::OutputComparison;
use serde_json::{Value, json};

use crate::profile::Profile;
use crate::{EngineError, JobOptions, Result};

pub(crate) use widen::{Chain, widen_misses};

/// Bounds on the damage of each quantized tensor; at least one of them is set.
///
/// A tensor that misses one is quantized to 4 bits, then to 8, then kept as it is: the first of these that holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gate {
    /// The least cosine of the weights with the quantized ones, 0 to 1.
    pub min_cosine: Option<f64>,
    /// The largest relative squared error: of the outputs on held-out calibration rows where a tensor has them, else of the weights.
    pub max_error: Option<f64>,
    /// Whether the first miss ends the job.
    pub fail_fast: bool,
}

impl Gate {
    /// The gate that `options` ask for; without bounds of their own that of `profile`, unless they choose widths or a method themselves.
    /// A bound of 0 on the cosine is none.
    ///
    /// # Errors
    /// [`EngineError::Config`] for a bound out of range, [`EngineError::Usage`] for `fail_fast` with nothing to check.
    pub(crate) fn new(options: &JobOptions, profile: Profile) -> Result<Option<Self>> {
        let JobOptions { min_cosine, max_error, .. } = *options;
        if let Some(cosine) = min_cosine.filter(|c| !(0.0..=1.0).contains(c)) {
            return Err(EngineError::Config(format!("min-cosine {cosine} is not between 0 and 1")));
        }
        if let Some(error) = max_error.filter(|e| !(e.is_finite() && *e > 0.0)) {
            return Err(EngineError::Config(format!("max-error {error} is not a number above 0")));
        }
        let of_profile =
            (min_cosine.is_none() && max_error.is_none() && !chooses(options)).then(|| profile.min_cosine());
        let min_cosine = min_cosine.or(of_profile).filter(|&c| c > 0.0);
        let fail_fast = options.fail_fast.unwrap_or(false);
        if min_cosine.is_none() && max_error.is_none() {
            return match fail_fast {
                true => Err(EngineError::Usage(
                    "--fail-fast has nothing to check: give --min-cosine or --max-error".into(),
                )),
                false => Ok(None),
            };
        }
        Ok(Some(Self { min_cosine, max_error, fail_fast }))
    }

    /// The bound that a tensor misses, with what was measured; `None` when it meets all of them.
    ///
    /// ```
    /// use aq_engine::Gate;
    /// use aq_kernels::metric::compare;
    /// let gate = Gate { min_cosine: Some(0.9), max_error: None, fail_fast: false };
    /// let miss = gate.miss(&compare(&[1.0, 0.0], &[1.0, 1.0]), &Default::default());
    /// assert_eq!(miss.as_deref(), Some("cosine 0.7071 is below 0.9"));
    /// assert_eq!(gate.miss(&compare(&[1.0, 0.0], &[2.0, 0.1]), &Default::default()), None);
    /// ```
    pub fn miss(&self, weights: &Comparison, outputs: &OutputComparison) -> Option<String> {
        let cosine = weights.cosine();
        if let Some(bound) = self.min_cosine.filter(|bound| cosine.is_nan() || cosine < *bound) {
            return Some(format!("cosine {cosine:.4} is below {bound}"));
        }
        let (what, error) = match outputs.truth > 0.0 {
            true => ("output error", outputs.relative_error()),
            false => ("relative MSE", weights.relative_mse()),
        };
        let bound = self.max_error.filter(|bound| error.is_nan() || error > *bound)?;
        Some(format!("{what} {error:.4e} is above {bound}"))
    }

    /// Refuses a tensor that misses a bound.
    ///
    /// # Errors
    /// [`EngineError::Quality`] with the tensor, what was measured and the bound.
    pub(crate) fn hold(&self, name: &str, weights: &Comparison, outputs: &OutputComparison) -> Result<()> {
        match self.miss(weights, outputs) {
            Some(miss) => Err(EngineError::Quality(format!("tensor {name:?}: {miss}"))),
            None => Ok(()),
        }
    }

    /// The gate as a setting.
    pub(crate) fn settings(&self) -> Value {
        json!({"min_cosine": self.min_cosine, "max_error": self.max_error})
    }
}

/// Whether `options` say themselves how tensors are quantized, so that the bounds of a profile are not about them.
fn chooses(options: &JobOptions) -> bool {
    let JobOptions { bits, rate, target_bpw, target_size, method, plan, .. } = options;
    let sized = rate.is_some() || target_bpw.is_some() || target_size.is_some() || plan.is_some();
    bits.is_some() || sized || method.is_some()
}

#[cfg(test)]
mod tests {
    use aq_kernels::metric::compare;

    use super::*;

    #[test]
    fn bounds_are_checked_once_and_a_profile_gives_way() {
        let gate = |options: JobOptions| Gate::new(&options, Profile::Edge);
        let of_profile = gate(JobOptions::default()).expect("good").expect("the profile has one");
        assert_eq!(of_profile.min_cosine, Some(Profile::Edge.min_cosine()));
        let two = JobOptions { bits: Some(2), ..JobOptions::default() };
        assert_eq!(gate(two.clone()).expect("good"), None);
        let off = JobOptions { min_cosine: Some(0.0), ..JobOptions::default() };
        assert_eq!(gate(off).expect("good"), None);
        for (bad, code) in [
            (JobOptions { min_cosine: Some(1.5), ..two.clone() }, 4),
            (JobOptions { max_error: Some(0.0), ..two.clone() }, 4),
            (JobOptions { max_error: Some(f64::NAN), ..two.clone() }, 4),
            (JobOptions { fail_fast: Some(true), ..two.clone() }, 2),
        ] {
            assert_eq!(gate(bad).expect_err("refused").exit_code(), code);
        }
    }

    #[test]
    fn errors_are_of_outputs_where_there_are_some() {
        let gate = Gate { min_cosine: None, max_error: Some(0.1), fail_fast: false };
        let weights = compare(&[2.0], &[1.0]);
        let outputs = |error| OutputComparison { error, truth: 1.0, ..OutputComparison::default() };
        assert_eq!(gate.miss(&weights, &outputs(0.1)), None);
        let miss = gate.miss(&weights, &outputs(0.2)).expect("too much");
        assert_eq!(miss, "output error 2.0000e-1 is above 0.1");
        let miss = gate.miss(&weights, &OutputComparison::default()).expect("too much");
        assert_eq!(miss, "relative MSE 2.5000e-1 is above 0.1");
    }
}
