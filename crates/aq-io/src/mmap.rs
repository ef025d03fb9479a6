//! A read-only memory map: the only unsafe code of this crate.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use crate::{IoError, Result};

/// A file mapped for reading.
///
/// A map of a file that another program shortens meanwhile ends the process with SIGBUS, and its pages count as memory
/// in use; [`crate::Access::Positioned`] has neither trait.
#[derive(Debug)]
pub(crate) struct Map(memmap2::Mmap);

impl Map {
    /// Maps all of `file`.
    ///
    /// # Errors
    /// What the operating system says: not every file system can be mapped.
    #[expect(
        unsafe_code,
        reason = "a map is sound only while nobody writes to the file, which no type can express"
    )]
    pub(crate) fn new(file: &File, path: &Path) -> Result<Self> {
        // SAFETY: the map is read-only and private to this process. The readers treat its bytes as untrusted: they copy or
        // check every number once and hold no reference whose validity depends on the content, so a program that
        // writes to the file meanwhile changes values only; one that shortens it stops the process, as documented.
        let map = unsafe { memmap2::Mmap::map(file) }.map_err(IoError::os(path))?;
        Ok(Self(map))
    }

    /// Asks for the pages of `range`, which lies in the map, all at once: that is less work than one fault after the other.
    /// A system that cannot do that does nothing.
    pub(crate) fn populate(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        let _ = self.0.advise_range(memmap2::Advice::PopulateRead, range.start, range.len());
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
