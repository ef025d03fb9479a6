//! One GGUF file of version 3, written.

use std::io::Write;
use std::path::{Path, PathBuf};

use aq_core::{Encoding, StoredTensor, slab_count, slab_range};

use super::header::{FIVE_DIMENSIONS, ORIGINAL_SHAPE};
use super::type_id;
use crate::json::duplicate;
use crate::{IoError, Result, SlabStream};

/// Where tensors begin: at multiples of this, the default of the format.
const ALIGNMENT: u64 = 32;

/// The longest name that programs for diffusion models read, in bytes.
const MAX_NAME: usize = 127;

/// Keys whose value is a whole number; all others are text.
const NUMBERS: [&str; 2] = ["general.quantization_version", "general.file_type"];

/// Writes plain tensors and blocks of ggml. The header comes first, so its metadata is given at the start.
pub(crate) struct GgufSink<W> {
    writer: W,
    path: PathBuf,
    metadata: Vec<(String, String)>,
    header_written: bool,
}

impl<W: Write> GgufSink<W> {
    /// A sink for the destination `path`. The first key is `general.architecture`, which is `unknown` unless `metadata` has it.
    pub(crate) fn new(writer: W, path: &Path, metadata: &[(String, String)]) -> Result<Self> {
        let mut metadata = metadata.to_vec();
        if metadata.iter().all(|(key, _)| key != ARCHITECTURE) {
            metadata.insert(0, (ARCHITECTURE.into(), "unknown".into()));
        }
        Ok(Self { writer, path: path.into(), metadata, header_written: false })
    }

    /// Writes the header and every tensor in the given order.
    pub(crate) fn write(&mut self, tensors: &[StoredTensor], slabs: &mut dyn SlabStream) -> Result<()> {
        let header = self.header(tensors)?;
        self.put(&header)?;
        self.header_written = true;
        for (index, tensor) in tensors.iter().enumerate() {
            for slab in 0..slab_count(&tensor.info, &tensor.encoding) {
                let (row_start, row_count) = slab_range(&tensor.info, &tensor.encoding, slab);
                let Some(next) = slabs.next_slab() else {
                    return Err(IoError::Stopped { path: self.path.clone() });
                };
                let bytes = row_count * self.row_bytes(tensor)?;
                let got = (next.tensor, next.row_start, next.rows.codes.len() as u64);
                if got != (index, row_start, bytes) {
                    let fact = format!("slab {slab} does not come in order or has not {bytes} bytes");
                    return Err(IoError::tensor(&self.path, tensor.info.name(), fact));
                }
                self.put(&next.rows.codes)?;
                slabs.recycle(next.rows);
            }
            self.pad(aq_codec::encoded_bytes(&tensor.info, &tensor.encoding))?;
        }
        Ok(())
    }

    /// Gives the writer back. The metadata of the end has no place in this format.
    pub(crate) fn finish(mut self, _: &[(String, String)]) -> Result<W> {
        if !self.header_written {
            let header = self.header(&[])?;
            self.put(&header)?;
        }
        Ok(self.writer)
    }

    /// Magic, version, counts, metadata, and the name, shape, type and place of each tensor; padded.
    fn header(&self, tensors: &[StoredTensor]) -> Result<Vec<u8>> {
        if let Some(name) = duplicate(tensors.iter().map(|t| t.info.name())) {
            return Err(IoError::tensor(&self.path, name, "duplicate name"));
        }
        let (mut pairs, mut count) = (Vec::new(), self.metadata.len() as u64);
        self.metadata.iter().try_for_each(|(key, value)| self.push_pair(key, value, &mut pairs))?;
        let (mut infos, mut offset) = (Vec::new(), 0u64);
        for tensor in tensors {
            let layout = self.layout(tensor)?;
            if layout.shape != tensor.info.shape() {
                self.push_original_shape(tensor, &mut pairs)?;
                count += 1;
            }
            layout.push(tensor.info.name(), offset, &mut infos);
            let bytes = aq_codec::encoded_bytes(&tensor.info, &tensor.encoding);
            offset = offset
                .checked_add(bytes)
                .and_then(|end| end.checked_next_multiple_of(ALIGNMENT))
                .ok_or_else(|| self.fault(tensor, "the file would be too large"))?;
        }
        let mut header = Vec::from(*b"GGUF");
        header.extend(3u32.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend(count.to_le_bytes());
        header.extend(pairs);
        header.extend(infos);
        header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
        Ok(header)
    }

    fn push_pair(&self, key: &str, value: &str, out: &mut Vec<u8>) -> Result<()> {
        push_string(key, out);
        if NUMBERS.contains(&key) {
            let number: u32 = value.parse().map_err(|_| {
                IoError::malformed(&self.path, format!("the value {value:?} of {key} is no whole number"))
            })?;
            out.extend(UINT32.to_le_bytes());
            out.extend(number.to_le_bytes());
        } else {
            out.extend(STRING.to_le_bytes());
            push_string(value, out);
        }
        Ok(())
    }

    /// The shape of a tensor that lies in the file in another one, as ComfyUI-GGUF reads it.
    fn push_original_shape(&self, tensor: &StoredTensor, out: &mut Vec<u8>) -> Result<()> {
        let shape: Option<Vec<i32>> = tensor.info.shape().iter().map(|&d| i32::try_from(d).ok()).collect();
        let shape = shape.ok_or_else(|| self.fault(tensor, "a dimension of its shape is too large"))?;
        push_string(&format!("{ORIGINAL_SHAPE}{}", tensor.info.name()), out);
        out.extend(ARRAY.to_le_bytes());
        out.extend(INT32.to_le_bytes());
        out.extend((shape.len() as u64).to_le_bytes());
        shape.iter().for_each(|d| out.extend(d.to_le_bytes()));
        Ok(())
    }

    /// The shape in which a tensor lies in the file: of four dimensions at most, its rows whole blocks.
    fn layout(&self, tensor: &StoredTensor) -> Result<Layout> {
        let StoredTensor { info, encoding, transformed } = tensor;
        let fault = |fact: &str| Err(self.fault(tensor, fact));
        if info.name().len() > MAX_NAME {
            return fault("the name has more than 127 bytes, which no program for GGUF reads");
        }
        let shape = info.shape();
        let last = shape.last().copied().unwrap_or(1);
        let (id, rows_fit) = match encoding {
            _ if *transformed => {
                return fault("GGUF has no place for a rotation, smoothing or a low-rank part");
            }
            Encoding::Raw => match type_id(info.dtype()) {
                Some(id) => (id, true),
                None => return fault(&format!("GGUF has no elements of type {}", info.dtype())),
            },
            Encoding::Ggml(kind) => (kind.id(), kind.row_bytes(last).is_some()),
            _ => return fault("GGUF holds plain tensors and blocks of ggml only"),
        };
        let five = shape.len() == 5 && self.has_five_dimensions();
        let shape = match shape {
            _ if !rows_fit => vec![info.rows(), info.cols()],
            [front @ .., a, b, c] if shape.len() > 4 && !five => vec![front.iter().product(), *a, *b, *c],
            _ => shape.to_vec(),
        };
        Ok(Layout { shape, id })
    }

    fn has_five_dimensions(&self) -> bool {
        let architecture = self.metadata.iter().find(|(key, _)| key == ARCHITECTURE);
        architecture.is_some_and(|(_, name)| FIVE_DIMENSIONS.contains(&name.as_str()))
    }

    fn row_bytes(&self, tensor: &StoredTensor) -> Result<u64> {
        let bytes = match tensor.encoding {
            Encoding::Ggml(kind) => kind.row_bytes(tensor.info.cols()),
            _ => Some(tensor.info.dtype().size() as u64),
        };
        bytes.ok_or_else(|| self.fault(tensor, "its rows are no whole blocks"))
    }

    fn fault(&self, tensor: &StoredTensor, fact: &str) -> IoError {
        IoError::tensor(&self.path, tensor.info.name(), fact)
    }

    /// Fills up to the alignment behind `bytes` bytes.
    fn pad(&mut self, bytes: u64) -> Result<()> {
        let missing = bytes.next_multiple_of(ALIGNMENT) - bytes;
        self.put(&[0; ALIGNMENT as usize][..missing as usize])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(IoError::os(&self.path))
    }
}

const ARCHITECTURE: &str = "general.architecture";

/// Numbers of types of values.
const UINT32: u32 = 4;
const INT32: u32 = 5;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// How a tensor lies in the file.
struct Layout {
    /// Outermost dimension first; the file has them the other way round.
    shape: Vec<u64>,
    /// Number of its type.
    id: u32,
}

impl Layout {
    fn push(&self, name: &str, offset: u64, out: &mut Vec<u8>) {
        push_string(name, out);
        out.extend((self.shape.len() as u32).to_le_bytes());
        self.shape.iter().rev().for_each(|d| out.extend(d.to_le_bytes()));
        out.extend(self.id.to_le_bytes());
        out.extend(offset.to_le_bytes());
    }
}

fn push_string(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
