//! A complete folder beside its destination.

use std::path::{Path, PathBuf};

use super::{Region, StagedFolder, check_regions};
use crate::{IoError, PendingOutput, Result};

/// A folder that every file has been written to.
pub(crate) struct PendingFolder {
    folder: StagedFolder,
    bytes: u64,
    regions: Vec<(String, Vec<Region>)>,
    scaffold: Option<&'static str>,
}

impl PendingFolder {
    /// A folder whose files have `bytes` bytes.
    pub(crate) fn new(folder: StagedFolder, bytes: u64) -> Self {
        Self { folder, bytes, regions: Vec::new(), scaffold: None }
    }

    /// With the regions of its files that have no checksums of their own.
    pub(crate) fn with_regions(self, regions: Vec<(String, Vec<Region>)>) -> Self {
        Self { regions, ..self }
    }

    /// With a file that is no part of the result.
    pub(crate) fn with_scaffold(self, file: &'static str) -> Self {
        Self { scaffold: Some(file), ..self }
    }
}

impl PendingOutput for PendingFolder {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn is_folder(&self) -> bool {
        true
    }

    fn add_file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.folder.add_file(name, bytes)
    }

    fn check(&self, stopped: &dyn Fn() -> bool) -> Result<()> {
        let mut files = self.regions.iter();
        files.try_for_each(|(name, regions)| check_regions(&self.folder.path().join(name), regions, stopped))
    }

    fn commit(self: Box<Self>) -> Result<PathBuf> {
        if let Some(file) = self.scaffold {
            let path = self.folder.path().join(file);
            std::fs::remove_file(&path).map_err(IoError::os(&path))?;
        }
        self.folder.commit()
    }
}
