//! The frequency table of a class of columns, and its bytes.
//!
//! A table covers the values `low ..= high` of a code without its low bits; any other value is an escape. What is stored
//! are levels, `r` of them an octave: a symbol of level `l` has the weight `2^(l / r)`. Levels are written as differences to the
//! level before or to the line through the two before, so a table of few levels an octave takes two to four bits a symbol, and one of many is exact.
//! A mirrored table gives `v` and `-v` (`v` and `-1 - v` when low bits are stored apart) the same level and has half as many.
//!
//! ```text
//! mirrored   1 bit
//! escape     4 bits: 0 for none, or 1 + log2 of the frequency of an escape; then 4 bits: the order of what is
//!            outside of the range
//! range      mirrored: high, order 2. Otherwise low, signed, order 2, and high - low, order 2
//! levels     unless there is only one: 2 bits: log2(r) - 2; 1 bit: whether differences are to a line; 3 bits:
//!            their order; the first level in log2(r) + 4 bits; one signed difference a further level.
//!            From the middle outwards when mirrored, else from low to high
//! ```

use aq_kernels::rans::{Frequencies, TOTAL};

use super::bits::{BitReader, BitWriter};
use super::log2::power;
use crate::CodecError;

/// The symbol of a value outside of the range.
pub(super) const ESCAPE: u8 = 255;
/// The most values of a table.
pub(super) const MOST: usize = 255;

/// What coding needs to know of a table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// The value of symbol 0.
    pub(super) low: i32,
    /// Values, at least 1.
    pub(super) count: usize,
    /// The order of escaped values.
    pub(super) escape_order: u32,
    /// Sum to 4096.
    pub(super) frequencies: Frequencies,
}

impl Table {
    /// A table whose one value, 0, costs nothing.
    pub(super) fn nothing() -> Self {
        let mut frequencies = [0; 256];
        frequencies[0] = TOTAL as u16;
        Self { low: 0, count: 1, escape_order: 0, frequencies }
    }

    pub(super) fn has_escapes(&self) -> bool {
        self.frequencies[usize::from(ESCAPE)] > 0
    }

    #[inline]
    pub(super) fn symbol(&self, value: i32) -> u8 {
        let symbol = i64::from(value) - i64::from(self.low);
        if (0..self.count as i64).contains(&symbol) { symbol as u8 } else { ESCAPE }
    }

    /// How far an escaped value is outside of the range, with the side in the lowest bit.
    pub(super) fn excess(&self, value: i32) -> u64 {
        let above = i64::from(value) - i64::from(self.low) - self.count as i64;
        let below = i64::from(self.low) - 1 - i64::from(value);
        if above >= 0 { (above as u64) << 1 } else { (below as u64) << 1 | 1 }
    }

    /// The value of an excess, unless no `i32` is that far.
    pub(super) fn escaped(&self, excess: u64) -> Option<i32> {
        let distance = (excess >> 1) as i64;
        let low = i64::from(self.low);
        let value = if excess & 1 == 0 { low + self.count as i64 + distance } else { low - 1 - distance };
        i32::try_from(value).ok()
    }
}

/// The stored form of a table.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) mirrored: bool,
    /// Whether low bits are stored apart, so that the mirror lies between -1 and 0.
    pub(super) shifted: bool,
    /// 0 for none.
    pub(super) escape: u32,
    pub(super) escape_order: u32,
    pub(super) low: i32,
    pub(super) high: i32,
    /// `log2(r) - 2`.
    pub(super) fineness: u32,
    pub(super) line: bool,
    pub(super) order: u32,
    pub(super) levels: [u16; 256],
}

impl Shape {
    pub(super) fn count(&self) -> usize {
        (self.high - self.low + 1) as usize
    }

    /// Whether every code is the same, so that no symbol needs a bit.
    pub(super) fn is_constant(&self) -> bool {
        self.count() == 1 && self.escape == 0
    }

    /// Levels that are stored.
    pub(super) fn level_count(&self) -> usize {
        if self.mirrored { self.high as usize + 1 } else { self.count() }
    }

    /// The level of a value.
    pub(super) fn level_index(&self, value: i32) -> usize {
        match (self.mirrored, value < 0) {
            (false, _) => (value - self.low) as usize,
            (true, true) => (-value - i32::from(self.shifted)) as usize,
            (true, false) => value as usize,
        }
    }

    /// The largest level.
    pub(super) fn top(&self) -> i64 {
        48 << self.fineness
    }

    /// What level `i > 0` is expected to be.
    pub(super) fn expected(&self, i: usize) -> i64 {
        let last = i64::from(self.levels[i - 1]);
        if self.line && i > 1 { 2 * last - i64::from(self.levels[i - 2]) } else { last }
    }

    pub(super) fn write(&self, writer: &mut BitWriter<'_>) {
        writer.put(self.mirrored.into(), 1);
        writer.put(self.escape.into(), 4);
        if self.escape > 0 {
            writer.put(self.escape_order.into(), 4);
        }
        if self.mirrored {
            writer.put_golomb(self.high as u64, 2);
        } else {
            writer.put_signed(self.low.into(), 2);
            writer.put_golomb(self.count() as u64 - 1, 2);
        }
        if self.level_count() > 1 {
            self.write_levels(writer);
        }
    }

    fn write_levels(&self, writer: &mut BitWriter<'_>) {
        writer.put(self.fineness.into(), 2);
        writer.put(self.line.into(), 1);
        writer.put(self.order.into(), 3);
        writer.put(self.levels[0].into(), 6 + self.fineness);
        for i in 1..self.level_count() {
            writer.put_signed(i64::from(self.levels[i]) - self.expected(i), self.order);
        }
    }

    pub(super) fn read(reader: &mut BitReader<'_>, shifted: bool) -> Result<Self, CodecError> {
        let mirrored = reader.get(1)? == 1;
        let escape = reader.number(4, 12)?;
        let escape_order = if escape > 0 { reader.get(4)? as u32 } else { 0 };
        let (low, high) = if mirrored {
            let high = reader.at_most(127 - u64::from(shifted), 2)? as i32;
            (-high - i32::from(shifted), high)
        } else {
            let low = reader.signed(2)?.clamp(-1 << 20, 1 << 20) as i32;
            (low, low + reader.at_most(MOST as u64 - 1, 2)? as i32)
        };
        let levels = [0; 256];
        let mut shape = Self {
            mirrored,
            shifted,
            escape,
            escape_order,
            low,
            high,
            fineness: 0,
            line: false,
            order: 0,
            levels,
        };
        if shape.level_count() > 1 {
            shape.read_levels(reader)?;
        }
        Ok(shape)
    }

    fn read_levels(&mut self, reader: &mut BitReader<'_>) -> Result<(), CodecError> {
        self.fineness = reader.get(2)? as u32;
        self.line = reader.get(1)? == 1;
        self.order = reader.get(3)? as u32;
        self.levels[0] = (reader.get(6 + self.fineness)? as i64).min(self.top()) as u16;
        for i in 1..self.level_count() {
            let level = self.expected(i) + reader.signed(self.order)?;
            self.levels[i] = level.clamp(0, self.top()) as u16;
        }
        Ok(())
    }

    pub(super) fn table(&self) -> Table {
        let mut weights = [0; MOST];
        for (i, weight) in weights[..self.count()].iter_mut().enumerate() {
            let level = self.levels[self.level_index(self.low + i as i32)];
            *weight = power(usize::from(level) << (3 - self.fineness));
        }
        let mut frequencies = [0; 256];
        let escape = if self.escape > 0 { 1 << (self.escape - 1) } else { 0 };
        share_out(&weights[..self.count()], TOTAL as u64 - u64::from(escape), &mut frequencies);
        frequencies[usize::from(ESCAPE)] = escape;
        Table { low: self.low, count: self.count(), escape_order: self.escape_order, frequencies }
    }
}

/// Frequencies in proportion to the weights, each at least 1, with the sum `total`. They are rounded to nearest, half up;
/// what is then missing or too much goes to the largest one in steps of 1, the first of equals.
fn share_out(weights: &[u64], total: u64, frequencies: &mut Frequencies) {
    let sum: u64 = weights.iter().sum();
    let mut left = total as i64;
    for (frequency, weight) in frequencies.iter_mut().zip(weights) {
        let share = ((2 * weight * total + sum) / (2 * sum)).max(1);
        *frequency = share as u16;
        left -= share as i64;
    }
    let own = &mut frequencies[..weights.len()];
    while left != 0 {
        let largest = (0..own.len()).rev().max_by_key(|&i| own[i]).expect("at least one weight");
        own[largest] = (i64::from(own[largest]) + left.signum()) as u16;
        left -= left.signum();
    }
}
