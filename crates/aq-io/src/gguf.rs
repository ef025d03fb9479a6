//! One GGUF file.

mod cursor;
mod header;
mod sink;
mod value;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use aq_core::{DType, Encoding, SlabParts, StoredTensor, slab_range};

pub(crate) use sink::GgufSink;

use crate::file_bytes::FileBytes;
use crate::{Access, Format, IoError, Result, Source};

/// The number of a plain element type in GGUF; `None` for types that ggml does not have.
pub(crate) fn type_id(dtype: DType) -> Option<u32> {
    PLAIN.into_iter().find(|(_, plain)| *plain == dtype).map(|(id, _)| id)
}

const PLAIN: [(u32, DType); 8] = [
    (0, DType::F32),
    (1, DType::F16),
    (24, DType::I8),
    (25, DType::I16),
    (26, DType::I32),
    (27, DType::I64),
    (28, DType::F64),
    (30, DType::BF16),
];

/// What reading `tensor` back from a file of `format` gives: GGUF says nothing of the element type that quantized tensors had.
pub fn read_back(format: Format, tensor: &StoredTensor) -> StoredTensor {
    let mut tensor = tensor.clone();
    if format == Format::Gguf
        && tensor.encoding != Encoding::Raw
        && let Ok(info) = tensor.info.with_dtype(DType::F32)
    {
        tensor.info = info;
    }
    tensor
}

/// An open file whose header was checked.
struct GgufSource {
    file: FileBytes,
    tensors: Vec<StoredTensor>,
    /// Where the bytes of each tensor begin in the file.
    starts: Vec<u64>,
    metadata: BTreeMap<String, String>,
}

/// Opens a GGUF file of version 2 or 3 and checks all of its header. Quantized tensors are said to be of type F32.
pub(crate) fn open(path: &Path, access: Access) -> Result<Box<dyn Source>> {
    let file = FileBytes::open(path, access)?;
    let header::Header { tensors, starts, metadata } = header::read(&file)?;
    Ok(Box::new(GgufSource { file, tensors, starts, metadata }))
}

impl GgufSource {
    /// The range of the file that holds `range` of tensor `index`.
    fn place(&self, index: usize, range: Range<u64>) -> Option<Range<u64>> {
        let (start, bytes) = (*self.starts.get(index)?, self.stored_bytes(index));
        (range.start <= range.end && range.end <= bytes).then(|| start + range.start..start + range.end)
    }

    fn fault(&self, index: usize, fact: impl Into<String>) -> IoError {
        let name = self.tensors.get(index).map_or("?", |t| t.info.name());
        IoError::tensor(self.path(), name, fact)
    }

    /// The range of tensor `index` that slab `slab` is.
    fn slab(&self, index: usize, slab: u64) -> Option<Range<u64>> {
        let StoredTensor { info, encoding, .. } = self.tensors.get(index)?;
        let (first, rows) = slab_range(info, encoding, slab);
        let row = match encoding {
            Encoding::Ggml(kind) => kind.row_bytes(info.cols())?,
            _ => info.dtype().size() as u64,
        };
        self.place(index, first * row..(first + rows) * row)
    }
}

impl Source for GgufSource {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn format(&self) -> Format {
        Format::Gguf
    }

    fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn stored_bytes(&self, index: usize) -> u64 {
        self.tensors.get(index).map_or(0, |t| aq_codec::encoded_bytes(&t.info, &t.encoding))
    }

    fn read_bytes(&self, index: usize, start: u64, dst: &mut [u8]) -> Result<()> {
        if self.tensors.get(index).is_some_and(|t| t.encoding != Encoding::Raw) {
            return Err(self.fault(index, "it is quantized and has no plain elements"));
        }
        let range = start.checked_add(dst.len() as u64).and_then(|end| self.place(index, start..end));
        let range = range
            .ok_or_else(|| self.fault(index, format!("{} bytes at {start} are outside of it", dst.len())))?;
        self.file.read_exact_at(range.start, dst)
    }

    fn borrow_bytes(&self, index: usize, range: Range<u64>) -> Option<&[u8]> {
        let plain = self.tensors.get(index)?.encoding == Encoding::Raw;
        if plain { self.file.borrow(self.place(index, range)?) } else { None }
    }

    fn read_slab<'a>(&'a self, index: usize, slab: u64, buffer: &'a mut Vec<u8>) -> Result<SlabParts<'a>> {
        let range =
            self.slab(index, slab).ok_or_else(|| self.fault(index, format!("it has no slab {slab}")))?;
        let codes = match self.file.borrow(range.clone()) {
            Some(bytes) => bytes,
            None => {
                buffer.resize((range.end - range.start) as usize, 0);
                self.file.read_exact_at(range.start, buffer)?;
                buffer
            }
        };
        Ok(SlabParts { codes, ..SlabParts::default() })
    }
}
