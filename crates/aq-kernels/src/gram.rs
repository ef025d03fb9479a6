//! Gram matrices: the sums of products of input channels that a Hessian is made of.

use pulp::{Simd, WithSimd};

use crate::dispatch::run;
use crate::lanes::LANES;
use crate::tile::{DEPTH, EMPTY, Panel, Place, add_products};

/// Values of a block-diagonal matrix over `cols` columns in blocks of `block`, the last one maybe smaller.
///
/// ```
/// assert_eq!(aq_kernels::gram::block_diagonal_len(10, 4), 16 + 16 + 4);
/// ```
///
/// # Panics
/// When `block` is 0.
pub fn block_diagonal_len(cols: usize, block: usize) -> usize {
    let rest = cols % block;
    cols / block * block * block + rest * rest
}

/// Adds the Gram matrix of some rows to a block-diagonal matrix.
///
/// ```text
/// h[i][j] += y[r][i] * y[r][j]      for each row r in order
/// y[r][i]  = x[r][i] * s            s = sqrt(weight); root and product are rounded to f32
/// ```
///
/// `x` is row-major. Columns are cut into blocks of `block`; pairs of columns in different blocks are left out. The
/// blocks lie one after the other in `h`, each a full, symmetric, row-major matrix. A product of two `f32` is exact in `f64`; the
/// sum is rounded once a row, so giving rows in several calls changes no bit.
///
/// # Panics
/// When `x` is not whole rows, `block` is 0, or `h` has not [`block_diagonal_len`] values.
///
/// ```
/// let mut h = [0.0; 5];
/// aq_kernels::gram::add_rows(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 1.0, 2, &mut h);
/// assert_eq!(h, [17.0, 22.0, 22.0, 29.0, 45.0]);
/// ```
pub fn add_rows(x: &[f32], cols: usize, weight: f32, block: usize, h: &mut [f64]) {
    assert!(cols > 0 && x.len().is_multiple_of(cols), "whole rows of {cols}");
    assert_eq!(h.len(), block_diagonal_len(cols, block), "one value for each pair of columns of a block");
    run(AddRows { x, cols, factor: weight.sqrt(), block, h });
}

struct AddRows<'a> {
    x: &'a [f32],
    cols: usize,
    factor: f32,
    block: usize,
    h: &'a mut [f64],
}

impl WithSimd for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut rest = self.h;
        for first in (0..self.cols).step_by(self.block) {
            let size = self.block.min(self.cols - first);
            let (h, after) = rest.split_at_mut(size * size);
            for rows in self.x.chunks(DEPTH * self.cols) {
                let strip = Strip { rows, cols: self.cols, factor: self.factor, first, size };
                strip.add(simd, h);
            }
            mirror(h, size);
            rest = after;
        }
    }
}

/// Up to 64 rows and the columns of one block.
#[derive(Clone, Copy)]
struct Strip<'a> {
    rows: &'a [f32],
    cols: usize,
    factor: f32,
    first: usize,
    size: usize,
}

impl Strip<'_> {
    /// Adds to the tiles on and above the diagonal.
    #[inline(always)]
    fn add<S: Simd>(self, simd: S, h: &mut [f64]) {
        let (mut a, mut b) = (EMPTY, EMPTY);
        let n = self.size;
        for col in (0..n).step_by(LANES) {
            let depth = self.pack(col, &mut b);
            for row in (0..=col).step_by(LANES) {
                self.pack(row, &mut a);
                let place = Place { n, row, col, rows_end: n, cols_end: n };
                let mut tile = place.load(h);
                add_products::<S, true>(simd, &a[..depth], &b[..depth], &mut tile);
                place.store(&tile, h);
            }
        }
    }

    /// 16 columns from `col` of the block on; those beyond its end stay as they are. Returns the number of rows.
    #[inline(always)]
    fn pack(self, col: usize, panel: &mut Panel) -> usize {
        let width = LANES.min(self.size - col);
        let mut depth = 0;
        for (row, lanes) in self.rows.chunks_exact(self.cols).zip(panel) {
            let x = &row[self.first + col..][..width];
            for (lane, x) in lanes.iter_mut().zip(x) {
                *lane = f64::from(x * self.factor);
            }
            depth += 1;
        }
        depth
    }
}

/// Copies what lies above the diagonal below it, a tile at a time.
#[inline(always)]
fn mirror(h: &mut [f64], n: usize) {
    for row in (0..n).step_by(LANES) {
        for col in (0..=row).step_by(LANES) {
            for i in row..n.min(row + LANES) {
                for j in col..i.min(col + LANES) {
                    h[i * n + j] = h[j * n + i];
                }
            }
        }
    }
}
