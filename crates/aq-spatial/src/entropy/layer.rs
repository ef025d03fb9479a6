//! What the rows of a layer share: feedback, steps, and what the search found.

use aq_codec::entropy::{power, step};
use aq_core::{LayerInputs, LayerPlan, StepDown, StrategyError};

use super::controller::{Found, search};
use super::tile::Tile;
use super::trial::Sample;
use crate::factored::{DAMPING, FactoredBlock, factor_damped};
use crate::hessian::Hessian;
use crate::octave;

/// Shares of the mean diagonal value that damp the Hessian; the one that does best on other rows is taken.
const CANDIDATES: [f64; 4] = [0.003, 0.01, 0.03, 0.1];
/// The widest layer for which dampings are compared: for wider ones that takes too long.
const COMPARED: usize = 1024;
/// Columns that are rounded at once without feedback.
const PLAIN_BLOCK: usize = 32;

/// Neighbouring columns.
pub(super) struct Block {
    pub(super) first: usize,
    /// Columns from `first` on, in the order in which they are rounded.
    pub(super) order: Vec<u32>,
    /// As in [`FactoredBlock`].
    pub(super) feedback: Vec<f32>,
    /// The damped Hessian in that order; empty without calibration.
    pub(super) h: Vec<f32>,
    /// What was added to its diagonal.
    pub(super) damping: f32,
    /// The Hessian's mean diagonal value over that of the whole layer.
    pub(super) share: f64,
    /// The step of each column, in that order.
    pub(super) steps: Vec<f32>,
}

/// A layer that is ready to be quantized.
pub(crate) struct EntropyLayer {
    pub(super) cols: usize,
    pub(super) blocks: Vec<Block>,
    /// The step of each column in quarters of an octave; empty when all are 1.
    pub(super) quarters: Vec<i8>,
    /// Whether there is a Hessian; without one, rows are scaled by their norm.
    pub(super) calibrated: bool,
    pub(super) gain: bool,
    /// Parts of an octave in which row scales are stored, `2^fineness` of them.
    pub(super) fineness: u32,
    pub(super) found: Found,
    pub(super) step_downs: Vec<StepDown>,
}

impl EntropyLayer {
    /// Reads the calibration inputs, if there are any, and searches the grid on some rows.
    pub(super) fn prepare(layer: &LayerInputs<'_>, plan: &LayerPlan) -> Result<Self, StrategyError> {
        let rate = plan.target_rate().bits_per_weight();
        let sample = Sample::read(layer)?;
        let cols = layer.info.cols() as usize;
        let halves = match layer.stats.inputs {
            Some(inputs) => Some(Hessian::read_halves(inputs, layer.info.name(), cols, 1)?),
            None => None,
        };
        let whole = match layer.stats.inputs {
            Some(inputs) => Hessian::stored(inputs, layer.info.name(), cols)?,
            None => None,
        };
        let mut best = match halves {
            Some([a, b]) if a.rows > 0 || whole.is_some() => {
                Self::calibrated(a, b, whole, &sample, rate, plan.gain)
            }
            _ => Self::plain(cols, rate, plan.gain),
        };
        best.found = search(&best, &sample, rate, best.found);
        Ok(best)
    }

    /// A layer without calibration: one step, no feedback.
    fn plain(cols: usize, rate: f64, gain: bool) -> Self {
        let block = |first: usize| {
            let n = PLAIN_BLOCK.min(cols - first);
            let feedback = vec![0.0; n * n];
            let order = (0..n as u32).collect();
            Block { first, order, feedback, h: Vec::new(), damping: 0.0, share: 1.0, steps: vec![1.0; n] }
        };
        let blocks = (0..cols).step_by(PLAIN_BLOCK).map(block).collect();
        let found = Found::start(rate, 1.0);
        let (quarters, step_downs) = (Vec::new(), Vec::new());
        Self { cols, blocks, quarters, calibrated: false, gain, fineness: fineness(rate), found, step_downs }
    }

    /// The layer whose damping does best on the rows of `other`, with the Hessian `whole`, or else that of both.
    fn calibrated(
        own: Hessian,
        other: Hessian,
        whole: Option<Hessian>,
        sample: &Sample,
        rate: f64,
        gain: bool,
    ) -> Self {
        let cols = sample.cols;
        let enough = own.rows > 0 && other.rows > 0 && cols <= COMPARED;
        let damping = if enough { best_damping(&own, &other, sample, rate) } else { DAMPING[0] };
        Self::of(&whole.unwrap_or_else(|| own.sum(&other)), damping, sample, rate, gain)
    }

    fn of(hessian: &Hessian, damping: f64, sample: &Sample, rate: f64, gain: bool) -> Self {
        let (factored, step_downs) = factor_damped(hessian, damping);
        let (blocks, quarters) = with_steps(factored, sample.cols);
        let found = Found::start(rate, sample.rms(&quarters));
        let fineness = fineness(rate);
        Self { cols: sample.cols, blocks, quarters, calibrated: true, gain, fineness, found, step_downs }
    }

    /// The factor of a row's scale of that level.
    pub(super) fn factor(&self, level: i32) -> f32 {
        self.found.unit() * power(level, self.fineness as u8)
    }
}

/// So fine that rounding a scale adds less than about one percent to the error at that rate.
fn fineness(rate: f64) -> u32 {
    ((rate - 0.5).ceil() as i32 + 3).clamp(4, 10) as u32
}

/// The damping of the Hessian `own` that costs least on the rows of `other`, at the grid that the first of them takes.
fn best_damping(own: &Hessian, other: &Hessian, sample: &Sample, rate: f64) -> f64 {
    let sample = sample.first_rows();
    let mut tile = Tile::default();
    let mut found = None;
    let cost = |&damping: &f64| {
        let mut layer = EntropyLayer::of(own, damping, &sample, rate, false);
        let start = found.unwrap_or_else(|| search(&layer, &sample, rate, layer.found));
        (found, layer.found) = (Some(start), start);
        let trial = sample.trial(&layer, &layer.found, &mut tile);
        trial.cost_with(sample.error(&layer, other))
    };
    let costs: Vec<i32> = CANDIDATES.iter().map(cost).collect();
    let best = (0..costs.len()).min_by_key(|&i| costs[i]).unwrap_or(0);
    CANDIDATES[best]
}

/// Steps from the pivots, relative to the largest.
fn with_steps(factored: Vec<FactoredBlock>, cols: usize) -> (Vec<Block>, Vec<i8>) {
    let mean = factored.iter().map(|b| b.mean).sum::<f64>() / factored.len().max(1) as f64;
    let quarter = |b: &FactoredBlock, pivot: f64| octave::log2(pivot / (b.mean / mean).sqrt(), 2);
    let mut quarters = vec![0i32; cols];
    for block in &factored {
        for (&col, &pivot) in block.order.iter().zip(&block.pivots) {
            quarters[block.first + col as usize] = quarter(block, pivot);
        }
    }
    let largest = quarters.iter().copied().max().unwrap_or(0);
    let quarters: Vec<i8> = quarters.iter().map(|q| (q - largest).max(-127) as i8).collect();
    let block = |b: FactoredBlock| {
        let steps = b.order.iter().map(|&col| step(quarters[b.first + col as usize])).collect();
        let share = b.mean / mean;
        let damping = b.damping as f32;
        Block { first: b.first, order: b.order, feedback: b.feedback, h: b.h, damping, share, steps }
    };
    (factored.into_iter().map(block).collect(), quarters)
}
