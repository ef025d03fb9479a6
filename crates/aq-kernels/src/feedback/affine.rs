//! The sweep over grids of a scale and an offset.

use super::{Lanes, ROWS, Rounding, Sweep};
use crate::isa::{Isa, run};

/// The grid of one group of columns, for each of 16 rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AffineGrid {
    pub(crate) scale: Lanes,
    pub(crate) inverse: Lanes,
    pub(crate) offset: Lanes,
}

impl AffineGrid {
    /// The grids of value `code * scale + offset`. A scale of 0 gives code 0 everywhere.
    ///
    /// ```
    /// let grid = aq_kernels::feedback::AffineGrid::new([0.5; 16], [-1.0; 16]);
    /// assert_eq!((grid.scale()[3], grid.offset()[3]), (0.5, -1.0));
    /// ```
    pub fn new(scale: Lanes, offset: Lanes) -> Self {
        let inverse = scale.map(|scale| if scale > 0.0 { 1.0 / scale } else { 0.0 });
        Self { scale, inverse, offset }
    }

    /// The scale of each row.
    pub fn scale(&self) -> &Lanes {
        &self.scale
    }

    /// The value of code 0 in each row.
    pub fn offset(&self) -> &Lanes {
        &self.offset
    }
}

/// The grids of 16 rows.
#[derive(Debug, Clone, Copy)]
pub struct AffineGrids<'a> {
    /// One grid a group.
    pub grids: &'a [AffineGrid],
    /// The group of each column.
    pub group: &'a [u32],
    /// The largest code.
    pub max_code: u8,
}

impl AffineGrids<'_> {
    #[inline(always)]
    pub(super) fn of(&self, col: usize) -> &AffineGrid {
        &self.grids[self.group[col] as usize]
    }

    #[inline(always)]
    pub(super) fn top<I: Isa>(&self, isa: I) -> I::F {
        isa.splat(f32::from(self.max_code))
    }
}

/// Rounds 16 rows to codes of 8 bits at most, column by column, with error feedback.
///
/// ```text
/// for each column i in order:
///     code[i] = round_ties_even(clamp((w[i] - offset) * (1 / scale), 0, max_code))
///     value   = code[i] * scale + offset
///     w[j]    = w[j] - (w[i] - value) * feedback[i][j]      j > i
///     w[i]    = value
/// ```
///
/// Scale and offset are those of the column's group. Each operation is rounded to `f32`. `feedback` is
/// `U[i][j] / U[i][i]` of [`inverse_factor`](crate::cholesky::inverse_factor), `n * n` values for `n` columns; what lies on and below its
/// diagonal is not read. Afterwards `w` holds the values of the codes.
///
/// # Panics
/// When lengths differ from what is said above, or a group has no grid.
///
/// ```
/// use aq_kernels::feedback::{AffineGrid, AffineGrids, sweep_affine};
/// let grids = [AffineGrid::new([1.0; 16], [0.0; 16])];
/// let grids = AffineGrids { grids: &grids, group: &[0, 0], max_code: 3 };
/// let (mut w, mut codes) = ([[1.4; 16], [1.0; 16]], [[0; 16]; 2]);
/// sweep_affine(&mut w, &[0.0, -1.5, 0.0, 0.0], grids, &mut codes);
/// assert_eq!(codes, [[1; 16], [2; 16]], "the second column makes up for the first");
/// ```
pub fn sweep_affine(w: &mut [Lanes], feedback: &[f32], grids: AffineGrids<'_>, codes: &mut [[u8; ROWS]]) {
    let n = w.len();
    assert_eq!((codes.len(), grids.group.len()), (n, n), "codes and a group for each column");
    run(Sweep::new(w, feedback, Affine { grids, codes }));
}

struct Affine<'a> {
    grids: AffineGrids<'a>,
    codes: &'a mut [[u8; ROWS]],
}

impl Rounding for Affine<'_> {
    const LEAVES_ERRORS: bool = false;

    #[inline(always)]
    fn round<I: Isa>(&mut self, isa: I, col: usize, w: I::F) -> I::F {
        let grid = self.grids.of(col);
        let (scale, inverse, offset) =
            (isa.load(&grid.scale), isa.load(&grid.inverse), isa.load(&grid.offset));
        let exact = isa.mul(isa.sub(w, offset), inverse);
        let code = isa.round(isa.min(isa.max(exact, isa.splat(0.0)), self.grids.top(isa)));
        isa.narrow(code, &mut self.codes[col]);
        isa.add(isa.mul(isa.float(code), scale), offset)
    }
}
