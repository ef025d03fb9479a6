//! One file that appears at its destination complete or not at all.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::{IoError, Result};

/// A temporary file beside its destination, locked by this run. Dropping it removes it.
#[derive(Debug)]
pub(super) struct AtomicFile {
    destination: PathBuf,
    temporary: PathBuf,
    file: File,
    force: bool,
    committed: bool,
}

impl AtomicFile {
    /// Takes the temporary file of `destination`, an abandoned one too.
    pub(super) fn create(destination: &Path, force: bool) -> Result<Self> {
        let temporary = sibling(destination, "aq-partial")?;
        check_destination(destination, force)?;
        let file = lock_file(&temporary, destination)?;
        let this = Self { destination: destination.into(), temporary, file, force, committed: false };
        // Again under the lock: another run may have finished in between.
        check_destination(destination, force)?;
        this.file.set_len(0).map_err(IoError::os(destination))?;
        Ok(this)
    }

    /// Another handle of the file, for a writer.
    pub(super) fn handle(&self) -> Result<File> {
        self.file.try_clone().map_err(IoError::os(&self.destination))
    }

    /// Where it lies until the commit.
    pub(super) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Syncs it, renames it to its destination and syncs the folder.
    pub(super) fn commit(mut self) -> Result<PathBuf> {
        self.file.sync_all().map_err(IoError::os(&self.destination))?;
        check_destination(&self.destination, self.force)?;
        std::fs::rename(&self.temporary, &self.destination).map_err(IoError::os(&self.destination))?;
        self.committed = true;
        sync_folder(parent(&self.destination))?;
        Ok(self.destination.clone())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.committed {
            // Removed before the lock is given up; there is nobody to tell when it cannot be.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Opens and locks `temporary`. A run that renames or removes it between our opening and our locking makes us try again.
fn lock_file(temporary: &Path, destination: &Path) -> Result<File> {
    for _ in 0..100 {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(temporary).map_err(IoError::os(destination))?;
        if !file.metadata().map_err(IoError::os(destination))?.is_file() {
            return Err(IoError::unsupported(temporary, "in the way of the output and not a regular file"));
        }
        take_lock(&file, destination)?;
        if is_same(&file, temporary) {
            return Ok(file);
        }
    }
    Err(IoError::Busy { path: destination.into() })
}

/// An exclusive advisory lock, or [`IoError::Busy`]. File systems without locks are used without.
pub(super) fn take_lock(file: &File, destination: &Path) -> Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(IoError::Busy { path: destination.into() }),
        Err(TryLockError::Error(e)) if e.kind() != std::io::ErrorKind::Unsupported => {
            Err(IoError::os(destination)(e))
        }
        _ => Ok(()),
    }
}

/// Whether `path` still names the open `file`.
#[cfg(unix)]
pub(super) fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// Whether `path` still names the open `file`.
#[cfg(not(unix))]
pub(super) fn is_same(_: &File, path: &Path) -> bool {
    path.exists()
}

/// Refuses a destination whose folder is missing, that exists without `force`, or that is no regular file.
fn check_destination(destination: &Path, force: bool) -> Result<()> {
    check_parent(destination)?;
    match std::fs::symlink_metadata(destination) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(IoError::os(destination)(e)),
        Ok(_) if !force => Err(IoError::Exists { path: destination.into() }),
        Ok(m) if m.is_file() || m.is_symlink() => Ok(()),
        Ok(_) => {
            Err(IoError::unsupported(destination, "cannot be replaced by a file: it is not a regular file"))
        }
    }
}

/// Refuses a destination whose folder is missing.
pub(super) fn check_parent(destination: &Path) -> Result<()> {
    match parent(destination).is_dir() {
        true => Ok(()),
        false => Err(IoError::not_found(destination, "the folder that should hold it does not exist")),
    }
}

/// The folder that holds `path`.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `.<name>.<suffix>` beside `path`.
pub(super) fn sibling(path: &Path, suffix: &str) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| IoError::unsupported(path, "not a name for an output"))?;
    let mut sibling = OsString::from(".");
    sibling.push(name);
    sibling.push(".");
    sibling.push(suffix);
    Ok(parent(path).join(sibling))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        match File::open(folder).and_then(|f| f.sync_all()) {
            // Some file systems cannot sync a folder and need not.
            Err(e) if e.kind() != std::io::ErrorKind::InvalidInput => return Err(IoError::os(folder)(e)),
            _ => {}
        }
    }
    Ok(())
}
