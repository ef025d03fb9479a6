//! One factor a row that removes the shrinkage of its grid.
//!
//! A clipped grid makes the weights smaller on average, and every layer's output with them; over layers and steps that
//! adds up. The factor is
//!
//! ```text
//! g = sum(w^2) / sum(w * q)        q: the decoded row
//! ```
//!
//! after which the slope `sum(w * q) / sum(w^2)` is 1. Where values were fitted with the importance `h` of each input channel, both
//! sums count it: weights that matter little are clipped there, and to make up for them would enlarge all outputs. The
//! factor goes into the scales and offsets of the row, so it costs nothing; codes do not change.

use aq_core::{OffsetKind, Scratch};
use aq_kernels::metric::{dot, sum_squares};

use crate::grid::{Grid, GridKind, neighbour, round};

/// Gains outside of this say that the grid is wrong, not that it shrinks.
const RANGE: std::ops::RangeInclusive<f64> = 0.25..=4.0;
/// How far from 1 the slope may stay. Rounding one scale to f16 alone moves it by at most 0.00049.
const TOLERANCE: f64 = 5e-4;
/// How many f16 numbers a scale may move to restore the slope.
const STEPS: i32 = 8;

/// The gain of a row.
pub(crate) struct Gain {
    pub(crate) factor: f32,
    /// Whether the factor is the whole one, not cut to the range allowed.
    pub(crate) exact: bool,
}

/// `sum(h w^2)` and `sum(h w q)` of a row `w` and its decoded form `q`, `h` being 1 without importance: the norm of the outputs and
/// their product with those of `q`, when inputs are independent.
pub(crate) fn slope_sums(importance: Option<&[f32]>, row: &[f32], decoded: &[f32]) -> (f64, f64) {
    let Some(importance) = importance else { return (sum_squares(row), dot(row, decoded)) };
    let terms = importance.iter().zip(row).zip(decoded).map(|((&h, &w), &q)| {
        let weighted = f64::from(h) * f64::from(w);
        (weighted * f64::from(w), weighted * f64::from(q))
    });
    terms.fold((0.0, 0.0), |sums, term| (sums.0 + term.0, sums.1 + term.1))
}

/// The gain that sets the slope to 1, from `sum(w^2)` and `sum(w * q)`; `None` when there is no positive slope.
pub(crate) fn correction(norm: f64, product: f64) -> Option<Gain> {
    if product <= 0.0 {
        return None;
    }
    let gain = norm / product;
    Some(Gain { factor: gain.clamp(*RANGE.start(), *RANGE.end()) as f32, exact: RANGE.contains(&gain) })
}

/// Whether a slope is close enough to 1, from `sum(w * q) - sum(w^2)` and `sum(w^2)`.
pub(crate) fn is_restored(excess: f64, norm: f64) -> bool {
    excess.abs() <= TOLERANCE * norm
}

/// Undoes what rounding the corrected parameters did to the slope, where it is more than the tolerance.
///
/// That takes a row of few groups whose weights are far from centred: a step of f16 in a large offset then moves the
/// slope by more than a step in the scale does. The groups are visited in order until the slope is right.
/// `scratch.decoded` is the decoded row and is overwritten.
pub(crate) fn restore_slope(kind: GridKind, group: usize, scratch: &mut Scratch) {
    let Scratch { row, decoded, codes, scales, offsets, .. } = scratch;
    let norm = sum_squares(row);
    let mut excess = dot(row, decoded) - norm;
    let grids = scales.iter_mut().zip(offsets);
    let groups = row.chunks(group).zip(codes.chunks(group)).zip(decoded.chunks_mut(group));
    for (((weights, codes), room), (scale, offset)) in groups.zip(grids) {
        if is_restored(excess, norm) {
            return;
        }
        let line = Line::of(kind, weights, codes, *offset, room);
        let best = line.best(Grid { scale: *scale, offset: *offset }, excess, TOLERANCE * norm);
        (*scale, *offset, excess) = (best.0.scale, best.0.offset, best.1);
    }
}

/// The share of one group in `sum(w * q)`: `scale * by_scale + offset * by_offset`.
struct Line {
    by_scale: f64,
    /// 0 where the offset is a zero point, which does not change.
    by_offset: f64,
}

impl Line {
    fn of(kind: GridKind, weights: &[f32], codes: &[u8], offset: f32, room: &mut [f32]) -> Self {
        match kind.offset {
            OffsetKind::ZeroPoint => {
                kind.decode(Grid { scale: 1.0, offset }, codes, room);
                Line { by_scale: dot(weights, room), by_offset: 0.0 }
            }
            OffsetKind::F16 => {
                kind.decode(Grid { scale: 1.0, offset: 0.0 }, codes, room);
                let sum = weights.iter().copied().map(f64::from).sum();
                Line { by_scale: dot(weights, room), by_offset: sum }
            }
        }
    }

    /// The first grid near `start` whose excess is at most `tolerance`, or else the best one, with its excess.
    fn best(&self, start: Grid, excess: f64, tolerance: f64) -> (Grid, f64) {
        let mut best = (start, excess);
        for step in (0..=STEPS).flat_map(|n| [n, -n]) {
            let Some(scale) = neighbour(start.scale, step).filter(|&s| s > 0.0) else { continue };
            let moved = excess + self.by_scale * (f64::from(scale) - f64::from(start.scale));
            for offset in [start.offset, self.offset_for(start.offset, moved)] {
                let rest = moved + self.by_offset * (f64::from(offset) - f64::from(start.offset));
                if rest.abs() < best.1.abs() {
                    best = (Grid { scale, offset }, rest);
                }
            }
            if best.1.abs() <= tolerance {
                break;
            }
        }
        best
    }

    /// The f16 offset that takes away `excess`, or the same one when that is more than a correction of rounding.
    fn offset_for(&self, offset: f32, excess: f64) -> f32 {
        let change = (-excess / self.by_offset) as f32;
        let small = change.abs() <= offset.abs() * (STEPS as f32 / 1024.0);
        if small { round(offset + change) } else { offset }
    }
}
