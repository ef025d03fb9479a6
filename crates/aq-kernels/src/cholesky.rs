//! The factor of an inverse that error feedback needs, with the same bits on every machine.
//!
//! Libraries of linear algebra choose block sizes and fused operations by the processor, and their results differ in
//! the last bits; here those bits decide codes. So each value is computed in one fixed order: products are subtracted one
//! at a time, each rounded. Blocks only change when a value is in a register.

use pulp::{Simd, WithSimd};

use crate::dispatch::run;
use crate::lanes::LANES;
use crate::tile::{DEPTH, EMPTY, Panel, Place, add_products};

/// A matrix that is not positive definite, or holds NaN or infinite values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotPositive {
    /// The column whose pivot is not positive and finite. Columns are factored from the last to the first.
    pub column: usize,
}

impl std::fmt::Display for NotPositive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the matrix is not positive definite at column {}", self.column)
    }
}

impl std::error::Error for NotPositive {}

/// Computes the upper triangular `U` with `H^-1 = U^T U` of a symmetric positive definite matrix.
///
/// ```text
/// H = L^T L                L lower triangular, row k from the last to the first:
///     L[k][k] = sqrt(h[k][k])
///     L[k][j] = h[k][j] / L[k][k]                j < k
///     h[i][j] = h[i][j] - L[k][i] * L[k][j]      j <= i < k
/// U = L^-T                 column k from the first to the last, with u = 1 at the start:
///     U[i][k] = u[i][k] / L[k][k]                i <= k
///     u[i][j] = u[i][j] - U[i][k] * L[j][k]      k < j
/// ```
///
/// Each operation is rounded to `f64`, in that order. This is the Cholesky factor of the inverse (Frantar et al., GPTQ,
/// ICLR 2023) without forming the inverse. Matrices are row-major `n * n`. Of `h` the lower triangle is read, and
/// replaced by `L`; the rest is left unspecified. `u` is overwritten, with zeros below the diagonal.
///
/// # Errors
/// [`NotPositive`] when a pivot `h[k][k]` is not positive and finite; `h` and `u` are then unspecified.
///
/// # Panics
/// When `h` or `u` has not `n * n` values.
///
/// ```
/// use aq_kernels::cholesky::{NotPositive, inverse_factor};
/// let (mut h, mut u) = ([5.0, 2.0, 2.0, 4.0], [0.0; 4]);
/// inverse_factor(&mut h, 2, &mut u)?;
/// assert_eq!(u, [0.5, -0.25, 0.0, 0.5]);
/// assert_eq!(inverse_factor(&mut [1.0, 2.0, 2.0, 1.0], 2, &mut u), Err(NotPositive { column: 0 }));
/// # Ok::<(), NotPositive>(())
/// ```
pub fn inverse_factor(h: &mut [f64], n: usize, u: &mut [f64]) -> Result<(), NotPositive> {
    assert_eq!((h.len(), u.len()), (n * n, n * n), "two matrices of {n} rows and columns");
    run(InverseFactor { h, n, u })
}

/// Computes the lower triangular `L` with `H = L^T L`: the first half of [`inverse_factor`], in the same order.
///
/// Of `h` the lower triangle is read, and replaced by `L`; the rest is left unspecified.
///
/// # Errors
/// [`NotPositive`] when a pivot is not positive and finite; `h` is then unspecified.
///
/// # Panics
/// When `h` has not `n * n` values.
///
/// ```
/// use aq_kernels::cholesky::{NotPositive, factor};
/// let mut h = [5.0, 2.0, 2.0, 4.0];
/// factor(&mut h, 2)?;
/// assert_eq!([h[0], h[2], h[3]], [2.0, 1.0, 2.0]);
/// # Ok::<(), NotPositive>(())
/// ```
pub fn factor(h: &mut [f64], n: usize) -> Result<(), NotPositive> {
    assert_eq!(h.len(), n * n, "{n} rows and columns");
    run(Factor { h, n })
}

struct Factor<'a> {
    h: &'a mut [f64],
    n: usize,
}

impl WithSimd for Factor<'_> {
    type Output = Result<(), NotPositive>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let Self { h, n } = self;
        let mut end = n;
        while end > 0 {
            let start = end.saturating_sub(DEPTH);
            factor_rows(h, n, start, end)?;
            subtract_rows(simd, h, n, start, end);
            end = start;
        }
        Ok(())
    }
}

struct InverseFactor<'a> {
    h: &'a mut [f64],
    n: usize,
    u: &'a mut [f64],
}

impl WithSimd for InverseFactor<'_> {
    type Output = Result<(), NotPositive>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let Self { h, n, u } = self;
        Factor { h, n }.with_simd(simd)?;
        u.fill(0.0);
        u.iter_mut().step_by(n + 1).for_each(|v| *v = 1.0);
        for start in (0..n).step_by(DEPTH) {
            let end = n.min(start + DEPTH);
            solve_columns(h, n, start, end, u);
            subtract_columns(simd, h, n, start, end, u);
        }
        Ok(())
    }
}

/// Finishes rows `start..end` of `L` and subtracts their products from each other.
#[inline(always)]
fn factor_rows(h: &mut [f64], n: usize, start: usize, end: usize) -> Result<(), NotPositive> {
    for k in (start..end).rev() {
        let (before, row) = h.split_at_mut(k * n);
        let pivot = row[k];
        if !(pivot > 0.0 && pivot.is_finite()) {
            return Err(NotPositive { column: k });
        }
        row[k] = pivot.sqrt();
        let (row, root) = (&mut row[..k], pivot.sqrt());
        row.iter_mut().for_each(|v| *v /= root);
        for i in start..k {
            let factor = row[i];
            for (h, v) in before[i * n..].iter_mut().zip(&row[..=i]) {
                *h -= factor * v;
            }
        }
    }
    Ok(())
}

/// Subtracts the products of rows `start..end` from the rows above them.
#[inline(always)]
fn subtract_rows<S: Simd>(simd: S, h: &mut [f64], n: usize, start: usize, end: usize) {
    let (mut a, mut b) = (EMPTY, EMPTY);
    for col in (0..start).step_by(LANES) {
        pack_rows(h, n, (start, end), col, 1.0, &mut b);
        for row in (col..start).step_by(LANES) {
            pack_rows(h, n, (start, end), row, -1.0, &mut a);
            let place = Place { n, row, col, rows_end: start, cols_end: start };
            let mut tile = place.load(h);
            add_products::<S, false>(simd, &a[..end - start], &b[..end - start], &mut tile);
            place.store(&tile, h);
        }
    }
}

/// 16 columns of rows of `L`, the last row first. Beyond `start` there are none that matter.
#[inline(always)]
fn pack_rows(h: &[f64], n: usize, (start, end): (usize, usize), col: usize, sign: f64, panel: &mut Panel) {
    let width = LANES.min(start - col);
    for (k, lanes) in (start..end).rev().zip(panel) {
        for (lane, v) in lanes.iter_mut().zip(&h[k * n + col..][..width]) {
            *lane = v * sign;
        }
    }
}

/// Finishes columns `start..end` of `U`.
#[inline(always)]
fn solve_columns(l: &[f64], n: usize, start: usize, end: usize, u: &mut [f64]) {
    let size = end - start;
    let mut upper = [[0.0; DEPTH]; DEPTH];
    for j in 0..size {
        for k in 0..=j {
            upper[k][j] = l[(start + j) * n + start + k];
        }
    }
    for i in 0..end {
        let row = &mut u[i * n + start..][..size];
        for k in i.saturating_sub(start)..size {
            row[k] /= upper[k][k];
            let factor = row[k];
            for (v, l) in row.iter_mut().zip(&upper[k]).skip(k + 1) {
                *v -= factor * l;
            }
        }
    }
}

/// Subtracts the products of columns `start..end` of `U` from the columns after them.
#[inline(always)]
fn subtract_columns<S: Simd>(simd: S, l: &[f64], n: usize, start: usize, end: usize, u: &mut [f64]) {
    let (mut a, mut b) = (EMPTY, EMPTY);
    for col in (end..n).step_by(LANES) {
        pack_columns(l, n, (start, end), (col, n), 1.0, &mut b);
        for row in (0..end).step_by(LANES) {
            pack_columns(u, n, (start, end), (row, end), -1.0, &mut a);
            let place = Place { n, row, col, rows_end: end, cols_end: n };
            let mut tile = place.load(u);
            add_products::<S, false>(simd, &a[..end - start], &b[..end - start], &mut tile);
            place.store(&tile, u);
        }
    }
}

/// Columns `start..end` of 16 rows from `row` up to `last`, turned.
#[inline(always)]
fn pack_columns(
    matrix: &[f64],
    n: usize,
    (start, end): (usize, usize),
    (row, last): (usize, usize),
    sign: f64,
    panel: &mut Panel,
) {
    for (i, row) in (row..last.min(row + LANES)).enumerate() {
        for (lanes, v) in panel.iter_mut().zip(&matrix[row * n + start..row * n + end]) {
            lanes[i] = v * sign;
        }
    }
}
