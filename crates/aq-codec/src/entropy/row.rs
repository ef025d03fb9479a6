//! One decoded row to weights.

use aq_kernels::rans::{reconstruct, reconstruct_codes};

use super::bits::BitReader;
use super::centroid::value;
use super::header::{Columns, Header};
use super::table::{ESCAPE, Table};
use crate::CodecError;

/// Symbols that are searched for escapes at once: most pieces have none.
const PIECE: usize = 64;

/// What is stored of a row.
#[derive(Clone, Copy)]
pub(super) struct StoredRow<'a> {
    /// One a column.
    pub(super) symbols: &'a [u8],
    /// Columns with their codes, save the low bits, where the symbol is an escape.
    pub(super) escapes: &'a [(usize, i32)],
    /// Begins with the low bits of the row.
    pub(super) low: &'a [u8],
    pub(super) scale: f32,
}

/// The escapes of a row, each with its column.
pub(super) fn read_escapes(
    symbols: &[u8],
    classes: &[u8],
    tables: &[Table],
    reader: &mut BitReader<'_>,
    escapes: &mut Vec<(usize, i32)>,
) -> Result<(), CodecError> {
    escapes.clear();
    let found = symbols.chunks(PIECE).enumerate().filter(|(_, piece)| piece.contains(&ESCAPE));
    for (i, piece) in found {
        for (j, _) in (i * PIECE..).zip(piece).filter(|(_, s)| **s == ESCAPE) {
            let table = &tables[usize::from(classes[j])];
            let excess = reader.golomb(table.escape_order)?;
            escapes.push((j, table.escaped(excess).ok_or(reader.damaged())?));
        }
    }
    Ok(())
}

impl StoredRow<'_> {
    /// Writes the weights of a slab without low bits; `values` has what each symbol of each class stands for.
    pub(super) fn weights(&self, columns: &Columns, header: &Header, values: &[[f32; 256]], out: &mut [f32]) {
        let (classes, steps) = (&columns.classes[..out.len()], &columns.steps);
        reconstruct(self.symbols, classes, values, steps, self.scale, out);
        for &(j, code) in self.escapes {
            let deltas = &header.deltas[usize::from(classes[j])];
            out[j] = value(code, deltas) * steps[j] * self.scale;
        }
    }

    /// Writes the weights of a slab with low bits; `codes` is a reusable buffer.
    pub(super) fn shifted_weights(
        &self,
        shift: u32,
        shifted: &Shifted,
        steps: &[f32],
        codes: &mut Vec<i32>,
        out: &mut [f32],
    ) {
        codes.clear();
        codes.extend(self.symbols.iter().zip(&shifted.lows).map(|(&symbol, low)| low + i32::from(symbol)));
        for &(j, code) in self.escapes {
            codes[j] = code;
        }
        add_low_bits(self.low, shift, codes);
        let deltas = shifted.deltas.each_ref().map(Vec::as_slice);
        reconstruct_codes(codes, deltas, steps, self.scale, out);
    }
}

/// What decoding codes with low bits needs to know of each column; a reusable buffer.
#[derive(Debug, Default)]
pub(super) struct Shifted {
    /// The value of symbol 0.
    lows: Vec<i32>,
    /// The deltas for codes of 1, of 2 and all larger ones.
    deltas: [Vec<f32>; 3],
}

impl Shifted {
    pub(super) fn fill(&mut self, header: &Header, classes: &[u8]) {
        let classes = || classes.iter().map(|&class| usize::from(class));
        self.lows.clear();
        self.lows.extend(classes().map(|class| header.tables[class].low));
        for (i, deltas) in self.deltas.iter_mut().enumerate() {
            deltas.clear();
            deltas.extend(classes().map(|class| header.deltas[class][i + 1]));
        }
    }
}

/// Puts the next `shift` bits below each code.
fn add_low_bits(bytes: &[u8], shift: u32, codes: &mut [i32]) {
    match shift {
        1 => add_constant::<1>(bytes, codes),
        2 => add_constant::<2>(bytes, codes),
        3 => add_constant::<3>(bytes, codes),
        4 => add_constant::<4>(bytes, codes),
        _ => add_low_bits_of_four(bytes, shift, codes),
    }
}

/// With a shift that the compiler knows, which makes most of the work vanish.
fn add_constant<const SHIFT: u32>(bytes: &[u8], codes: &mut [i32]) {
    add_low_bits_of_four(bytes, SHIFT, codes);
}

#[inline(always)]
fn add_low_bits_of_four(bytes: &[u8], shift: u32, codes: &mut [i32]) {
    for (i, codes) in codes.chunks_mut(4).enumerate() {
        let at = i * 4 * shift as usize;
        let mut bits = eight_bytes(&bytes[at / 8..]) >> (at % 8);
        for code in codes {
            *code = *code << shift | (bits & ((1 << shift) - 1)) as i32;
            bits >>= shift;
        }
    }
}

/// The first 8 bytes; what is missing is 0.
#[inline]
fn eight_bytes(bytes: &[u8]) -> u64 {
    if let Some(eight) = bytes.first_chunk() {
        return u64::from_le_bytes(*eight);
    }
    let mut eight = [0; 8];
    eight[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::bits::BitWriter;

    #[test]
    fn low_bits_come_back() {
        for shift in 1..16 {
            for n in [1, 2, 3, 4, 5, 9, 64, 67] {
                let codes: Vec<i32> = (0..n).map(|i| (i * 7919 % 100_003 - 50_000) << (i % 3)).collect();
                let mut bytes = Vec::new();
                let mut writer = BitWriter::new(&mut bytes);
                codes.iter().for_each(|&c| writer.put(c as u64, shift));
                writer.finish();
                let mut back: Vec<i32> = codes.iter().map(|c| c >> shift).collect();
                add_low_bits(&bytes, shift, &mut back);
                assert_eq!(back, codes, "{shift}");
            }
        }
    }
}
