//! Products of a packed matrix with activations: `f32`, or 8 bits with one scale a token.
//!
//! The matrix is some rows of the `affine` codec at 2, 4 or 8 bits, every group packed on its own. With 8-bit
//! activations the sums within a group are integers and exact; each group then adds one `f32` term to lane
//! `group % 16` of its row, so one token and sixteen at a time give the same bits, at every level.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod float;
mod plain;
#[cfg(target_arch = "x86_64")]
mod vnni;

use half::f16;

use crate::dispatch;
#[cfg(target_arch = "x86_64")]
use crate::dispatch::{Token, token};
use crate::lanes::{LANES, clamp, fold, round_even};
use crate::pack::groups_len;

/// Tokens of a block for [`matmul_i8`].
pub const TOKENS: usize = LANES;

/// Rows of packed codes with their grids.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// The width of a code: 2, 4 or 8.
    pub bits: u8,
    /// Weights that share a grid; the last group of a row may be shorter.
    pub group: usize,
    /// Weights of a row.
    pub cols: usize,
    /// Packed codes, row after row.
    pub packed: &'a [u8],
    /// One scale a group, row after row.
    pub scales: &'a [f16],
    /// One offset a group, row after row.
    pub offsets: MatrixOffsets<'a>,
}

/// What code 0 stands for in each group.
#[derive(Debug, Clone, Copy)]
pub enum MatrixOffsets<'a> {
    /// The code that stands for 0.
    Zero(&'a [u8]),
    /// The value of code 0.
    Value(&'a [f16]),
}

/// One token as 8-bit integers.
#[derive(Debug, Clone, Copy)]
pub struct TokenI8<'a> {
    /// One integer a column.
    pub values: &'a [i8],
    /// The sum of the integers of each group.
    pub sums: &'a [i32],
    /// What 1 stands for.
    pub scale: f32,
}

/// A block of [`TOKENS`] tokens as 8-bit integers, interleaved for [`matmul_i8`].
#[derive(Debug, Clone, Copy)]
pub struct BlockI8<'a> {
    /// Four columns of the first token, the same four of the second, and so on; then the next four columns.
    pub values: &'a [[[i8; 4]; TOKENS]],
    /// The sum of the integers of each group, for each token.
    pub sums: &'a [[i32; TOKENS]],
    /// What 1 stands for, for each token.
    pub scales: &'a [f32; TOKENS],
}

/// Rounds a token to 8-bit integers in `-127..=127` and sums them up by group; returns the scale.
///
/// ```text
/// scale = max |x| / 127      values[i] = round_ties_even(x[i] * (1 / scale))
/// ```
///
/// # Panics
/// When `values` is not as long as `x`, or `sums` has not one element a group.
///
/// ```
/// let (mut values, mut sums) = ([0; 4], [0; 2]);
/// let scale = aq_kernels::product::quantize_token(&[1.0, -127.0, 63.0, 0.4], 2, &mut values, &mut sums);
/// assert_eq!((scale, values, sums), (1.0, [1, -127, 63, 0], [-126, 63]));
/// ```
pub fn quantize_token(x: &[f32], group: usize, values: &mut [i8], sums: &mut [i32]) -> f32 {
    assert_eq!(values.len(), x.len(), "one integer for each activation");
    assert_eq!(sums.len(), x.len().div_ceil(group), "one sum for each group");
    let (low, high) = crate::affine::min_max(x);
    let scale = high.max(-low).max(0.0) / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    dispatch::run(plain::Round { x, inverse, values });
    for (sum, values) in sums.iter_mut().zip(values.chunks(group)) {
        *sum = values.iter().map(|&v| i32::from(v)).sum();
    }
    scale
}

/// Puts up to [`TOKENS`] tokens of equal length into the order of [`BlockI8`]; missing ones become zeros.
///
/// # Panics
/// When there are more tokens, or `values` or `sums` do not have the length that the tokens ask for.
pub fn interleave(tokens: &[TokenI8<'_>], values: &mut [[[i8; 4]; TOKENS]], sums: &mut [[i32; TOKENS]]) {
    assert!(tokens.len() <= TOKENS, "at most {TOKENS} tokens");
    values.fill([[0; 4]; TOKENS]);
    sums.fill([0; TOKENS]);
    for (t, token) in tokens.iter().enumerate() {
        assert_eq!(
            (values.len(), sums.len()),
            (token.values.len().div_ceil(4), token.sums.len()),
            "room for a block"
        );
        for (four, to) in token.values.chunks(4).zip(values.iter_mut()) {
            to[t][..four.len()].copy_from_slice(four);
        }
        for (sum, to) in token.sums.iter().zip(sums.iter_mut()) {
            to[t] = *sum;
        }
    }
}

/// The product with one token of `f32`.
///
/// ```text
/// y[r] = sum(weight[r][c] * x[c])      in 16 lanes by column; product and sum each rounded to f32
/// ```
///
/// # Panics
/// When a length does not fit, or the group is no multiple of 16 and there is more than one in a row.
pub fn matvec_f32(matrix: &Matrix<'_>, x: &[f32], y: &mut [f32]) {
    matrix.check(x.len(), y.len());
    assert!(matrix.group.is_multiple_of(LANES) || matrix.groups() == 1, "groups of a multiple of {LANES}");
    crate::isa::run(float::MatvecF32 { matrix, x, y });
}

/// The product with one token of 8-bit integers.
///
/// ```text
/// dot = sum(code * value)      over the columns of a group, exact
/// term = scale * (dot - zero * sum)      or      scale * dot + offset * sum
/// y[r] = sum(term of each group) * token scale      in 16 lanes by group, each operation rounded to f32
/// ```
///
/// # Panics
/// When a length does not fit.
pub fn matvec_i8(matrix: &Matrix<'_>, token: TokenI8<'_>, y: &mut [f32]) {
    matrix.check(token.values.len(), y.len());
    assert_eq!(token.sums.len(), matrix.groups(), "one sum for each group");
    #[cfg(target_arch = "x86_64")]
    if has_vnni() && matrix.has_full_chunks() {
        return vnni::matvec(matrix, token, y);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = avx2_token().filter(|_| avx2::takes(matrix)) {
        return avx2::matvec(simd, matrix, token, y);
    }
    dispatch::run(plain::MatvecI8 { matrix, token, y });
}

/// The products with a block of tokens: `y[r][t]` is what [`matvec_i8`] gives for token `t`, to the last bit.
///
/// # Panics
/// When a length does not fit, or the group is no multiple of 4 and there is more than one in a row.
pub fn matmul_i8(matrix: &Matrix<'_>, block: BlockI8<'_>, y: &mut [[f32; TOKENS]]) {
    matrix.check(matrix.cols, y.len());
    assert!(matrix.group.is_multiple_of(4) || matrix.groups() == 1, "groups of a multiple of 4");
    assert_eq!(block.values.len(), matrix.cols.div_ceil(4), "four columns an element");
    assert_eq!(block.sums.len(), matrix.groups(), "one sum for each group");
    #[cfg(target_arch = "x86_64")]
    if has_vnni() && matrix.has_full_chunks() {
        return vnni::matmul(matrix, block, y);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = avx2_token().filter(|_| avx2::takes(matrix)) {
        return avx2::matmul(simd, matrix, block, y);
    }
    dispatch::run(plain::MatmulI8 { matrix, block, y });
}

/// Whether products of bytes run as AVX-512 VNNI in this thread.
#[cfg(target_arch = "x86_64")]
fn has_vnni() -> bool {
    matches!(token(), Token::Avx512(_)) && std::arch::is_x86_feature_detected!("avx512vnni")
}

/// AVX2, which is part of every level above it.
#[cfg(target_arch = "x86_64")]
fn avx2_token() -> Option<pulp::x86::V3> {
    match token() {
        Token::Scalar => None,
        Token::Avx2(v3) => Some(v3),
        Token::Avx512(v4) => Some(*v4),
    }
}

impl<'a> Matrix<'a> {
    fn groups(&self) -> usize {
        self.cols.div_ceil(self.group)
    }

    fn row_bytes(&self) -> usize {
        groups_len(self.bits, self.group, self.cols)
    }

    #[cfg(target_arch = "x86_64")]
    fn has_full_chunks(&self) -> bool {
        let group = self.group.min(self.cols);
        group > 0 && group.is_multiple_of(crate::pack::CHUNK) && self.cols.is_multiple_of(group)
    }

    fn check(&self, cols: usize, rows: usize) {
        assert!(matches!(self.bits, 2 | 4 | 8), "2, 4 or 8 bits, not {}", self.bits);
        let offsets = match self.offsets {
            MatrixOffsets::Zero(zeros) => zeros.len(),
            MatrixOffsets::Value(offsets) => offsets.len(),
        };
        let groups = rows * self.groups();
        assert_eq!(
            (self.cols, self.packed.len()),
            (cols, rows * self.row_bytes()),
            "columns and packed bytes"
        );
        assert_eq!((self.scales.len(), offsets), (groups, groups), "one scale and one offset for each group");
    }

    fn row(&self, r: usize) -> Row<'a> {
        let groups = self.groups();
        let range = r * groups..(r + 1) * groups;
        let bytes = self.row_bytes();
        Row {
            packed: &self.packed[r * bytes..][..bytes],
            scales: &self.scales[range.clone()],
            offsets: match self.offsets {
                MatrixOffsets::Zero(zeros) => MatrixOffsets::Zero(&zeros[range]),
                MatrixOffsets::Value(offsets) => MatrixOffsets::Value(&offsets[range]),
            },
        }
    }
}

/// One row of a [`Matrix`].
#[derive(Clone, Copy)]
struct Row<'a> {
    packed: &'a [u8],
    scales: &'a [f16],
    offsets: MatrixOffsets<'a>,
}

impl Row<'_> {
    /// Adds the terms of up to 16 groups from group `first` on, whose dot products are `dots`, to their lanes.
    #[inline(always)]
    fn add_terms(&self, first: usize, dots: &[i32; LANES], sums: &[i32], lanes: &mut [f32; LANES]) {
        let n = (self.scales.len() - first).min(LANES);
        let (mut scale, mut sum) = ([0.0; LANES], [0; LANES]);
        widen(&self.scales[first..first + n], &mut scale);
        sum[..n].copy_from_slice(&sums[first..first + n]);
        match self.offsets {
            MatrixOffsets::Zero(zeros) => {
                let mut zero = [0; LANES];
                zero[..n].copy_from_slice(&zeros[first..first + n]);
                for i in 0..LANES {
                    lanes[i] += term_zero(scale[i], i32::from(zero[i]), dots[i], sum[i]);
                }
            }
            MatrixOffsets::Value(offsets) => {
                let mut offset = [0.0; LANES];
                widen(&offsets[first..first + n], &mut offset);
                for i in 0..LANES {
                    lanes[i] += term_value(scale[i], offset[i], dots[i], sum[i]);
                }
            }
        }
    }
}

#[inline(always)]
fn widen(x: &[f16], out: &mut [f32; LANES]) {
    use crate::float16::{Convert, WidenF16};
    for (out, &x) in out.iter_mut().zip(x) {
        *out = WidenF16::convert(x);
    }
}

#[inline(always)]
fn term_zero(scale: f32, zero: i32, dot: i32, sum: i32) -> f32 {
    scale * dot.wrapping_sub(zero.wrapping_mul(sum)) as f32
}

#[inline(always)]
fn term_value(scale: f32, offset: f32, dot: i32, sum: i32) -> f32 {
    scale * dot as f32 + offset * sum as f32
}

/// The `f32` of each token from the lanes of its groups.
#[inline(always)]
fn finish(lanes: [f32; LANES], scale: f32) -> f32 {
    fold(lanes) * scale
}
