//! The sink of a calibration statistics file.

use std::path::{Path, PathBuf};

use super::atomic_file::AtomicFile;
use super::file_sink::{Out, out, pending};
use crate::columnar::StatisticsWriter;
use crate::{LayerStatistics, PendingOutput, Result};

/// A statistics file being written beside its destination, one layer at a time.
pub struct StatisticsSink {
    format: StatisticsWriter<Out>,
    file: AtomicFile,
    destination: PathBuf,
}

impl StatisticsSink {
    /// Begins a file beside `path`. The destination is looked at first, and nothing is there until the commit.
    ///
    /// # Errors
    /// As [`crate::create`].
    pub fn create(path: &Path, force: bool) -> Result<Self> {
        let file = AtomicFile::create(path, force)?;
        let format = StatisticsWriter::new(out(file.handle()?, false), path)?;
        Ok(Self { format, file, destination: path.into() })
    }

    /// Appends a layer.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write(&mut self, layer: &LayerStatistics) -> Result<()> {
        self.format.write(layer)
    }

    /// Writes the footer with `metadata`. Nothing is at the destination yet.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn finish(self, metadata: &[(String, String)]) -> Result<Box<dyn PendingOutput>> {
        pending(self.format.finish(metadata)?, Vec::new(), self.file, self.destination)
    }
}
