//! Bits of a byte string, the lowest bit of a byte first, and integers of any size in few of them.
//!
//! An integer `v` of order `k` is the exponential Golomb code of `u = v + 2^k`: one 0 for each bit that `u` has more than
//! `k + 1`, a 1, and all bits of `u` below its highest. A signed integer is that of `2 v` or `-2 v - 1`.

use crate::CodecError;

/// The largest `u` has 40 bits.
const MOST_ZEROS: u32 = 40;

pub(super) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    pending: u64,
    count: u32,
}

impl<'a> BitWriter<'a> {
    /// Appends to `out`.
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, pending: 0, count: 0 }
    }

    /// The low `bits` bits of `value`, at most 40.
    pub(super) fn put(&mut self, value: u64, bits: u32) {
        self.pending |= (value & ((1 << bits) - 1)) << self.count;
        self.count += bits;
        while self.count >= 8 {
            self.out.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    pub(super) fn put_golomb(&mut self, value: u64, order: u32) {
        let u = value + (1 << order);
        let more = u.ilog2() - order;
        self.put(0, more);
        self.put(1, 1);
        self.put(u, more + order);
    }

    pub(super) fn put_signed(&mut self, value: i64, order: u32) {
        self.put_golomb(zigzag(value), order);
    }

    /// Fills up the last byte with zeros.
    pub(super) fn finish(mut self) {
        let missing = (8 - self.count) % 8;
        self.put(0, missing);
    }
}

/// Bits of an integer.
pub(super) fn golomb_bits(value: u64, order: u32) -> u32 {
    let more = (value + (1 << order)).ilog2() - order;
    2 * more + 1 + order
}

pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[derive(Debug, Clone)]
pub(super) struct BitReader<'a> {
    part: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    /// Reads `bytes`, which belong to the part of that name.
    pub(super) fn new(part: &'static str, bytes: &'a [u8]) -> Self {
        Self { part, bytes, at: 0 }
    }

    /// The next `bits` bits, at most 40.
    pub(super) fn get(&mut self, bits: u32) -> Result<u64, CodecError> {
        let end = self.at + bits as usize;
        if end > self.bytes.len() * 8 {
            return Err(self.damaged());
        }
        let value = self.peek() & ((1 << bits) - 1);
        self.at = end;
        Ok(value)
    }

    /// At least 57 bits, those after the end 0.
    fn peek(&self) -> u64 {
        let rest = &self.bytes[self.at / 8..];
        let mut eight = [0; 8];
        let there = rest.len().min(8);
        eight[..there].copy_from_slice(&rest[..there]);
        u64::from_le_bytes(eight) >> (self.at % 8)
    }

    pub(super) fn golomb(&mut self, order: u32) -> Result<u64, CodecError> {
        let zeros = self.peek().trailing_zeros();
        if zeros + order > MOST_ZEROS {
            return Err(self.damaged());
        }
        self.get(zeros + 1)?;
        Ok((self.get(zeros + order)? | 1 << (zeros + order)) - (1 << order))
    }

    pub(super) fn signed(&mut self, order: u32) -> Result<i64, CodecError> {
        let v = self.golomb(order)?;
        Ok((v >> 1) as i64 ^ -((v & 1) as i64))
    }

    /// The number in the next `bits` bits, which is at most `most`.
    pub(super) fn number(&mut self, bits: u32, most: u64) -> Result<u32, CodecError> {
        let value = self.get(bits)?;
        self.limit(value, most).map(|v| v as u32)
    }

    /// An integer that is at most `most`.
    pub(super) fn at_most(&mut self, most: u64, order: u32) -> Result<usize, CodecError> {
        let value = self.golomb(order)?;
        self.limit(value, most).map(|v| v as usize)
    }

    fn limit(&self, value: u64, most: u64) -> Result<u64, CodecError> {
        if value > most { Err(self.damaged()) } else { Ok(value) }
    }

    pub(super) fn damaged(&self) -> CodecError {
        CodecError::Damaged { part: self.part }
    }

    /// Moves over `bits` bits.
    pub(super) fn skip(&mut self, bits: usize) -> Result<(), CodecError> {
        match self.at.checked_add(bits).filter(|&end| end <= self.bytes.len() * 8) {
            Some(end) => self.at = end,
            None => return Err(self.damaged()),
        }
        Ok(())
    }

    /// Checks that the last byte was begun.
    pub(super) fn check_end(&self) -> Result<(), CodecError> {
        if self.at.div_ceil(8) == self.bytes.len() { Ok(()) } else { Err(self.damaged()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_come_back() {
        let values = [0, 1, 2, 3, 7, 8, 100, 65_535, 1 << 20, u64::from(u32::MAX), 1 << 33];
        for order in [0, 1, 3, 7] {
            let (mut bytes, mut bits) = (Vec::new(), 0);
            let mut writer = BitWriter::new(&mut bytes);
            for &value in &values {
                writer.put_golomb(value, order);
                writer.put_signed(-(value as i64), order);
                bits += golomb_bits(value, order) + golomb_bits(zigzag(-(value as i64)), order);
            }
            writer.finish();
            assert_eq!(bytes.len(), bits.div_ceil(8) as usize);
            let mut reader = BitReader::new("codes", &bytes);
            for &value in &values {
                assert_eq!(reader.golomb(order), Ok(value));
                assert_eq!(reader.signed(order), Ok(-(value as i64)));
            }
            assert_eq!(reader.check_end(), Ok(()));
        }
    }

    #[test]
    fn reading_ends_with_the_bytes() {
        let ended = Err(CodecError::Damaged { part: "codes" });
        for bytes in [&[][..], &[0; 9][..], &[0, 0, 0, 0, 1]] {
            assert_eq!(BitReader::new("codes", bytes).golomb(0), ended);
        }
        assert_eq!(BitReader::new("codes", &[0xff; 4]).get(33), ended);
        assert!(BitReader::new("codes", &[0xff; 4]).skip(33).is_err());
        assert!(BitReader::new("codes", &[0b1110]).at_most(1, 0).is_err());
    }
}
