//! Codes to the parts of a slab.

use aq_core::EncodedRows;
use aq_kernels::rans::{Share, Shares, fill_shares};

use super::bits::BitWriter;
use super::centroid::{Centroids, Deltas, Sums};
use super::choose::Choice;
use super::histogram::Histogram;
use super::scales::RowScales;
use super::steps::{ColumnSteps, step};
use super::stream::{Extent, StreamWriter, rows, width};
use super::table::{ESCAPE, Table};
use super::{header, low_bytes};

/// The codes of a slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlabCodes<'a> {
    /// Row after row; any integers.
    pub codes: &'a [i32],
    /// Codes of a row.
    pub cols: usize,
    /// The step of each column.
    pub steps: ColumnSteps<'a>,
}

/// Reusable buffers for encoding slabs.
#[derive(Debug, Default)]
pub struct EncodeScratch {
    histograms: Vec<Histogram>,
    shares: Vec<Shares>,
    streams: Vec<Extent>,
    symbols: Vec<u8>,
    writer: StreamWriter,
}

/// Appends a slab to `out`, which has none yet. Scales change no other byte.
///
/// `scales` has one level for each row; a slab of rows without columns has scales only.
///
/// # Panics
/// When `codes` are no whole rows, or levels, steps or the weights of the centroids are not as many as needed.
///
/// # Examples
/// ```
/// use aq_codec::entropy::{Centroids, ColumnSteps, DecodeScratch, EncodeScratch, RowScales, SlabCodes, decode_rows, encode_slab};
/// use aq_core::EncodedRows;
/// let slab = SlabCodes { codes: &[0, -1, 2, 0, 0, 700], cols: 3, steps: ColumnSteps::Quarters(&[0, 4, -4]) };
/// let scales = RowScales { unit: 0.5, fineness: 0, levels: &[0, 0] };
/// let mut out = EncodedRows::default();
/// encode_slab(slab, scales, Centroids::Same([64, 0, 0]), &mut EncodeScratch::default(), &mut out);
///
/// let mut weights = [0.0; 6];
/// decode_rows(out.parts(), 3, 2, 0, 2, &mut DecodeScratch::default(), &mut weights)?;
/// assert_eq!(weights, [0.0, -0.75, 0.5, 0.0, 0.0, 175.0]);
/// # Ok::<(), aq_codec::CodecError>(())
/// ```
pub fn encode_slab(
    slab: SlabCodes<'_>,
    scales: RowScales<'_>,
    centroids: Centroids<'_>,
    scratch: &mut EncodeScratch,
    out: &mut EncodedRows,
) {
    slab.check(scales.levels.len());
    out.row_count += scales.levels.len() as u64;
    scales.write(&mut out.scales);
    if slab.codes.is_empty() {
        return;
    }
    let choice = Choice::new(&slab, &mut scratch.histograms);
    let deltas = match centroids {
        Centroids::Same(deltas) => vec![deltas; choice.classes.fits.len()],
        Centroids::Nearest(weights) => nearest(&slab, &choice, weights, scales),
    };
    write_streams(&slab, &choice, scratch, &mut out.codes);
    header::write(&choice, &deltas, &scratch.streams, &mut out.offsets);
}

/// Bytes that the parts of these codes take, scales included, but for a few; without encoding them.
///
/// # Panics
/// When `codes` are no whole rows or steps are not one a column.
///
/// ```
/// use aq_codec::entropy::{ColumnSteps, EncodeScratch, RowScales, SlabCodes, estimated_bytes};
/// let codes: Vec<i32> = (0..128 * 64).map(|i| i32::from(i * i % 7 == 1)).collect();
/// let slab = SlabCodes { codes: &codes, cols: 128, steps: ColumnSteps::Equal };
/// let scales = RowScales { unit: 1.0, fineness: 0, levels: &[0; 64] };
/// let bytes = estimated_bytes(slab, scales, &mut EncodeScratch::default());
/// assert!(bytes > 11 + 128 * 64 / 8 * 86 / 100 && bytes < 18 + 128 * 64 / 8 * 88 / 100);
/// ```
pub fn estimated_bytes(slab: SlabCodes<'_>, scales: RowScales<'_>, scratch: &mut EncodeScratch) -> u64 {
    slab.check(scales.levels.len());
    let coded =
        if slab.codes.is_empty() { 0 } else { Choice::new(&slab, &mut scratch.histograms).bytes(&slab) };
    coded + scales.bytes()
}

impl SlabCodes<'_> {
    fn check(&self, rows: usize) {
        assert_eq!(
            Some(self.codes.len()),
            rows.checked_mul(self.cols),
            "whole rows of codes, one scale each"
        );
        if let ColumnSteps::Quarters(steps) = self.steps {
            assert_eq!(steps.len(), self.cols, "one step a column");
        }
    }
}

fn nearest(slab: &SlabCodes<'_>, choice: &Choice, weights: &[f32], scales: RowScales<'_>) -> Vec<Deltas> {
    assert_eq!(weights.len(), slab.codes.len(), "one weight a code");
    let mut sums = vec![Sums::default(); choice.classes.fits.len()];
    let steps: Vec<f32> = match slab.steps {
        ColumnSteps::Equal => vec![1.0; slab.cols],
        ColumnSteps::Quarters(steps) => steps.iter().map(|&i| step(i)).collect(),
    };
    let rows = slab.codes.chunks_exact(slab.cols).zip(weights.chunks_exact(slab.cols));
    for ((codes, weights), &level) in rows.zip(scales.levels) {
        let scale = scales.scale(level);
        for (j, (&code, &weight)) in codes.iter().zip(weights).enumerate() {
            sums[usize::from(choice.columns[j])].add(code, weight, steps[j] * scale);
        }
    }
    sums.iter().map(Sums::deltas).collect()
}

fn write_streams(slab: &SlabCodes<'_>, choice: &Choice, scratch: &mut EncodeScratch, out: &mut Vec<u8>) {
    let mut tables: Vec<&Table> = choice.classes.fits.iter().map(|f| &f.table).collect();
    let nothing = Table::nothing();
    let mut classes = choice.columns.clone();
    classes.resize(width(slab.cols), tables.len() as u8);
    tables.push(&nothing);
    scratch.shares.resize(tables.len(), [Share::default(); 256]);
    scratch.shares.iter_mut().zip(&tables).for_each(|(shares, t)| fill_shares(&t.frequencies, shares));
    scratch.streams.clear();
    for codes in slab.codes.chunks(rows(slab.cols) * slab.cols) {
        fill_symbols(codes, slab.cols, choice.shift, (&tables, &classes), &mut scratch.symbols);
        let mut extent = scratch.writer.write(&scratch.shares, &classes, &scratch.symbols, codes.len(), out);
        if choice.shift > 0 {
            codes.chunks_exact(slab.cols).for_each(|row| write_low(row, choice.shift, out));
        }
        let before = out.len();
        write_escapes(codes, choice, (&tables, &classes), &scratch.symbols, out);
        extent.escapes = out.len() - before;
        scratch.streams.push(extent);
    }
}

fn fill_symbols(
    codes: &[i32],
    cols: usize,
    shift: u32,
    (tables, classes): (&[&Table], &[u8]),
    symbols: &mut Vec<u8>,
) {
    symbols.clear();
    for row in codes.chunks_exact(cols) {
        let columns = row.iter().zip(classes);
        symbols.extend(columns.map(|(&code, &class)| tables[usize::from(class)].symbol(code >> shift)));
        symbols.resize(symbols.len().next_multiple_of(classes.len()), 0);
    }
}

fn write_low(row: &[i32], shift: u32, out: &mut Vec<u8>) {
    let before = out.len();
    let mut writer = BitWriter::new(out);
    row.iter().for_each(|&code| writer.put(code as u64, shift));
    writer.finish();
    debug_assert_eq!(out.len() - before, low_bytes(row.len(), shift));
}

fn write_escapes(
    codes: &[i32],
    choice: &Choice,
    (tables, classes): (&[&Table], &[u8]),
    symbols: &[u8],
    out: &mut Vec<u8>,
) {
    if tables.iter().all(|table| !table.has_escapes()) {
        return;
    }
    let mut writer = BitWriter::new(out);
    let cols = choice.columns.len();
    for (row, symbols) in codes.chunks_exact(cols).zip(symbols.chunks_exact(classes.len())) {
        for (j, _) in symbols[..cols].iter().enumerate().filter(|(_, s)| **s == ESCAPE) {
            let table = tables[usize::from(classes[j])];
            writer.put_golomb(table.excess(row[j] >> choice.shift), table.escape_order);
        }
    }
    writer.finish();
}
