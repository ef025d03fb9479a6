//! The scale and offset of a group that fit its codes best, as outputs count.
//!
//! With codes `k`, Hessian `H` and residual `r = H (w - q)`, a change of the scale by `s` and of the offset by `o`
//! changes the error by
//!
//! ```text
//! -2 (s b1 + o b2) + s^2 a11 + 2 s o a12 + o^2 a22
//! b1 = k r   b2 = 1 r   a11 = k H k   a12 = 1 H k   a22 = 1 H 1      over the columns of the group
//! ```

use aq_kernels::feedback::{AffineGrid, Lanes, ROWS, subtract_products};

use super::Block;
use super::tile::BlockState;
use crate::grid::round;

/// What the refit of a group needs of its Hessian alone.
pub(super) struct GroupSums {
    group: u32,
    /// Its columns in the order in which they are rounded.
    columns: Vec<u32>,
    /// `1 H`: what one offset does to the residual of each column of the block.
    ones: Vec<f32>,
    /// `1 H 1`.
    a22: f64,
}

impl GroupSums {
    /// `None` when only some of its `columns` lie in the block.
    pub(super) fn new(block: &Block, group: u32, columns: std::ops::Range<usize>) -> Option<Self> {
        let (n, expected) = (block.len(), columns.len());
        let columns: Vec<u32> = (0..n as u32).filter(|&col| block.group[col as usize] == group).collect();
        if columns.len() < expected {
            return None;
        }
        let mut ones = vec![0.0f64; n];
        for &col in &columns {
            let row = &block.factored.h[col as usize * n..][..n];
            ones.iter_mut().zip(row).for_each(|(sum, &h)| *sum += f64::from(h));
        }
        let a22 = columns.iter().map(|&col| ones[col as usize]).sum();
        Some(Self { group, columns, ones: ones.iter().map(|&v| v as f32).collect(), a22 })
    }

    /// Its index in the row.
    pub(super) fn group(&self) -> usize {
        self.group as usize
    }

    /// Refits the grids of 16 rows where that lowers their error, and keeps the residual up to date.
    pub(super) fn refit(
        &self,
        block: &Block,
        grid: &mut AffineGrid,
        state: &mut BlockState,
        bounds: Bounds<'_>,
    ) {
        let n = block.len();
        state.values.clear();
        let codes = self.columns.iter().map(|&col| &state.codes[col as usize]);
        state.values.extend(codes.map(|codes| codes.map(|code| -f32::from(code))));
        state.product.clear();
        state.product.resize(n, [0.0; ROWS]);
        subtract_products(&state.values, &self.columns, &block.factored.h, n, 0, &mut state.product);
        let changes = self.solve(grid, state, bounds);
        if changes == [[0.0; ROWS]; 2] {
            return;
        }
        let residuals = state.residual.iter_mut().zip(&state.product).zip(&self.ones);
        for ((residual, product), one) in residuals {
            for lane in 0..ROWS {
                residual[lane] -= changes[0][lane] * product[lane];
                residual[lane] -= changes[1][lane] * one;
            }
        }
    }

    /// Moves the grids and returns the changes of scale and offset.
    fn solve(&self, grid: &mut AffineGrid, state: &BlockState, bounds: Bounds<'_>) -> [Lanes; 2] {
        let sums = self.sums(state);
        let (mut scale, mut offset) = (*grid.scale(), *grid.offset());
        let mut changes = [[0.0; ROWS]; 2];
        for lane in 0..ROWS {
            let old = (scale[lane], offset[lane]);
            let Some(new) = sums[lane].refit(self.a22, old) else { continue };
            if !bounds.allow(lane, new.0, new.1) {
                continue;
            }
            (scale[lane], offset[lane]) = new;
            (changes[0][lane], changes[1][lane]) = (new.0 - old.0, new.1 - old.1);
        }
        *grid = AffineGrid::new(scale, offset);
        changes
    }

    /// The sums over the columns of the group, for each row.
    fn sums(&self, state: &BlockState) -> [Sums; ROWS] {
        let mut sums = [Sums::default(); ROWS];
        for &col in &self.columns {
            let col = col as usize;
            let (codes, product, residual) = (&state.codes[col], &state.product[col], &state.residual[col]);
            for lane in 0..ROWS {
                let (k, p, r) = (f64::from(codes[lane]), f64::from(product[lane]), f64::from(residual[lane]));
                sums[lane].a11 += k * p;
                sums[lane].a12 += p;
                sums[lane].b1 += k * r;
                sums[lane].b2 += r;
            }
        }
        sums
    }
}

/// What no value of a grid may exceed.
#[derive(Clone, Copy)]
pub(super) struct Bounds<'a> {
    pub(super) max_code: u8,
    /// The largest magnitude in each row.
    pub(super) limits: &'a [f64; ROWS],
}

impl Bounds<'_> {
    fn allow(self, lane: usize, scale: f32, offset: f32) -> bool {
        let (scale, offset) = (f64::from(scale), f64::from(offset));
        let high = offset + scale * f64::from(self.max_code);
        scale > 0.0 && offset.abs().max(high.abs()) <= self.limits[lane]
    }
}

/// The sums of one row; see the module.
#[derive(Clone, Copy, Default)]
struct Sums {
    a11: f64,
    a12: f64,
    b1: f64,
    b2: f64,
}

impl Sums {
    /// A better scale and offset of f16, if there is one.
    fn refit(self, a22: f64, old: (f32, f32)) -> Option<(f32, f32)> {
        let determinant = self.a11 * a22 - self.a12 * self.a12;
        let is_solvable = determinant > 1e-4 * self.a11 * a22;
        let by_scale = (self.b1 * a22 - self.b2 * self.a12) / determinant;
        let scale = round((f64::from(old.0) + by_scale) as f32);
        let s = f64::from(scale) - f64::from(old.0);
        let offset = round((f64::from(old.1) + (self.b2 - self.a12 * s) / a22) as f32);
        let o = f64::from(offset) - f64::from(old.1);
        let quadratic = s * s * self.a11 + 2.0 * s * o * self.a12 + o * o * a22;
        let is_better = quadratic < 2.0 * (s * self.b1 + o * self.b2);
        (is_solvable && is_better).then_some((scale, offset))
    }
}
