//! One data page: its header, and its bytes once they are unpacked.

use parquet_format_safe::thrift::protocol::TCompactInputProtocol;
use parquet_format_safe::{Encoding, PageHeader, PageType};
use parquet2::compression::{Compression, decompress};

use crate::Result;
use crate::file_bytes::FileBytes;

/// A page header is looked for in this many bytes, then in the larger window.
const WINDOWS: [u64; 2] = [256, 64 << 10];

/// The largest page that is unpacked or read as a whole.
pub(super) const MAX_PAGE: u64 = 64 << 20;

/// Where a data page lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    /// First byte after the header.
    pub(super) body: u64,
    /// Bytes in the file.
    pub(super) stored: u64,
    /// Bytes once unpacked.
    pub(super) plain: u64,
    pub(super) values: u64,
    /// Bytes of repetition and definition levels in front of a version 2 page, never compressed.
    pub(super) levels: Option<(u64, u64)>,
    pub(super) codec: Compression,
}

impl Page {
    /// Reads the header at `at`; the page must end at `end` or before.
    pub(super) fn read(
        file: &FileBytes,
        at: u64,
        end: u64,
        codec: Compression,
    ) -> Result<std::result::Result<Self, String>> {
        let mut parsed = Err("the page is truncated".to_owned());
        for window in WINDOWS {
            let mut bytes = vec![0; end.saturating_sub(at).min(window) as usize];
            file.read_exact_at(at, &mut bytes)?;
            let mut rest = bytes.as_slice();
            let budget = bytes.len() * 2 + 1024;
            let mut protocol = TCompactInputProtocol::new(&mut rest, budget);
            let header = PageHeader::read_from_in_protocol(&mut protocol);
            parsed = header
                .map(|h| (h, (bytes.len() - rest.len()) as u64))
                .map_err(|e| format!("the page header is corrupt: {e}"));
            if parsed.is_ok() {
                break;
            }
        }
        Ok(parsed.and_then(|(header, len)| Self::from_header(&header, at.saturating_add(len), end, codec)))
    }

    fn from_header(
        header: &PageHeader,
        body: u64,
        end: u64,
        codec: Compression,
    ) -> std::result::Result<Self, String> {
        let size =
            |n: i32, what: &str| u64::try_from(n).map_err(|_| format!("negative {what} in a page: {n}"));
        let stored = size(header.compressed_page_size, "size")?;
        let plain = size(header.uncompressed_page_size, "size")?;
        if body.checked_add(stored).is_none_or(|e| e > end) {
            return Err(format!("a page of {stored} bytes passes the end of its column"));
        }
        let (values, encoding, levels, packed) = match (&header.data_page_header, &header.data_page_header_v2)
        {
            (Some(h), None) if header.type_ == PageType::DATA_PAGE => {
                if h.repetition_level_encoding != Encoding::RLE
                    || h.definition_level_encoding != Encoding::RLE
                {
                    return Err("a page has levels that are not RLE".into());
                }
                (h.num_values, h.encoding, None, true)
            }
            (None, Some(h)) if header.type_ == PageType::DATA_PAGE_V2 => {
                let repetition = size(h.repetition_levels_byte_length, "level size")?;
                let definition = size(h.definition_levels_byte_length, "level size")?;
                if repetition + definition > stored.min(plain) {
                    return Err("the levels of a page are longer than the page".into());
                }
                (h.num_values, h.encoding, Some((repetition, definition)), h.is_compressed.unwrap_or(true))
            }
            _ => return Err(format!("a page of type {} (only data pages are read)", header.type_.0)),
        };
        if encoding != Encoding::PLAIN {
            return Err(format!("a page has encoding {}, only PLAIN is read", encoding.0));
        }
        let codec = if packed { codec } else { Compression::Uncompressed };
        if codec == Compression::Uncompressed && stored != plain {
            return Err(format!("an uncompressed page has sizes {stored} and {plain}"));
        }
        Ok(Self { body, stored, plain, values: size(values, "value count")?, levels, codec })
    }

    /// Whether values can be used where they lie.
    pub(super) fn is_plain(&self) -> bool {
        self.codec == Compression::Uncompressed
    }

    /// All its bytes, unpacked. The caller has compared [`Page::plain`] with what it expects.
    pub(super) fn unpack(&self, file: &FileBytes) -> Result<std::result::Result<Vec<u8>, String>> {
        if self.plain > MAX_PAGE || self.stored > MAX_PAGE {
            return Ok(Err(format!("a page of size {} is too large", self.plain.max(self.stored))));
        }
        let mut stored = vec![0; self.stored as usize];
        file.read_exact_at(self.body, &mut stored)?;
        if self.is_plain() {
            return Ok(Ok(stored));
        }
        let levels = self.levels.map_or(0, |(r, d)| r + d) as usize;
        let mut plain = vec![0; self.plain as usize];
        let unpacked = match (stored.split_at_checked(levels), plain.split_at_mut_checked(levels)) {
            (Some((head, packed)), Some((start, body))) => {
                start.copy_from_slice(head);
                if body.is_empty() {
                    Ok(())
                } else {
                    decompress(self.codec, packed, body)
                        .map_err(|e| format!("a page does not decompress: {e}"))
                }
            }
            _ => Err("the levels of a page are longer than the page".into()),
        };
        Ok(unpacked.map(|()| plain))
    }
}
