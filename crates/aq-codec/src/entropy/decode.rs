//! The parts of a slab to weights.

use aq_core::{MAX_ROW_WEIGHTS, SlabParts};
use aq_kernels::rans::{Slots, TOTAL, fill_slots, reconstruct};
use half::f16;

use super::bits::BitReader;
use super::centroid::value;
use super::header::{Columns, Header};
use super::low_bytes;
use super::stream::{Extent, StreamReader, rows, width};
use super::table::{ESCAPE, Table};
use crate::affine_read::{exact, span};
use crate::{CodecError, power_of_two};

/// Symbols that are decoded before they are turned into weights.
const BATCH: usize = 1 << 12;

/// Reusable buffers for decoding rows.
#[derive(Debug, Default)]
pub struct DecodeScratch {
    header: Header,
    columns: Columns,
    slots: Vec<Slots>,
    values: Vec<[f32; 256]>,
    symbols: Vec<u8>,
    escapes: Vec<(usize, i32)>,
}

/// Checks that the parts are a slab of `row_count` rows of `cols` weights, as far as their lengths tell; `extra` may be empty.
///
/// # Errors
/// [`CodecError::PartLength`] for a part of another length, [`CodecError::Damaged`] for a header that cannot be read,
/// [`CodecError::TooLarge`] for rows of more than [`MAX_ROW_WEIGHTS`] weights, or so many of them that no length could be right.
pub fn check_parts(parts: SlabParts<'_>, cols: usize, row_count: u64) -> Result<(), CodecError> {
    exact("scales", parts.scales, 2, row_count)?;
    if !parts.extra.is_empty() {
        exact("extra", parts.extra, 1, row_count)?;
    }
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

/// Decodes `row_count` rows from row `first_row` of a slab of `slab_rows` rows on into `out`, `row_count * cols` weights.
///
/// A run of rows is decoded from the start of its stream on, which is up to 2^17 weights before it.
///
/// # Errors
/// Those of [`check_parts`], [`CodecError::Damaged`] for codes that are not those of the rows,
/// [`CodecError::OutputLength`] when `out` does not hold exactly the rows.
pub fn decode_rows(
    parts: SlabParts<'_>,
    cols: usize,
    slab_rows: u64,
    first_row: usize,
    row_count: usize,
    scratch: &mut DecodeScratch,
    out: &mut [f32],
) -> Result<(), CodecError> {
    let range = (first_row, row_count);
    if row_count.checked_mul(cols) != Some(out.len()) {
        let expected = (row_count as u64).saturating_mul(cols as u64);
        return Err(CodecError::OutputLength { got: out.len(), expected });
    }
    let scales = span("scales", parts.scales, 2, range)?;
    let exponents = if parts.extra.is_empty() { &[] } else { span("extra", parts.extra, 1, range)? };
    if out.is_empty() {
        return Ok(());
    }
    let end = (first_row + row_count) as u64;
    if end > slab_rows || cols as u64 > MAX_ROW_WEIGHTS {
        return Err(CodecError::TooLarge { first: first_row as u64, count: row_count as u64 });
    }
    scratch.read_header(parts, cols, slab_rows)?;
    let mut target = Target { cols, range, next: 0, scales, exponents, out };
    decode_streams(parts.codes, slab_rows, scratch, &mut target)
}

impl DecodeScratch {
    fn read_header(&mut self, parts: SlabParts<'_>, cols: usize, slab_rows: u64) -> Result<(), CodecError> {
        let Self { header, columns, slots, values, .. } = self;
        header.read(parts.offsets, cols, slab_rows, Some(columns))?;
        let bytes = header.code_bytes(cols, slab_rows);
        let too_large = CodecError::TooLarge { first: 0, count: slab_rows };
        exact("codes", parts.codes, bytes.ok_or(too_large)?, 1)?;
        header.tables.push(Table::nothing());
        slots.resize(header.tables.len(), [0; TOTAL]);
        slots.iter_mut().zip(&header.tables).for_each(|(slots, t)| fill_slots(&t.frequencies, slots));
        values.clear();
        for (table, deltas) in header.tables.iter().zip(&header.deltas) {
            let of = |symbol: usize| value(i64::from(table.low) + symbol as i64, deltas);
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
    scales: &'a [u8],
    exponents: &'a [u8],
    out: &'a mut [f32],
}

impl Target<'_> {
    fn end(&self) -> usize {
        self.range.0 + self.range.1
    }

    /// Scale, factor and place of a row, if it is asked for.
    fn row(&mut self, row: usize) -> Option<(f32, f32, &mut [f32])> {
        let i = row.checked_sub(self.range.0).filter(|&i| i < self.range.1)?;
        let scale = f16::from_le_bytes([self.scales[2 * i], self.scales[2 * i + 1]]).to_f32();
        let factor = power_of_two(self.exponents.get(i).map_or(0, |&e| e as i8));
        Some((scale, factor, &mut self.out[i * self.cols..][..self.cols]))
    }
}

fn decode_streams(
    codes: &[u8],
    slab_rows: u64,
    scratch: &mut DecodeScratch,
    target: &mut Target<'_>,
) -> Result<(), CodecError> {
    let (per_stream, mut rest) = (rows(target.cols), codes);
    for i in 0..scratch.header.streams.len() {
        let extent = scratch.header.streams[i];
        let first = i * per_stream;
        let count = per_stream.min(slab_rows as usize - first);
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
    let (mut low_bits, escapes) = rest.split_at(rows * low);
    let mut escaped = BitReader::new("codes", escapes);
    let DecodeScratch { header, columns, slots, values, symbols, escapes } = scratch;
    let mut reader = StreamReader::new(slots, &columns.classes, rows, extent.tail, words)?;
    let width = width(target.cols);
    let mut left = rows.min(target.end() - target.next);
    while left > 0 {
        let batch = (BATCH / width).clamp(1, left);
        symbols.resize(batch * width, 0);
        reader.read(symbols)?;
        for symbols in symbols.chunks_exact(width) {
            let symbols = &symbols[..target.cols];
            read_escapes(symbols, &columns.classes, &header.tables, &mut escaped, escapes)?;
            let (low, after) = low_bits.split_at(low);
            low_bits = after;
            let row = Row { symbols, escapes, columns, header, values, low };
            if let Some((scale, factor, out)) = target.row(target.next) {
                row.weights(scale, factor, out)?;
            }
            target.next += 1;
        }
        left -= batch;
    }
    Ok(())
}

/// The escaped codes of a row without their low bits, with their columns.
fn read_escapes(
    symbols: &[u8],
    classes: &[u8],
    tables: &[Table],
    reader: &mut BitReader<'_>,
    escapes: &mut Vec<(usize, i32)>,
) -> Result<(), CodecError> {
    escapes.clear();
    if !symbols.contains(&ESCAPE) {
        return Ok(());
    }
    for (j, _) in symbols.iter().enumerate().filter(|(_, s)| **s == ESCAPE) {
        let table = &tables[usize::from(classes[j])];
        let excess = reader.golomb(table.escape_order)?;
        escapes.push((j, table.escaped(excess).ok_or(reader.damaged())?));
    }
    Ok(())
}

/// A decoded row.
struct Row<'a> {
    symbols: &'a [u8],
    escapes: &'a [(usize, i32)],
    columns: &'a Columns,
    header: &'a Header,
    values: &'a [[f32; 256]],
    low: &'a [u8],
}

impl Row<'_> {
    fn weights(&self, scale: f32, factor: f32, out: &mut [f32]) -> Result<(), CodecError> {
        let (classes, steps) = (&self.columns.classes[..out.len()], &self.columns.steps);
        if self.header.shift > 0 {
            return self.shifted_weights(scale, factor, out);
        }
        reconstruct(self.symbols, classes, self.values, steps, scale, factor, out);
        for &(j, code) in self.escapes {
            let deltas = &self.header.deltas[usize::from(classes[j])];
            out[j] = value(code.into(), deltas) * steps[j] * scale * factor;
        }
        Ok(())
    }

    fn shifted_weights(&self, scale: f32, factor: f32, out: &mut [f32]) -> Result<(), CodecError> {
        let (classes, steps, shift) = (&self.columns.classes, &self.columns.steps, self.header.shift);
        let mut low = BitReader::new("codes", self.low);
        let mut escapes = self.escapes.iter();
        for (j, out) in out.iter_mut().enumerate() {
            let class = usize::from(classes[j]);
            let high = match self.symbols[j] {
                ESCAPE => i64::from(escapes.next().map_or(0, |e| e.1)),
                symbol => i64::from(self.header.tables[class].low) + i64::from(symbol),
            };
            let code = high << shift | low.get(shift)? as i64;
            *out = value(code, &self.header.deltas[class]) * steps[j] * scale * factor;
        }
        Ok(())
    }
}
