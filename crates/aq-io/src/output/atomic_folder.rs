//! A folder that appears at its destination complete or not at all.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::CreateOptions;
use super::atomic_file::{check_parent, is_same, parent, sibling, sync_folder, take_lock};
use crate::folder::is_ours;
use crate::{IoError, Result, safetensors};

/// A folder built beside its destination as `.<name>.aq-partial`, locked by this run.
///
/// Dropping it removes it, unless [`StagedFolder::keep_when_dropped`] says otherwise.
#[derive(Debug)]
pub struct StagedFolder {
    destination: PathBuf,
    partial: PathBuf,
    force: bool,
    remove: bool,
    _lock: Option<File>,
}

impl StagedFolder {
    /// Takes the partial folder of `destination`: as an earlier run left it with `resume`, else empty.
    ///
    /// # Errors
    /// As [`crate::create`]. With `force`, an existing folder is replaced only when it is empty or one of our outputs.
    pub fn create(destination: &Path, options: &CreateOptions) -> Result<Self> {
        let (partial, old) = (sibling(destination, "aq-partial")?, sibling(destination, "aq-old")?);
        check_destination(destination, options.force)?;
        let lock = lock_folder(&partial, destination)?;
        let remove = !options.resume;
        let this =
            Self { destination: destination.into(), partial, force: options.force, remove, _lock: lock };
        // A run that ended between the two renames of its commit left the old result aside.
        if exists(&old) && !exists(destination) {
            std::fs::rename(&old, destination).map_err(IoError::os(destination))?;
        }
        check_destination(destination, options.force)?;
        if !options.resume {
            this.clear()?;
        }
        Ok(this)
    }

    /// Where the files go until the commit.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Whether it stays when it is dropped without a commit.
    pub fn keep_when_dropped(&mut self, keep: bool) {
        self.remove = !keep;
    }

    /// Writes a small file into it, in place of one of that name, and makes it durable.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn add_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.partial.join(name);
        let mut file = File::create(&path).map_err(IoError::os(&path))?;
        std::io::Write::write_all(&mut file, bytes).map_err(IoError::os(&path))?;
        file.sync_all().map_err(IoError::os(&path))
    }

    /// Removes everything in it.
    fn clear(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.partial).map_err(IoError::os(&self.partial))? {
            let entry = entry.map_err(IoError::os(&self.partial))?;
            let is_dir = entry.file_type().map_err(IoError::os(&self.partial))?.is_dir();
            let path = entry.path();
            let removed = if is_dir { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.map_err(IoError::os(&path))?;
        }
        Ok(())
    }

    /// Syncs the folder, renames it to its destination and syncs the folder above. The files in it were synced by
    /// whoever wrote them. Returns the destination.
    ///
    /// # Errors
    /// What the operating system says; the destination is then as it was before.
    pub fn commit(mut self) -> Result<PathBuf> {
        let (destination, above) = (&self.destination, parent(&self.destination));
        sync_folder(&self.partial)?;
        check_destination(destination, self.force)?;
        if exists(destination) && exchange(&self.partial, destination) {
            sync_folder(above)?;
            // The result is in place and durable; what is dropped now is the old one.
            self.remove = true;
            return Ok(destination.clone());
        }
        let old = sibling(destination, "aq-old")?;
        let replaces = exists(destination);
        if replaces {
            remove_all(&old)?;
            std::fs::rename(destination, &old).map_err(IoError::os(destination))?;
        }
        if let Err(e) = std::fs::rename(&self.partial, destination) {
            if replaces {
                let _ = std::fs::rename(&old, destination);
            }
            return Err(IoError::os(destination)(e));
        }
        self.remove = false;
        sync_folder(above)?;
        // The result is in place and durable; what is left of the old one is removed by the next run if not now.
        let _ = remove_all(&old);
        Ok(destination.clone())
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        if self.remove {
            let _ = std::fs::remove_dir_all(&self.partial);
        }
    }
}

/// Makes and locks the partial folder. See [`super::atomic_file`] for why it tries again.
fn lock_folder(partial: &Path, destination: &Path) -> Result<Option<File>> {
    for _ in 0..100 {
        match std::fs::create_dir(partial) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(IoError::os(destination)(e)),
            _ => {}
        }
        if !std::fs::symlink_metadata(partial).map_err(IoError::os(destination))?.is_dir() {
            return Err(IoError::unsupported(partial, "in the way of the output and not a folder"));
        }
        if !cfg!(unix) {
            return Ok(None);
        }
        let Ok(folder) = File::open(partial) else { continue };
        take_lock(&folder, destination)?;
        if is_same(&folder, partial) {
            return Ok(Some(folder));
        }
    }
    Err(IoError::Busy { path: destination.into() })
}

/// Refuses a destination whose parent is missing, that exists without `force`, or that is not ours to remove.
fn check_destination(destination: &Path, force: bool) -> Result<()> {
    check_parent(destination)?;
    match std::fs::symlink_metadata(destination) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(IoError::os(destination)(e)),
        Ok(_) if !force => Err(IoError::Exists { path: destination.into() }),
        Ok(m) if m.is_dir() && may_replace(destination) => Ok(()),
        Ok(m) if m.is_dir() => Err(IoError::unsupported(
            destination,
            "holds other files than an output; remove it by hand to replace it",
        )),
        Ok(_) => Err(IoError::unsupported(destination, "cannot be replaced by a folder: it is not one")),
    }
}

/// Empty, or one of our outputs, or a pipeline with one in it: a wrong `--force` must not remove somebody's folder.
fn may_replace(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    let children: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    let ours = |folder: &Path| is_ours(folder) || safetensors::is_ours(folder);
    children.is_empty() || ours(folder) || children.iter().any(|c| ours(c))
}

/// Swaps two folders in one step; `false`, with nothing changed, where the system cannot do that.
#[cfg(target_os = "linux")]
fn exchange(a: &Path, b: &Path) -> bool {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> bool {
    false
}

fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

fn remove_all(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(m) if m.is_dir() => std::fs::remove_dir_all(path).map_err(IoError::os(path)),
        Ok(_) => std::fs::remove_file(path).map_err(IoError::os(path)),
    }
}
