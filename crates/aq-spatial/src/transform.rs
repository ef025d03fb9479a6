//! What is done to the weights of a layer before a strategy sees them.

use std::sync::OnceLock;

use aq_codec::{Rotation, Side};
use aq_core::{
    EncodedRows, Estimate, InputRows, LayerInputs, LayerPlan, LayerStats, LayerWeights, QuantStrategy,
    RowData, RowQuantizer, Rows, Scratch, StepDown, StrategyError, TensorInfo, slab_count,
};
use aq_kernels::metric::first_non_finite;

use crate::grouped::{expect_length, row_of, widen_row};

/// A layer with the transforms that its plan asks for, around any strategy.
///
/// Rotated rows are quantized in place of the rows, and the strategy sees rotated weights and calibration inputs, so that the outputs of the layer
/// stay what they were: `(w R) (x R)^T = w x^T`. Importance is measured anew on the rotated inputs. What undoes the rotation is the side data of the tensor.
pub struct Transformed<'a> {
    inputs: LayerInputs<'a>,
    rotation: Option<Rotation>,
    signs: OnceLock<Vec<f32>>,
    importance: OnceLock<Vec<f32>>,
}

/// How `strategy` with the transforms of `plan` would store the layer; see [`QuantStrategy::estimate`].
pub fn estimate(
    strategy: &dyn QuantStrategy,
    layer: &TensorInfo,
    stats: &LayerStats<'_>,
    plan: &LayerPlan,
) -> Estimate {
    let plain = strategy.estimate(layer, stats, plan);
    let Some(rotation) = rotation(layer, plan) else { return plain };
    let side = Side { rotation: Some(rotation), ..Side::default() }.bytes().len() as u64;
    let heads = 4 * slab_count(layer, &plain.encoding);
    Estimate { transformed: true, bytes: plain.bytes + side + heads, ..plain }
}

fn rotation(layer: &TensorInfo, plan: &LayerPlan) -> Option<Rotation> {
    Rotation::new(usize::try_from(layer.cols()).ok()?, plan.rotation?)
}

impl<'a> Transformed<'a> {
    /// The layer of `inputs` with the transforms of `plan`. Reads nothing yet.
    pub fn new(inputs: LayerInputs<'a>, plan: &LayerPlan) -> Self {
        let rotation = rotation(inputs.info, plan);
        Self { inputs, rotation, signs: OnceLock::new(), importance: OnceLock::new() }
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
        if plan.rotation.is_none() {
            return strategy.prepare(&self.inputs, plan);
        }
        let inner = strategy.prepare(&self.seen()?, plan)?;
        let mut step_downs = inner.step_downs().to_vec();
        if self.rotation.is_none() {
            step_downs.push(not_rotated(self.inputs.info));
        }
        let side = Side { rotation: self.rotation, ..Side::default() }.bytes();
        Ok(Box::new(TransformedRows { layer: self, inner, side, step_downs }))
    }

    /// What the strategy sees of the layer.
    fn seen(&self) -> Result<LayerInputs<'_>, StrategyError> {
        let LayerInputs { info, stats, weights } = self.inputs;
        if self.rotation.is_none() {
            return Ok(self.inputs);
        }
        let stats = LayerStats {
            importance: self.importance()?,
            inputs: stats.inputs.is_some().then_some(self as &dyn InputRows),
        };
        let weights = weights.is_some().then_some(self as &dyn LayerWeights);
        Ok(LayerInputs { info, stats, weights })
    }

    /// Mean square of each rotated input channel: from the inputs, or without them as if channels did not depend on each other.
    fn importance(&self) -> Result<Option<&[f32]>, StrategyError> {
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

    /// Transforms whole rows of weights or inputs in place.
    fn forward(&self, rows: &mut [f32]) -> Result<(), StrategyError> {
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
            match self.forward(&mut rotated) {
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
        self.forward(out)
    }
}

/// A transformed layer that is ready to be quantized.
struct TransformedRows<'s> {
    layer: &'s Transformed<'s>,
    inner: Box<dyn RowQuantizer + 's>,
    side: Vec<u8>,
    step_downs: Vec<StepDown>,
}

/// The transformed rows, and the buffers of the strategy inside.
#[derive(Default)]
struct Own {
    rows: Vec<f32>,
    scratch: Scratch,
}

impl RowQuantizer for TransformedRows<'_> {
    fn quantize_rows(
        &self,
        rows: Rows<'_>,
        scratch: &mut Scratch,
        out: &mut EncodedRows,
    ) -> Result<(), StrategyError> {
        expect_length("a row", self.layer.inputs.info.name(), rows.cols, self.layer.cols())?;
        let Own { rows: own, scratch } = scratch.own::<Own>();
        own.resize(rows.data.len(), 0.0);
        widen_row(row_of(rows.data, 0, rows.data.len()), own);
        self.layer.forward(own)?;
        self.inner.quantize_rows(Rows { data: RowData::F32(own), ..rows }, scratch, out)
    }

    fn end_slab(&self, scratch: &mut Scratch, out: &mut EncodedRows) -> Result<(), StrategyError> {
        self.inner.end_slab(&mut scratch.own::<Own>().scratch, out)
    }

    fn side(&self) -> &[u8] {
        &self.side
    }

    fn step_downs(&self) -> &[StepDown] {
        &self.step_downs
    }
}
