//! A model that is being written.

use std::path::{Path, PathBuf};

use aq_core::{EncodedRows, EncodedSlab, StoredTensor};

use crate::Result;

/// The finished slabs of a model in file order: tensor by tensor, slab by slab.
pub trait SlabStream {
    /// The next slab; `None` when there are no more, or when whoever makes them had to stop.
    fn next_slab(&mut self) -> Option<EncodedSlab>;

    /// Takes a written slab's buffers back for reuse.
    fn recycle(&mut self, rows: EncodedRows);
}

/// A format being written. Its memory is bounded by a few slabs, whatever the size of a tensor.
pub trait Sink {
    /// How many of the leading `tensors` an earlier run has already written. Called before [`Sink::write`], whose
    /// stream then starts with the tensor after them; `write` still takes the full list. Most formats cannot resume.
    ///
    /// # Errors
    /// What the operating system says.
    fn resume(&mut self, _tensors: &[StoredTensor]) -> Result<Resumed> {
        Ok(Resumed::default())
    }

    /// Writes every tensor, pulling all their slabs from `slabs`.
    ///
    /// # Errors
    /// [`crate::IoError::Stopped`] when the stream ends early; otherwise what the operating system says.
    fn write(&mut self, tensors: &[StoredTensor], slabs: &mut dyn SlabStream) -> Result<()>;

    /// Writes the metadata and closes the files. Nothing is at the destination yet.
    ///
    /// # Errors
    /// What the operating system says.
    fn finish(self: Box<Self>, metadata: &[(String, String)]) -> Result<Box<dyn PendingOutput>>;
}

/// A complete result beside its destination. Dropping it removes it.
pub trait PendingOutput {
    /// Where it lies now: a file or folder that [`crate::open`] reads.
    fn path(&self) -> &Path;

    /// Bytes of all its files.
    fn bytes(&self) -> u64;

    /// Whether it is a folder of files.
    fn is_folder(&self) -> bool {
        false
    }

    /// Adds a small file to a folder; a single file has no place for one.
    ///
    /// # Errors
    /// What the operating system says.
    fn add_file(&mut self, _name: &str, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    /// Reads back what has no checksums of its own and compares it with what was written; `stopped` is asked now and then.
    ///
    /// # Errors
    /// Names the first tensor that differs; [`crate::IoError::Stopped`] when `stopped` says so.
    fn check(&self, _stopped: &dyn Fn() -> bool) -> Result<()> {
        Ok(())
    }

    /// Syncs it, moves it to the destination in one step and syncs the folder. Returns the destination.
    ///
    /// # Errors
    /// What the operating system says; the destination is then as it was before.
    fn commit(self: Box<Self>) -> Result<PathBuf>;
}

/// The slabs of one file of several, numbered from its first tensor.
pub(crate) struct PartStream<'a> {
    pub(crate) slabs: &'a mut dyn SlabStream,
    pub(crate) first: usize,
}

impl SlabStream for PartStream<'_> {
    fn next_slab(&mut self) -> Option<EncodedSlab> {
        let mut slab = self.slabs.next_slab()?;
        // A slab of an earlier file gets a number that no tensor has, and the file refuses it.
        slab.tensor = slab.tensor.checked_sub(self.first).unwrap_or(usize::MAX);
        Some(slab)
    }

    fn recycle(&mut self, rows: EncodedRows) {
        self.slabs.recycle(rows);
    }
}

/// What an earlier run has already written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resumed {
    /// How many of the leading tensors.
    pub tensors: usize,
    /// The native Parquet files that hold them, in order.
    pub parts: Vec<PathBuf>,
}
