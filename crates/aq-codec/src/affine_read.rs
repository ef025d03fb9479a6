//! Reading rows of the `affine` codec, whose layout `affine.rs` describes.

use aq_core::{AffineEncoding, OffsetKind, SlabParts};
use aq_kernels::affine::{dequantize_offset, dequantize_zero};
use aq_kernels::pack;
use half::f16;

use crate::{CodecError, row_bytes};

/// Checks that the parts are exactly `row_count` rows of `cols` weights; `extra` may be empty.
///
/// # Errors
/// [`CodecError::PartLength`] for the first part that is not, [`CodecError::TooLarge`] when no length could be right.
pub fn check_parts(
    encoding: &AffineEncoding,
    cols: usize,
    parts: SlabParts<'_>,
    row_count: u64,
) -> Result<(), CodecError> {
    let row = row_bytes(encoding, cols);
    let named = [("codes", parts.codes, row.codes), ("scales", parts.scales, row.scales)];
    for (part, bytes, row_len) in named.into_iter().chain([("offsets", parts.offsets, row.offsets)]) {
        exact(part, bytes, row_len as u64, row_count)?;
    }
    if parts.extra.is_empty() { Ok(()) } else { exact("extra", parts.extra, 1, row_count) }
}

/// Checks that `bytes` are `rows` rows of `row_len` bytes.
pub(crate) fn exact(part: &'static str, bytes: &[u8], row_len: u64, rows: u64) -> Result<(), CodecError> {
    let got = bytes.len() as u64;
    match row_len.checked_mul(rows) {
        Some(expected) if expected == got => Ok(()),
        Some(expected) => Err(CodecError::PartLength { part, got, expected }),
        None => Err(CodecError::TooLarge { first: 0, count: rows }),
    }
}

/// Decodes `row_count` rows from row `first_row` of a slab on into `out`, `row_count * cols` weights.
///
/// `codes_scratch` is a reusable buffer. Any bytes decode to some `f32`; only wrong lengths are errors.
///
/// # Errors
/// [`CodecError::PartLength`] when a part ends before the last row, [`CodecError::OutputLength`] when `out` does not
/// hold exactly the rows, [`CodecError::TooLarge`] when their bytes cannot be counted.
pub fn decode_rows(
    encoding: &AffineEncoding,
    cols: usize,
    parts: SlabParts<'_>,
    first_row: usize,
    row_count: usize,
    codes_scratch: &mut Vec<u8>,
    out: &mut [f32],
) -> Result<(), CodecError> {
    let row = row_bytes(encoding, cols);
    let rows = (first_row, row_count);
    let codes = span("codes", parts.codes, row.codes, rows)?;
    let scales = span("scales", parts.scales, row.scales, rows)?;
    let offsets = span("offsets", parts.offsets, row.offsets, rows)?;
    let extra = if parts.extra.is_empty() { &[] } else { span("extra", parts.extra, 1, rows)? };
    if row_count.checked_mul(cols) != Some(out.len()) {
        let expected = (row_count as u64).saturating_mul(cols as u64);
        return Err(CodecError::OutputLength { got: out.len(), expected });
    }
    if cols == 0 {
        return Ok(());
    }
    codes_scratch.resize(encoding.group_size.weights(cols).min(cols) + encoding.group_size.groups(cols), 0);
    for (i, weights) in out.chunks_exact_mut(cols).enumerate() {
        let stored = StoredRow {
            codes: &codes[i * row.codes..][..row.codes],
            scales: &scales[i * row.scales..][..row.scales],
            offsets: &offsets[i * row.offsets..][..row.offsets],
        };
        stored.decode(encoding, codes_scratch, weights);
        scale_by(weights, extra.get(i).map_or(0, |&e| e as i8));
    }
    Ok(())
}

/// Bytes of `rows.1` rows from row `rows.0` on.
pub(crate) fn span<'a>(
    part: &'static str,
    bytes: &'a [u8],
    row_len: usize,
    rows: (usize, usize),
) -> Result<&'a [u8], CodecError> {
    let (first, count) = rows;
    let too_large = CodecError::TooLarge { first: first as u64, count: count as u64 };
    let end = first.checked_add(count).and_then(|n| n.checked_mul(row_len)).ok_or(too_large)?;
    let short = CodecError::PartLength { part, got: bytes.len() as u64, expected: end as u64 };
    bytes.get(first * row_len..end).ok_or(short)
}

/// The stored parts of one row, of the right lengths.
struct StoredRow<'a> {
    codes: &'a [u8],
    scales: &'a [u8],
    offsets: &'a [u8],
}

impl StoredRow<'_> {
    fn decode(&self, encoding: &AffineEncoding, scratch: &mut [u8], out: &mut [f32]) {
        let (cols, bits) = (out.len(), encoding.bits);
        let (zeros, codes) = scratch.split_at_mut(encoding.group_size.groups(cols));
        if encoding.offset == OffsetKind::ZeroPoint {
            pack::unpack(bits.get(), self.offsets, zeros);
        }
        let mut packed = self.codes;
        for (group, weights) in out.chunks_mut(encoding.group_size.weights(cols)).enumerate() {
            let (bytes, after) = packed.split_at(bits.packed_len(weights.len()));
            let codes = &mut codes[..weights.len()];
            pack::unpack(bits.get(), bytes, codes);
            let scale = f16_at(self.scales, group);
            match encoding.offset {
                OffsetKind::ZeroPoint => dequantize_zero(codes, scale, zeros[group], weights),
                OffsetKind::F16 => dequantize_offset(codes, scale, f16_at(self.offsets, group), weights),
            }
            packed = after;
        }
    }
}

fn f16_at(bytes: &[u8], index: usize) -> f32 {
    f16::from_le_bytes([bytes[index * 2], bytes[index * 2 + 1]]).to_f32()
}

fn scale_by(weights: &mut [f32], exponent: i8) {
    if exponent != 0 {
        let factor = power_of_two(exponent);
        weights.iter_mut().for_each(|w| *w *= factor);
    }
}

/// `2^exponent`, exact for every `i8`.
///
/// ```
/// use aq_codec::power_of_two;
/// assert_eq!((power_of_two(-1), power_of_two(127)), (0.5, 1.7014118e38));
/// assert_eq!(power_of_two(-128), f32::MIN_POSITIVE / 4.0);
/// ```
pub fn power_of_two(exponent: i8) -> f32 {
    match i32::from(exponent) {
        e @ -126.. => f32::from_bits(((e + 127) as u32) << 23),
        e => f32::from_bits(1 << (e + 149)),
    }
}
