//! Rounding with error feedback: the strategy, and what the rows of a layer share.

mod refit;
mod rows;
mod tile;

use aq_core::{
    Estimate, LayerInputs, LayerPlan, LayerStats, OffsetKind, QuantStrategy, RowQuantizer, StepDown,
    StrategyError, StrategyId, TensorInfo,
};

use crate::factored::{DAMPING, FactoredBlock, factor};
use crate::gptq::refit::GroupSums;
use crate::gptq::rows::GptqRows;
use crate::grouped::{self, Grouped};
use crate::hessian::{self, Hessian};
use crate::ls::LeastSquares;

/// Error feedback with the Hessian of the layer's inputs, id `gptq`.
///
/// ```text
/// minimise  (w - q) H (w - q)      H = sum(x^T x) over the calibration rows, in blocks of columns
/// ```
///
/// 1. The grid of each group is that of [`LeastSquares`] for the original weights, each weighted with the diagonal of `H`,
///    rounded to f16.
/// 2. Columns are rounded by falling diagonal of `H`, and those after each make up for what it lost: GPTQ (Frantar et al., ICLR
///    2023) with act-order and static groups. `H` is one block up to 2048 columns, else blocks of 512.
/// 3. Codes move by coordinate descent where that lowers the error, the grids are refitted to the codes in closed form
///    and kept where f16 makes them better, and codes move once more.
/// 4. The gain of a row is `(w H w) / (w H q)`: the slope of its outputs becomes 1.
///
/// `H` is damped by 0.01 of its mean diagonal value; what takes more damping, or has no inverse at all, is reported.
/// Without calibration this is `ls`. Stored like `ls`, with f16 offsets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gptq;

/// The estimates are those of `ls`: error feedback raises the error of the weights, by how much depends on the inputs.
const GROUPED: Grouped =
    Grouped { id: "gptq", offset: OffsetKind::F16, relative_mse: [0.1105, 0.0317, 0.0083] };

impl QuantStrategy for Gptq {
    fn id(&self) -> StrategyId {
        StrategyId::new(GROUPED.id)
    }

    fn supports(&self, layer: &TensorInfo) -> bool {
        grouped::supports(layer)
    }

    fn estimate(&self, layer: &TensorInfo, stats: &LayerStats<'_>, plan: &LayerPlan) -> Estimate {
        let cols = layer.cols() as usize;
        let shared_bytes = hessian::shared_bytes(stats, cols, plan.group_size.weights(cols));
        Estimate { shared_bytes, ..GROUPED.estimate(layer, plan) }
    }

    fn prepare<'a>(
        &'a self,
        layer: &LayerInputs<'a>,
        plan: &LayerPlan,
    ) -> Result<Box<dyn RowQuantizer + 'a>, StrategyError> {
        let plain = || GROUPED.prepare(&LeastSquares, layer, plan);
        GROUPED.check(layer)?;
        let Some(inputs) = layer.stats.inputs else {
            return Ok(Box::new(grouped::SteppedDown::new(plain()?, without_calibration())));
        };
        let cols = layer.info.cols() as usize;
        let group = plan.group_size.weights(cols);
        let hessian = Hessian::read(inputs, layer.info.name(), cols, group)?;
        if hessian.rows == 0 {
            return Ok(Box::new(grouped::SteppedDown::new(plain()?, without_calibration())));
        }
        let (factored, steps) = factor(&hessian);
        let shared = Shared {
            blocks: factored.into_iter().map(|block| Block::new(block, group, cols)).collect(),
            importance: hessian.importance(DAMPING[0]),
            encoding: GROUPED.encoding(plan),
            gain: plan.gain,
            cols,
        };
        Ok(Box::new(GptqRows { shared, tensor: layer.info.name(), steps }))
    }
}

fn without_calibration() -> StepDown {
    let reason = "the layer has no calibration inputs";
    StepDown { from: "gptq".into(), to: "ls".into(), reason: reason.into() }
}

/// What the rows of a layer share.
struct Shared {
    blocks: Vec<Block>,
    /// The damped diagonal of the Hessian.
    importance: Vec<f32>,
    encoding: aq_core::AffineEncoding,
    gain: bool,
    cols: usize,
}

/// Neighbouring columns, with their groups.
struct Block {
    factored: FactoredBlock,
    /// The group of each column in the order in which they are rounded.
    group: Vec<u32>,
    /// The groups that lie in this block as a whole.
    whole: Vec<GroupSums>,
}

impl Block {
    /// A block of a layer of `cols` columns whose groups have `size` weights.
    fn new(factored: FactoredBlock, size: usize, cols: usize) -> Self {
        let (first, n) = (factored.first, factored.order.len());
        let group: Vec<u32> =
            factored.order.iter().map(|&col| ((first + col as usize) / size) as u32).collect();
        let groups = first.div_ceil(size)..(first + n).div_ceil(size);
        let mut block = Self { factored, group, whole: Vec::new() };
        block.whole = groups
            .filter_map(|g| GroupSums::new(&block, g as u32, g * size..cols.min((g + 1) * size)))
            .collect();
        block
    }

    fn len(&self) -> usize {
        self.group.len()
    }
}
