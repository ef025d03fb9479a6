//! Products with 8-bit activations on AVX-512 VNNI, which adds up four products of bytes in each lane at once.
//!
//! One token: a row's codes and the token's values are read in order, 16 groups at a time, and 16 sums of 16 lanes
//! are folded together. A block: a lane is a token, so nothing is folded at all;
//! four codes of a row are repeated in all lanes.
#![expect(unsafe_code, reason = "calls of functions that need AVX-512 VNNI")]

use std::arch::x86_64::*;

use pulp::cast;

use super::plain::finish_tokens;
use super::{BlockI8, LANES, Matrix, MatrixOffsets, Row, TOKENS, TokenI8, finish, widen};
use crate::pack::CHUNK;

/// Rows of a tile of [`matmul`]: as many sums as hide the latency of a product.
const ROWS: usize = 8;

/// Bytes between what [`matvec`] reads and what it asks for: about the latency of memory at its speed.
const AHEAD: usize = 2048;

/// The caller has seen that this processor has AVX-512 VNNI and that all chunks are full.
pub(super) fn matvec(matrix: &Matrix<'_>, token: TokenI8<'_>, y: &mut [f32]) {
    // SAFETY: `has_vnni` has found the level AVX-512 (F, BW, CD, DQ, VL) and the feature VNNI.
    unsafe {
        match matrix.bits {
            2 => matvec_bits::<2>(matrix, token, y),
            4 => matvec_bits::<4>(matrix, token, y),
            _ => matvec_bits::<8>(matrix, token, y),
        }
    }
}

/// The caller has seen that this processor has AVX-512 VNNI and that all chunks are full.
pub(super) fn matmul(matrix: &Matrix<'_>, block: BlockI8<'_>, y: &mut [[f32; TOKENS]]) {
    // SAFETY: `has_vnni` has found the level AVX-512 (F, BW, CD, DQ, VL) and the feature VNNI.
    unsafe {
        match matrix.bits {
            2 => matmul_bits::<2>(matrix, block, y),
            4 => matmul_bits::<4>(matrix, block, y),
            _ => matmul_bits::<8>(matrix, block, y),
        }
    }
}

/// One row after the other: four at once, which would share the loads of the token, took 1.6 times as long.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn matvec_bits<const BITS: usize>(matrix: &Matrix<'_>, token: TokenI8<'_>, y: &mut [f32]) {
    let group = matrix.group.min(matrix.cols);
    let (bytes, batch) = (group / 8 * BITS, group * LANES);
    for (r, y) in y.iter_mut().enumerate() {
        let row = matrix.row(r);
        let mut lanes = _mm512_setzero_ps();
        let batches = token.values.chunks(batch).zip(row.packed.chunks(bytes * LANES));
        for (b, (values, packed)) in batches.enumerate() {
            let dots = fold_all(&dot_groups::<BITS>(group, values, packed));
            lanes = match full_terms(&row, b * LANES, dots, token.sums) {
                Some(terms) => _mm512_add_ps(lanes, terms),
                None => {
                    let mut rest: [f32; LANES] = cast(lanes);
                    row.add_terms(b * LANES, &cast(dots), token.sums, &mut rest);
                    cast(rest)
                }
            };
        }
        *y = finish(cast(lanes), token.scale);
    }
}

/// The products of up to 16 groups, not yet folded.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn dot_groups<const BITS: usize>(group: usize, values: &[i8], packed: &[u8]) -> [__m512i; LANES] {
    let mut sums = [_mm512_setzero_si512(); LANES];
    let (values, packed) = (values.as_chunks::<CHUNK>().0, packed.chunks_exact(CHUNK / 8 * BITS));
    if group == CHUNK && values.len() == LANES {
        for ((sum, values), packed) in sums.iter_mut().zip(values).zip(packed) {
            // A prefetch never faults, whatever the address. With it 4 bits go from 13 to 17 GB/s at best, 12 to 14 in the median.
            _mm_prefetch::<_MM_HINT_T0>(packed.as_ptr().wrapping_add(AHEAD).cast());
            *sum = dot_chunk::<BITS>(_mm512_setzero_si512(), packed, values);
        }
    } else {
        for (c, (values, packed)) in values.iter().zip(packed).enumerate() {
            let sum = &mut sums[c * CHUNK / group];
            *sum = dot_chunk::<BITS>(*sum, packed, values);
        }
    }
    sums
}

/// The terms of 16 groups from group `first` on; `None` when there are fewer.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn full_terms(row: &Row<'_>, first: usize, dots: __m512i, sums: &[i32]) -> Option<__m512> {
    let scale = _mm512_cvtph_ps(cast(*row.scales[first..].first_chunk::<LANES>()?));
    let sums: __m512i = cast(*sums[first..].first_chunk::<LANES>()?);
    Some(match row.offsets {
        MatrixOffsets::Zero(zeros) => {
            let zero = _mm512_cvtepu8_epi32(cast(*zeros[first..].first_chunk::<LANES>()?));
            let dots = _mm512_sub_epi32(dots, _mm512_mullo_epi32(zero, sums));
            _mm512_mul_ps(scale, _mm512_cvtepi32_ps(dots))
        }
        MatrixOffsets::Value(offsets) => {
            let offset = _mm512_cvtph_ps(cast(*offsets[first..].first_chunk::<LANES>()?));
            let offset = _mm512_mul_ps(offset, _mm512_cvtepi32_ps(sums));
            _mm512_add_ps(_mm512_mul_ps(scale, _mm512_cvtepi32_ps(dots)), offset)
        }
    })
}

/// Adds the products of a chunk to the lanes of `sum`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn dot_chunk<const BITS: usize>(sum: __m512i, packed: &[u8], values: &[i8; CHUNK]) -> __m512i {
    let [low, high]: [__m512i; 2] = cast(*values);
    let [a, b] = codes::<BITS>(packed);
    _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum, a, low), b, high)
}

/// The codes of a full chunk as bytes, in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn codes<const BITS: usize>(packed: &[u8]) -> [__m512i; 2] {
    if BITS == 8 {
        return cast(*packed.first_chunk::<CHUNK>().expect("a full chunk"));
    }
    if BITS == 4 {
        let v: __m512i = cast(*packed.first_chunk::<64>().expect("a full chunk"));
        let mask = _mm512_set1_epi8(15);
        return [_mm512_and_si512(v, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(v), mask)];
    }
    let half: __m256i = cast(*packed.first_chunk::<32>().expect("a full chunk"));
    let (v, mask) = (_mm512_broadcast_i64x4(half), _mm512_set1_epi8(3));
    // The lower half of the lanes is shifted by 0 and 4 bits, the upper one by 2 and 6.
    let shift = _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi16(2));
    let v = _mm512_srlv_epi16(v, shift);
    [_mm512_and_si512(v, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(v), mask)]
}

/// Lane `i` of the result is the sum of the lanes of `sums[i]`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn fold_all(sums: &[__m512i; LANES]) -> __m512i {
    let four = [fold_four(sums, 0), fold_four(sums, 4), fold_four(sums, 8), fold_four(sums, 12)];
    let low = fold_lanes(four[0], four[1]);
    let high = fold_lanes(four[2], four[3]);
    fold_lanes(low, high)
}

/// In each 128 bits: the sums of those 128 bits of four vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn fold_four(sums: &[__m512i; LANES], at: usize) -> __m512i {
    let (a, b, c, d) = (sums[at], sums[at + 1], sums[at + 2], sums[at + 3]);
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
}

/// The even 128 bits of both vectors plus the odd ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn fold_lanes(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi32(_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn matmul_bits<const BITS: usize>(matrix: &Matrix<'_>, block: BlockI8<'_>, y: &mut [[f32; TOKENS]]) {
    for (tile, y) in y.chunks_mut(ROWS).enumerate() {
        let mut rows = [matrix.row(tile * ROWS); ROWS];
        for (r, row) in rows.iter_mut().enumerate().take(y.len()) {
            *row = matrix.row(tile * ROWS + r);
        }
        matmul_tile::<BITS>(matrix, &rows, block, y);
    }
}

/// The products of 8 rows; where there are fewer, the first one is repeated and its copies are dropped.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn matmul_tile<const BITS: usize>(
    matrix: &Matrix<'_>,
    rows: &[Row<'_>; ROWS],
    block: BlockI8<'_>,
    y: &mut [[f32; TOKENS]],
) {
    let group = matrix.group.min(matrix.cols);
    let mut lanes = [[[0.0_f32; TOKENS]; LANES]; ROWS];
    for (g, values) in block.values.chunks(group / 4).enumerate() {
        let mut sums = [_mm512_setzero_si512(); ROWS];
        for (c, values) in values.as_chunks::<{ CHUNK / 4 }>().0.iter().enumerate() {
            let at = (g * group + c * CHUNK) / 8 * BITS;
            let mut unpacked = [[[0_u8; 4]; CHUNK / 4]; ROWS];
            for (to, row) in unpacked.iter_mut().zip(rows) {
                *to = cast(codes::<BITS>(&row.packed[at..]));
            }
            for (k, values) in values.iter().enumerate() {
                let values: __m512i = cast(*values);
                for r in 0..ROWS {
                    let four = _mm512_set1_epi32(i32::from_le_bytes(unpacked[r][k]));
                    sums[r] = _mm512_dpbusd_epi32(sums[r], four, values);
                }
            }
        }
        for r in 0..ROWS {
            add_terms(&rows[r], g, sums[r], &block.sums[g], &mut lanes[r][g % LANES]);
        }
    }
    for (y, lanes) in y.iter_mut().zip(&lanes) {
        *y = finish_tokens(lanes, block.scales);
    }
}

/// Adds the terms of group `g` of a row, one lane a token.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn add_terms(row: &Row<'_>, g: usize, dots: __m512i, sums: &[i32; TOKENS], lanes: &mut [f32; TOKENS]) {
    let sums: __m512i = cast(*sums);
    let mut wide = [0.0; LANES];
    widen(&row.scales[g..=g], &mut wide);
    let scale = _mm512_set1_ps(wide[0]);
    let term = match row.offsets {
        MatrixOffsets::Zero(zeros) => {
            let zero = _mm512_mullo_epi32(_mm512_set1_epi32(i32::from(zeros[g])), sums);
            _mm512_mul_ps(scale, _mm512_cvtepi32_ps(_mm512_sub_epi32(dots, zero)))
        }
        MatrixOffsets::Value(offsets) => {
            widen(&offsets[g..=g], &mut wide);
            let offset = _mm512_mul_ps(_mm512_set1_ps(wide[0]), _mm512_cvtepi32_ps(sums));
            _mm512_add_ps(_mm512_mul_ps(scale, _mm512_cvtepi32_ps(dots)), offset)
        }
    };
    *lanes = cast(_mm512_add_ps(cast(*lanes), term));
}
