//! A model that can be read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use aq_core::{SlabParts, StoredTensor};

use crate::Result;

/// File formats by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// One safetensors file or a folder of shards.
    Safetensors,
    /// Packed layers in safetensors, with a configuration that describes them.
    Diffusers,
    /// Native Parquet.
    Parquet,
    /// Arrow IPC.
    Arrow,
    /// A folder of native Parquet parts with a manifest.
    Folder,
    /// GGUF.
    Gguf,
}

impl Format {
    /// Its name as users type it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Safetensors => "safetensors",
            Format::Diffusers => "diffusers",
            Format::Parquet => "parquet",
            Format::Arrow => "arrow",
            Format::Folder => "folder",
            Format::Gguf => "gguf",
        }
    }
}

/// How a source reads bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Positioned reads into the caller's buffer: memory stays bounded (streaming).
    Positioned,
    /// A memory map (batch). Falls back to positioned reads where a file cannot be mapped.
    Mapped,
}

/// A model that was opened: its header is checked, its values are read on demand. Shared between threads.
pub trait Source: Send + Sync {
    /// Where it was opened.
    fn path(&self) -> &Path;

    /// Its format.
    fn format(&self) -> Format;

    /// Its tensors in file order. Names are unique.
    fn tensors(&self) -> &[StoredTensor];

    /// Free-form metadata of the file (safetensors `__metadata__`, Parquet footer key-values).
    fn metadata(&self) -> &BTreeMap<String, String>;

    /// Bytes that tensor `index` takes in the file: codes and side data, or its elements.
    fn stored_bytes(&self, index: usize) -> u64;

    /// Fills `dst` with the stored bytes of a `raw` tensor from byte `start` on.
    ///
    /// # Errors
    /// When the range is outside the tensor, the tensor is not `raw`, or the file cannot be read or is damaged there.
    fn read_bytes(&self, index: usize, start: u64, dst: &mut [u8]) -> Result<()>;

    /// The same bytes borrowed from a memory map, where there is one that holds them in one piece.
    fn borrow_bytes(&self, index: usize, range: Range<u64>) -> Option<&[u8]>;

    /// The parts of slab `slab` of tensor `index` (see [`aq_core::slab_range`]), checked against its checksum; borrowed from the
    /// memory map where possible, else read into `buffer`.
    ///
    /// # Errors
    /// When the file cannot be read or the slab is damaged. Sources that have no slabs refuse.
    fn read_slab<'a>(&'a self, index: usize, slab: u64, buffer: &'a mut Vec<u8>) -> Result<SlabParts<'a>>;
}
