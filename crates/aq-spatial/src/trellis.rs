//! Trellis-coded rows: sequences of 256 weights, each with the best path through a trellis and a scale.

mod factor;
mod feedback;
mod rows;
mod tile;

use aq_codec::encoded_bytes;
use aq_codec::trellis::Trellis;
use aq_core::{
    Encoding, Estimate, LayerInputs, LayerPlan, LayerStats, QuantStrategy, RowQuantizer, StepDown,
    StrategyError, StrategyId, TensorInfo, TrellisEncoding,
};
use aq_kernels::trellis::SEQUENCE;

use crate::grouped::{self, SteppedDown};
use crate::hessian;
use crate::ls::LeastSquares;
use crate::trellis::feedback::FedRows;
use crate::trellis::rows::{Store, TrellisRows, relative};

/// Trellis-coded quantization at exactly 2, 3 or 4 bits and one f16 scale for each 256 weights, ids `trellis` and `trellis6`.
///
/// ```text
/// minimise  sum(h * (w - scale * table[state])^2)     h: importance of the input channel, or 1
/// minimise  (w - q) H (w - q)                         with calibration rows, H as in [`Gptq`](crate::Gptq)
/// ```
///
/// over the scale and all circular bit streams of a sequence, as [`encode_sequence`](aq_codec::trellis::encode_sequence) does it. With `H = C^T D C` the
/// sequences of a row are encoded from the last to the first, with `D` as importance; what they lose moves the
/// sequences before them by the inverse of their own part of `C` (LDL feedback in blocks: Tseng et al., QuIP#, ICML 2024), and within a
/// sequence what is decided moves the weights before it ([`encode_with_feedback`](aq_kernels::trellis::encode_with_feedback)). The scale of a sequence then is the best for its
/// states, as outputs count, and the gain makes the slope of the outputs 1. States have 8 bits under
/// `trellis`; under `trellis6` they have 6, which errs more and is encoded about three times as fast. Importance is taken
/// relative to its mean, and as 1/64 of it where it is less, so that no weight is left to chance. The gain of a row goes
/// into its scales. The group size is not used. At 5 bits and more this is `ls`, which the report says.
#[derive(Debug, Clone, Copy)]
pub struct TrellisCoded {
    id: &'static str,
    state_bits: u8,
    /// Relative squared error of Gaussian weights at 2, 3 and 4 bits.
    relative_mse: [f64; 3],
}

impl TrellisCoded {
    /// States of 8 bits, id `trellis`.
    pub const BEST: TrellisCoded =
        TrellisCoded { id: "trellis", state_bits: 8, relative_mse: [0.0805, 0.0222, 0.0066] };
    /// States of 6 bits, id `trellis6`.
    pub const FAST: TrellisCoded =
        TrellisCoded { id: "trellis6", state_bits: 6, relative_mse: [0.0872, 0.0256, 0.0077] };

    fn too_wide(&self, plan: &LayerPlan) -> StepDown {
        let (from, to) = (self.id.into(), "ls".into());
        StepDown { from, to, reason: format!("a trellis has 2, 3 or 4 bits, not {}", plan.bits) }
    }
}

impl QuantStrategy for TrellisCoded {
    fn id(&self) -> StrategyId {
        StrategyId::new(self.id)
    }

    fn supports(&self, layer: &TensorInfo) -> bool {
        grouped::supports(layer)
    }

    fn estimate(&self, layer: &TensorInfo, stats: &LayerStats<'_>, plan: &LayerPlan) -> Estimate {
        if Trellis::new(plan.bits, self.state_bits).is_none() {
            return LeastSquares.estimate(layer, stats, plan);
        }
        let encoding = Encoding::Trellis(TrellisEncoding { bits: plan.bits });
        let relative_mse = self.relative_mse[usize::from(plan.bits.get()) - 2];
        let shared_bytes = hessian::shared_bytes(stats, layer.cols() as usize, SEQUENCE);
        let bytes = encoded_bytes(layer, &encoding);
        Estimate { encoding, bytes, relative_mse, transformed: false, shared_bytes }
    }

    fn prepare<'a>(
        &'a self,
        layer: &LayerInputs<'a>,
        plan: &LayerPlan,
    ) -> Result<Box<dyn RowQuantizer + 'a>, StrategyError> {
        grouped::check(self.id, layer)?;
        let Some(trellis) = Trellis::new(plan.bits, self.state_bits) else {
            let inner = LeastSquares.prepare(layer, plan)?;
            return Ok(Box::new(SteppedDown::new(inner, self.too_wide(plan))));
        };
        let (tensor, cols) = (layer.info.name(), layer.info.cols() as usize);
        let store = Store { trellis, gain: plan.gain };
        let step = match FedRows::prepare(layer, store)? {
            Ok(rows) => return Ok(Box::new(rows)),
            Err(step) => step,
        };
        let importance = layer.stats.importance.and_then(relative);
        let rows = Box::new(TrellisRows { store, importance, tensor, cols });
        Ok(match step {
            Some(step) => Box::new(SteppedDown::new(rows, step)),
            None => rows,
        })
    }
}
