//! The bytes of one file, read by position or borrowed from a map.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::mmap::Map;
use crate::{Access, IoError, Result};

/// Bytes from which on the pages of a range are asked for at once.
const LARGE: usize = 64 << 10;

/// An open file whose length was taken once; every read is checked against it.
#[derive(Debug)]
pub(crate) struct FileBytes {
    path: PathBuf,
    file: File,
    len: u64,
    map: Option<Map>,
}

impl FileBytes {
    /// Opens a regular file; `access` decides whether it is mapped. A file that cannot be mapped is read by position.
    ///
    /// # Errors
    /// When it is missing, not a regular file or not readable.
    pub(crate) fn open(path: &Path, access: Access) -> Result<Self> {
        // Looked at before it is opened: opening a named pipe would wait for a writer.
        require_regular(path, &std::fs::metadata(path).map_err(IoError::os(path))?)?;
        let file = File::open(path).map_err(IoError::os(path))?;
        let metadata = file.metadata().map_err(IoError::os(path))?;
        require_regular(path, &metadata)?;
        let map = match access {
            Access::Mapped if metadata.len() > 0 => Map::new(&file, path).ok(),
            _ => None,
        };
        let len = map.as_ref().map_or(metadata.len(), |m| m.bytes().len() as u64);
        Ok(Self { path: path.into(), file, len, map })
    }

    /// Where it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes when it was opened.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The bytes of `range`, when the file is mapped and holds them.
    pub(crate) fn borrow(&self, range: Range<u64>) -> Option<&[u8]> {
        let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
        let map = self.map.as_ref()?;
        let bytes = map.bytes().get(start..end)?;
        if bytes.len() >= LARGE {
            map.populate(start..end);
        }
        Some(bytes)
    }

    /// Fills `dst` with the bytes from `start` on.
    ///
    /// # Errors
    /// When the range passes the end of the file or the operating system cannot read it.
    pub(crate) fn read_exact_at(&self, start: u64, dst: &mut [u8]) -> Result<()> {
        let end = start.checked_add(dst.len() as u64).filter(|&end| end <= self.len).ok_or_else(|| {
            IoError::malformed(
                &self.path,
                format!("truncated: {} bytes at {start} end beyond the file", dst.len()),
            )
        })?;
        if let Some(bytes) = self.borrow(start..end) {
            dst.copy_from_slice(bytes);
            return Ok(());
        }
        read_at(&self.file, start, dst).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                IoError::malformed(&self.path, "truncated: the file became shorter while it was read")
            }
            _ => IoError::os(&self.path)(e),
        })
    }
}

fn require_regular(path: &Path, metadata: &std::fs::Metadata) -> Result<()> {
    match metadata.is_file() {
        true => Ok(()),
        false => Err(IoError::unsupported(path, "not a regular file")),
    }
}

#[cfg(unix)]
fn read_at(file: &File, start: u64, dst: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, dst, start)
}

#[cfg(windows)]
fn read_at(file: &File, mut start: u64, mut dst: &mut [u8]) -> std::io::Result<()> {
    while !dst.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, dst, start)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => {
                start += n as u64;
                dst = dst.split_at_mut(n).1;
            }
        }
    }
    Ok(())
}
