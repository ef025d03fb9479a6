//! A file some of whose tensors make up layers: each layer is seen as one encoded tensor.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use aq_core::{SlabParts, StoredTensor, slab_range};

use crate::{Format, IoError, Result, Source};

/// Where the parts of a layer are in a file, and how its rows are read.
pub(super) trait Layer: Send + Sync {
    /// Bytes that its tensors take in the file.
    fn bytes(&self) -> u64;

    /// Reads `rows.1` rows from row `rows.0` on of what is seen as `stored`. `buffer` is room; what it held is lost.
    ///
    /// # Errors
    /// When the file cannot be read, or has what no layer can have.
    fn read<'a>(
        &'a self,
        file: &'a dyn Source,
        stored: &StoredTensor,
        rows: (u64, u64),
        buffer: &'a mut Vec<u8>,
    ) -> Result<SlabParts<'a>>;
}

/// A model some of whose tensors make up layers.
pub(super) struct LayeredSource<L> {
    file: Box<dyn Source>,
    format: Format,
    tensors: Vec<StoredTensor>,
    parts: Vec<Part<L>>,
    metadata: BTreeMap<String, String>,
}

/// What a tensor is made of.
enum Part<L> {
    /// The tensor of the file with that index.
    Plain(usize),
    Layer(L),
}

impl<L: Layer> LayeredSource<L> {
    /// `file` with `layers`, each in the place of the tensor with that index. `taken` says which tensors of the file are parts of layers.
    pub(super) fn new(
        file: Box<dyn Source>,
        (format, metadata): (Format, BTreeMap<String, String>),
        mut layers: HashMap<usize, (StoredTensor, L)>,
        taken: &[bool],
    ) -> Self {
        let (mut tensors, mut parts) = (Vec::new(), Vec::new());
        for (i, (tensor, &taken)) in file.tensors().iter().zip(taken).enumerate() {
            if let Some((stored, layer)) = layers.remove(&i) {
                tensors.push(stored);
                parts.push(Part::Layer(layer));
            } else if !taken {
                tensors.push(tensor.clone());
                parts.push(Part::Plain(i));
            }
        }
        Self { file, format, tensors, parts, metadata }
    }
}

impl<L: Layer> Source for LayeredSource<L> {
    fn path(&self) -> &Path {
        self.file.path()
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
        match self.parts.get(index) {
            Some(Part::Plain(i)) => self.file.stored_bytes(*i),
            Some(Part::Layer(layer)) => layer.bytes(),
            None => 0,
        }
    }

    fn read_bytes(&self, index: usize, start: u64, dst: &mut [u8]) -> Result<()> {
        match self.parts.get(index) {
            Some(Part::Plain(i)) => self.file.read_bytes(*i, start, dst),
            _ => Err(IoError::unsupported(self.path(), "the codes of a layer are no plain elements")),
        }
    }

    fn borrow_bytes(&self, index: usize, range: Range<u64>) -> Option<&[u8]> {
        match self.parts.get(index)? {
            Part::Plain(i) => self.file.borrow_bytes(*i, range),
            Part::Layer(_) => None,
        }
    }

    fn read_slab<'a>(&'a self, index: usize, slab: u64, buffer: &'a mut Vec<u8>) -> Result<SlabParts<'a>> {
        let (Some(part), Some(stored)) = (self.parts.get(index), self.tensors.get(index)) else {
            return Err(IoError::malformed(self.path(), format!("there is no tensor {index}")));
        };
        let rows = slab_range(&stored.info, &stored.encoding, slab);
        match part {
            Part::Layer(layer) => layer.read(&*self.file, stored, rows, buffer),
            Part::Plain(i) => {
                let bytes = stored.encoding.cols(&stored.info) * stored.info.dtype().size() as u64;
                buffer.clear();
                append(&*self.file, *i, rows, bytes, buffer)?;
                Ok(SlabParts { codes: buffer, row_start: rows.0, ..SlabParts::default() })
            }
        }
    }
}

/// The tensors of a file by name.
pub(super) fn index(file: &dyn Source) -> HashMap<String, usize> {
    file.tensors().iter().enumerate().map(|(i, t)| (t.info.name().to_string(), i)).collect()
}

/// Appends `rows.1` rows of `bytes` bytes from row `rows.0` of tensor `index` on to `buffer`.
///
/// # Errors
/// When they cannot be read.
pub(super) fn append(
    file: &dyn Source,
    index: usize,
    rows: (u64, u64),
    bytes: u64,
    buffer: &mut Vec<u8>,
) -> Result<()> {
    let start = buffer.len();
    buffer.resize(start + (rows.1 * bytes) as usize, 0);
    file.read_bytes(index, rows.0 * bytes, buffer.get_mut(start..).unwrap_or_default())
}
