//! The product with `f32` activations.

use super::{LANES, Matrix, MatrixOffsets, Row};
use crate::decode::Grid;
use crate::float16::{Convert, WidenF16};
use crate::isa::{Isa, Kernel};
use crate::lanes::{fold, pieces};
use crate::pack::{CHUNK, packed_len};

/// Rows at a time: enough chains of sums to hide their latency.
const ROWS: usize = 4;

pub(super) struct MatvecF32<'a> {
    pub(super) matrix: &'a Matrix<'a>,
    pub(super) x: &'a [f32],
    pub(super) y: &'a mut [f32],
}

impl Kernel for MatvecF32<'_> {
    type Output = ();

    #[inline(always)]
    fn call<I: Isa>(self, isa: I) {
        match self.matrix.bits {
            2 => self.bits::<2, I>(isa),
            4 => self.bits::<4, I>(isa),
            _ => self.bits::<8, I>(isa),
        }
    }
}

impl MatvecF32<'_> {
    #[inline(always)]
    fn bits<const BITS: usize, I: Isa>(self, isa: I) {
        let Self { matrix, x, y } = self;
        let (body, tail) = y.as_chunks_mut::<ROWS>();
        for (b, y) in body.iter_mut().enumerate() {
            let first = b * ROWS;
            let rows =
                [matrix.row(first), matrix.row(first + 1), matrix.row(first + 2), matrix.row(first + 3)];
            *y = dot_rows::<BITS, ROWS, I>(isa, matrix.group, rows, x);
        }
        for (i, y) in tail.iter_mut().enumerate() {
            *y = dot_rows::<BITS, 1, I>(isa, matrix.group, [matrix.row(body.len() * ROWS + i)], x)[0];
        }
    }
}

#[inline(always)]
fn dot_rows<const BITS: usize, const N: usize, I: Isa>(
    isa: I,
    group: usize,
    rows: [Row<'_>; N],
    x: &[f32],
) -> [f32; N] {
    let mut sums = [isa.splat(0.0); N];
    let piece = packed_len(BITS as u8, group.min(x.len()).max(1));
    for (g, x) in x.chunks(group).enumerate() {
        let mut grids = [grid::<BITS, I>(isa, &rows[0], g); N];
        for r in 1..N {
            grids[r] = grid::<BITS, I>(isa, &rows[r], g);
        }
        for (c, x) in x.chunks(CHUNK).enumerate() {
            let at = g * piece + c * CHUNK / 8 * BITS;
            for r in 0..N {
                let packed = &rows[r].packed[at..][..packed_len(BITS as u8, x.len())];
                if x.len() == CHUNK {
                    sums[r] = full::<BITS, I>(isa, &grids[r], packed, pieces(x), sums[r]);
                } else {
                    sums[r] = part::<BITS, I>(isa, &grids[r], packed, x, sums[r]);
                }
            }
        }
    }
    let (mut y, mut lanes) = ([0.0; N], [0.0; LANES]);
    for r in 0..N {
        isa.store(sums[r], &mut lanes);
        y[r] = fold(lanes);
    }
    y
}

#[inline(always)]
fn grid<const BITS: usize, I: Isa>(isa: I, row: &Row<'_>, g: usize) -> Grid<I> {
    let (zero, offset) = match row.offsets {
        MatrixOffsets::Zero(zeros) => (f32::from(zeros[g]), -0.0),
        MatrixOffsets::Value(offsets) => (0.0, WidenF16::convert(offsets[g])),
    };
    Grid::of(isa, WidenF16::convert(row.scales[g]), zero, offset, 1.0, BITS)
}

/// Adds the products of a full chunk in the order of its columns.
#[inline(always)]
fn full<const BITS: usize, I: Isa>(
    isa: I,
    grid: &Grid<I>,
    packed: &[u8],
    x: &[[f32; LANES]; 8],
    mut sum: I::F,
) -> I::F {
    let packed = pieces::<u8, BITS>(packed);
    let mut codes = [isa.widen(&packed[0]); BITS];
    for i in 1..BITS {
        codes[i] = isa.widen(&packed[i]);
    }
    for i in 0..8 {
        let weight = grid.low::<BITS>(isa, codes[i % BITS]);
        sum = isa.add(sum, isa.mul(weight, isa.load(&x[i])));
        codes[i % BITS] =
            if BITS == 2 { isa.shr::<2>(codes[i % BITS]) } else { isa.shr::<4>(codes[i % BITS]) };
    }
    sum
}

/// Adds the products of a shorter chunk; zeros fill up the lanes.
#[inline(always)]
fn part<const BITS: usize, I: Isa>(isa: I, grid: &Grid<I>, packed: &[u8], x: &[f32], mut sum: I::F) -> I::F {
    let (mut weights, mut padded) = ([0.0; CHUNK], [0.0; CHUNK]);
    grid.part::<BITS, f32>(isa, packed, x.len(), &mut weights);
    padded[..x.len()].copy_from_slice(x);
    for (w, x) in weights.as_chunks().0[..x.len().div_ceil(LANES)].iter().zip(padded.as_chunks().0) {
        sum = isa.add(sum, isa.mul(isa.load(w), isa.load(x)));
    }
    sum
}
