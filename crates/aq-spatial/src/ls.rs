//! The grid of least squared error.

use aq_core::{
    Estimate, LayerInputs, LayerPlan, LayerStats, OffsetKind, QuantStrategy, RowQuantizer, StrategyError,
    StrategyId, TensorInfo,
};
use aq_kernels::metric::squared_error;
use aq_kernels::search::ls_search;

use crate::grid::{Grid, neighbour, round};
use crate::grouped::{self, Grouped};
use crate::row::{Group, Method};

/// Clip search and least squares, id `ls`: the scale and offset that make the squared error of a group small.
///
/// ```text
/// minimise  sum(h * (w - (code * scale + offset))^2)     h: importance of the input channel, or 1
///    code = clamp(round_ties_even((w - offset) / scale), 0, max_code)
/// ```
///
/// The search is [`ls_search`]. Scale and offset are rounded to f16 before the codes are chosen, the offset so that the
/// middle of the grid stays in place. A group of equal weights is stored as the nearest f16. A group that is narrow and far
/// from 0, where f16 cannot hold the offset to a quarter of a step, takes the f16 offset below or above it
/// and the scale that then spans the group, whichever of the three errs least.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeastSquares;

const GROUPED: Grouped =
    Grouped { id: "ls", offset: OffsetKind::F16, relative_mse: [0.1105, 0.0317, 0.0083] };

impl QuantStrategy for LeastSquares {
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

impl Method for LeastSquares {
    fn fit(&self, group: &Group<'_>) -> Grid {
        let (scale, offset) = ls_search(group.weights, group.importance, group.kind.max_code);
        Grid { scale, offset }
    }

    fn settle(&self, group: &Group<'_>, fitted: Grid, codes: &mut [u8], decoded: &mut [f32]) -> Grid {
        let plain = group.kind.rounded(fitted);
        let lost = (plain.offset - group.kind.centred(fitted, plain.scale)).abs();
        if fitted.scale == 0.0 || lost <= plain.scale / 4.0 {
            return plain;
        }
        let (below, above) = around(fitted.offset);
        let candidates = [plain, spanning(group, fitted, below), spanning(group, fitted, above)];
        let mut best = (plain, f64::INFINITY);
        for grid in candidates {
            group.kind.choose_codes(grid, group.weights, codes);
            group.kind.decode(grid, codes, decoded);
            let error = weighted_error(group, decoded);
            if error < best.1 {
                best = (grid, error);
            }
        }
        best.0
    }
}

/// The two f16 numbers next to `value`.
fn around(value: f32) -> (f32, f32) {
    let magnitude = round(value.abs());
    let step = if magnitude > value.abs() { -1 } else { 1 };
    let other = neighbour(magnitude, step).unwrap_or(magnitude);
    let (near, far) = (magnitude.min(other).copysign(value), magnitude.max(other).copysign(value));
    (near.min(far), near.max(far))
}

/// The grid from `offset` up to where `fitted` ends.
fn spanning(group: &Group<'_>, fitted: Grid, offset: f32) -> Grid {
    let top = f32::from(group.kind.max_code);
    let high = fitted.offset + fitted.scale * top;
    Grid { scale: round(((high - offset) / top).max(0.0)), offset }
}

fn weighted_error(group: &Group<'_>, decoded: &[f32]) -> f64 {
    let Some(importance) = group.importance else { return squared_error(group.weights, decoded) };
    let terms = group.weights.iter().zip(decoded).zip(importance);
    terms.map(|((&w, &q), &h)| f64::from(h) * (f64::from(w) - f64::from(q)).powi(2)).sum()
}
