//! Reading rows of the `affine` codec, whose layout `affine.rs` describes.

use aq_core::{AffineEncoding, OffsetKind, RowData, SlabParts};
use aq_kernels::decode::{Grids, Offsets, compare, dequantize};
use aq_kernels::float16::widen_f16;
use aq_kernels::metric::Comparison;
use aq_kernels::{Weights, WeightsMut, pack};
use half::f16;

use crate::entropy::DecodeScratch;
use crate::{CodecError, RowBytes, row_bytes};

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

/// Reusable buffers for reading rows.
#[derive(Debug, Default)]
pub struct ReadScratch {
    zeros: Vec<u8>,
    pub(crate) codes: Vec<u8>,
    pub(crate) scales: Vec<f32>,
    pub(crate) columns: Vec<f32>,
    offsets: Vec<f32>,
    decoded: Vec<f32>,
    widened: Vec<f32>,
    pub(crate) entropy: DecodeScratch,
}

impl ReadScratch {
    /// Room for `n` decoded weights, to be given back with [`ReadScratch::keep_decoded`].
    pub(crate) fn take_decoded(&mut self, n: usize) -> Vec<f32> {
        let mut decoded = std::mem::take(&mut self.decoded);
        decoded.resize(n, 0.0);
        decoded
    }

    pub(crate) fn keep_decoded(&mut self, decoded: Vec<f32>) {
        self.decoded = decoded;
    }

    /// Room for `n` widened weights.
    pub(crate) fn widened(&mut self, n: usize) -> &mut [f32] {
        self.widened.resize(n, 0.0);
        &mut self.widened
    }
}

/// Decodes `row_count` rows from row `first_row` of a slab on into `out`, `row_count * cols` weights.
///
/// Any bytes decode to some `f32`; only wrong lengths are errors.
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
    scratch: &mut ReadScratch,
    out: &mut [f32],
) -> Result<(), CodecError> {
    let rows = StoredRows::new(encoding, cols, parts, (first_row, row_count), out.len())?;
    for (i, weights) in out.chunks_exact_mut(cols.max(1)).enumerate() {
        let grids = rows.grids(i, scratch);
        dequantize(rows.bits(), rows.group(), rows.codes(i), grids, WeightsMut::F32(weights));
    }
    Ok(())
}

/// Compares rows with the weights they were made of and merges each row into `total`: what decoding them and comparing row by
/// row would give, to the last bit, without writing the decoded weights down.
///
/// # Errors
/// As [`decode_rows`], where `weights` stands for `out`.
#[allow(clippy::too_many_arguments, reason = "which rows of what, against what, into what")]
pub fn compare_rows(
    encoding: &AffineEncoding,
    cols: usize,
    parts: SlabParts<'_>,
    first_row: usize,
    row_count: usize,
    weights: RowData<'_>,
    scratch: &mut ReadScratch,
    total: &mut Comparison,
) -> Result<(), CodecError> {
    let rows = StoredRows::new(encoding, cols, parts, (first_row, row_count), weights.len())?;
    for i in 0..if cols == 0 { 0 } else { row_count } {
        let range = i * cols..(i + 1) * cols;
        let weights = match weights {
            RowData::F32(x) => Weights::F32(&x[range]),
            RowData::F16(x) => Weights::F16(&x[range]),
            RowData::BF16(x) => Weights::BF16(&x[range]),
        };
        let grids = rows.grids(i, scratch);
        total.merge(&compare(rows.bits(), rows.group(), weights, rows.codes(i), grids));
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

/// The exponents of `rows.1` rows from row `rows.0` on; none where all are 0.
pub(crate) fn exponents(extra: &[u8], rows: (usize, usize)) -> Result<&[u8], CodecError> {
    if extra.is_empty() { Ok(&[]) } else { span("extra", extra, 1, rows) }
}

/// Checks that there is room for exactly `rows` rows of `cols` weights.
pub(crate) fn expect_room(weights: usize, cols: usize, rows: usize) -> Result<(), CodecError> {
    if rows.checked_mul(cols) == Some(weights) {
        return Ok(());
    }
    Err(CodecError::OutputLength { got: weights, expected: (rows as u64).saturating_mul(cols as u64) })
}

/// Stored rows whose parts have the right lengths.
struct StoredRows<'a> {
    encoding: &'a AffineEncoding,
    cols: usize,
    row: RowBytes,
    codes: &'a [u8],
    scales: &'a [u8],
    offsets: &'a [u8],
    extra: &'a [u8],
}

impl<'a> StoredRows<'a> {
    fn new(
        encoding: &'a AffineEncoding,
        cols: usize,
        parts: SlabParts<'a>,
        rows: (usize, usize),
        weights: usize,
    ) -> Result<Self, CodecError> {
        let row = row_bytes(encoding, cols);
        expect_room(weights, cols, rows.1)?;
        Ok(Self {
            encoding,
            cols,
            row,
            codes: span("codes", parts.codes, row.codes, rows)?,
            scales: span("scales", parts.scales, row.scales, rows)?,
            offsets: span("offsets", parts.offsets, row.offsets, rows)?,
            extra: exponents(parts.extra, rows)?,
        })
    }

    fn bits(&self) -> u8 {
        self.encoding.bits.get()
    }

    fn group(&self) -> usize {
        self.encoding.group_size.weights(self.cols)
    }

    fn codes(&self, i: usize) -> &'a [u8] {
        &self.codes[i * self.row.codes..][..self.row.codes]
    }

    fn grids<'s>(&self, i: usize, scratch: &'s mut ReadScratch) -> Grids<'s> {
        let groups = self.encoding.group_size.groups(self.cols);
        let offsets = &self.offsets[i * self.row.offsets..][..self.row.offsets];
        read_f16(&self.scales[i * self.row.scales..][..self.row.scales], &mut scratch.scales);
        let offsets = match self.encoding.offset {
            OffsetKind::ZeroPoint => {
                scratch.zeros.resize(groups, 0);
                pack::unpack(self.bits(), offsets, &mut scratch.zeros);
                Offsets::Zero(&scratch.zeros)
            }
            OffsetKind::F16 => {
                read_f16(offsets, &mut scratch.offsets);
                Offsets::Value(&scratch.offsets)
            }
        };
        let exponent = self.extra.get(i).map_or(0, |&e| e as i8);
        Grids { scales: &scratch.scales, offsets, factor: power_of_two(exponent) }
    }
}

pub(crate) fn read_f16(bytes: &[u8], out: &mut Vec<f32>) {
    let bytes = bytes.as_chunks::<2>().0;
    out.resize(bytes.len(), 0.0);
    let mut halves = [f16::ZERO; 64];
    for (bytes, out) in bytes.chunks(64).zip(out.chunks_mut(64)) {
        let halves = &mut halves[..bytes.len()];
        halves.iter_mut().zip(bytes).for_each(|(half, &bytes)| *half = f16::from_le_bytes(bytes));
        widen_f16(halves, out);
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
