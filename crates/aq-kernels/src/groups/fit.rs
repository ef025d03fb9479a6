//! The search for scale and offset of each group.

use pulp::{Simd, WithSimd};

use super::grid::{self, Grid, Steps};
use super::{Groups, Lanes, Sums, measure};
use crate::dispatch::run;
use crate::lanes::LANES;

/// What a fit may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Free {
    /// The scale, of either sign; the offset is 0.
    Scale,
    /// A positive scale and any offset.
    ScaleAndOffset,
    /// A positive scale and an offset that is not positive.
    ScaleAndMinimum,
}

/// The best scale and offset that were found for each group, and their error `sum(h (w - scale * q - offset)^2)`, or more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fitted {
    /// Scales.
    pub scale: Lanes,
    /// Offsets.
    pub offset: Lanes,
    /// Errors.
    pub error: Lanes,
}

/// Finds scale and offset of each group by least squares.
///
/// A search starts from grids that are a `fraction` as wide as the weights, at the low and at the high end of their range (for [`Free::Scale`]: of either
/// sign, unless the grid is symmetric), and alternates `refits` times between the codes nearest to the weights and the scale and offset of least error
/// for these codes. The best of all is kept.
///
/// # Panics
/// When there is no fraction.
///
/// ```
/// use aq_kernels::groups::{Free, Grid, Groups, fit};
/// let row: Vec<f32> = (0..32).map(|i| 0.25 * (i % 16) as f32 - 1.0).collect();
/// let mut groups = Groups::<32>::default();
/// groups.load(&row, None);
/// let found = fit(&groups, Grid::Integers { low: 0.0, high: 15.0 }, Free::ScaleAndMinimum, &[1.0], 1);
/// assert_eq!((found.scale[0], found.offset[0], found.error[0]), (0.25, -1.0, 0.0));
/// ```
pub fn fit<const N: usize>(
    groups: &Groups<N>,
    grid: Grid,
    free: Free,
    fractions: &[f32],
    refits: usize,
) -> Fitted {
    assert!(!fractions.is_empty(), "a start");
    match grid {
        Grid::Integers { low, high } => {
            run(Search { groups, grid: grid::Integers { low, high }, free, fractions, refits })
        }
        Grid::Nonlinear => run(Search { groups, grid: grid::Nonlinear, free, fractions, refits }),
    }
}

/// Where narrower grids lie in the range of the weights: at its low end, at its high end.
const ANCHORS: [f32; 2] = [0.0, 1.0];

struct Search<'a, G, const N: usize> {
    groups: &'a Groups<N>,
    grid: G,
    free: Free,
    fractions: &'a [f32],
    refits: usize,
}

impl<G: Steps, const N: usize> WithSimd for Search<'_, G, N> {
    type Output = Fitted;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Fitted {
        let (lowest, highest) = extremes(self.groups);
        let (low, high) = self.grid.ends();
        let total = self.groups.total_importance();
        let mut best = Fitted { scale: [0.0; LANES], offset: [0.0; LANES], error: [f32::INFINITY; LANES] };
        for &fraction in self.fractions {
            let (mut scale, mut offset) = ([0.0; LANES], [0.0; LANES]);
            if self.free == Free::Scale {
                for l in 0..LANES {
                    // The weight of largest magnitude lies at the low end, which reaches further.
                    let largest = if -lowest[l] > highest[l] { lowest[l] } else { highest[l] };
                    scale[l] = largest / low * fraction;
                }
                self.refine(scale, offset, &total, &mut best);
                if low != -high {
                    for l in 0..LANES {
                        let largest = if -lowest[l] > highest[l] { lowest[l] } else { highest[l] };
                        scale[l] = largest / high * fraction;
                    }
                    self.refine(scale, offset, &total, &mut best);
                }
                continue;
            }
            for share in ANCHORS {
                for l in 0..LANES {
                    let from =
                        if self.free == Free::ScaleAndMinimum && lowest[l] > 0.0 { 0.0 } else { lowest[l] };
                    let width = (highest[l] - from) * fraction;
                    scale[l] = if width > 0.0 { width / (high - low) } else { 0.0 };
                    let start = from + (highest[l] - from - width) * share - low * scale[l];
                    offset[l] = if self.free == Free::ScaleAndMinimum && start > 0.0 { 0.0 } else { start };
                }
                self.refine(scale, offset, &total, &mut best);
            }
        }
        best
    }
}

impl<G: Steps, const N: usize> Search<'_, G, N> {
    #[inline(always)]
    fn refine(&self, mut scale: Lanes, mut offset: Lanes, total: &Lanes, best: &mut Fitted) {
        for _ in 0..self.refits {
            let sums = measure(self.groups, self.grid, &scale, &offset);
            keep(best, &scale, &offset, &sums.squares);
            let error = match self.free {
                Free::Scale => improve_scale(&sums, &mut scale),
                free => improve_both(&sums, total, free, &mut scale, &mut offset),
            };
            keep(best, &scale, &offset, &error);
        }
    }
}

#[inline(always)]
fn keep(best: &mut Fitted, scale: &Lanes, offset: &Lanes, error: &Lanes) {
    for l in 0..LANES {
        let better = error[l] < best.error[l];
        best.error[l] = if better { error[l] } else { best.error[l] };
        best.scale[l] = if better { scale[l] } else { best.scale[l] };
        best.offset[l] = if better { offset[l] } else { best.offset[l] };
    }
}

/// Moves each scale to the one of least error for the codes of `sums`, and returns that error.
#[inline(always)]
fn improve_scale(sums: &Sums, scale: &mut Lanes) -> Lanes {
    let mut error = sums.squares;
    for l in 0..LANES {
        let step = if sums.code_squares[l] > 0.0 { sums.product[l] / sums.code_squares[l] } else { 0.0 };
        scale[l] += step;
        error[l] -= step * sums.product[l];
    }
    error
}

/// Moves scale and offset of each group to those of least error for the codes of `sums`, and returns that error.
#[inline(always)]
fn improve_both(sums: &Sums, total: &Lanes, free: Free, scale: &mut Lanes, offset: &mut Lanes) -> Lanes {
    let mut error = sums.squares;
    for l in 0..LANES {
        let (rr, rq, r) = (sums.squares[l], sums.product[l], sums.residuals[l]);
        let (qq, q, h) = (sums.code_squares[l], sums.codes[l], total[l]);
        let det = qq * h - q * q;
        // Where all codes are one, scale and offset cannot be told apart.
        let solvable = det > 1e-6 * qq * h;
        let up = if solvable { (rq * h - r * q) / det } else { 0.0 };
        let over = if solvable { (r * qq - rq * q) / det } else { 0.0 };
        let cut = free == Free::ScaleAndMinimum && offset[l] + over > 0.0;
        // At an offset of 0 the residuals are larger by the offset that was.
        let was = offset[l];
        let (moved, squares) = (rq + was * q, rr + 2.0 * was * r + was * was * h);
        let alone = if qq > 0.0 { moved / qq } else { 0.0 };
        let (ds, next, squares) = match cut {
            true => (alone, 0.0, squares - alone * moved),
            false => (up, was + over, rr - up * rq - over * r),
        };
        let positive = scale[l] + ds >= 0.0;
        scale[l] = if positive { scale[l] + ds } else { scale[l] };
        offset[l] = if positive { next } else { was };
        error[l] = if positive { squares } else { rr };
    }
    error
}

/// The smallest and the largest weight of each group.
#[inline(always)]
fn extremes<const N: usize>(groups: &Groups<N>) -> (Lanes, Lanes) {
    let (mut low, mut high) = (groups.weights[0], groups.weights[0]);
    for w in &groups.weights {
        for l in 0..LANES {
            low[l] = if w[l] < low[l] { w[l] } else { low[l] };
            high[l] = if w[l] > high[l] { w[l] } else { high[l] };
        }
    }
    (low, high)
}
