//! Products with 8-bit activations on AVX2, which adds up two products of bytes in each lane of 16 bits at once.
//!
//! A lane of 16 bits holds the sum of eight such pairs when no code is above 15; codes of 8 bits are taken as two of 4 bits, the upper one
//! counting 16 times. So the sums are exact, and equal to those of plain loops. One token: the sums of 8 groups are folded
//! together. A block: four codes of a row are repeated in all lanes, and a lane is a token, so nothing is folded.

use std::arch::x86_64::__m256i;

use pulp::x86::V3;
use pulp::{NullaryFnOnce, cast};

use super::plain::{add_token_terms, finish_tokens};
use super::{BlockI8, LANES, Matrix, Row, TOKENS, TokenI8, finish};
use crate::pack::CHUNK;

/// Codes of a vector.
const VECTOR: usize = 32;

/// Vectors of codes in a chunk.
const VECTORS: usize = CHUNK / VECTOR;

/// Rows of a tile of [`matmul`]: their sums of 16 bits fill half of the registers.
const ROWS: usize = 4;

/// Whether all chunks of a matrix are ones that [`unpack`] takes.
pub(super) fn takes(matrix: &Matrix<'_>) -> bool {
    let group = matrix.group.min(matrix.cols);
    let whole = group > 0 && (group.is_multiple_of(CHUNK) || group == 64 || (group == 32 && matrix.bits > 2));
    whole && matrix.cols.is_multiple_of(group)
}

/// The caller has seen that the matrix [is taken](takes).
pub(super) fn matvec(simd: V3, matrix: &Matrix<'_>, token: TokenI8<'_>, y: &mut [f32]) {
    match matrix.bits {
        2 => simd.vectorize(Matvec::<2> { simd, matrix, token, y }),
        4 => simd.vectorize(Matvec::<4> { simd, matrix, token, y }),
        _ => simd.vectorize(Matvec::<8> { simd, matrix, token, y }),
    }
}

/// The caller has seen that the matrix [is taken](takes).
pub(super) fn matmul(simd: V3, matrix: &Matrix<'_>, block: BlockI8<'_>, y: &mut [[f32; TOKENS]]) {
    match matrix.bits {
        2 => simd.vectorize(Matmul::<2> { simd, matrix, block, y }),
        4 => simd.vectorize(Matmul::<4> { simd, matrix, block, y }),
        _ => simd.vectorize(Matmul::<8> { simd, matrix, block, y }),
    }
}

struct Matvec<'a, const BITS: usize> {
    simd: V3,
    matrix: &'a Matrix<'a>,
    token: TokenI8<'a>,
    y: &'a mut [f32],
}

impl<const BITS: usize> NullaryFnOnce for Matvec<'_, BITS> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { simd, matrix, token, y } = self;
        let group = matrix.group.min(matrix.cols);
        for (r, y) in y.iter_mut().enumerate() {
            let row = matrix.row(r);
            let mut lanes = [0.0; LANES];
            let batches = token.values.chunks(group * LANES).zip(row.packed.chunks(group * BITS * LANES / 8));
            for (b, (values, packed)) in batches.enumerate() {
                let dots = dot_groups::<BITS>(simd, group, values, packed);
                row.add_terms(b * LANES, &dots, token.sums, &mut lanes);
            }
            *y = finish(lanes, token.scale);
        }
    }
}

/// The products of up to 16 groups: lane `i` belongs to group `i`, the others are 0.
#[inline(always)]
fn dot_groups<const BITS: usize>(simd: V3, group: usize, values: &[i8], packed: &[u8]) -> [i32; LANES] {
    let mut sums = [simd.avx._mm256_setzero_si256(); LANES];
    let groups = values.chunks(group).zip(packed.chunks(group * BITS / 8));
    for (sum, (values, packed)) in sums.iter_mut().zip(groups) {
        // Constants, so that the usual lengths have no loops left.
        *sum = match group {
            32 => dot_chunk::<BITS>(simd, 32, packed, values),
            64 => dot_chunk::<BITS>(simd, 64, packed, values),
            _ => {
                let chunks = packed.chunks(CHUNK * BITS / 8).zip(values.chunks(CHUNK));
                chunks.fold(*sum, |sum, (packed, values)| {
                    simd.avx2._mm256_add_epi32(sum, dot_chunk::<BITS>(simd, CHUNK, packed, values))
                })
            }
        };
    }
    let [low, high] = [fold_eight(simd, &sums[..8]), fold_eight(simd, &sums[8..])];
    cast([low, high])
}

/// The products of a chunk of `n` codes, in 8 lanes.
#[inline(always)]
fn dot_chunk<const BITS: usize>(simd: V3, n: usize, packed: &[u8], values: &[i8]) -> __m256i {
    let values = values.as_chunks::<VECTOR>().0;
    let codes = unpack::<BITS>(simd, n, packed);
    let mut sum = simd.avx._mm256_setzero_si256();
    for plane in 0..planes(BITS) {
        let mut words = simd.avx._mm256_setzero_si256();
        for i in 0..n / VECTOR {
            let codes = nibble::<BITS>(simd, codes[i], plane);
            let pairs = simd.avx2._mm256_maddubs_epi16(codes, cast(values[i]));
            words = simd.avx2._mm256_add_epi16(words, pairs);
        }
        sum = add_words(simd, sum, words, plane);
    }
    sum
}

/// How many codes of at most 4 bits a code is taken as.
#[inline(always)]
const fn planes(bits: usize) -> usize {
    bits.div_ceil(4)
}

/// The lower or upper four bits of codes that have more.
#[inline(always)]
fn nibble<const BITS: usize>(simd: V3, codes: __m256i, plane: usize) -> __m256i {
    match (BITS, plane) {
        (8, 0) => simd.avx2._mm256_and_si256(codes, simd.avx._mm256_set1_epi8(15)),
        (8, _) => shifted::<4>(simd, codes, 15),
        _ => codes,
    }
}

/// Adds sums of 16 bits to those of 32; those of the upper four bits count 16 times.
#[inline(always)]
fn add_words(simd: V3, sum: __m256i, words: __m256i, plane: usize) -> __m256i {
    let weight = simd.avx._mm256_set1_epi16(if plane == 0 { 1 } else { 16 });
    simd.avx2._mm256_add_epi32(sum, simd.avx2._mm256_madd_epi16(words, weight))
}

/// The lanes of 8 vectors added up: lane `i` belongs to vector `i`.
#[inline(always)]
fn fold_eight(simd: V3, sums: &[__m256i]) -> __m256i {
    let pair = |i: usize| simd.avx2._mm256_hadd_epi32(sums[i], sums[i + 1]);
    let low = simd.avx2._mm256_hadd_epi32(pair(0), pair(2));
    let high = simd.avx2._mm256_hadd_epi32(pair(4), pair(6));
    let even = simd.avx2._mm256_permute2x128_si256::<0x20>(low, high);
    let odd = simd.avx2._mm256_permute2x128_si256::<0x31>(low, high);
    simd.avx2._mm256_add_epi32(even, odd)
}

/// The codes of a chunk of 128 or 64, or of 32 but not 2 bits, as bytes in order; vectors behind the last code are 0.
#[inline(always)]
fn unpack<const BITS: usize>(simd: V3, n: usize, packed: &[u8]) -> [__m256i; VECTORS] {
    let zero = simd.avx._mm256_setzero_si256();
    let mut codes = [zero; VECTORS];
    let (whole, rest) = packed.as_chunks::<VECTOR>();
    match (BITS, n) {
        (8, _) => {
            for (codes, &packed) in codes.iter_mut().zip(whole) {
                *codes = cast(packed);
            }
        }
        (4, 32) => codes[0] = halves::<0, 4>(simd, rest, 15),
        (4, _) => {
            let vectors = n / VECTOR / 2;
            for (i, &packed) in whole[..vectors].iter().enumerate() {
                codes[i] = simd.avx2._mm256_and_si256(cast(packed), simd.avx._mm256_set1_epi8(15));
                codes[i + vectors] = shifted::<4>(simd, cast(packed), 15);
            }
        }
        (_, 64) => {
            codes[0] = halves::<0, 2>(simd, rest, 3);
            codes[1] = halves::<4, 6>(simd, rest, 3);
        }
        _ => {
            let packed: __m256i = cast(whole[0]);
            codes = [
                simd.avx2._mm256_and_si256(packed, simd.avx._mm256_set1_epi8(3)),
                shifted::<2>(simd, packed, 3),
                shifted::<4>(simd, packed, 3),
                shifted::<6>(simd, packed, 3),
            ];
        }
    }
    codes
}

/// Each byte shifted right by `N`, and cut off.
#[inline(always)]
fn shifted<const N: i32>(simd: V3, bytes: __m256i, mask: i8) -> __m256i {
    simd.avx2._mm256_and_si256(simd.avx2._mm256_srli_epi16::<N>(bytes), simd.avx._mm256_set1_epi8(mask))
}

/// 16 bytes shifted right by `A`, then by `B`, and cut off.
#[inline(always)]
fn halves<const A: i32, const B: i32>(simd: V3, bytes: &[u8], mask: i8) -> __m256i {
    let bytes = cast(bytes.as_chunks::<16>().0[0]);
    let (a, b) = (simd.sse2._mm_srli_epi16::<A>(bytes), simd.sse2._mm_srli_epi16::<B>(bytes));
    simd.avx2._mm256_and_si256(cast([a, b]), simd.avx._mm256_set1_epi8(mask))
}

struct Matmul<'a, const BITS: usize> {
    simd: V3,
    matrix: &'a Matrix<'a>,
    block: BlockI8<'a>,
    y: &'a mut [[f32; TOKENS]],
}

impl<const BITS: usize> NullaryFnOnce for Matmul<'_, BITS> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { simd, matrix, block, y } = self;
        for (tile, y) in y.chunks_mut(ROWS).enumerate() {
            // Where there are fewer rows, the first one is repeated and its copies are dropped.
            let mut rows = [matrix.row(tile * ROWS); ROWS];
            for (r, row) in rows.iter_mut().enumerate().take(y.len()) {
                *row = matrix.row(tile * ROWS + r);
            }
            matmul_tile::<BITS>(simd, matrix, &rows, block, y);
        }
    }
}

#[inline(always)]
fn matmul_tile<const BITS: usize>(
    simd: V3,
    matrix: &Matrix<'_>,
    rows: &[Row<'_>; ROWS],
    block: BlockI8<'_>,
    y: &mut [[f32; TOKENS]],
) {
    let group = matrix.group.min(matrix.cols);
    let n = group.min(CHUNK);
    let mut lanes = [[[0.0_f32; TOKENS]; LANES]; ROWS];
    for (g, values) in block.values.chunks(group / 4).enumerate() {
        let mut sums = [[simd.avx._mm256_setzero_si256(); 2]; ROWS];
        for (c, values) in values.chunks(n / 4).enumerate() {
            let at = (g * group + c * n) * BITS / 8;
            let mut codes = [[[0_u8; VECTOR]; VECTORS]; ROWS];
            for (codes, row) in codes.iter_mut().zip(rows) {
                *codes = cast(unpack::<BITS>(simd, n, &row.packed[at..][..n * BITS / 8]));
            }
            for (i, values) in values.as_chunks::<{ VECTOR / 4 }>().0.iter().enumerate() {
                for plane in 0..planes(BITS) {
                    let codes = codes.map(|codes| cast(nibble::<BITS>(simd, cast(codes[i]), plane)));
                    add_products(simd, &codes, values, plane, &mut sums);
                }
            }
        }
        for ((row, lanes), sums) in rows.iter().zip(&mut lanes).zip(sums) {
            add_token_terms(row, g, &cast(sums), &block.sums[g], &mut lanes[g % LANES]);
        }
    }
    for (y, lanes) in y.iter_mut().zip(&lanes) {
        *y = finish_tokens(lanes, block.scales);
    }
}

/// Adds the products of 32 columns, the codes of each of which are below 16.
#[inline(always)]
fn add_products(
    simd: V3,
    codes: &[[[u8; 4]; VECTOR / 4]; ROWS],
    values: &[[[i8; 4]; TOKENS]; VECTOR / 4],
    plane: usize,
    sums: &mut [[__m256i; 2]; ROWS],
) {
    let mut words = [[simd.avx._mm256_setzero_si256(); 2]; ROWS];
    for (k, values) in values.iter().enumerate() {
        let values: [__m256i; 2] = cast(*values);
        for (words, codes) in words.iter_mut().zip(codes) {
            let four = simd.avx._mm256_set1_epi32(i32::from_le_bytes(codes[k]));
            for (words, values) in words.iter_mut().zip(values) {
                *words = simd.avx2._mm256_add_epi16(*words, simd.avx2._mm256_maddubs_epi16(four, values));
            }
        }
    }
    for (sums, words) in sums.iter_mut().zip(words) {
        for (sum, words) in sums.iter_mut().zip(words) {
            *sum = add_words(simd, *sum, words, plane);
        }
    }
}
