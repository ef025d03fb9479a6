//! Reading rows of a slab.

use aq_core::{SlabParts, TensorInfo, TrellisEncoding};
use aq_kernels::pack::packed_len;
use aq_kernels::trellis::{SEQUENCE, decode};
use half::f16;

use super::{Trellis, lengths};
use crate::affine_read::{exact, expect_room, exponents, span};
use crate::{CodecError, power_of_two};

/// Checks that the parts are exactly `row_count` rows of the tensor, of a trellis that there is.
pub(crate) fn check_rows(
    encoding: TrellisEncoding,
    info: &TensorInfo,
    parts: SlabParts<'_>,
    row_count: u64,
) -> Result<(), CodecError> {
    let too_large = CodecError::TooLarge { first: 0, count: row_count };
    let [codes, scales, offsets, extra] = lengths(info, encoding, row_count).ok_or(too_large)?;
    for (part, bytes, len) in
        [("codes", parts.codes, codes), ("scales", parts.scales, scales), ("offsets", parts.offsets, offsets)]
    {
        exact(part, bytes, len, 1)?;
    }
    trellis_of(encoding, parts)?;
    if parts.extra.is_empty() { Ok(()) } else { exact("extra", parts.extra, extra, 1) }
}

/// Decodes `rows` rows from row `first` of a slab on into `out`.
pub(crate) fn decode_rows(
    encoding: TrellisEncoding,
    cols: usize,
    parts: SlabParts<'_>,
    (first, rows): (usize, usize),
    out: &mut [f32],
) -> Result<(), CodecError> {
    expect_room(out.len(), cols, rows)?;
    if out.is_empty() {
        return Ok(());
    }
    let trellis = trellis_of(encoding, parts)?;
    let (row_codes, row_scales) = (packed_len(trellis.bits(), cols), 2 * cols.div_ceil(SEQUENCE));
    let codes = span("codes", parts.codes, row_codes, (first, rows))?;
    let scales = span("scales", parts.scales, row_scales, (first, rows))?;
    let exponents = exponents(parts.extra, (first, rows))?;
    let rows = out.chunks_mut(cols).zip(codes.chunks(row_codes)).zip(scales.chunks(row_scales));
    for (i, ((out, codes), scales)) in rows.enumerate() {
        let factor = power_of_two(exponents.get(i).map_or(0, |&e| e as i8));
        decode_row(trellis, codes, scales, factor, out);
    }
    Ok(())
}

fn decode_row(trellis: Trellis, codes: &[u8], scales: &[u8], factor: f32, out: &mut [f32]) {
    let full = packed_len(trellis.bits(), SEQUENCE);
    let sequences = out.chunks_mut(SEQUENCE).zip(codes.chunks(full)).zip(scales.as_chunks().0);
    for ((out, codes), &scale) in sequences {
        let scale = f16::from_le_bytes(scale);
        let table = trellis.table(usize::from(scale.is_sign_negative()));
        decode(trellis.bits(), table, codes, scale.to_f32().abs(), factor, out);
    }
}

/// The trellis that a slab names.
fn trellis_of(encoding: TrellisEncoding, parts: SlabParts<'_>) -> Result<Trellis, CodecError> {
    match parts.offsets {
        &[state_bits] => {
            Trellis::new(encoding.bits, state_bits).ok_or(CodecError::Damaged { part: "offsets" })
        }
        other => Err(CodecError::PartLength { part: "offsets", got: other.len() as u64, expected: 1 }),
    }
}
