//! Smoothing: a factor for each input channel that moves what is hard to quantize from the inputs to the weights.

mod formula;
mod sample;
mod trial;

use std::sync::OnceLock;

use aq_codec::Rotation;
use aq_core::{LayerInputs, LayerPlan, SmoothingPlan, StepDown, StrategyError};
use half::f16;

use formula::{Formula, Ranges};
use sample::Sample;
use trial::Trial;

/// A candidate that saves less than this over none is not worth its bytes.
const MARGIN: f64 = 0.98;

/// The factors of layers that see the same inputs, found when they are first asked for.
///
/// Inputs become `x / s` and weights `w * s`, so outputs stay what they were. The formulas are those of Xiao et al., "SmoothQuant", 2023
/// (arXiv 2211.10438, eq. 4), of Lin et al., "AWQ", 2024 (arXiv 2306.00978, eq. 5), of Wu et al., "PTQ4DiT", 2024 (arXiv 2405.16005, section 4)
/// and of Dong et al., "DiTAS", 2025 (arXiv 2409.07756): the largest magnitude over all timesteps, and a grid of 21 exponents of which the
/// one with the least output error is taken.
///
/// The error is measured on some calibration rows and some rows of the weights: inputs quantized token by token to the bits that
/// the plan has for them, weights by least squares to the bits of the plan.
pub struct Smoothing<'a> {
    layers: Vec<LayerInputs<'a>>,
    plan: LayerPlan,
    found: OnceLock<Found>,
}

/// What was decided.
pub(crate) struct Found {
    factors: Option<Factors>,
    pub(crate) step_down: StepDown,
}

/// One factor a channel, as stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Factors {
    pub(crate) stored: Vec<u8>,
    pub(crate) values: Vec<f32>,
}

impl Factors {
    fn new(values: &[f32]) -> Self {
        let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
        Self {
            stored: halves.iter().flat_map(|v| v.to_le_bytes()).collect(),
            values: halves.iter().map(|v| v.to_f32()).collect(),
        }
    }
}

impl<'a> Smoothing<'a> {
    /// Smoothing as `plan` says for `layers`, which see the same inputs and have equally many columns. Reads nothing yet.
    pub fn new(layers: Vec<LayerInputs<'a>>, plan: &LayerPlan) -> Self {
        Self { layers, plan: plan.clone(), found: OnceLock::new() }
    }

    /// The factor of each input channel; `None` where inputs are left as they are.
    ///
    /// # Errors
    /// When inputs or weights cannot be read.
    pub fn factors(&self) -> Result<Option<&[f32]>, StrategyError> {
        Ok(self.found()?.and_then(|found| found.factors.as_ref()).map(|f| f.values.as_slice()))
    }

    /// The factors as stored.
    pub(crate) fn stored(&self) -> Option<&Factors> {
        self.found.get().and_then(|found| found.factors.as_ref())
    }

    /// What was decided; `None` where the plan has no smoothing.
    pub(crate) fn found(&self) -> Result<Option<&Found>, StrategyError> {
        if self.plan.smoothing.is_off() {
            return Ok(None);
        }
        if let Some(found) = self.found.get() {
            return Ok(Some(found));
        }
        let found = self.find()?;
        Ok(Some(self.found.get_or_init(|| found)))
    }

    fn find(&self) -> Result<Found, StrategyError> {
        let Some(sample) = Sample::read(&self.layers)? else {
            let reason = "the layer has no calibration inputs".into();
            return Ok(Found { factors: None, step_down: step("no smoothing", reason) });
        };
        let ranges = Ranges::new(&sample);
        let trial = Trial::new(&sample, &self.plan, self.rotation());
        let none = trial.error(&vec![1.0; sample.cols])?;
        let mut best = Best { name: "none".into(), error: f64::INFINITY, factors: Vec::new() };
        for formula in Formula::candidates(self.plan.smoothing) {
            let factors = Factors::new(&ranges.factors(formula)).values;
            let error = trial.error(&factors)?;
            if error < best.error {
                best = Best { name: formula.to_string(), error, factors };
            }
        }
        Ok(best.decide(none, self.plan.smoothing))
    }

    fn rotation(&self) -> Option<Rotation> {
        Rotation::new(self.layers.first()?.info.cols() as usize, self.plan.rotation?)
    }
}

struct Best {
    name: String,
    error: f64,
    factors: Vec<f32>,
}

impl Best {
    fn decide(self, none: f64, plan: SmoothingPlan) -> Found {
        let reason = match self.factors.is_empty() {
            true => "no factors leave a finite output error on the calibration rows".into(),
            false => {
                format!("output error {:.5} with it, {none:.5} without, on calibration rows", self.error)
            }
        };
        match self.factors.is_empty() || plan == SmoothingPlan::Auto && self.error >= MARGIN * none {
            true => Found { factors: None, step_down: step("no smoothing", reason) },
            false => {
                Found { factors: Some(Factors::new(&self.factors)), step_down: step(&self.name, reason) }
            }
        }
    }
}

fn step(to: &str, reason: String) -> StepDown {
    StepDown { from: "smoothing".into(), to: to.into(), reason }
}
