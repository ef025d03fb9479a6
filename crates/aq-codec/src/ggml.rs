//! The block types of ggml, byte for byte as ggml lays them out.
//!
//! Whatever the type, a block is a number of codes, and for each group of 16 or 32 of them a scale and perhaps a minimum:
//!
//! ```text
//! w = (d * scale) * value(code) - dmin * min        value(code) = code - bias, or an entry of a table
//! ```
//!
//! rounded to `f32` after each operation, as ggml does it. `d` and `dmin` are f16, `scale` and `min` small integers. [`GgmlBlock`] is that
//! form; the files of this module put it into the bytes of each family of types and take it out again. A row is its blocks one after the
//! other, all in `codes`.

mod k_minimum;
mod k_scale;
mod nonlinear;
mod plain;

use aq_core::{EncodedRows, GgmlType, SlabParts, TensorInfo};
use half::f16;

use crate::CodecError;
use crate::affine_read::{exact, expect_room, span};

pub use nonlinear::NONLINEAR;

/// The most weights, and the most groups, of a block.
const WEIGHTS: usize = 256;
const GROUPS: usize = 16;

/// A block of any type, unpacked. What a type does not have stays as [`GgmlBlock::default`] has it.
#[derive(Debug, Clone, PartialEq)]
pub struct GgmlBlock {
    /// What scales are multiplied by.
    pub d: f16,
    /// What minima are multiplied by; for `Q4_1` and `Q5_1` that is minus what ggml stores.
    pub dmin: f16,
    /// Scale of each group: 1 for blocks of one group, else -128 to 127 (`Q6_K`), -32 to 31 (`Q3_K`, `IQ4_XS`), 0 to 63 or 15.
    pub scales: [i8; GROUPS],
    /// Minimum of each group: 1 for blocks of one group, else 0 to 63 or 15.
    pub mins: [u8; GROUPS],
    /// One code a byte, from 0 up.
    pub codes: [u8; WEIGHTS],
}

impl Default for GgmlBlock {
    fn default() -> Self {
        Self { d: f16::ZERO, dmin: f16::ZERO, scales: [1; GROUPS], mins: [1; GROUPS], codes: [0; WEIGHTS] }
    }
}

/// What is taken from a code to get its value; 0 where there is a table or a minimum.
///
/// ```
/// assert_eq!(aq_codec::ggml::bias(aq_core::GgmlType::Q6_K), 32);
/// ```
pub fn bias(kind: GgmlType) -> u8 {
    match kind {
        GgmlType::Q3_K => 4,
        GgmlType::Q4_0 => 8,
        GgmlType::Q5_0 => 16,
        GgmlType::Q6_K => 32,
        GgmlType::Q8_0 => 128,
        _ => 0,
    }
}

/// Whether codes of the type pick entries of the table [`NONLINEAR`].
pub fn is_nonlinear(kind: GgmlType) -> bool {
    matches!(kind, GgmlType::IQ4_NL | GgmlType::IQ4_XS)
}

/// Whether groups of the type have a minimum.
pub fn has_minimum(kind: GgmlType) -> bool {
    use GgmlType::{Q2_K, Q4_1, Q4_K, Q5_1, Q5_K};
    matches!(kind, Q2_K | Q4_1 | Q4_K | Q5_1 | Q5_K)
}

/// Packs `block` and appends it to `out.codes`. Bits that the type has no place for are lost.
///
/// ```
/// use aq_codec::ggml::{GgmlBlock, push_block};
/// use aq_core::{EncodedRows, GgmlType};
/// let mut out = EncodedRows::default();
/// push_block(GgmlType::Q8_0, &GgmlBlock { d: half::f16::ONE, ..GgmlBlock::default() }, &mut out);
/// assert_eq!((out.codes.len(), out.codes[1], out.codes[2]), (34, 0x3c, 0x80));
/// ```
pub fn push_block(kind: GgmlType, block: &GgmlBlock, out: &mut EncodedRows) {
    let start = out.codes.len();
    out.codes.resize(start + kind.block_bytes(), 0);
    let bytes = &mut out.codes[start..];
    match kind {
        GgmlType::Q2_K | GgmlType::Q4_K | GgmlType::Q5_K => k_minimum::pack(kind, block, bytes),
        GgmlType::Q3_K | GgmlType::Q6_K => k_scale::pack(kind, block, bytes),
        GgmlType::IQ4_XS => nonlinear::pack(block, bytes),
        _ => plain::pack(kind, block, bytes),
    }
}

/// Takes a block apart. `bytes` are those of one block.
fn unpack(kind: GgmlType, bytes: &[u8], block: &mut GgmlBlock) {
    match kind {
        GgmlType::Q2_K | GgmlType::Q4_K | GgmlType::Q5_K => k_minimum::unpack(kind, bytes, block),
        GgmlType::Q3_K | GgmlType::Q6_K => k_scale::unpack(kind, bytes, block),
        GgmlType::IQ4_XS => nonlinear::unpack(bytes, block),
        _ => plain::unpack(kind, bytes, block),
    }
}

/// The weights of an unpacked block: `out` has as many elements as a block of the type has weights.
///
/// ```
/// use aq_codec::ggml::{GgmlBlock, decode_block};
/// let block = GgmlBlock { d: half::f16::from_f32(0.5), codes: [11; 256], ..GgmlBlock::default() };
/// let mut weights = [0.0; 32];
/// decode_block(aq_core::GgmlType::Q4_0, &block, &mut weights);
/// assert_eq!(weights, [1.5; 32]);
/// ```
pub fn decode_block(kind: GgmlType, block: &GgmlBlock, out: &mut [f32]) {
    let (d, dmin, group) = (block.d.to_f32(), block.dmin.to_f32(), kind.group_weights());
    let bias = i16::from(bias(kind));
    let groups =
        out.chunks_mut(group).zip(block.codes.chunks(group)).zip(block.scales.iter().zip(&block.mins));
    for ((out, codes), (&scale, &min)) in groups {
        let scale = d * f32::from(scale);
        if is_nonlinear(kind) {
            out.iter_mut()
                .zip(codes)
                .for_each(|(w, &c)| *w = scale * f32::from(NONLINEAR[usize::from(c & 15)]));
        } else if has_minimum(kind) {
            let min = dmin * f32::from(min);
            out.iter_mut().zip(codes).for_each(|(w, &c)| *w = scale * f32::from(c) - min);
        } else {
            out.iter_mut().zip(codes).for_each(|(w, &c)| *w = scale * f32::from(i16::from(c) - bias));
        }
    }
}

/// Checks that the parts are exactly `row_count` rows of the tensor.
pub(crate) fn check_rows(
    kind: GgmlType,
    info: &TensorInfo,
    parts: SlabParts<'_>,
    row_count: u64,
) -> Result<(), CodecError> {
    let row = kind.row_bytes(info.cols()).ok_or(CodecError::TooLarge { first: 0, count: row_count })?;
    exact("codes", parts.codes, row, row_count)?;
    let unused = [("scales", parts.scales), ("offsets", parts.offsets), ("extra", parts.extra)];
    unused.into_iter().try_for_each(|(part, bytes)| exact(part, bytes, 0, row_count))
}

/// Decodes `rows.1` rows from row `rows.0` of a slab on.
pub(crate) fn decode_rows(
    kind: GgmlType,
    cols: usize,
    parts: SlabParts<'_>,
    rows: (usize, usize),
    out: &mut [f32],
) -> Result<(), CodecError> {
    expect_room(out.len(), cols, rows.1)?;
    let row = kind.row_bytes(cols as u64).and_then(|bytes| usize::try_from(bytes).ok());
    let row = row.ok_or(CodecError::TooLarge { first: rows.0 as u64, count: rows.1 as u64 })?;
    let bytes = span("codes", parts.codes, row, rows)?;
    let mut block = GgmlBlock::default();
    let blocks = bytes.chunks_exact(kind.block_bytes()).zip(out.chunks_exact_mut(kind.block_weights()));
    for (bytes, out) in blocks {
        unpack(kind, bytes, &mut block);
        decode_block(kind, &block, out);
    }
    Ok(())
}

/// The f16 at `at`.
fn half_at(bytes: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Two bits of each of 256 codes, as `Q2_K` and `Q3_K` have them: byte `32 n + l` holds those of codes `128 n + 32 j + l`, j from 0 to 3.
fn pack_pairs(codes: &[u8; WEIGHTS], bytes: &mut [u8]) {
    for (codes, bytes) in codes.chunks_exact(128).zip(bytes.chunks_exact_mut(32)) {
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = (0..4).fold(0, |byte, j| byte | (codes[32 * j + l] & 3) << (2 * j));
        }
    }
}

fn unpack_pairs(bytes: &[u8], codes: &mut [u8; WEIGHTS]) {
    for (codes, bytes) in codes.chunks_exact_mut(128).zip(bytes.chunks_exact(32)) {
        for (j, codes) in codes.chunks_exact_mut(32).enumerate() {
            codes.iter_mut().zip(bytes).for_each(|(code, byte)| *code = byte >> (2 * j) & 3);
        }
    }
}

/// Four bits of each code of runs of `2 n` codes: byte `l` of a run's `n` holds codes `l` and `n + l`.
fn pack_nibbles(n: usize, codes: &[u8], bytes: &mut [u8]) {
    for (codes, bytes) in codes.chunks_exact(2 * n).zip(bytes.chunks_exact_mut(n)) {
        let (low, high) = codes.split_at(n);
        bytes
            .iter_mut()
            .zip(low.iter().zip(high))
            .for_each(|(byte, (low, high))| *byte = low & 15 | high << 4);
    }
}

fn unpack_nibbles(n: usize, bytes: &[u8], codes: &mut [u8]) {
    for (codes, bytes) in codes.chunks_exact_mut(2 * n).zip(bytes.chunks_exact(n)) {
        let (low, high) = codes.split_at_mut(n);
        low.iter_mut().zip(bytes).for_each(|(code, byte)| *code = byte & 15);
        high.iter_mut().zip(bytes).for_each(|(code, byte)| *code = byte >> 4);
    }
}
