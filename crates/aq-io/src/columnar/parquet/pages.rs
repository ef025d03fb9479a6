//! Pages on their way into a file, and the side columns that wait for their turn.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::Receiver;

use parquet2::FallibleStreamingIterator;
use parquet2::compression::Compression;
use parquet2::encoding::Encoding;
use parquet2::error::Error;
use parquet2::metadata::Descriptor;
use parquet2::page::{CompressedDataPage, CompressedPage, DataPageHeader, DataPageHeaderV1};
use tempfile::SpooledTempFile;

use crate::{IoError, Result};

/// A page of a side column is closed when it holds this many bytes.
const PAGE_BYTES: usize = 1 << 20;

/// Bytes of a side column that are kept in memory before they go to a temporary file.
const SPOOL_BYTES: usize = 1 << 20;

/// A PLAIN, uncompressed page without statistics, of a required column.
pub(super) fn plain_page(buffer: Vec<u8>, values: usize, column: &Descriptor) -> CompressedPage {
    let header = DataPageHeaderV1 {
        num_values: values as i32,
        encoding: Encoding::Plain.into(),
        definition_level_encoding: Encoding::Rle.into(),
        repetition_level_encoding: Encoding::Rle.into(),
        statistics: None,
    };
    let len = buffer.len();
    CompressedPage::Data(CompressedDataPage::new(
        DataPageHeader::V1(header),
        buffer,
        Compression::Uncompressed,
        len,
        column.clone(),
        Some(values),
    ))
}

/// Appends a value of a binary column: its length in four bytes, then the value.
pub(super) fn put_value(page: &mut Vec<u8>, value: &[u8]) {
    page.extend_from_slice(&(value.len() as u32).to_le_bytes());
    page.extend_from_slice(value);
}

/// The pages of one column, as they arrive from the thread that makes them.
pub(super) struct Arriving {
    // The writer asks for `Sync`, which a receiver alone is not.
    pages: Mutex<Receiver<CompressedPage>>,
    current: Option<CompressedPage>,
}

impl Arriving {
    /// Ends when the sender is dropped.
    pub(super) fn new(pages: Receiver<CompressedPage>) -> Self {
        Self { pages: Mutex::new(pages), current: None }
    }
}

impl FallibleStreamingIterator for Arriving {
    type Item = CompressedPage;
    type Error = Error;

    fn advance(&mut self) -> std::result::Result<(), Error> {
        // Dropped first: the next page may take its memory.
        self.current = None;
        let pages = self.pages.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.current = pages.recv().ok();
        Ok(())
    }

    fn get(&self) -> Option<&CompressedPage> {
        self.current.as_ref()
    }
}

/// A side column: it comes after `codes` in the file, so its pages wait here, in memory while they are few.
pub(super) struct Spool {
    file: SpooledTempFile,
    /// Bytes and values of each page in `file`.
    pages: Vec<(usize, usize)>,
    open: Vec<u8>,
    values: usize,
}

impl Spool {
    /// A spool that overflows into an unnamed file in `folder`.
    pub(super) fn new(folder: &Path) -> Self {
        let file = tempfile::spooled_tempfile_in(SPOOL_BYTES, folder);
        Self { file, pages: Vec::new(), open: Vec::new(), values: 0 }
    }

    /// Appends bytes of one value.
    pub(super) fn push(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> std::io::Result<()> {
        put(&mut self.open);
        self.values += 1;
        if self.open.len() >= PAGE_BYTES { self.close_page() } else { Ok(()) }
    }

    fn close_page(&mut self) -> std::io::Result<()> {
        self.file.write_all(&self.open)?;
        self.pages.push((self.open.len(), self.values));
        self.open.clear();
        self.values = 0;
        Ok(())
    }

    /// Hands every page to `take`, which says whether it wants more.
    ///
    /// # Errors
    /// What the operating system says of the temporary file.
    pub(super) fn drain(
        mut self,
        path: &Path,
        column: &Descriptor,
        mut take: impl FnMut(CompressedPage) -> bool,
    ) -> Result<()> {
        let mut run = || -> std::io::Result<()> {
            if self.pages.is_empty() {
                take(plain_page(std::mem::take(&mut self.open), self.values, column));
                return Ok(());
            }
            if self.values > 0 {
                self.close_page()?;
            }
            self.file.seek(SeekFrom::Start(0))?;
            for &(bytes, values) in &self.pages {
                let mut page = vec![0; bytes];
                self.file.read_exact(&mut page)?;
                if !take(plain_page(page, values, column)) {
                    break;
                }
            }
            Ok(())
        };
        run().map_err(IoError::os(path))
    }
}
