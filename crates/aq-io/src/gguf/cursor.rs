//! Little-endian numbers and strings from the front of a file, never past its end.

use crate::file_bytes::FileBytes;
use crate::{IoError, Result};

/// Bytes that are read ahead.
const AHEAD: u64 = 64 << 10;

/// The longest string that is read.
const MAX_STRING: u64 = 64 << 20;

/// A place in a file.
pub(super) struct Cursor<'a> {
    file: &'a FileBytes,
    at: u64,
    /// Bytes from `start` on that were read.
    buffer: Vec<u8>,
    start: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a FileBytes) -> Self {
        Self { file, at: 0, buffer: Vec::new(), start: 0 }
    }

    /// Bytes before the place.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Bytes behind the place.
    pub(super) fn rest(&self) -> u64 {
        self.file.len().saturating_sub(self.at)
    }

    pub(super) fn fault(&self, fact: impl Into<String>) -> IoError {
        IoError::malformed(self.file.path(), fact)
    }

    /// The next `n` bytes; `what` names them in messages.
    pub(super) fn bytes(&mut self, n: u64, what: &str) -> Result<&[u8]> {
        if n > self.rest() {
            let fact = format!("truncated: {what} of {n} bytes at {} end beyond the file", self.at);
            return Err(self.fault(fact));
        }
        let end = self.at + n;
        if self.at < self.start || end > self.start + self.buffer.len() as u64 {
            let len = n.max(AHEAD).min(self.rest());
            self.buffer.resize(len as usize, 0);
            self.start = self.at;
            self.file.read_exact_at(self.start, &mut self.buffer)?;
        }
        let from = (self.at - self.start) as usize;
        self.at = end;
        Ok(&self.buffer[from..from + n as usize])
    }

    /// Goes on `n` bytes.
    pub(super) fn skip(&mut self, n: u64, what: &str) -> Result<()> {
        if n > self.rest() {
            return Err(self.fault(format!("truncated: {what} of {n} bytes end beyond the file")));
        }
        self.at += n;
        Ok(())
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N as u64, what)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A string: its length and so many bytes of UTF-8, at most `max`.
    pub(super) fn string(&mut self, max: u64, what: &str) -> Result<String> {
        let length = self.string_length(what)?;
        if length > max.min(MAX_STRING) {
            return Err(self.fault(format!("{what} is too long: a length of {length} bytes")));
        }
        match std::str::from_utf8(self.bytes(length, what)?) {
            Ok(text) => Ok(text.to_string()),
            Err(_) => Err(self.fault(format!("{what} is not UTF-8"))),
        }
    }

    /// Goes over a string.
    pub(super) fn skip_string(&mut self, what: &str) -> Result<()> {
        let length = self.string_length(what)?;
        self.skip(length, what)
    }

    fn string_length(&mut self, what: &str) -> Result<u64> {
        let length = self.u64(what)?;
        match length > self.rest() {
            true => Err(self.fault(format!(
                "truncated: the length of {what} is {length} and {} bytes follow",
                self.rest()
            ))),
            false => Ok(length),
        }
    }
}
