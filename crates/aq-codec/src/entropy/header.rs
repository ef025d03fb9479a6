//! The part `offsets` of a slab: everything but codes, scales and exponents.
//!
//! ```text
//! shift      4 bits: low bits of each code that are stored as they are
//! steps      1 bit: 0 when all steps are 1. Else 8 bits: the smallest index, signed; and the sequence of
//!            the indices less the smallest
//! classes    4 bits: their number less 1. When there are more than one, 1 bit: 0 when the steps say which column is
//!            in which class: the first index (less the smallest) of each class but the first, less the one
//!            before it and less 1, order 2. Else the sequence of classes
//! tables     for each class 1 bit: 0 for centroids in the middle, else 3 signed bytes; and its table
//! streams    for each stream 1 bit: 0 for one state, else the groups at its end that are not interleaved, order 2;
//!            the number of its words, order 10; when some table has escapes, the bytes of its escapes, order 0
//! ```
//!
//! The last byte is filled up with zeros.

use aq_kernels::rans::LANES;

use super::bits::{BitReader, BitWriter};
use super::centroid::{Deltas, in_bins};
use super::choose::Choice;
use super::classes::MOST_CLASSES;
use super::stream::{Extent, TAIL_ORDER, WORDS_ORDER, rows, width};
use super::table::{Shape, Table};
use super::{low_bytes, sequence, step};
use crate::CodecError;

/// Appends a header to `out`.
pub(super) fn write(choice: &Choice, deltas: &[Deltas], streams: &[Extent], out: &mut Vec<u8>) {
    let mut writer = BitWriter::new(out);
    writer.put(choice.shift.into(), 4);
    writer.put(choice.steps.is_some().into(), 1);
    if let Some(steps) = &choice.steps {
        writer.put(steps.smallest as u64, 8);
        sequence::write(&steps.above, &mut writer);
    }
    write_classes(choice, &mut writer);
    for (fit, deltas) in choice.classes.fits.iter().zip(deltas) {
        writer.put((*deltas != [0; 3]).into(), 1);
        if *deltas != [0; 3] {
            deltas.iter().for_each(|&delta| writer.put(delta as u64, 8));
        }
        fit.shape.write(&mut writer);
    }
    let escapes = choice.classes.fits.iter().any(|f| f.shape.escape > 0);
    streams.iter().for_each(|extent| write_extent(extent, escapes, &mut writer));
    writer.finish();
}

fn write_classes(choice: &Choice, writer: &mut BitWriter<'_>) {
    let classes = &choice.classes;
    writer.put(classes.bounds.len() as u64, 4);
    if classes.bounds.is_empty() {
        return;
    }
    writer.put((!classes.by_step).into(), 1);
    if classes.by_step {
        let before = std::iter::once(0).chain(classes.bounds.iter().copied());
        classes
            .bounds
            .iter()
            .zip(before)
            .for_each(|(b, before)| writer.put_golomb((b - before - 1).into(), 2));
    } else {
        sequence::write(&choice.columns, writer);
    }
}

fn write_extent(extent: &Extent, escapes: bool, writer: &mut BitWriter<'_>) {
    writer.put(extent.tail.is_some().into(), 1);
    if let Some(tail) = extent.tail {
        writer.put_golomb(tail as u64, TAIL_ORDER);
    }
    writer.put_golomb(extent.words as u64, WORDS_ORDER);
    if escapes {
        writer.put_golomb(extent.escapes as u64, 0);
    }
}

/// What each column is, decoded; a reusable buffer.
#[derive(Debug, Default)]
pub(super) struct Columns {
    /// The class of each column; the columns that fill up a row have the class after the last one.
    pub(super) classes: Vec<u8>,
    /// The step of each column.
    pub(super) steps: Vec<f32>,
    above: Vec<u8>,
}

/// A header that was read, with what its streams are; a reusable buffer.
#[derive(Debug, Default)]
pub(super) struct Header {
    pub(super) shift: u32,
    pub(super) tables: Vec<Table>,
    /// For each class, as [`in_bins`] has them.
    pub(super) deltas: Vec<[f32; 4]>,
    pub(super) streams: Vec<Extent>,
}

impl Header {
    /// Bytes of the part `codes`, if they can be counted.
    pub(super) fn code_bytes(&self, cols: usize, row_count: u64) -> Option<u64> {
        let low = row_count.checked_mul(low_bytes(cols, self.shift) as u64)?;
        let pieces = |s: &Extent| (2 * s.words as u64).checked_add(s.escapes as u64);
        self.streams.iter().try_fold(low, |sum, s| sum.checked_add(pieces(s)?))
    }

    /// Reads a whole header of `row_count` rows of `cols` columns; without `columns` it moves over what they are.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        cols: usize,
        row_count: u64,
        columns: Option<&mut Columns>,
    ) -> Result<(), CodecError> {
        let mut reader = BitReader::new("offsets", bytes);
        self.shift = reader.get(4)? as u32;
        let count = read_columns(&mut reader, cols, columns)?;
        self.tables.clear();
        self.deltas.clear();
        for _ in 0..count {
            let deltas = if reader.get(1)? == 1 { reader.get(24)? as u32 } else { 0 };
            let [a, b, c, _] = deltas.to_le_bytes().map(|d| d as i8);
            self.deltas.push(in_bins([a, b, c]));
            self.tables.push(Shape::read(&mut reader, self.shift > 0)?.table());
        }
        self.read_streams(&mut reader, cols, row_count)?;
        reader.check_end()
    }

    fn read_streams(
        &mut self,
        reader: &mut BitReader<'_>,
        cols: usize,
        row_count: u64,
    ) -> Result<(), CodecError> {
        let escapes = self.tables.iter().any(Table::has_escapes);
        let groups = (width(cols) / LANES * rows(cols)) as u64;
        self.streams.clear();
        for _ in 0..row_count.div_ceil(rows(cols) as u64) {
            let tail = if reader.get(1)? == 1 { Some(reader.at_most(groups, TAIL_ORDER)?) } else { None };
            let words = reader.golomb(WORDS_ORDER)? as usize;
            let escapes = if escapes { reader.golomb(0)? as usize } else { 0 };
            self.streams.push(Extent { tail, words, escapes });
        }
        Ok(())
    }
}

/// Reads steps and classes; returns the number of classes.
fn read_columns(
    reader: &mut BitReader<'_>,
    cols: usize,
    columns: Option<&mut Columns>,
) -> Result<usize, CodecError> {
    match columns {
        Some(columns) => columns.read(reader, cols),
        None => {
            if reader.get(1)? == 1 {
                reader.get(8)?;
                sequence::skip(reader)?;
            }
            let count = reader.get(4)? as usize + 1;
            if count > 1 && reader.get(1)? == 1 {
                sequence::skip(reader)?;
            } else {
                (1..count).try_for_each(|_| reader.golomb(2).map(drop))?;
            }
            Ok(count)
        }
    }
}

impl Columns {
    fn read(&mut self, reader: &mut BitReader<'_>, cols: usize) -> Result<usize, CodecError> {
        self.steps.clear();
        self.above.clear();
        if reader.get(1)? == 1 {
            let smallest = reader.get(8)? as u8 as i8;
            sequence::read(reader, cols, &mut self.above)?;
            self.steps.extend(self.above.iter().map(|&above| step(smallest.saturating_add_unsigned(above))));
        } else {
            self.above.resize(cols, 0);
            self.steps.resize(cols, 1.0);
        }
        let count = reader.get(4)? as usize + 1;
        if count > 1 && reader.get(1)? == 1 {
            sequence::read(reader, cols, &mut self.classes)?;
        } else {
            self.classes_by_step(reader, count)?;
        }
        if self.classes.iter().any(|&class| usize::from(class) >= count) {
            return Err(reader.damaged());
        }
        self.classes.resize(width(cols), count as u8);
        Ok(count)
    }

    fn classes_by_step(&mut self, reader: &mut BitReader<'_>, count: usize) -> Result<(), CodecError> {
        let mut bounds = [256; MOST_CLASSES];
        let mut bound = 0;
        for place in &mut bounds[1..count] {
            bound += reader.at_most(255, 2)? + 1;
            *place = bound;
        }
        self.classes.clear();
        let class = |above: usize| bounds[1..count].iter().filter(|&&bound| bound <= above).count() as u8;
        self.classes.extend(self.above.iter().map(|&above| class(above.into())));
        Ok(())
    }
}
