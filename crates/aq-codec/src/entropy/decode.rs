//! The parts of a slab to weights.

use aq_core::{MAX_ROW_WEIGHTS, SlabParts};
use aq_kernels::rans::{Slots, TOTAL, fill_slots};

use super::bits::BitReader;
use super::centroid::value;
use super::header::{Columns, Header};
use super::row::{Shifted, StoredRow, read_escapes};
use super::stream::{Extent, StreamReader, rows, width};
use super::table::Table;
use super::{low_bytes, scales};
use crate::CodecError;
use crate::affine_read::{exact, expect_room};

/// Symbols that are decoded before they are turned into weights.
const BATCH: usize = 1 << 12;

/// Reusable buffers for decoding rows.
#[derive(Debug, Default)]
pub struct DecodeScratch {
    header: Header,
    columns: Columns,
    slots: Vec<Slots>,
    values: Vec<[f32; 256]>,
    shifted: Shifted,
    symbols: Vec<u8>,
    escapes: Vec<(usize, i32)>,
    codes: Vec<i32>,
    levels: Vec<u8>,
    scales: Vec<f32>,
}

/// Checks that the parts are a slab of `row_count` rows of `cols` weights, as far as their lengths tell.
///
/// # Errors
/// [`CodecError::PartLength`] for a part of another length, [`CodecError::Damaged`] for a header that cannot be read,
/// [`CodecError::TooLarge`] for rows of more than [`MAX_ROW_WEIGHTS`] weights, or so many of them that no length could be right.
pub fn check_parts(parts: SlabParts<'_>, cols: usize, row_count: u64) -> Result<(), CodecError> {
    if u64::from(scales::row_count(parts.scales)?) != row_count {
        return Err(CodecError::Damaged { part: "scales" });
    }
    scales::check(parts.scales)?;
    exact("extra", parts.extra, 0, row_count)?;
    if cols == 0 || row_count == 0 {
        exact("offsets", parts.offsets, 0, row_count)?;
        return exact("codes", parts.codes, 0, row_count);
    }
    let too_large = CodecError::TooLarge { first: 0, count: row_count };
    if cols as u64 > MAX_ROW_WEIGHTS {
        return Err(too_large);
    }
    let mut header = Header::default();
    header.read(parts.offsets, cols, row_count, None)?;
    exact("codes", parts.codes, header.code_bytes(cols, row_count).ok_or(too_large)?, 1)
}

/// Decodes `row_count` rows from row `first_row` of a slab on into `out`, `row_count * cols` weights. The slab says how many rows
/// it has; more than `most_rows` are damage.
///
/// A run of rows is decoded from the start of its stream on, which is up to 2^17 weights before it.
///
/// # Errors
/// Those of [`check_parts`], [`CodecError::Damaged`] for codes that are not those of the rows,
/// [`CodecError::OutputLength`] when `out` does not hold exactly the rows.
pub fn decode_rows(
    parts: SlabParts<'_>,
    cols: usize,
    most_rows: u64,
    first_row: usize,
    row_count: usize,
    scratch: &mut DecodeScratch,
    out: &mut [f32],
) -> Result<(), CodecError> {
    let range = (first_row, row_count);
    expect_room(out.len(), cols, row_count)?;
    let slab_rows = scales::row_count(parts.scales)? as usize;
    if slab_rows as u64 > most_rows {
        return Err(CodecError::Damaged { part: "scales" });
    }
    if first_row.checked_add(row_count).is_none_or(|end| end > slab_rows) {
        return Err(CodecError::TooLarge { first: first_row as u64, count: row_count as u64 });
    }
    if out.is_empty() {
        return Ok(());
    }
    if cols as u64 > MAX_ROW_WEIGHTS {
        return Err(CodecError::TooLarge { first: first_row as u64, count: row_count as u64 });
    }
    scratch.read_header(parts, cols, slab_rows as u64)?;
    let mut target = Target { cols, range, next: 0, out };
    decode_streams(parts.codes, slab_rows, scratch, &mut target)
}

impl DecodeScratch {
    fn read_header(&mut self, parts: SlabParts<'_>, cols: usize, slab_rows: u64) -> Result<(), CodecError> {
        let Self { header, columns, slots, values, shifted, levels, scales, .. } = self;
        scales::read(parts.scales, levels, scales)?;
        header.read(parts.offsets, cols, slab_rows, Some(columns))?;
        let bytes = header.code_bytes(cols, slab_rows);
        let too_large = CodecError::TooLarge { first: 0, count: slab_rows };
        exact("codes", parts.codes, bytes.ok_or(too_large)?, 1)?;
        if header.shift > 0 {
            shifted.fill(header, &columns.classes[..cols]);
        }
        header.tables.push(Table::nothing());
        slots.resize(header.tables.len(), [0; TOTAL]);
        slots.iter_mut().zip(&header.tables).for_each(|(slots, t)| fill_slots(&t.frequencies, slots));
        values.clear();
        for (table, deltas) in header.tables.iter().zip(&header.deltas) {
            let of = |symbol: usize| value(table.low + symbol as i32, deltas);
            values.push(std::array::from_fn(of));
        }
        Ok(())
    }
}

/// The rows that are asked for and where they go.
struct Target<'a> {
    cols: usize,
    range: (usize, usize),
    /// The row that is decoded next.
    next: usize,
    out: &'a mut [f32],
}

impl Target<'_> {
    fn end(&self) -> usize {
        self.range.0 + self.range.1
    }

    /// The place of a row, if it is asked for.
    fn row(&mut self, row: usize) -> Option<&mut [f32]> {
        let i = row.checked_sub(self.range.0).filter(|&i| i < self.range.1)?;
        Some(&mut self.out[i * self.cols..][..self.cols])
    }
}

fn decode_streams(
    codes: &[u8],
    slab_rows: usize,
    scratch: &mut DecodeScratch,
    target: &mut Target<'_>,
) -> Result<(), CodecError> {
    let (per_stream, mut rest) = (rows(target.cols), codes);
    for i in 0..scratch.header.streams.len() {
        let extent = scratch.header.streams[i];
        let first = i * per_stream;
        let count = per_stream.min(slab_rows - first);
        let low = low_bytes(target.cols, scratch.header.shift);
        let (bytes, after) = rest.split_at(2 * extent.words + count * low + extent.escapes);
        rest = after;
        if first >= target.end() {
            break;
        }
        if first + count > target.range.0 {
            target.next = first;
            decode_stream(bytes, extent, (count, low), scratch, target)?;
        }
    }
    Ok(())
}

fn decode_stream(
    bytes: &[u8],
    extent: Extent,
    (rows, low): (usize, usize),
    scratch: &mut DecodeScratch,
    target: &mut Target<'_>,
) -> Result<(), CodecError> {
    let (words, rest) = bytes.split_at(2 * extent.words);
    let (low_bits, escapes) = rest.split_at(rows * low);
    let mut escaped = BitReader::new("codes", escapes);
    let DecodeScratch { header, columns, slots, values, shifted, symbols, escapes, codes, scales, .. } =
        scratch;
    let mut reader = StreamReader::new(slots, &columns.classes, rows, extent.tail, words)?;
    let (first, last, width) = (target.next, target.end().min(target.next + rows), width(target.cols));
    while target.next < last {
        let batch = (BATCH / width).clamp(1, last - target.next);
        symbols.resize(batch * width, 0);
        reader.read(symbols)?;
        for symbols in symbols.chunks_exact(width) {
            let symbols = &symbols[..target.cols];
            read_escapes(symbols, &columns.classes, &header.tables, &mut escaped, escapes)?;
            let low = &low_bits[(target.next - first) * low..];
            let scale = scales[target.next];
            if let Some(out) = target.row(target.next) {
                let row = StoredRow { symbols, escapes, low, scale };
                match header.shift {
                    0 => row.weights(columns, header, values, out),
                    shift => row.shifted_weights(shift, shifted, &columns.steps, codes, out),
                }
            }
            target.next += 1;
        }
    }
    Ok(())
}
