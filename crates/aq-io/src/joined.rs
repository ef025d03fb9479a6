//! Several files read as one model.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use aq_core::{SlabParts, StoredTensor};

use crate::{Format, IoError, Result, Source};

/// The tensors of several sources, one source after the other.
pub(crate) struct Joined {
    path: PathBuf,
    format: Format,
    parts: Vec<Box<dyn Source>>,
    tensors: Vec<StoredTensor>,
    /// Part and index in it of each tensor.
    places: Vec<(usize, usize)>,
    metadata: BTreeMap<String, String>,
}

impl Joined {
    /// Joins `parts`, whose tensors must have different names.
    pub(crate) fn new(
        path: &Path,
        format: Format,
        parts: Vec<Box<dyn Source>>,
        metadata: BTreeMap<String, String>,
    ) -> Result<Self> {
        let (mut tensors, mut places) = (Vec::new(), Vec::new());
        for (part, source) in parts.iter().enumerate() {
            tensors.extend_from_slice(source.tensors());
            places.extend((0..source.tensors().len()).map(|index| (part, index)));
        }
        let joined = Self { path: path.into(), format, parts, tensors, places, metadata };
        joined.check_names()?;
        Ok(joined)
    }

    fn check_names(&self) -> Result<()> {
        let mut order: Vec<usize> = (0..self.tensors.len()).collect();
        order.sort_by_key(|&i| (self.name(i), i));
        for pair in order.windows(2) {
            if let [a, b] = *pair
                && self.name(a) == self.name(b)
            {
                let fact = format!("duplicate: also in {}", self.file_name(a));
                return Err(IoError::tensor(self.file(b), self.name(b), fact));
            }
        }
        Ok(())
    }

    fn name(&self, index: usize) -> &str {
        self.tensors.get(index).map_or("?", |t| t.info.name())
    }

    /// The file that holds tensor `index`.
    fn file(&self, index: usize) -> &Path {
        self.place(index).map_or(&self.path, |(source, _)| source.path())
    }

    fn file_name(&self, index: usize) -> String {
        self.file(index).file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn place(&self, index: usize) -> Option<(&dyn Source, usize)> {
        let &(part, index) = self.places.get(index)?;
        Some((self.parts.get(part)?.as_ref(), index))
    }

    fn require(&self, index: usize) -> Result<(&dyn Source, usize)> {
        self.place(index).ok_or_else(|| IoError::malformed(&self.path, format!("there is no tensor {index}")))
    }
}

impl Source for Joined {
    fn path(&self) -> &Path {
        &self.path
    }

    fn format(&self) -> Format {
        self.format
    }

    fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn stored_bytes(&self, index: usize) -> u64 {
        self.place(index).map_or(0, |(source, i)| source.stored_bytes(i))
    }

    fn read_bytes(&self, index: usize, start: u64, dst: &mut [u8]) -> Result<()> {
        let (source, i) = self.require(index)?;
        source.read_bytes(i, start, dst)
    }

    fn borrow_bytes(&self, index: usize, range: Range<u64>) -> Option<&[u8]> {
        let (source, i) = self.place(index)?;
        source.borrow_bytes(i, range)
    }

    fn read_slab<'a>(&'a self, index: usize, slab: u64, buffer: &'a mut Vec<u8>) -> Result<SlabParts<'a>> {
        let (source, i) = self.require(index)?;
        source.read_slab(i, slab, buffer)
    }
}
