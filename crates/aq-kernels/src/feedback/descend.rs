//! Coordinate descent on codes.

use super::{AffineGrids, Lanes, Matrix, ROWS, STEP};
use crate::isa::{Isa, Kernel, run};
use crate::lanes::LANES;

/// Moves each code of 16 rows in turn to where the quadratic error is least.
///
/// ```text
/// error = sum((w - value)[i] * h[i][j] * (w - value)[j])
/// for each column i in order:
///     exact     = residual[i] * (1 / scale) * inverse_diagonal[i]
///     new       = round_ties_even(clamp(code[i] + exact, 0, max_code))
///     change    = (new * scale + offset) - (code[i] * scale + offset)
///     residual -= change * h[i]
/// ```
///
/// `residual` is `h (w - value)` and is kept so. With all other codes as they are, the error is a parabola in one code, so no move raises it but by what
/// rounding to `f32` blurs. Each operation is rounded to `f32`; columns without a change cost nothing. `h` has `n * n` values for `n` columns,
/// and `inverse_diagonal` is `1 / h[i][i]`. Returns how many codes moved.
///
/// # Panics
/// When lengths differ from what is said above, or a group has no grid.
///
/// ```
/// use aq_kernels::feedback::{AffineGrid, AffineGrids, descend};
/// let grids = [AffineGrid::new([1.0; 16], [0.0; 16])];
/// let grids = AffineGrids { grids: &grids, group: &[0, 0], max_code: 3 };
/// // The weights are 1.4 and 1.4, the codes 1 and 1, and only their sum matters.
/// let (h, mut residual, mut codes) = ([1.0; 4], [[0.8; 16]; 2], [[1; 16]; 2]);
/// assert_eq!(descend(&mut residual, &h, &[1.0, 1.0], grids, &mut codes), 16);
/// assert_eq!(codes, [[2; 16], [1; 16]]);
/// ```
pub fn descend(
    residual: &mut [Lanes],
    h: &[f32],
    inverse_diagonal: &[f32],
    grids: AffineGrids<'_>,
    codes: &mut [[u8; ROWS]],
) -> usize {
    let n = residual.len();
    assert_eq!(h.len(), n * n, "a row and a column of the matrix for each column");
    let lengths = (codes.len(), grids.group.len(), inverse_diagonal.len());
    assert_eq!(lengths, (n, n, n), "codes, a group and a diagonal value for each column");
    run(Descend { residual, h: Matrix { values: h, n }, inverse_diagonal, grids, codes })
}

struct Descend<'a> {
    residual: &'a mut [Lanes],
    h: Matrix<'a>,
    inverse_diagonal: &'a [f32],
    grids: AffineGrids<'a>,
    codes: &'a mut [[u8; ROWS]],
}

impl Kernel for Descend<'_> {
    type Output = usize;

    #[inline(always)]
    fn call<I: Isa>(mut self, isa: I) -> usize {
        let (mut changes, mut rows) = ([[0.0; LANES]; STEP], [0; STEP]);
        let (n, mut moved) = (self.residual.len(), 0);
        for start in (0..n).step_by(STEP) {
            let end = n.min(start + STEP);
            let mut count = 0;
            for col in start..end {
                let codes = self.codes[col];
                let change = self.step(isa, col);
                if self.codes[col] == codes {
                    continue;
                }
                moved += codes.iter().zip(&self.codes[col]).filter(|(a, b)| a != b).count();
                isa.store(change, &mut changes[count]);
                rows[count] = col as u32;
                count += 1;
                self.subtract_near(isa, change, col, start..end);
            }
            let (changes, rows) = (&changes[..count], &rows[..count]);
            self.h.subtract(isa, changes, rows, 0, &mut self.residual[..start]);
            self.h.subtract(isa, changes, rows, end, &mut self.residual[end..]);
        }
        moved
    }
}

impl Descend<'_> {
    /// Chooses the codes of a column anew and returns by how much their values changed.
    #[inline(always)]
    fn step<I: Isa>(&mut self, isa: I, col: usize) -> I::F {
        let grid = self.grids.of(col);
        let (scale, offset) = (isa.load(&grid.scale), isa.load(&grid.offset));
        let code = isa.float(isa.widen(&self.codes[col]));
        let exact = isa.mul(isa.load(&self.residual[col]), isa.load(&grid.inverse));
        let exact = isa.mul(exact, isa.splat(self.inverse_diagonal[col]));
        let clamped = isa.min(isa.max(isa.add(code, exact), isa.splat(0.0)), self.grids.top(isa));
        let new = isa.round(clamped);
        isa.narrow(new, &mut self.codes[col]);
        let value = |code: I::F| isa.add(isa.mul(code, scale), offset);
        isa.sub(value(isa.float(new)), value(code))
    }

    /// Brings the residual of the columns in `near` up to date.
    #[inline(always)]
    fn subtract_near<I: Isa>(&mut self, isa: I, change: I::F, col: usize, near: std::ops::Range<usize>) {
        let factors = &self.h.row(col)[near.clone()];
        for (residual, &factor) in self.residual[near].iter_mut().zip(factors) {
            isa.store(isa.sub(isa.load(residual), isa.mul(change, isa.splat(factor))), residual);
        }
    }
}
