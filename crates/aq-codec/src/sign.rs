//! The `sign` codec: signs, with or without 0, and a scale for each group.
//!
//! ```text
//! codes    ceil(cols / 8) or ceil(cols / 5) bytes a row
//! scales   groups * 2 bytes a row: one little-endian f16 a group
//! offsets  nothing
//! extra    1 byte a row: the row's exponent e, signed; empty when every exponent is 0
//! ```
//!
//! Code 0 is -1 and the largest code is 1, so with `m` = 1 for two levels and 2 for three the weights are
//!
//! ```text
//! w = ((2 code / m - 1) * scale) * 2^e
//! ```
//!
//! which is exact but for what the exponent pushes out of the range of `f32`. A row is packed as one run, whatever its groups. Two levels: weight `i` is bit
//! `i % 8` of byte `i / 8`. Three levels: byte `b` is the sum of `3^k` times the code of weight `5 b + k`, at most 242. What the last byte
//! has room for besides is 0.

use aq_core::{EncodedRows, SignEncoding, SignLevels, SlabParts};

use crate::affine::push_f16;
use crate::affine_read::{exact, expect_room, exponents, power_of_two, read_f16, span};
use crate::{CodecError, ReadScratch};

/// One row before it is packed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignRow<'a> {
    /// One code a weight: 0 for -1; 1 for 1, or for 0 where there are three levels; 2 for 1.
    pub codes: &'a [u8],
    /// One scale a group, stored as the nearest f16.
    pub scales: &'a [f32],
    /// Power of two that the decoded weights are multiplied by.
    pub exponent: i8,
}

/// Packs `row` and appends it to `out`.
///
/// # Panics
/// When there is not one scale a group.
///
/// # Examples
/// ```
/// use aq_codec::{ReadScratch, SignRow, decode, push_sign_row};
/// use aq_core::{DType, EncodedRows, Encoding, GroupSize, SignEncoding, SignLevels, TensorInfo};
/// let encoding = SignEncoding { levels: SignLevels::Ternary, group_size: GroupSize::ROW };
/// let mut out = EncodedRows::default();
/// push_sign_row(&encoding, SignRow { codes: &[0, 1, 2], scales: &[0.5], exponent: 1 }, &mut out);
///
/// let info = TensorInfo::new("w", vec![1, 3], DType::F32)?;
/// let mut weights = [9.0; 3];
/// decode(&Encoding::Sign(encoding), &info, out.parts(), 1, 0, &mut ReadScratch::default(), &mut weights)?;
/// assert_eq!(weights, [-1.0, 0.0, 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn push_sign_row(encoding: &SignEncoding, row: SignRow<'_>, out: &mut EncodedRows) {
    assert_eq!(row.scales.len(), encoding.group_size.groups(row.codes.len()), "one scale a group");
    let pack = |codes: &[u8]| match encoding.levels {
        SignLevels::Binary => codes.iter().rev().fold(0, |byte, &code| byte << 1 | code),
        SignLevels::Ternary => codes.iter().rev().fold(0, |byte, &code| byte * 3 + code),
    };
    out.codes.extend(row.codes.chunks(encoding.levels.codes_per_byte()).map(pack));
    push_f16(row.scales, &mut out.scales);
    out.extra.push(row.exponent as u8);
    out.row_count += 1;
}

/// Bytes of the codes and of the scales of a row of `cols` weights.
pub(crate) fn row_bytes(encoding: &SignEncoding, cols: usize) -> (usize, usize) {
    (cols.div_ceil(encoding.levels.codes_per_byte()), encoding.group_size.groups(cols).saturating_mul(2))
}

/// Checks that the parts are exactly `row_count` rows of `cols` weights; `extra` may be empty.
pub(crate) fn check_parts(
    encoding: &SignEncoding,
    cols: usize,
    parts: SlabParts<'_>,
    row_count: u64,
) -> Result<(), CodecError> {
    let (codes, scales) = row_bytes(encoding, cols);
    exact("codes", parts.codes, codes as u64, row_count)?;
    exact("scales", parts.scales, scales as u64, row_count)?;
    exact("offsets", parts.offsets, 0, row_count)?;
    if parts.extra.is_empty() { Ok(()) } else { exact("extra", parts.extra, 1, row_count) }
}

/// Decodes `rows.1` rows from row `rows.0` of a slab on.
pub(crate) fn decode_rows(
    encoding: &SignEncoding,
    cols: usize,
    parts: SlabParts<'_>,
    rows: (usize, usize),
    scratch: &mut ReadScratch,
    out: &mut [f32],
) -> Result<(), CodecError> {
    expect_room(out.len(), cols, rows.1)?;
    let (packed, scale_bytes) = row_bytes(encoding, cols);
    let codes = span("codes", parts.codes, packed, rows)?;
    let scales = span("scales", parts.scales, scale_bytes, rows)?;
    let extra = exponents(parts.extra, rows)?;
    for (i, out) in out.chunks_exact_mut(cols.max(1)).enumerate() {
        read_f16(&scales[i * scale_bytes..][..scale_bytes], &mut scratch.scales);
        signs(encoding.levels, &codes[i * packed..][..packed], out)?;
        let factor = extra.get(i).map_or(1.0, |&e| power_of_two(e as i8));
        for (out, &scale) in out.chunks_mut(encoding.group_size.weights(cols)).zip(&scratch.scales) {
            out.iter_mut().for_each(|sign| *sign = (*sign * scale) * factor);
        }
    }
    Ok(())
}

/// Writes -1, 0 or 1 for each code of a row.
fn signs(levels: SignLevels, packed: &[u8], out: &mut [f32]) -> Result<(), CodecError> {
    match levels {
        SignLevels::Binary => {
            for (&byte, out) in packed.iter().zip(out.chunks_mut(8)) {
                out.iter_mut().enumerate().for_each(|(k, sign)| *sign = f32::from(byte >> k & 1) * 2.0 - 1.0);
            }
        }
        SignLevels::Ternary => {
            for (&byte, out) in packed.iter().zip(out.chunks_mut(5)) {
                let five = TRITS.get(usize::from(byte)).ok_or(CodecError::Damaged { part: "codes" })?;
                out.iter_mut().zip(five).for_each(|(sign, &value)| *sign = f32::from(value));
            }
        }
    }
    Ok(())
}

/// The five values that each byte of ternary codes stands for.
static TRITS: [[i8; 5]; 243] = {
    let (mut all, mut byte) = ([[0; 5]; 243], 0);
    while byte < 243 {
        let (mut rest, mut k) = (byte, 0);
        while k < 5 {
            all[byte][k] = (rest % 3) as i8 - 1;
            (rest, k) = (rest / 3, k + 1);
        }
        byte += 1;
    }
    all
};
