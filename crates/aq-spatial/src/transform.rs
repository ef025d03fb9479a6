//! What is done to the weights of a layer before a strategy sees them.

mod fit;
mod low_rank;
mod rows;
mod subspace;

use std::sync::{Arc, OnceLock};

use aq_codec::{Rotation, Side};
use aq_core::{
    Estimate, InputRows, LayerInputs, LayerPlan, LayerStats, LayerWeights, LowRankPlan, QuantStrategy,
    RowQuantizer, SmoothingPlan, StepDown, StrategyError, TensorInfo, slab_count,
};
use aq_kernels::metric::first_non_finite;

pub use fit::MAX_LOW_RANK_WEIGHTS;

use low_rank::Part;
use rows::TransformedRows;

use crate::grouped::expect_length;
use crate::smoothing::Smoothing;

/// A layer with the transforms that its plan asks for, around any strategy.
///
/// Rotated rows are quantized in place of the rows, and the strategy sees rotated weights and calibration inputs, so that the outputs of the layer
/// stay what they were: `(w R) (x R)^T = w x^T`. Importance is measured anew on the rotated inputs. What undoes the rotation is the side data of the tensor.
///
/// Smoothed inputs are divided by a factor a channel, smoothed weights multiplied by it, before they are rotated; see [`Smoothing`].
///
/// A low-rank part is a product of two thin matrices of signed bytes that is added to the decoded weights: the one that takes away most of the
/// outputs' error, `min ||(E - L1 L2) H^(1/2)||` for the errors `E` of the codes and `H` from the calibration inputs (after Li et al., "SVDQuant", 2024, arXiv
/// 2411.05007). The layer is quantized twice to find it: the codes that are stored are those of the weights less a first part, and the stored part is
/// fitted to their errors.
pub struct Transformed<'a> {
    inputs: LayerInputs<'a>,
    smoothing: Arc<Smoothing<'a>>,
    rotation: Option<Rotation>,
    signs: OnceLock<Vec<f32>>,
    importance: OnceLock<Vec<f32>>,
    /// The low-rank part that codes are chosen without.
    subtracted: OnceLock<Part>,
    /// The low-rank part that is stored, and what there is to say about it.
    fitted: OnceLock<(Option<Part>, Vec<StepDown>)>,
}

/// How `strategy` with the transforms of `plan` would store the layer; see [`QuantStrategy::estimate`].
pub fn estimate(
    strategy: &dyn QuantStrategy,
    layer: &TensorInfo,
    stats: &LayerStats<'_>,
    plan: &LayerPlan,
) -> Estimate {
    let plain = strategy.estimate(layer, stats, plan);
    if rotation(layer, plan).is_none() && plan.low_rank.is_off() && plan.smoothing.is_off() {
        return plain;
    }
    let heads = 4 * slab_count(layer, &plain.encoding);
    Estimate { transformed: true, bytes: plain.bytes + side_bytes(layer, plan) + heads, ..plain }
}

/// Bytes of the side data; smoothing and a low-rank part that are yet to be decided on are not counted.
fn side_bytes(layer: &TensorInfo, plan: &LayerPlan) -> u64 {
    let rotation = Side { rotation: rotation(layer, plan), ..Side::default() }.bytes().len() as u64;
    let smoothing = match plan.smoothing {
        SmoothingPlan::Off | SmoothingPlan::Auto => 0,
        _ => 5 + 2 * layer.cols(),
    };
    let low_rank = match (plan.low_rank, fit::rank(layer, plan.low_rank) as u64) {
        (LowRankPlan::Auto, _) | (_, 0) => 0,
        (_, rank) => 7 + rank * (4 + layer.rows() + layer.cols()),
    };
    rotation + smoothing + low_rank
}

fn rotation(layer: &TensorInfo, plan: &LayerPlan) -> Option<Rotation> {
    Rotation::new(usize::try_from(layer.cols()).ok()?, plan.rotation?)
}

impl<'a> Transformed<'a> {
    /// The layer of `inputs` with the transforms of `plan`. Reads nothing yet.
    pub fn new(inputs: LayerInputs<'a>, plan: &LayerPlan) -> Self {
        Self::sharing(inputs, plan, Arc::new(Smoothing::new(vec![inputs], plan)))
    }

    /// As [`Transformed::new`], with the factors of `smoothing`, which other layers have too.
    pub fn sharing(inputs: LayerInputs<'a>, plan: &LayerPlan, smoothing: Arc<Smoothing<'a>>) -> Self {
        let rotation = rotation(inputs.info, plan);
        Self {
            inputs,
            smoothing,
            rotation,
            signs: OnceLock::new(),
            importance: OnceLock::new(),
            subtracted: OnceLock::new(),
            fitted: OnceLock::new(),
        }
    }

    /// How `strategy` would store the layer; see [`estimate`].
    pub fn estimate(&self, strategy: &dyn QuantStrategy, plan: &LayerPlan) -> Estimate {
        estimate(strategy, self.inputs.info, &self.inputs.stats, plan)
    }

    /// Prepares `strategy` for the transformed layer; see [`QuantStrategy::prepare`].
    ///
    /// # Errors
    /// When the inputs do not fit the layer or cannot be read.
    pub fn prepare<'s>(
        &'s self,
        strategy: &'s dyn QuantStrategy,
        plan: &LayerPlan,
    ) -> Result<Box<dyn RowQuantizer + 's>, StrategyError> {
        if plan.rotation.is_none() && plan.low_rank.is_off() && plan.smoothing.is_off() {
            return strategy.prepare(&self.inputs, plan);
        }
        let mut step_downs: Vec<_> =
            self.smoothing.found()?.iter().map(|found| found.step_down.clone()).collect();
        if plan.rotation.is_some() && self.rotation.is_none() {
            step_downs.push(not_rotated(self.inputs.info));
        }
        let (part, said) = self.low_rank(strategy, plan)?;
        let inner = strategy.prepare(&self.seen()?, plan)?;
        step_downs.extend(said.iter().chain(inner.step_downs()).cloned());
        let low_rank = part.as_ref().map(Part::stored);
        let smoothing = self.smoothing.stored().map(|factors| factors.stored.as_slice());
        let side = Side { rotation: self.rotation, smoothing, low_rank }.bytes();
        Ok(Box::new(TransformedRows { layer: self, inner, side, step_downs }))
    }

    /// The low-rank part that is stored, found once.
    fn low_rank(
        &self,
        strategy: &dyn QuantStrategy,
        plan: &LayerPlan,
    ) -> Result<&(Option<Part>, Vec<StepDown>), StrategyError> {
        if let Some(fitted) = self.fitted.get() {
            return Ok(fitted);
        }
        let mut said = Vec::new();
        let part = match plan.low_rank {
            LowRankPlan::Off => None,
            _ => fit::low_rank(self, strategy, plan, &mut said)?,
        };
        Ok(self.fitted.get_or_init(|| (part, said)))
    }

    /// What the strategy sees of the layer.
    fn seen(&self) -> Result<LayerInputs<'_>, StrategyError> {
        let LayerInputs { info, stats, weights } = self.inputs;
        if !self.changes_inputs() && self.subtracted.get().is_none() {
            return Ok(self.inputs);
        }
        let stats = LayerStats {
            importance: self.importance()?,
            absmax: None,
            inputs: stats.inputs.is_some().then_some(self as &dyn InputRows),
        };
        let weights = weights.is_some().then_some(self as &dyn LayerWeights);
        Ok(LayerInputs { info, stats, weights })
    }

    fn changes_inputs(&self) -> bool {
        self.rotation.is_some() || self.smoothing.stored().is_some()
    }

    /// Mean square of each transformed input channel: from the inputs, or without them as if channels did not depend on each other.
    fn importance(&self) -> Result<Option<&[f32]>, StrategyError> {
        if !self.changes_inputs() {
            return Ok(self.inputs.stats.importance);
        }
        if let Some(known) = self.importance.get() {
            return Ok(Some(known));
        }
        let measured = match (self.inputs.stats.inputs, self.inputs.stats.importance) {
            (Some(_), Some(_)) => mean_squares(self, self.inputs.info.cols() as usize)?,
            (None, Some(importance)) => {
                expect_length("importance", self.inputs.info.name(), importance.len(), self.cols())?;
                block_means(importance, self.rotation.map_or(1, Rotation::block))
            }
            (_, None) => return Ok(None),
        };
        Ok(Some(self.importance.get_or_init(|| measured)))
    }

    fn cols(&self) -> usize {
        self.inputs.info.cols() as usize
    }

    /// Transforms whole rows of weights in place.
    fn forward(&self, rows: &mut [f32]) -> Result<(), StrategyError> {
        if let Some(factors) = self.smoothing.stored() {
            let rows = rows.chunks_exact_mut(self.cols().max(1));
            rows.for_each(|row| row.iter_mut().zip(&factors.values).for_each(|(w, s)| *w *= s));
        }
        self.rotate(rows)
    }

    /// Transforms whole rows of inputs in place, as a program that keeps the codes does before it multiplies by them.
    ///
    /// # Errors
    /// When factors cannot be found, or values become too large.
    pub fn transform_inputs(&self, rows: &mut [f32]) -> Result<(), StrategyError> {
        if let Some(factors) = self.smoothing.factors()? {
            let rows = rows.chunks_exact_mut(self.cols().max(1));
            rows.for_each(|row| row.iter_mut().zip(factors).for_each(|(x, s)| *x /= s));
        }
        self.rotate(rows)
    }

    fn rotate(&self, rows: &mut [f32]) -> Result<(), StrategyError> {
        let Some(rotation) = self.rotation else { return Ok(()) };
        let signs = self.signs.get_or_init(|| {
            let mut signs = Vec::new();
            rotation.signs(self.cols(), &mut signs);
            signs
        });
        rotation.forward(signs, rows);
        match first_non_finite(rows) {
            None => Ok(()),
            Some(_) => Err(self.fault("holds values too large to be rotated")),
        }
    }

    /// Transforms whole rows of weights in place; a low-rank part is left in them.
    ///
    /// # Errors
    /// When values become too large.
    pub fn transform_weights(&self, rows: &mut [f32]) -> Result<(), StrategyError> {
        self.forward(rows)
    }

    /// Takes the low-rank part off a transformed row.
    fn subtract(&self, row: u64, weights: &mut [f32]) {
        if let Some(part) = self.subtracted.get() {
            part.stored().subtract(row as usize, 0..part.stored().rank(), weights);
        }
    }

    fn fault(&self, reason: &str) -> StrategyError {
        StrategyError::Read { tensor: self.inputs.info.name().into(), reason: reason.into() }
    }
}

fn not_rotated(layer: &TensorInfo) -> StepDown {
    StepDown {
        from: "rotation".into(),
        to: "no rotation".into(),
        reason: format!(
            "its {} columns are not whole blocks of at least {}",
            layer.cols(),
            Rotation::MIN_BLOCK
        ),
    }
}

fn mean_squares(inputs: &dyn InputRows, cols: usize) -> Result<Vec<f32>, StrategyError> {
    let (mut sums, mut total) = (vec![0f64; cols], 0f64);
    inputs.visit(&mut |block, weight| {
        for row in block.chunks_exact(cols) {
            total += weight;
            sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += weight * (f64::from(x) * f64::from(x)));
        }
    })?;
    Ok(sums.iter().map(|sum| if total > 0.0 { (sum / total) as f32 } else { 0.0 }).collect())
}

fn block_means(importance: &[f32], block: usize) -> Vec<f32> {
    let mean = |h: &[f32]| (h.iter().map(|&h| f64::from(h)).sum::<f64>() / h.len() as f64) as f32;
    importance.chunks(block).flat_map(|h| std::iter::repeat_n(mean(h), h.len())).collect()
}

impl InputRows for Transformed<'_> {
    fn visit(&self, visit: &mut dyn FnMut(&[f32], f64)) -> Result<(), StrategyError> {
        let inputs = self.inputs.stats.inputs.ok_or_else(|| self.fault("has no calibration inputs"))?;
        let (mut rotated, mut failed) = (Vec::new(), Ok(()));
        inputs.visit(&mut |block, weight| {
            rotated.clear();
            rotated.extend_from_slice(block);
            match self.transform_inputs(&mut rotated) {
                Ok(()) => visit(&rotated, weight),
                Err(error) => failed = Err(error),
            }
        })?;
        failed
    }
}

impl LayerWeights for Transformed<'_> {
    fn read_row(&self, row: u64, out: &mut Vec<f32>) -> Result<(), StrategyError> {
        self.inputs.weights.ok_or_else(|| self.fault("has no weights at hand"))?.read_row(row, out)?;
        self.forward(out)?;
        self.subtract(row, out);
        Ok(())
    }
}
