//! Blocks of one group: a scale, and for some types an offset, of least squared error.

use aq_codec::ggml::has_minimum;
use aq_core::GgmlType;
use aq_kernels::groups::{Free, Groups, LANES, fit};

use super::{Stored, grid, round};

/// Refits of each start.
const REFITS: usize = 2;

/// Scale and offset of each group, rounded to halves.
pub(super) fn choose<const N: usize>(kind: GgmlType, groups: &Groups<N>) -> Stored {
    let free = if has_minimum(kind) { Free::ScaleAndOffset } else { Free::Scale };
    let found = fit(groups, grid(kind), free, fractions(kind), REFITS);
    let (d, dmin) = (found.scale.map(round), found.offset.map(|offset| round(-offset)));
    Stored { d, dmin, scales: [1.0; LANES], mins: [1.0; LANES] }
}

/// Shares of the range at which the search starts: the fewer codes, the more clipping pays.
fn fractions(kind: GgmlType) -> &'static [f32] {
    match kind {
        GgmlType::Q8_0 => &[1.0, 0.994],
        GgmlType::Q5_0 => &[1.0, 0.965, 0.93],
        GgmlType::Q5_1 => &[1.03, 1.02, 1.01, 1.0, 0.99, 0.98, 0.97, 0.96],
        GgmlType::Q4_1 => &[1.06, 1.04, 1.02, 1.0, 0.98, 0.96, 0.94, 0.92],
        _ => &[1.0, 0.94, 0.88, 0.82, 0.76],
    }
}
