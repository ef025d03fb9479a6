//! One safetensors file, written.

use std::io::Write;
use std::path::{Path, PathBuf};

use aq_core::{Encoding, StoredTensor, slab_count, slab_range};
use serde_json::{Map, Value, json};

use crate::json::duplicate;
use crate::{IoError, Result, SlabStream};

/// Writes plain tensors. The header comes first, so its metadata is given at the start.
pub(crate) struct SafetensorsSink<W> {
    writer: W,
    path: PathBuf,
    metadata: Vec<(String, String)>,
    header_written: bool,
}

impl<W: Write> SafetensorsSink<W> {
    /// A sink for the destination `path`. `metadata` is stored as `__metadata__`, with `"format": "pt"` unless it says
    /// otherwise: loaders ask for it.
    pub(crate) fn new(writer: W, path: &Path, metadata: &[(String, String)]) -> Result<Self> {
        let mut metadata = metadata.to_vec();
        if metadata.iter().all(|(key, _)| key != "format") {
            metadata.insert(0, ("format".into(), "pt".into()));
        }
        Ok(Self { writer, path: path.into(), metadata, header_written: false })
    }

    /// Writes the header and every tensor in the given order.
    pub(crate) fn write(&mut self, tensors: &[StoredTensor], slabs: &mut dyn SlabStream) -> Result<()> {
        let header = self.header(tensors)?;
        self.put(&(header.len() as u64).to_le_bytes())?;
        self.put(&header)?;
        self.header_written = true;
        for (index, tensor) in tensors.iter().enumerate() {
            for slab in 0..slab_count(&tensor.info, &tensor.encoding) {
                let (row_start, row_count) = slab_range(&tensor.info, &tensor.encoding, slab);
                let Some(next) = slabs.next_slab() else {
                    return Err(IoError::Stopped { path: self.path.clone() });
                };
                let bytes = row_count * tensor.info.dtype().size() as u64;
                let fits =
                    (next.tensor, next.row_start, next.rows.codes.len() as u64) == (index, row_start, bytes);
                if !fits {
                    let fact = format!("slab {slab} does not come in order or has not {bytes} bytes");
                    return Err(IoError::tensor(&self.path, tensor.info.name(), fact));
                }
                self.put(&next.rows.codes)?;
                slabs.recycle(next.rows);
            }
        }
        Ok(())
    }

    /// Gives the writer back. The metadata of the end has no place in this format.
    pub(crate) fn finish(mut self, _: &[(String, String)]) -> Result<W> {
        if !self.header_written {
            let header = self.header(&[])?;
            self.put(&(header.len() as u64).to_le_bytes())?;
            self.put(&header)?;
        }
        Ok(self.writer)
    }

    /// The JSON, padded with spaces so that the data begins at a multiple of 8.
    fn header(&self, tensors: &[StoredTensor]) -> Result<Vec<u8>> {
        if let Some(name) = duplicate(tensors.iter().map(|t| t.info.name())) {
            return Err(IoError::tensor(&self.path, name, "duplicate name"));
        }
        let metadata: Map<String, Value> = self.metadata.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        let mut header = Map::from_iter([("__metadata__".to_string(), Value::Object(metadata))]);
        let mut begin = 0u64;
        for StoredTensor { info, encoding, .. } in tensors {
            let fault = |fact: &str| Err(IoError::tensor(&self.path, info.name(), fact));
            match encoding {
                _ if info.name() == "__metadata__" => {
                    return fault("a tensor cannot have this name in safetensors");
                }
                Encoding::Raw => {}
                _ => return fault("safetensors holds plain tensors only"),
            }
            let Some(end) = begin.checked_add(info.bytes()) else {
                return fault("the file would be too large");
            };
            let entry =
                json!({"dtype": info.dtype().name(), "shape": info.shape(), "data_offsets": [begin, end]});
            header.insert(info.name().into(), entry);
            begin = end;
        }
        let mut bytes = Value::Object(header).to_string().into_bytes();
        bytes.resize(bytes.len().next_multiple_of(8), b' ');
        Ok(bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(IoError::os(&self.path))
    }
}
