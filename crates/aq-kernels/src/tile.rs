//! Sums of products on tiles of 16 by 16 values in `f64`: the inner loop of Gram matrices and factorizations.

use pulp::Simd;

use crate::lanes::LANES;

/// Products that are summed up before a tile goes back to memory.
pub(crate) const DEPTH: usize = 64;
/// Rows of a tile that are in registers at once, two vectors of columns each.
const ROWS: usize = 4;

pub(crate) type Tile = [[f64; LANES]; LANES];
/// `panel[k]` are the 16 factors that belong to product `k` of every sum.
pub(crate) type Panel = [[f64; LANES]; DEPTH];

/// A panel of zeros.
pub(crate) const EMPTY: Panel = [[0.0; LANES]; DEPTH];

/// `tile[i][j] += a[k][i] * b[k][j]`, one `k` after the other. Product and sum are each rounded to `f64`.
///
/// `EXACT` says that no product has to be rounded: one instruction then does both and gives the same bits.
#[inline(always)]
pub(crate) fn add_products<S: Simd, const EXACT: bool>(
    simd: S,
    a: &[[f64; LANES]],
    b: &[[f64; LANES]],
    tile: &mut Tile,
) {
    for i in (0..LANES).step_by(ROWS) {
        for v in (0..LANES / S::F64_LANES).step_by(2) {
            add_to_rows::<S, EXACT>(simd, a, b, tile, i, v);
        }
    }
}

/// Four rows from `i` on and the two vectors of columns from `v` on.
#[inline(always)]
fn add_to_rows<S: Simd, const EXACT: bool>(
    simd: S,
    a: &[[f64; LANES]],
    b: &[[f64; LANES]],
    tile: &mut Tile,
    i: usize,
    v: usize,
) {
    let mut sums = [[simd.splat_f64s(0.0); 2]; ROWS];
    for (sums, row) in sums.iter_mut().zip(&tile[i..]) {
        let row = S::as_simd_f64s(row).0;
        *sums = [row[v], row[v + 1]];
    }
    for (a, b) in a.iter().zip(b) {
        let b = S::as_simd_f64s(b).0;
        let b = [b[v], b[v + 1]];
        for r in 0..ROWS {
            let a = simd.splat_f64s(a[i + r]);
            for h in 0..2 {
                sums[r][h] = if EXACT && !S::IS_SCALAR {
                    simd.mul_add_f64s(a, b[h], sums[r][h])
                } else {
                    simd.add_f64s(sums[r][h], simd.mul_f64s(a, b[h]))
                };
            }
        }
    }
    for (sums, row) in sums.iter().zip(&mut tile[i..]) {
        let row = S::as_mut_simd_f64s(row).0;
        (row[v], row[v + 1]) = (sums[0], sums[1]);
    }
}

/// Where a tile lies in a row-major square matrix: it may reach over the edge.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// Rows and columns of the matrix.
    pub(crate) n: usize,
    pub(crate) row: usize,
    pub(crate) col: usize,
    /// The tile ends before this row.
    pub(crate) rows_end: usize,
    /// The tile ends before this column.
    pub(crate) cols_end: usize,
}

impl Place {
    /// The tile, with zeros beyond the edge.
    #[inline(always)]
    pub(crate) fn load(self, matrix: &[f64]) -> Tile {
        let mut tile = [[0.0; LANES]; LANES];
        let width = LANES.min(self.cols_end - self.col);
        for (i, row) in (self.row..self.rows_end.min(self.row + LANES)).enumerate() {
            tile[i][..width].copy_from_slice(&matrix[row * self.n + self.col..][..width]);
        }
        tile
    }

    /// Writes the tile back as far as it lies in the matrix.
    #[inline(always)]
    pub(crate) fn store(self, tile: &Tile, matrix: &mut [f64]) {
        let width = LANES.min(self.cols_end - self.col);
        for (i, row) in (self.row..self.rows_end.min(self.row + LANES)).enumerate() {
            matrix[row * self.n + self.col..][..width].copy_from_slice(&tile[i][..width]);
        }
    }
}
