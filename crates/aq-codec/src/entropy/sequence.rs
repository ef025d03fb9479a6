//! A small number for each column.
//!
//! ```text
//! table      of the numbers; when it has more than one value or escapes, there follow
//! words      their number, order 4, and the words of one state, 16 bits each
//! escapes    when the table has escapes: their number, order 2, and each as its table says
//! ```

use aq_kernels::rans::{Share, Slots, TOTAL, Word, fill_shares, fill_slots};

use super::bits::{BitReader, BitWriter, golomb_bits};
use super::fit::{Fit, fit};
use super::histogram::Histogram;
use super::log2::BIT;
use super::single::{Single, SingleReader};
use super::table::{ESCAPE, Shape, Table};
use crate::CodecError;

/// Bits the numbers take, about: all but the rounding of the words.
pub(super) fn bits(values: &[u8]) -> u64 {
    let fit = fit_values(values);
    if fit.shape.is_constant() { fit.cost / BIT } else { fit.cost / BIT + 24 + u64::from(golomb_bits(16, 4)) }
}

fn fit_values(values: &[u8]) -> Fit {
    let mut histogram = Histogram::default();
    values.iter().for_each(|&v| histogram.add(v.into()));
    fit(&histogram, false)
}

pub(super) fn write(values: &[u8], writer: &mut BitWriter<'_>) {
    let Fit { shape, table, .. } = fit_values(values);
    shape.write(writer);
    if shape.is_constant() {
        return;
    }
    let mut shares = [Share::default(); 256];
    fill_shares(&table.frequencies, &mut shares);
    let mut single = Single::default();
    for &value in values.iter().rev() {
        single.push(shares[usize::from(table.symbol(value.into()))]);
    }
    writer.put_golomb(single.len() as u64, 4);
    single.finish().for_each(|word| writer.put(u16::from_le_bytes(word).into(), 16));
    if shape.escape > 0 {
        let escaped = || values.iter().filter(|&&v| table.symbol(v.into()) == ESCAPE);
        writer.put_golomb(escaped().count() as u64, 2);
        escaped().for_each(|&v| writer.put_golomb(table.excess(v.into()), table.escape_order));
    }
}

/// Moves over the numbers without decoding them.
pub(super) fn skip(reader: &mut BitReader<'_>) -> Result<(), CodecError> {
    let shape = Shape::read(reader, false)?;
    if shape.is_constant() {
        return Ok(());
    }
    let words = reader.at_most(1 << 24, 4)?;
    reader.skip(16 * words)?;
    if shape.escape > 0 {
        for _ in 0..reader.golomb(2)? {
            reader.golomb(shape.escape_order)?;
        }
    }
    Ok(())
}

/// Decodes `count` numbers into `values`.
pub(super) fn read(reader: &mut BitReader<'_>, count: usize, values: &mut Vec<u8>) -> Result<(), CodecError> {
    let shape = Shape::read(reader, false)?;
    let table = shape.table();
    values.clear();
    values.resize(count, 0);
    if !shape.is_constant() {
        read_symbols(reader, &table, values)?;
    }
    let mut escapes = if shape.escape > 0 { reader.golomb(2)? } else { 0 };
    for value in values {
        let decoded = if *value == ESCAPE && shape.escape > 0 {
            escapes = escapes.checked_sub(1).ok_or(reader.damaged())?;
            table.escaped(reader.golomb(table.escape_order)?)
        } else {
            Some(table.low + i32::from(*value))
        };
        *value = decoded.and_then(|v| u8::try_from(v).ok()).ok_or(reader.damaged())?;
    }
    if escapes == 0 { Ok(()) } else { Err(reader.damaged()) }
}

fn read_symbols(reader: &mut BitReader<'_>, table: &Table, symbols: &mut [u8]) -> Result<(), CodecError> {
    let mut slots: Slots = [0; TOTAL];
    fill_slots(&table.frequencies, &mut slots);
    let count = reader.at_most(symbols.len() as u64 + 2, 4)?;
    let words = (0..count).map(|_| Ok((reader.get(16)? as u16).to_le_bytes()));
    let words = words.collect::<Result<Vec<Word>, CodecError>>()?;
    let mut single = SingleReader::new(&words);
    symbols.chunks_mut(256).for_each(|symbols| single.read(&words, &[slots], &[0; 256], symbols));
    if single.overrun(&words) { Err(reader.damaged()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_can_be_moved_over() {
        let mixed = |n: u32| (0..n).map(|i| (i * i % 23 / 3 + if i % 97 == 5 { 180 } else { 0 }) as u8);
        let cases = [
            vec![7; 300],
            vec![0],
            vec![255; 3],
            (0..=255).collect(),
            mixed(40).collect(),
            mixed(3000).collect(),
        ];
        for values in cases {
            let mut bytes = Vec::new();
            let mut writer = BitWriter::new(&mut bytes);
            write(&values, &mut writer);
            writer.put(0b101, 3);
            writer.finish();
            assert!((bytes.len() as u64 * 8).abs_diff(bits(&values)) < 60 + values.len() as u64 / 10);
            let (mut reader, mut back) = (BitReader::new("offsets", &bytes), vec![9]);
            read(&mut reader, values.len(), &mut back).expect("what was written");
            assert_eq!((back, reader.get(3)), (values, Ok(0b101)));
            let mut reader = BitReader::new("offsets", &bytes);
            skip(&mut reader).expect("what was written");
            assert_eq!(reader.get(3), Ok(0b101));
        }
    }
}
