//! Round to nearest on the whole range of a group.

use aq_core::{
    Estimate, LayerInputs, LayerPlan, LayerStats, OffsetKind, QuantStrategy, RowQuantizer, StrategyError,
    StrategyId, TensorInfo,
};
use aq_kernels::affine::min_max;

use crate::grid::{Grid, neighbour, round};
use crate::grouped::{self, Grouped};
use crate::row::{Group, Method};

/// Asymmetric round to nearest, id `minmax`: no weight is clipped, and 0 stays 0.
///
/// ```text
/// low = min(0, smallest)   high = max(0, largest)
/// scale = f16((high - low) / max_code)
/// zero  = clamp(round_ties_even(-low / scale), 0, max_code)
/// code  = clamp(round_ties_even(w / scale + zero), 0, max_code)
/// w    ~= (code - zero) * scale
/// ```
///
/// When the rounded scale would leave the largest code unused, which happens to a range that is symmetric about 0, the next
/// smaller f16 is taken. Importance is not used.
#[derive(Debug, Clone, Copy, Default)]
pub struct MinMax;

const GROUPED: Grouped =
    Grouped { id: "minmax", offset: OffsetKind::ZeroPoint, relative_mse: [0.252, 0.0463, 0.0101] };

impl QuantStrategy for MinMax {
    fn id(&self) -> StrategyId {
        StrategyId::new(GROUPED.id)
    }

    fn supports(&self, layer: &TensorInfo) -> bool {
        grouped::supports(layer)
    }

    fn estimate(&self, layer: &TensorInfo, _: &LayerStats<'_>, plan: &LayerPlan) -> Estimate {
        GROUPED.estimate(layer, plan)
    }

    fn prepare<'a>(
        &'a self,
        layer: &LayerInputs<'a>,
        plan: &LayerPlan,
    ) -> Result<Box<dyn RowQuantizer + 'a>, StrategyError> {
        GROUPED.prepare(self, layer, plan)
    }
}

impl Method for MinMax {
    const WHOLE_RANGE: bool = true;

    fn fit(&self, group: &Group<'_>) -> Grid {
        let (low, high) = min_max(group.weights);
        let (low, high) = (low.min(0.0), high.max(0.0));
        Grid { scale: (high - low) / f32::from(group.kind.max_code), offset: low }
    }

    fn settle(&self, group: &Group<'_>, fitted: Grid, _: &mut [u8], _: &mut [f32]) -> Grid {
        let top = f32::from(group.kind.max_code);
        let scale = round(fitted.scale);
        if scale == 0.0 {
            return Grid { scale: 0.0, offset: 0.0 };
        }
        let grid = with_zero_point(scale, fitted.offset, top);
        let high = fitted.offset + fitted.scale * top;
        let largest_code = (high / scale + grid.offset).round_ties_even();
        match neighbour(scale, -1).filter(|&s| s > 0.0 && largest_code < top) {
            Some(smaller) => with_zero_point(smaller, fitted.offset, top),
            None => grid,
        }
    }
}

fn with_zero_point(scale: f32, low: f32, top: f32) -> Grid {
    Grid { scale, offset: (-low / scale).round_ties_even().clamp(0.0, top) }
}
