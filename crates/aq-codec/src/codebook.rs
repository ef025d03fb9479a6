//! The `codebook` codec: a small table of values and a scale for each group.
//!
//! Codes, scales and exponents are laid out as those of the `affine` codec. A slab has its own table:
//!
//! ```text
//! codes    packed_len(cols) bytes a row: each group packed on its own
//! scales   groups * 2 bytes a row: one little-endian f16 a group
//! offsets  2^bits * 2 bytes a slab: the table, little-endian f16
//! extra    1 byte a row: the row's exponent e, signed; empty when every exponent is 0
//! ```
//!
//! and the weights are
//!
//! ```text
//! w = (table[code] * scale) * 2^e
//! ```
//!
//! each operation rounded to `f32`, in that order. The first product is exact, as two f16 have 22 bits together.

use aq_core::{CodebookEncoding, EncodedRows, SlabParts};
use aq_kernels::codebook::{MAX_VALUES, look_up};
use aq_kernels::pack;
use half::f16;

use crate::affine::{push_codes, push_f16};
use crate::affine_read::{exact, expect_room, exponents, power_of_two, read_f16, span};
use crate::{CodecError, ReadScratch};

/// One row before it is packed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CodebookRow<'a> {
    /// One code a byte, none above the largest code of the width; one a weight.
    pub codes: &'a [u8],
    /// One scale a group, stored as the nearest f16.
    pub scales: &'a [f32],
    /// Power of two that the decoded weights are multiplied by.
    pub exponent: i8,
}

/// Bytes of the table of a slab.
///
/// ```
/// use aq_core::{BitWidth, CodebookEncoding, GroupSize};
/// let encoding = CodebookEncoding { bits: BitWidth::new(3)?, group_size: GroupSize::ROW };
/// assert_eq!(aq_codec::table_bytes(&encoding), 16);
/// # Ok::<(), aq_core::CoreError>(())
/// ```
pub fn table_bytes(encoding: &CodebookEncoding) -> u64 {
    2 << encoding.bits.get()
}

/// Packs `row` and appends it to `out`; the first row of a slab brings the table.
///
/// # Panics
/// When there is not one scale a group, or the table does not have one value a code.
///
/// # Examples
/// ```
/// use aq_codec::{CodebookRow, ReadScratch, decode, push_codebook_row};
/// use aq_core::{BitWidth, CodebookEncoding, DType, EncodedRows, Encoding, GroupSize, TensorInfo};
/// let encoding = CodebookEncoding { bits: BitWidth::new(2)?, group_size: GroupSize::ROW };
/// let row = CodebookRow { codes: &[0, 3, 1], scales: &[0.5], exponent: 1 };
/// let mut out = EncodedRows::default();
/// push_codebook_row(&encoding, &[-1.5, -0.5, 0.5, 1.5], row, &mut out);
///
/// let info = TensorInfo::new("w", vec![1, 3], DType::F32)?;
/// let mut weights = [0.0; 3];
/// decode(&Encoding::Codebook(encoding), &info, out.parts(), 1, 0, &mut ReadScratch::default(), &mut weights)?;
/// assert_eq!(weights, [-1.5, 1.5, -0.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn push_codebook_row(
    encoding: &CodebookEncoding,
    table: &[f32],
    row: CodebookRow<'_>,
    out: &mut EncodedRows,
) {
    let groups = encoding.group_size.groups(row.codes.len());
    assert_eq!(row.scales.len(), groups, "one scale a group");
    assert_eq!(table.len(), 1 << encoding.bits.get(), "one value a code");
    if out.row_count == 0 {
        push_f16(table, &mut out.offsets);
    }
    push_codes(encoding.bits, encoding.group_size, row.codes, &mut out.codes);
    push_f16(row.scales, &mut out.scales);
    out.extra.push(row.exponent as u8);
    out.row_count += 1;
}

/// Checks that the parts are exactly `row_count` rows of `cols` weights; `extra` may be empty.
pub(crate) fn check_parts(
    encoding: &CodebookEncoding,
    cols: usize,
    parts: SlabParts<'_>,
    row_count: u64,
) -> Result<(), CodecError> {
    let groups = encoding.group_size.groups(cols) as u64;
    exact("codes", parts.codes, encoding.bits.packed_len(cols) as u64, row_count)?;
    exact("scales", parts.scales, groups * 2, row_count)?;
    exact("offsets", parts.offsets, table_bytes(encoding), 1)?;
    if parts.extra.is_empty() { Ok(()) } else { exact("extra", parts.extra, 1, row_count) }
}

/// Decodes `rows.1` rows from row `rows.0` of a slab on.
pub(crate) fn decode_rows(
    encoding: &CodebookEncoding,
    cols: usize,
    parts: SlabParts<'_>,
    rows: (usize, usize),
    scratch: &mut ReadScratch,
    out: &mut [f32],
) -> Result<(), CodecError> {
    let (groups, packed) = (encoding.group_size.groups(cols), encoding.bits.packed_len(cols));
    expect_room(out.len(), cols, rows.1)?;
    let table = read_table(encoding, parts.offsets)?;
    let codes = span("codes", parts.codes, packed, rows)?;
    let scales = span("scales", parts.scales, groups * 2, rows)?;
    let extra = exponents(parts.extra, rows)?;
    for (i, out) in out.chunks_exact_mut(cols.max(1)).enumerate() {
        read_f16(&scales[i * groups * 2..][..groups * 2], &mut scratch.scales);
        let factor = extra.get(i).map_or(1.0, |&e| power_of_two(e as i8));
        decode_row(encoding, &table, &codes[i * packed..][..packed], factor, scratch, out);
    }
    Ok(())
}

fn read_table(encoding: &CodebookEncoding, bytes: &[u8]) -> Result<[f32; MAX_VALUES], CodecError> {
    exact("offsets", bytes, table_bytes(encoding), 1)?;
    let mut table = [0.0; MAX_VALUES];
    for (value, &bytes) in table.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *value = f16::from_le_bytes(bytes).to_f32();
    }
    Ok(table)
}

/// Decodes a row whose scales are in `scratch`: each group through the table times its scale.
fn decode_row(
    encoding: &CodebookEncoding,
    table: &[f32; MAX_VALUES],
    packed: &[u8],
    factor: f32,
    scratch: &mut ReadScratch,
    out: &mut [f32],
) {
    let size = encoding.group_size.weights(out.len());
    let mut rest = packed;
    for (out, &scale) in out.chunks_mut(size).zip(&scratch.scales) {
        let (packed, after) = rest.split_at(encoding.bits.packed_len(out.len()));
        scratch.codes.resize(out.len(), 0);
        pack::unpack(encoding.bits.get(), packed, &mut scratch.codes);
        look_up(&table.map(|value| (value * scale) * factor), &scratch.codes, out);
        rest = after;
    }
}
