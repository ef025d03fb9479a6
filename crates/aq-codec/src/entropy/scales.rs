//! The scales of the rows of a slab.
//!
//! A scale is a unit times a power of a root of two, so that a row takes a few bits:
//!
//! ```text
//! scale[row] = unit * 2^(level[row] / 2^fineness)
//!
//! scales     the number of rows: little-endian u32; the unit: little-endian f32; the smallest level: little-endian i16;
//!            1 byte: fineness, and 128 more when levels less the smallest one pass 255. Then these differences: as little-endian
//!            u16 when they do, else as their sequence, filled up to bytes
//! ```
//!
//! The power is computed in `f64` from square roots, and rounded to `f32`; so is its product with the unit.

use super::bits::{BitReader, BitWriter};
use super::sequence;
use crate::CodecError;

/// The scales of the rows of a slab: one level a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowScales<'a> {
    /// The scale of level 0; positive and finite.
    pub unit: f32,
    /// Levels of an octave are `2^fineness`; at most 12.
    pub fineness: u8,
    /// One level a row.
    pub levels: &'a [i16],
}

/// The finest levels.
const MOST_FINE: u8 = 12;
/// Rows, unit, smallest level, fineness.
const HEAD: usize = 11;
/// Added to the fineness when levels are stored in two bytes.
const WIDE: u8 = 128;

impl RowScales<'_> {
    /// Appends the part `scales` to `out`.
    ///
    /// # Panics
    /// When the fineness is above 12.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        assert!(self.fineness <= MOST_FINE, "levels of an octave");
        let (smallest, above) = self.above();
        out.extend((self.levels.len() as u32).to_le_bytes());
        out.extend(self.unit.to_le_bytes());
        out.extend(smallest.to_le_bytes());
        out.push(self.fineness | if matches!(above, Above::Wide(_)) { WIDE } else { 0 });
        match above {
            Above::Wide(above) => out.extend(above.iter().flat_map(|a| a.to_le_bytes())),
            Above::Narrow(above) if above.is_empty() => {}
            Above::Narrow(above) => {
                let mut writer = BitWriter::new(out);
                sequence::write(&above, &mut writer);
                writer.finish();
            }
        }
    }

    /// Bytes that [`RowScales::write`] appends, but for the rounding of a word.
    pub(super) fn bytes(&self) -> u64 {
        let above = match self.above().1 {
            Above::Wide(above) => 2 * above.len() as u64,
            Above::Narrow(above) if above.is_empty() => 0,
            Above::Narrow(above) => sequence::bits(&above).div_ceil(8),
        };
        HEAD as u64 + above
    }

    /// The scale of a level.
    pub(super) fn scale(&self, level: i16) -> f32 {
        self.unit * power(level.into(), self.fineness)
    }

    /// The smallest level, and how far each one is above it.
    fn above(&self) -> (i16, Above) {
        let smallest = self.levels.iter().copied().min().unwrap_or(0);
        let above: Vec<u16> = self.levels.iter().map(|level| level.abs_diff(smallest)).collect();
        let narrow: Option<Vec<u8>> = above.iter().map(|&a| u8::try_from(a).ok()).collect();
        (smallest, narrow.map_or(Above::Wide(above), Above::Narrow))
    }
}

/// How far levels are above the smallest one, in as many bytes as they need.
enum Above {
    Narrow(Vec<u8>),
    Wide(Vec<u16>),
}

/// The number of rows that the part `scales` says it is of.
///
/// # Errors
/// [`CodecError::Damaged`] when it is too short.
pub(super) fn row_count(bytes: &[u8]) -> Result<u32, CodecError> {
    let count = bytes.first_chunk().map(|&b| u32::from_le_bytes(b));
    count.ok_or(DAMAGED)
}

/// Checks all but the levels themselves.
///
/// # Errors
/// [`CodecError::Damaged`] for bytes that no writer wrote.
pub(super) fn check(bytes: &[u8]) -> Result<(), CodecError> {
    let head = Head::read(bytes)?;
    if head.is_wide || head.rows == 0 {
        return head.check_length();
    }
    let mut reader = BitReader::new("scales", head.rest);
    sequence::skip(&mut reader)?;
    reader.check_end()
}

/// Reads the scales of all rows into `scales`; `levels` is a reusable buffer.
///
/// # Errors
/// [`CodecError::Damaged`] for bytes that no writer wrote.
pub(super) fn read(bytes: &[u8], levels: &mut Vec<u8>, scales: &mut Vec<f32>) -> Result<(), CodecError> {
    let head = Head::read(bytes)?;
    scales.clear();
    if head.is_wide || head.rows == 0 {
        head.check_length()?;
        scales.extend(head.rest.as_chunks().0.iter().map(|&b| head.scale(u16::from_le_bytes(b))));
        return Ok(());
    }
    let mut reader = BitReader::new("scales", head.rest);
    sequence::read(&mut reader, head.rows, levels)?;
    reader.check_end()?;
    scales.extend(levels.iter().map(|&above| head.scale(above.into())));
    Ok(())
}

/// What is in front of the levels, and the levels as they are.
struct Head<'a> {
    rows: usize,
    unit: f32,
    smallest: i16,
    fineness: u8,
    is_wide: bool,
    rest: &'a [u8],
}

impl<'a> Head<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let rows = row_count(bytes)? as usize;
        let (head, rest) = bytes.split_at_checked(HEAD).ok_or(DAMAGED)?;
        let unit = f32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let smallest = i16::from_le_bytes([head[8], head[9]]);
        let (fineness, is_wide) = (head[10] & !WIDE, head[10] & WIDE != 0);
        let possible = fineness <= MOST_FINE && unit.is_finite();
        if possible { Ok(Self { rows, unit, smallest, fineness, is_wide, rest }) } else { Err(DAMAGED) }
    }

    /// Checks the length of levels that are stored in two bytes each.
    fn check_length(&self) -> Result<(), CodecError> {
        if Some(self.rest.len()) == self.rows.checked_mul(2) { Ok(()) } else { Err(DAMAGED) }
    }

    fn scale(&self, above: u16) -> f32 {
        self.unit * power(i32::from(self.smallest) + i32::from(above), self.fineness)
    }
}

const DAMAGED: CodecError = CodecError::Damaged { part: "scales" };

/// `2^(level / 2^fineness)`, the same bits everywhere; infinite or 0 beyond the range of `f32`.
///
/// ```
/// use aq_codec::entropy::power;
/// assert_eq!((power(0, 5), power(64, 5), power(-32, 5)), (1.0, 4.0, 0.5));
/// assert_eq!(power(1, 1), std::f32::consts::SQRT_2);
/// ```
pub fn power(level: i32, fineness: u8) -> f32 {
    let (whole, fraction) = (level >> fineness, level & ((1 << fineness) - 1));
    let (mut root, mut product) = (2.0f64, 1.0f64);
    for bit in (0..fineness).rev() {
        root = root.sqrt();
        if fraction >> bit & 1 == 1 {
            product *= root;
        }
    }
    (product * f64::from_bits(((whole.clamp(-1022, 1023) + 1023) as u64) << 52)) as f32
}
