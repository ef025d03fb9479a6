//! One column of one row group: its pages, and the values of the small columns.

use parquet_format_safe::{ColumnChunk, Encoding};
use parquet2::compression::Compression;

use super::footer::Layout;
use super::levels;
use super::page::{MAX_PAGE, Page};
use crate::file_bytes::FileBytes;
use crate::{IoError, Result};

/// The longest tensor name.
const MAX_TEXT: u64 = 64 << 10;

/// A column of a row group whose pages were found.
pub(super) struct Chunk<'f> {
    pub(super) file: &'f FileBytes,
    name: &'static str,
    pub(super) pages: Vec<Page>,
}

impl<'f> Chunk<'f> {
    /// Reads every page header of column `column` of a file with the columns of `layout`, whose pages must end before the footer at `footer`.
    ///
    /// # Errors
    /// When a range, size or count contradicts another one, or an encoding or codec is not read.
    pub(super) fn open(
        file: &'f FileBytes,
        layout: &Layout,
        column: usize,
        chunk: &ColumnChunk,
        footer: u64,
    ) -> Result<Self> {
        let mut this = Self { file, name: layout.names[column], pages: Vec::new() };
        let meta = match (&chunk.meta_data, &chunk.file_path) {
            (Some(meta), None) => meta,
            _ => return Err(this.fault("its description is missing or in another file")),
        };
        if meta.type_ != layout.types[column] || meta.path_in_schema.first().is_none_or(|p| p != this.name) {
            return Err(this.fault("another type or name than in the schema"));
        }
        if meta.dictionary_page_offset.is_some() || meta.encodings.iter().any(is_dictionary) {
            return Err(this.fault("a dictionary, which is not read; write it with PLAIN encoding"));
        }
        let codec = match meta.codec.0 {
            0 => Compression::Uncompressed,
            1 => Compression::Snappy,
            2 => Compression::Gzip,
            6 => Compression::Zstd,
            other => return Err(this.fault(&format!("compression codec {other} is not read"))),
        };
        let numbers = [
            meta.data_page_offset,
            meta.total_compressed_size,
            meta.total_uncompressed_size,
            meta.num_values,
        ];
        let [Ok(start), Ok(stored), Ok(plain), Ok(values)] = numbers.map(u64::try_from) else {
            return Err(this.fault("a negative offset, size or value count"));
        };
        let end = start.checked_add(stored).filter(|&end| start >= 4 && end <= footer);
        let end =
            end.ok_or_else(|| this.fault(&format!("its {stored} bytes from {start} lie outside the file")))?;
        let (mut at, mut sizes, mut found) = (start, 0u64, 0u64);
        while at < end {
            let page = Page::read(file, at, end, codec)?.map_err(|e| this.fault(&e))?;
            sizes = sizes.saturating_add(page.body - at).saturating_add(page.plain);
            found = found.saturating_add(page.values);
            at = page.body + page.stored;
            this.pages.push(page);
            if sizes > plain || found > values {
                return Err(this.fault("its pages have more bytes or values than the column size says"));
            }
        }
        if found != values {
            return Err(this.fault(&format!("its pages have {found} values in place of {values}")));
        }
        Ok(this)
    }

    pub(super) fn fault(&self, reason: &str) -> IoError {
        IoError::malformed(self.file.path(), format!("column {}: {reason}", self.name))
    }

    /// Unpacks `page`, which may not be larger than `limit`.
    pub(super) fn unpack(&self, page: &Page, limit: u64) -> Result<Vec<u8>> {
        if page.plain > limit.min(MAX_PAGE) {
            return Err(self.fault(&format!(
                "a page of {} values says it has a size of {} bytes, expected at most {}",
                page.values,
                page.plain,
                limit.min(MAX_PAGE)
            )));
        }
        page.unpack(self.file)?.map_err(|e| self.fault(&e))
    }

    /// The bytes of a page of a column that is not nested: there are no levels.
    fn flat(&self, page: &Page, limit: u64) -> Result<Vec<u8>> {
        match page.levels {
            None | Some((0, 0)) => self.unpack(page, limit),
            Some(_) => Err(self.fault("levels in a page of a required column")),
        }
    }

    /// The values of a column of `N`-byte integers.
    pub(super) fn integers<const N: usize>(&self) -> Result<Vec<[u8; N]>> {
        let mut all = Vec::new();
        for page in &self.pages {
            let bytes = self.flat(page, page.values.saturating_mul(N as u64))?;
            let (values, rest) = bytes.as_chunks::<N>();
            if values.len() as u64 != page.values || !rest.is_empty() {
                return Err(self.fault("a page has another number of values than it says"));
            }
            all.extend_from_slice(values);
        }
        Ok(all)
    }

    /// The values of a column of text.
    pub(super) fn texts(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for page in &self.pages {
            let bytes = self.flat(page, page.values.saturating_mul(MAX_TEXT + 4))?;
            let mut rest = bytes.as_slice();
            for _ in 0..page.values {
                let value =
                    split_value(&mut rest).ok_or_else(|| self.fault("a value passes the end of its page"))?;
                let text = std::str::from_utf8(value).map_err(|_| self.fault("a value is not UTF-8 text"))?;
                all.push(text.to_owned());
            }
            if !rest.is_empty() {
                return Err(self.fault("bytes are left over in a page"));
            }
        }
        Ok(all)
    }

    /// The values of a column of lists: one list a row.
    pub(super) fn lists(&self) -> Result<Vec<Vec<i64>>> {
        let mut all: Vec<Vec<i64>> = Vec::new();
        for page in &self.pages {
            let values = page.values as usize;
            let bytes = self.unpack(page, page.values.saturating_mul(8 + 4).saturating_add(64))?;
            let levels = split_levels(&bytes, page.levels).and_then(|(repeated, defined, rest)| {
                let defined = levels::decode(defined, values)?;
                Some((levels::decode(repeated, values)?, defined, rest))
            });
            let (repeated, defined, mut rest) =
                levels.ok_or_else(|| self.fault("the levels of a page are corrupt"))?;
            for (again, here) in repeated.into_iter().zip(defined) {
                if !again {
                    all.push(Vec::new());
                }
                if here {
                    let (value, tail) =
                        rest.split_first_chunk().ok_or_else(|| self.fault("a page ends too early"))?;
                    let row = all.last_mut().ok_or_else(|| self.fault("the first value repeats nothing"))?;
                    row.push(i64::from_le_bytes(*value));
                    rest = tail;
                } else if again {
                    return Err(self.fault("an empty list repeats"));
                }
            }
            if !rest.is_empty() {
                return Err(self.fault("bytes are left over in a page"));
            }
        }
        Ok(all)
    }
}

fn is_dictionary(encoding: &Encoding) -> bool {
    [Encoding::PLAIN_DICTIONARY, Encoding::RLE_DICTIONARY].contains(encoding)
}

/// Cuts a value with a four-byte length off the front.
pub(super) fn split_value<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, tail) = rest.split_first_chunk::<4>()?;
    let (value, tail) = tail.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    *rest = tail;
    Some(value)
}

/// Repetition levels, definition levels and values of a page.
fn split_levels(bytes: &[u8], v2: Option<(u64, u64)>) -> Option<(&[u8], &[u8], &[u8])> {
    if let Some((repetition, definition)) = v2 {
        let (repeated, rest) = bytes.split_at_checked(usize::try_from(repetition).ok()?)?;
        let (defined, rest) = rest.split_at_checked(usize::try_from(definition).ok()?)?;
        return Some((repeated, defined, rest));
    }
    let mut rest = bytes;
    Some((split_value(&mut rest)?, split_value(&mut rest)?, rest))
}
