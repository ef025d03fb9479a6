//! Error feedback: what rounding one weight loses, the weights after it make up for.
//!
//! A row `w` is rounded to `q` so that its output error stays small, `(w - q) H (w - q)` for the Hessian `H` of the
//! layer's inputs (Frantar et al., GPTQ, ICLR 2023). [`sweep_affine`] and [`sweep_uniform`] round the columns in order and move the rest of
//! the row by the error; [`descend`] then moves single codes where that lowers the error further.
//!
//! Sixteen rows are worked on at once, one in each lane: `w[col][lane]`. Lanes do not know of each other, so a row has the
//! same codes whatever rows it lies beside. Matrices are square, row-major and `f32`.

mod affine;
mod descend;
mod uniform;

use crate::isa::{Isa, Kernel, run};
use crate::lanes::LANES;

pub use affine::{AffineGrid, AffineGrids, sweep_affine};
pub use descend::descend;
pub use uniform::{UniformGrid, sweep_uniform};

/// Rows that are worked on at once.
pub const ROWS: usize = LANES;

/// One value for each of the rows that are worked on at once.
pub type Lanes = [f32; ROWS];

/// Columns that are rounded before what they lost reaches the columns after them.
const STEP: usize = 32;
/// Columns whose values are in registers at once.
const TILE: usize = 4;

/// Subtracts products with some rows of a matrix.
///
/// ```text
/// out[j] -= values[i] * matrix[rows[i]][first + j]      for i = 0, 1, ...
/// ```
///
/// Product and difference are each rounded to `f32`, in that order. `matrix` has `n` columns.
///
/// # Panics
/// When a row or column is outside of the matrix, or `values` and `rows` differ in length.
///
/// ```
/// use aq_kernels::feedback::subtract_products;
/// let mut out = [[1.0; 16]; 2];
/// subtract_products(&[[2.0; 16]], &[1], &[9.0, 9.0, 3.0, 4.0], 2, 0, &mut out);
/// assert_eq!(out, [[-5.0; 16], [-7.0; 16]]);
/// ```
pub fn subtract_products(
    values: &[Lanes],
    rows: &[u32],
    matrix: &[f32],
    n: usize,
    first: usize,
    out: &mut [Lanes],
) {
    assert_eq!(values.len(), rows.len(), "one value for each row");
    run(SubtractProducts { values, rows, matrix: Matrix { values: matrix, n }, first, out });
}

struct SubtractProducts<'a> {
    values: &'a [Lanes],
    rows: &'a [u32],
    matrix: Matrix<'a>,
    first: usize,
    out: &'a mut [Lanes],
}

impl Kernel for SubtractProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn call<I: Isa>(self, isa: I) {
        let Self { values, rows, matrix, first, out } = self;
        for (values, rows) in values.chunks(STEP).zip(rows.chunks(STEP)) {
            matrix.subtract(isa, values, rows, first, out);
        }
    }
}

/// A row-major matrix of `n` columns.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    values: &'a [f32],
    n: usize,
}

impl<'a> Matrix<'a> {
    #[inline(always)]
    fn row(self, row: usize) -> &'a [f32] {
        &self.values[row * self.n..][..self.n]
    }

    /// [`subtract_products`] for as many values as stay in cache.
    #[inline(always)]
    fn subtract<I: Isa>(self, isa: I, values: &[Lanes], rows: &[u32], first: usize, out: &mut [Lanes]) {
        let (tiles, rest) = out.as_chunks_mut::<TILE>();
        for (i, tile) in tiles.iter_mut().enumerate() {
            self.subtract_tile(isa, values, rows, first + i * TILE, tile);
        }
        let first = first + tiles.len() * TILE;
        for (i, out) in rest.iter_mut().enumerate() {
            self.subtract_tile(isa, values, rows, first + i, std::array::from_mut(out));
        }
    }

    #[inline(always)]
    fn subtract_tile<I: Isa, const N: usize>(
        self,
        isa: I,
        values: &[Lanes],
        rows: &[u32],
        first: usize,
        out: &mut [Lanes; N],
    ) {
        let mut sums = [isa.splat(0.0); N];
        for (sum, out) in sums.iter_mut().zip(out.iter()) {
            *sum = isa.load(out);
        }
        for (value, &row) in values.iter().zip(rows) {
            let value = isa.load(value);
            let factors: &[f32] = &self.row(row as usize)[first..][..N];
            for (sum, &factor) in sums.iter_mut().zip(factors) {
                *sum = isa.sub(*sum, isa.mul(value, isa.splat(factor)));
            }
        }
        for (sum, out) in sums.into_iter().zip(out) {
            isa.store(sum, out);
        }
    }
}

/// A way to round one column of 16 rows; it keeps the codes.
trait Rounding {
    /// Whether a sweep leaves what each column lost in its place, and not the values.
    const LEAVES_ERRORS: bool;

    /// Rounds the weights `w` of column `col` and returns the values of their codes.
    fn round<I: Isa>(&mut self, isa: I, col: usize, w: I::F) -> I::F;
}

/// Rounds all columns in order and lets those after each make up for what it lost.
struct Sweep<'a, R> {
    w: &'a mut [Lanes],
    feedback: Matrix<'a>,
    rounding: R,
}

impl<'a, R: Rounding> Sweep<'a, R> {
    fn new(w: &'a mut [Lanes], feedback: &'a [f32], rounding: R) -> Self {
        let n = w.len();
        assert_eq!(feedback.len(), n * n, "a row and a column of the matrix for each column");
        Self { w, feedback: Matrix { values: feedback, n }, rounding }
    }
}

impl<R: Rounding> Kernel for Sweep<'_, R> {
    type Output = ();

    #[inline(always)]
    fn call<I: Isa>(self, isa: I) {
        let Self { w, feedback, mut rounding } = self;
        let (mut errors, mut rows) = ([[0.0; LANES]; STEP], [0; STEP]);
        for start in (0..w.len()).step_by(STEP) {
            let count = STEP.min(w.len() - start);
            let (head, rest) = w[start..].split_at_mut(count);
            for i in 0..count {
                let weight = isa.load(&head[i]);
                let value = rounding.round(isa, start + i, weight);
                let error = isa.sub(weight, value);
                isa.store(if R::LEAVES_ERRORS { error } else { value }, &mut head[i]);
                isa.store(error, &mut errors[i]);
                rows[i] = (start + i) as u32;
                let factors = &feedback.row(start + i)[start + i + 1..];
                for (w, &factor) in head[i + 1..].iter_mut().zip(factors) {
                    isa.store(isa.sub(isa.load(w), isa.mul(error, isa.splat(factor))), w);
                }
            }
            feedback.subtract(isa, &errors[..count], &rows[..count], start + count, rest);
        }
    }
}
