//! The `affine` codec: group-wise scale and offset.
//!
//! A row of `cols` weights has `groups = ceil(cols / group)` groups, the last one maybe shorter. Its parts are
//!
//! ```text
//! codes    packed_len(cols) bytes: each group packed on its own, one after the other. A full group of 8 n codes
//!          takes n * bits whole bytes, so every group starts on a byte
//! scales   groups * 2 bytes: one little-endian f16 a group
//! offsets  f16:        groups * 2 bytes: one little-endian f16 a group
//!          zero point: packed_len(groups) bytes: the row's zero points packed as one run at the width of the codes
//! extra    1 byte: the row's exponent e, signed
//! ```
//!
//! and its weights are, with scale and offset as stored,
//!
//! ```text
//! f16:        w = (code * scale + offset) * 2^e
//! zero point: w = ((code - zero) * scale) * 2^e
//! ```
//!
//! Each operation is rounded to `f32`, in that order. A slab is its rows part by part; an empty `extra` means that every
//! exponent is 0. All rows take the same bytes, so any row is found without reading another.

use aq_core::{AffineEncoding, BitWidth, EncodedRows, GroupSize, OffsetKind};
use aq_kernels::float16::narrow_f16;
use aq_kernels::pack;
use half::f16;

/// Bytes that the parts of one row take; `extra` takes one more where it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowBytes {
    /// Packed codes.
    pub codes: usize,
    /// Scales.
    pub scales: usize,
    /// Offsets or packed zero points.
    pub offsets: usize,
}

impl RowBytes {
    /// The three together.
    pub fn total(self) -> usize {
        self.codes + self.scales + self.offsets
    }
}

/// Sizes of the parts of a row of `cols` weights.
///
/// ```
/// use aq_codec::row_bytes;
/// use aq_core::{AffineEncoding, BitWidth, GroupSize, OffsetKind};
/// let encoding = AffineEncoding {
///     bits: BitWidth::new(2)?,
///     group_size: GroupSize::new(128)?,
///     offset: OffsetKind::ZeroPoint,
/// };
/// let row = row_bytes(&encoding, 1152);
/// assert_eq!((row.codes, row.scales, row.offsets), (288, 18, 3));
/// # Ok::<(), aq_core::CoreError>(())
/// ```
pub fn row_bytes(encoding: &AffineEncoding, cols: usize) -> RowBytes {
    let groups = encoding.group_size.groups(cols);
    RowBytes {
        codes: encoding.bits.packed_len(cols),
        scales: groups * 2,
        offsets: match encoding.offset {
            OffsetKind::ZeroPoint => encoding.bits.packed_len(groups),
            OffsetKind::F16 => groups * 2,
        },
    }
}

/// One row before it is packed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AffineRow<'a> {
    /// One code a byte, none above the largest code of the width; one a weight.
    pub codes: &'a [u8],
    /// One scale a group, stored as the nearest f16.
    pub scales: &'a [f32],
    /// One offset a group, stored as the nearest f16, or one zero point a group, an integer in the range of the codes.
    pub offsets: &'a [f32],
    /// Power of two that the decoded weights are multiplied by.
    pub exponent: i8,
}

/// Packs `row` and appends it to `out`. Allocates only when the buffers of `out` have to grow.
///
/// # Panics
/// When there is not one scale and one offset a group.
///
/// # Examples
/// ```
/// use aq_codec::{AffineRow, decode_rows, push_row};
/// use aq_core::{AffineEncoding, BitWidth, EncodedRows, GroupSize, OffsetKind};
/// let encoding = AffineEncoding { bits: BitWidth::new(4)?, group_size: GroupSize::ROW, offset: OffsetKind::F16 };
/// let mut out = EncodedRows::default();
/// let row = AffineRow { codes: &[0, 1, 15], scales: &[0.5], offsets: &[-1.0], exponent: 0 };
/// push_row(&encoding, row, &mut out);
/// let mut weights = [0.0; 3];
/// decode_rows(&encoding, 3, out.parts(), 0, 1, &mut aq_codec::ReadScratch::default(), &mut weights)?;
/// assert_eq!(weights, [-1.0, -0.5, 6.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn push_row(encoding: &AffineEncoding, row: AffineRow<'_>, out: &mut EncodedRows) {
    let groups = encoding.group_size.groups(row.codes.len());
    assert_eq!((row.scales.len(), row.offsets.len()), (groups, groups), "one scale and one offset a group");
    push_codes(encoding.bits, encoding.group_size, row.codes, &mut out.codes);
    push_grids(encoding, row, out);
}

/// Appends to `out` all of `row` but its codes, for whoever packed them there already.
pub fn push_grids(encoding: &AffineEncoding, row: AffineRow<'_>, out: &mut EncodedRows) {
    push_f16(row.scales, &mut out.scales);
    match encoding.offset {
        OffsetKind::F16 => push_f16(row.offsets, &mut out.offsets),
        OffsetKind::ZeroPoint => push_zero_points(encoding, row.offsets, &mut out.offsets),
    }
    out.extra.push(row.exponent as u8);
    out.row_count += 1;
}

/// Packs each group on its own.
pub(crate) fn push_codes(bits: BitWidth, group_size: GroupSize, codes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bits.packed_len(codes.len()), 0);
    let mut rest = &mut out[start..];
    for group in codes.chunks(group_size.weights(codes.len())) {
        let (packed, after) = rest.split_at_mut(bits.packed_len(group.len()));
        pack::pack(bits.get(), group, packed);
        rest = after;
    }
}

pub(crate) fn push_f16(values: &[f32], out: &mut Vec<u8>) {
    let (mut halves, mut bytes) = ([f16::ZERO; 64], [[0; 2]; 64]);
    for values in values.chunks(64) {
        let (halves, bytes) = (&mut halves[..values.len()], &mut bytes[..values.len()]);
        narrow_f16(values, halves);
        bytes.iter_mut().zip(halves).for_each(|(bytes, half)| *bytes = half.to_le_bytes());
        out.extend_from_slice(bytes.as_flattened());
    }
}

/// The bytes before packing lie for a moment behind the packed ones, so no other buffer is needed.
fn push_zero_points(encoding: &AffineEncoding, zeros: &[f32], out: &mut Vec<u8>) {
    let start = out.len();
    let packed_len = encoding.bits.packed_len(zeros.len());
    out.resize(start + packed_len, 0);
    out.extend(zeros.iter().map(|&zero| zero as u8));
    let (packed, codes) = out[start..].split_at_mut(packed_len);
    pack::pack(encoding.bits.get(), codes, packed);
    out.truncate(start + packed_len);
}

/// Ends a slab: drops `extra` when every exponent is 0, as it is stored.
pub fn seal(rows: &mut EncodedRows) {
    if rows.extra.iter().all(|&e| e == 0) {
        rows.extra.clear();
    }
}
