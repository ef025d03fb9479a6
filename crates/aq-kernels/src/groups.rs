//! Fits of scales to 16 small groups of weights side by side, each in a lane of its own.
//!
//! Lanes never meet, so what comes out for a group depends on that group alone, whatever its neighbours and the SIMD level. Every operation is
//! rounded to `f32` in the order written; sums run over the weights of a group from the first to the last.

mod fit;
mod grid;

use pulp::{Simd, WithSimd};

use crate::dispatch::run;
pub use crate::lanes::LANES;
pub use fit::{Fitted, Free, fit};
use grid::Steps;
pub use grid::{Grid, NONLINEAR};

/// One number for each group.
pub type Lanes = [f32; LANES];

/// Weights beyond this are cut to it: no stored scale reaches further, and squares of them stay finite.
const LARGEST: f32 = 16_777_216.0;

/// 16 groups of `N` weights and their importance; element `[i][l]` is weight `i` of group `l`.
#[derive(Debug, Clone, PartialEq)]
pub struct Groups<const N: usize> {
    weights: [Lanes; N],
    importance: [Lanes; N],
}

impl<const N: usize> Default for Groups<N> {
    fn default() -> Self {
        Self { weights: [[0.0; LANES]; N], importance: [[0.0; LANES]; N] }
    }
}

impl<const N: usize> Groups<N> {
    /// Takes up to 16 whole groups of `row`, one after the other, and the importance of each weight, or 1. Groups that are not there
    /// are zeros of no importance.
    ///
    /// # Panics
    /// When there are more groups, or `importance` has another length.
    ///
    /// ```
    /// use aq_kernels::groups::{Grid, Groups, sums};
    /// let mut groups = Groups::<32>::default();
    /// groups.load(&[0.75; 64], None);
    /// let found = sums(&groups, Grid::Integers { low: -8.0, high: 7.0 }, &[0.5; 16], &[0.0; 16]);
    /// assert_eq!((found.codes[1], found.squares[1], found.codes[2]), (64.0, 2.0, 0.0));
    /// ```
    pub fn load(&mut self, row: &[f32], importance: Option<&[f32]>) {
        assert!(row.len().is_multiple_of(N) && row.len() <= LANES * N, "up to 16 whole groups");
        assert!(importance.is_none_or(|h| h.len() == row.len()), "one importance for each weight");
        let there = row.len() / N;
        for l in 0..LANES {
            for i in 0..N {
                let at = l * N + i;
                let (w, h) = match l < there {
                    true => (row[at].clamp(-LARGEST, LARGEST), importance.map_or(1.0, |h| h[at])),
                    false => (0.0, 0.0),
                };
                (self.weights[i][l], self.importance[i][l]) = (w, h);
            }
        }
    }

    /// Sum of the importance of each group.
    pub fn total_importance(&self) -> Lanes {
        let mut total = [0.0; LANES];
        for h in &self.importance {
            (0..LANES).for_each(|l| total[l] += h[l]);
        }
        total
    }
}

/// Sums over each group, of importance `h`, codes `q` and residuals `r = (w - offset) - scale * q`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sums {
    /// `sum(h r r)`: the error.
    pub squares: Lanes,
    /// `sum(h r q)`.
    pub product: Lanes,
    /// `sum(h r)`.
    pub residuals: Lanes,
    /// `sum(h q q)`.
    pub code_squares: Lanes,
    /// `sum(h q)`.
    pub codes: Lanes,
}

/// The sums for the best codes of a grid at a scale and an offset for each group.
pub fn sums<const N: usize>(groups: &Groups<N>, grid: Grid, scale: &Lanes, offset: &Lanes) -> Sums {
    match grid {
        Grid::Integers { low, high } => {
            run(Measure { groups, grid: grid::Integers { low, high }, scale, offset })
        }
        Grid::Nonlinear => run(Measure { groups, grid: grid::Nonlinear, scale, offset }),
    }
}

struct Measure<'a, G, const N: usize> {
    groups: &'a Groups<N>,
    grid: G,
    scale: &'a Lanes,
    offset: &'a Lanes,
}

impl<G: Steps, const N: usize> WithSimd for Measure<'_, G, N> {
    type Output = Sums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Sums {
        measure(self.groups, self.grid, self.scale, self.offset)
    }
}

/// `1 / scale`, 0 for a scale of 0.
#[inline(always)]
fn inverse(scale: &Lanes) -> Lanes {
    let mut inverse = [0.0; LANES];
    for l in 0..LANES {
        inverse[l] = if scale[l] == 0.0 { 0.0 } else { 1.0 / scale[l] };
    }
    inverse
}

#[inline(always)]
fn measure<G: Steps, const N: usize>(groups: &Groups<N>, grid: G, scale: &Lanes, offset: &Lanes) -> Sums {
    let inverse = inverse(scale);
    let zero = [0.0; LANES];
    let mut sums = Sums { squares: zero, product: zero, residuals: zero, code_squares: zero, codes: zero };
    for (w, h) in groups.weights.iter().zip(&groups.importance) {
        for l in 0..LANES {
            let w = w[l] - offset[l];
            let q = grid.value(w * inverse[l]);
            let r = w - scale[l] * q;
            let (hr, hq) = (h[l] * r, h[l] * q);
            sums.squares[l] += hr * r;
            sums.product[l] += hr * q;
            sums.residuals[l] += hr;
            sums.code_squares[l] += hq * q;
            sums.codes[l] += hq;
        }
    }
    sums
}

/// The code of every weight, from 0 up: `out[i][l]` is that of weight `i` of group `l`.
pub fn codes<const N: usize>(
    groups: &Groups<N>,
    grid: Grid,
    scale: &Lanes,
    offset: &Lanes,
    out: &mut [[u8; LANES]; N],
) {
    match grid {
        Grid::Integers { low, high } => {
            run(Choose { groups, grid: grid::Integers { low, high }, scale, offset, out });
        }
        Grid::Nonlinear => run(Choose { groups, grid: grid::Nonlinear, scale, offset, out }),
    }
}

struct Choose<'a, G, const N: usize> {
    groups: &'a Groups<N>,
    grid: G,
    scale: &'a Lanes,
    offset: &'a Lanes,
    out: &'a mut [[u8; LANES]; N],
}

impl<G: Steps, const N: usize> WithSimd for Choose<'_, G, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let inverse = inverse(self.scale);
        for (w, codes) in self.groups.weights.iter().zip(self.out) {
            for l in 0..LANES {
                codes[l] = self.grid.code((w[l] - self.offset[l]) * inverse[l]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{levels, with_level};

    /// Weights with large and small ones among them.
    fn groups<const N: usize>(seed: u32) -> Groups<N> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let row: Vec<f32> = (0..LANES * N).map(|_| next().powi(3) * 0.1).collect();
        let importance: Vec<f32> = (0..LANES * N).map(|_| next().abs()).collect();
        let mut groups = Groups::default();
        groups.load(&row, Some(&importance));
        groups
    }

    const GRIDS: [Grid; 3] =
        [Grid::Integers { low: -8.0, high: 7.0 }, Grid::Integers { low: 0.0, high: 3.0 }, Grid::Nonlinear];

    #[test]
    fn every_level_gives_the_same_bits() {
        let groups = groups::<32>(1);
        for grid in GRIDS {
            for free in [Free::Scale, Free::ScaleAndOffset, Free::ScaleAndMinimum] {
                let of = |level| {
                    with_level(level, || {
                        let found = fit(&groups, grid, free, &[1.0, 0.8], 2);
                        let mut chosen = [[0; LANES]; 32];
                        codes(&groups, grid, &found.scale, &found.offset, &mut chosen);
                        (sums(&groups, grid, &found.scale, &found.offset), found, chosen)
                    })
                };
                let scalar = of(crate::Level::Scalar);
                levels().into_iter().for_each(|level| assert_eq!(of(level), scalar, "{level} {grid:?}"));
            }
        }
    }

    #[test]
    fn a_group_depends_on_itself_alone() {
        let all = groups::<16>(2);
        let mut alone = Groups::<16>::default();
        for i in 0..16 {
            (alone.weights[i][0], alone.importance[i][0]) = (all.weights[i][5], all.importance[i][5]);
        }
        for grid in GRIDS {
            let (one, of_many) = (
                fit(&alone, grid, Free::Scale, &[1.0, 0.9], 3),
                fit(&all, grid, Free::Scale, &[1.0, 0.9], 3),
            );
            assert_eq!((one.scale[0], one.error[0]), (of_many.scale[5], of_many.error[5]));
        }
    }

    #[test]
    fn more_freedom_and_more_starts_never_fit_worse() {
        for seed in 0..20 {
            let groups = groups::<32>(seed);
            let grid = Grid::Integers { low: 0.0, high: 15.0 };
            let error = |free, starts: &[f32], refits| fit(&groups, grid, free, starts, refits).error;
            let few = error(Free::ScaleAndOffset, &[1.0], 1);
            let more = error(Free::ScaleAndOffset, &[1.0, 0.95, 0.9], 3);
            assert!((0..LANES).all(|l| more[l] <= few[l]));
            let found = fit(&groups, grid, Free::ScaleAndMinimum, &[1.0, 0.9], 2);
            assert!(found.offset.iter().all(|&o| o <= 0.0) && found.scale.iter().all(|&s| s >= 0.0));
            let true_error = sums(&groups, grid, &found.scale, &found.offset).squares;
            assert!((0..LANES).all(|l| true_error[l] <= found.error[l] * 1.0001 + 1e-12));
        }
    }

    #[test]
    fn extreme_groups_give_finite_fits() {
        for value in [0.0, 1e-30, -1e-8, 1e30, f32::MAX, -3.0] {
            let mut groups = Groups::<16>::default();
            groups.load(&[value; 32], None);
            for grid in GRIDS {
                for free in [Free::Scale, Free::ScaleAndOffset, Free::ScaleAndMinimum] {
                    let found = fit(&groups, grid, free, &[1.0, 0.9], 3);
                    assert!(
                        found.scale.iter().chain(&found.offset).all(|s| s.is_finite()),
                        "{value} {grid:?}"
                    );
                }
            }
        }
    }
}
