//! Products with 8-bit activations as plain loops, for every level without instructions of their own.

use pulp::{Simd, WithSimd};

use super::{
    BlockI8, LANES, Matrix, MatrixOffsets, Row, TOKENS, TokenI8, clamp, finish, fold, round_even, term_value,
    term_zero,
};
use crate::float16::{Convert, WidenF16};
use crate::pack::{CHUNK, packed_len, unpack_lanes};

/// Rounds activations to integers.
pub(super) struct Round<'a> {
    pub(super) x: &'a [f32],
    pub(super) inverse: f32,
    pub(super) values: &'a mut [i8],
}

impl WithSimd for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (value, x) in self.values.iter_mut().zip(self.x) {
            let magnitude = round_even(clamp((x * self.inverse).abs(), 127.0)) as i32;
            *value = (if *x < 0.0 { -magnitude } else { magnitude }) as i8;
        }
    }
}

/// Unpacks a chunk; what follows its last code is 0.
#[inline(always)]
fn unpack(bits: u8, packed: &[u8], n: usize) -> [u8; CHUNK] {
    let mut codes = [0; CHUNK];
    match bits {
        2 => unpack_lanes::<2>(packed, &mut codes[..n]),
        4 => unpack_lanes::<4>(packed, &mut codes[..n]),
        _ => unpack_lanes::<8>(packed, &mut codes[..n]),
    }
    codes
}

pub(super) struct MatvecI8<'a> {
    pub(super) matrix: &'a Matrix<'a>,
    pub(super) token: TokenI8<'a>,
    pub(super) y: &'a mut [f32],
}

impl WithSimd for MatvecI8<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { matrix, token, y } = self;
        let piece = packed_len(matrix.bits, matrix.group.min(matrix.cols).max(1));
        for (r, y) in y.iter_mut().enumerate() {
            let row = matrix.row(r);
            let mut lanes = [0.0; LANES];
            let groups = row.packed.chunks(piece).zip(token.values.chunks(matrix.group));
            let mut dots = [0; LANES];
            for (g, (packed, values)) in groups.enumerate() {
                dots[g % LANES] = dot_group(matrix.bits, packed, values);
                if g % LANES == LANES - 1 || g + 1 == row.scales.len() {
                    row.add_terms(g - g % LANES, &dots, token.sums, &mut lanes);
                    dots = [0; LANES];
                }
            }
            *y = finish(lanes, token.scale);
        }
    }
}

#[inline(always)]
fn dot_group(bits: u8, packed: &[u8], values: &[i8]) -> i32 {
    let mut sums = [0_i32; LANES];
    for (packed, values) in packed.chunks(CHUNK / 8 * usize::from(bits)).zip(values.chunks(CHUNK)) {
        let codes = unpack(bits, packed, values.len());
        let mut padded = [0; CHUNK];
        padded[..values.len()].copy_from_slice(values);
        for (codes, values) in codes.as_chunks::<LANES>().0.iter().zip(padded.as_chunks::<LANES>().0) {
            for i in 0..LANES {
                sums[i] = sums[i].wrapping_add(i32::from(codes[i]) * i32::from(values[i]));
            }
        }
    }
    fold_wrapping(sums)
}

#[inline(always)]
fn fold_wrapping(sums: [i32; LANES]) -> i32 {
    let mut total = 0_i32;
    for sum in sums {
        total = total.wrapping_add(sum);
    }
    total
}

pub(super) struct MatmulI8<'a> {
    pub(super) matrix: &'a Matrix<'a>,
    pub(super) block: BlockI8<'a>,
    pub(super) y: &'a mut [[f32; TOKENS]],
}

impl WithSimd for MatmulI8<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { matrix, block, y } = self;
        let group = matrix.group.min(matrix.cols).max(1);
        for (r, y) in y.iter_mut().enumerate() {
            let row = matrix.row(r);
            let mut lanes = [[0.0; TOKENS]; LANES];
            let pieces = row.packed.chunks(packed_len(matrix.bits, group));
            for (g, packed) in pieces.enumerate() {
                let n = group.min(matrix.cols - g * group);
                let values = &block.values[g * group / 4..][..n.div_ceil(4)];
                let dots = dot_tokens(matrix.bits, packed, n, values);
                add_token_terms(&row, g, &dots, &block.sums[g], &mut lanes[g % LANES]);
            }
            *y = finish_tokens(&lanes, block.scales);
        }
    }
}

/// Adds the terms of group `g` of a row to `to`, one lane a token.
#[inline(always)]
pub(super) fn add_token_terms(
    row: &Row<'_>,
    g: usize,
    dots: &[i32; TOKENS],
    sums: &[i32; TOKENS],
    to: &mut [f32; TOKENS],
) {
    let scale = WidenF16::convert(row.scales[g]);
    match row.offsets {
        MatrixOffsets::Zero(zeros) => {
            for t in 0..TOKENS {
                to[t] += term_zero(scale, i32::from(zeros[g]), dots[t], sums[t]);
            }
        }
        MatrixOffsets::Value(offsets) => {
            let offset = WidenF16::convert(offsets[g]);
            for t in 0..TOKENS {
                to[t] += term_value(scale, offset, dots[t], sums[t]);
            }
        }
    }
}

/// [`finish`] of each token.
#[inline(always)]
pub(super) fn finish_tokens(lanes: &[[f32; TOKENS]; LANES], scales: &[f32; TOKENS]) -> [f32; TOKENS] {
    let mut y = [0.0; TOKENS];
    for t in 0..TOKENS {
        let mut token = [0.0; LANES];
        for (lane, all) in token.iter_mut().zip(lanes) {
            *lane = all[t];
        }
        y[t] = fold(token) * scales[t];
    }
    y
}

#[inline(always)]
fn dot_tokens(bits: u8, packed: &[u8], n: usize, values: &[[[i8; 4]; TOKENS]]) -> [i32; TOKENS] {
    let mut dots = [0_i32; TOKENS];
    for (c, (packed, values)) in
        packed.chunks(CHUNK / 8 * usize::from(bits)).zip(values.chunks(CHUNK / 4)).enumerate()
    {
        let codes = unpack(bits, packed, CHUNK.min(n - c * CHUNK));
        for (four, values) in codes.as_chunks::<4>().0.iter().zip(values) {
            for t in 0..TOKENS {
                for j in 0..4 {
                    dots[t] = dots[t].wrapping_add(i32::from(four[j]) * i32::from(values[t][j]));
                }
            }
        }
    }
    dots
}
