//! A read-only memory map: the only unsafe code of this crate.

use std::fs::File;
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

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
