//! Products with 8-bit activations on AVX-512 VNNI, which adds up four products of bytes in each lane at once.
//!
//! One token: a row's codes and the token's values are read in order, 16 groups at a time, and their sums of 16 lanes
//! are folded together. A block: a lane is a token, so nothing is folded at all;
//! four codes of a row are repeated in all lanes.
#![expect(unsafe_code, reason = "calls of functions that need AVX-512 VNNI")]

use std::arch::x86_64::*;

use half::f16;
use pulp::cast;

use super::plain::finish_tokens;
use super::{BlockI8, LANES, Matrix, MatrixOffsets, Row, TOKENS, TokenI8, finish, widen};
use crate::pack::CHUNK;

/// Rows of a tile of [`matmul`]: as many sums as hide the latency of a product.
const ROWS: usize = 8;

/// Bytes between what [`matvec`] reads and what it has brought to the second level of the cache. To the first level, with
/// its few requests at a time, 4 bits reach 12 to 20 GB/s, depending on where the codes lie; to the second, 20 to 21.
const AHEAD: usize = 8192;

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

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn matvec_bits<const BITS: usize>(matrix: &Matrix<'_>, token: TokenI8<'_>, y: &mut [f32]) {
    let group = matrix.group.min(matrix.cols);
    if group == CHUNK {
        return matvec_chunks::<BITS>(matrix, token, y);
    }
    for (r, y) in y.iter_mut().enumerate() {
        let row = matrix.row(r);
        let mut lanes = _mm512_setzero_ps();
        let batches = token.values.chunks(group * LANES).zip(row.packed.chunks(group * BITS * LANES / 8));
        for (b, (values, packed)) in batches.enumerate() {
            let dots = dot_groups::<BITS>(group, values, packed);
            lanes = _mm512_add_ps(lanes, terms(&row, b * LANES, dots, token.sums));
        }
        *y = finish(cast(lanes), token.scale);
    }
}

/// Groups of one chunk, one row after the other: of two or four at once, memory serves 12 GB/s where it serves 20 of one.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn matvec_chunks<const BITS: usize>(matrix: &Matrix<'_>, token: TokenI8<'_>, y: &mut [f32]) {
    let (batches, rest) = token.values.as_chunks::<CHUNK>().0.as_chunks::<LANES>();
    let mut last = [[0; CHUNK]; LANES];
    last[..rest.len()].copy_from_slice(rest);
    let bytes = CHUNK / 8 * BITS;
    for (r, y) in y.iter_mut().enumerate() {
        let row = matrix.row(r);
        let mut lanes = _mm512_setzero_ps();
        for (b, values) in batches.iter().enumerate() {
            let dots = dot_quads::<BITS, 4>(values, &row.packed[b * LANES * bytes..]);
            lanes = _mm512_add_ps(lanes, terms(&row, b * LANES, dots, token.sums));
        }
        if !rest.is_empty() {
            let codes = &matrix.packed[r * row.packed.len() + batches.len() * LANES * bytes..];
            let dots = dot_rest::<BITS>(&last, rest.len(), codes);
            lanes = _mm512_add_ps(lanes, terms(&row, batches.len() * LANES, dots, token.sums));
        }
        *y = finish(cast(lanes), token.scale);
    }
}

/// The products of fewer than 16 groups of one chunk each, whose values are followed by zeros. Codes that are missing to
/// a multiple of four chunks are those of the next row, or zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn dot_rest<const BITS: usize>(values: &[[i8; CHUNK]; LANES], count: usize, codes: &[u8]) -> __m512i {
    let quads = count.div_ceil(4);
    let need = quads * 4 * CHUNK / 8 * BITS;
    let mut room;
    let codes = if codes.len() < need {
        room = [0; LANES * CHUNK];
        room[..codes.len()].copy_from_slice(codes);
        &room[..]
    } else {
        codes
    };
    match quads {
        1 => dot_quads::<BITS, 1>(values, codes),
        2 => dot_quads::<BITS, 2>(values, codes),
        3 => dot_quads::<BITS, 3>(values, codes),
        _ => dot_quads::<BITS, 4>(values, codes),
    }
}

/// The products of the first `4 * Q` groups of one chunk each: lane `i` belongs to group `i`, the others are 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn dot_quads<const BITS: usize, const Q: usize>(values: &[[i8; CHUNK]; LANES], packed: &[u8]) -> __m512i {
    let mut folded = [_mm512_setzero_si512(); 4];
    let bytes = CHUNK / 8 * BITS;
    for (q, folded) in folded.iter_mut().enumerate().take(Q) {
        let packed = &packed[q * 4 * bytes..][..4 * bytes];
        for line in (0..4 * bytes).step_by(64) {
            // A prefetch never faults, whatever the address.
            _mm_prefetch::<_MM_HINT_T1>(packed.as_ptr().wrapping_add(AHEAD + line).cast());
        }
        let mut sums = [_mm512_setzero_si512(); 4];
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = dot_chunk::<BITS>(*sum, &packed[i * bytes..][..bytes], &values[q * 4 + i]);
        }
        *folded = if BITS == 8 { fold_four(sums) } else { fold_four_small(sums) };
    }
    fold_fours(folded)
}

/// The products of up to 16 groups of any number of chunks: lane `i` belongs to group `i`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn dot_groups<const BITS: usize>(group: usize, values: &[i8], packed: &[u8]) -> __m512i {
    let mut sums = [_mm512_setzero_si512(); LANES];
    let groups = values.chunks(group).zip(packed.chunks(group / 8 * BITS));
    for (sum, (values, packed)) in sums.iter_mut().zip(groups) {
        for (values, packed) in values.as_chunks().0.iter().zip(packed.chunks_exact(CHUNK / 8 * BITS)) {
            *sum = dot_chunk::<BITS>(*sum, packed, values);
        }
    }
    let mut folded = [_mm512_setzero_si512(); 4];
    for (folded, sums) in folded.iter_mut().zip(sums.as_chunks().0) {
        *folded = fold_four(*sums);
    }
    fold_fours(folded)
}

/// The terms of the groups from `first` on, up to 16 of them; 0 in the lanes that are left.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn terms(row: &Row<'_>, first: usize, dots: __m512i, sums: &[i32]) -> __m512 {
    let scale = some_halves(&row.scales[first..]);
    let sums = some_integers(&sums[first..]);
    match row.offsets {
        MatrixOffsets::Zero(zeros) => {
            let zero = some_bytes(&zeros[first..]);
            let dots = _mm512_sub_epi32(dots, _mm512_mullo_epi32(zero, sums));
            _mm512_mul_ps(scale, _mm512_cvtepi32_ps(dots))
        }
        MatrixOffsets::Value(offsets) => {
            let offset = _mm512_mul_ps(some_halves(&offsets[first..]), _mm512_cvtepi32_ps(sums));
            _mm512_add_ps(_mm512_mul_ps(scale, _mm512_cvtepi32_ps(dots)), offset)
        }
    }
}

/// A bit for each of the first 16 elements that are there.
#[inline]
fn present(n: usize) -> u16 {
    u16::MAX >> (LANES - n.min(LANES))
}

/// The first 16 elements, with zeros for those that are missing.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn some_integers(x: &[i32]) -> __m512i {
    // SAFETY: only elements that are there are read.
    unsafe { _mm512_maskz_loadu_epi32(present(x.len()), x.as_ptr()) }
}

/// [`some_integers`] of bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn some_bytes(x: &[u8]) -> __m512i {
    // SAFETY: only elements that are there are read.
    _mm512_cvtepu8_epi32(unsafe { _mm_maskz_loadu_epi8(present(x.len()), x.as_ptr().cast()) })
}

/// [`some_integers`] of halves, as floats.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn some_halves(x: &[f16]) -> __m512 {
    // SAFETY: only elements that are there are read.
    _mm512_cvtph_ps(unsafe { _mm256_maskz_loadu_epi16(present(x.len()), x.as_ptr().cast()) })
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

/// In each 128 bits: the sums of those 128 bits of four vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn fold_four([a, b, c, d]: [__m512i; 4]) -> __m512i {
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
}

/// [`fold_four`] in fewer steps, for lanes of at most 8 products of 15 and 128: two of them fit into 16 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn fold_four_small([a, b, c, d]: [__m512i; 4]) -> __m512i {
    let ones = _mm512_set1_epi16(1);
    let ab = _mm512_madd_epi16(_mm512_packs_epi32(a, b), ones);
    let cd = _mm512_madd_epi16(_mm512_packs_epi32(c, d), ones);
    _mm512_madd_epi16(_mm512_packs_epi32(ab, cd), ones)
}

/// Sixteen sums from four times [`fold_four`], in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn fold_fours([a, b, c, d]: [__m512i; 4]) -> __m512i {
    fold_lanes(fold_lanes(a, b), fold_lanes(c, d))
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
