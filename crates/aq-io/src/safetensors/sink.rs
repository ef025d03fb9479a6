//! One safetensors file, written.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use aq_core::StoredTensor;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::layout::{Form, Layout, Place};
use crate::output::Region;
use crate::{IoError, Result, SlabStream};

/// Writes tensors. The header comes first, so its metadata is given at the start.
pub(crate) struct SafetensorsSink<W> {
    writer: W,
    path: PathBuf,
    form: Form,
    metadata: Vec<(String, String)>,
    /// What was written where; the first is the header.
    regions: Vec<Region>,
    position: u64,
}

impl<W: Write + Seek> SafetensorsSink<W> {
    /// A sink for the destination `path`. `metadata` is stored as `__metadata__`, with `"format": "pt"` unless it says
    /// otherwise: loaders ask for it.
    pub(crate) fn new(writer: W, path: &Path, form: Form, metadata: &[(String, String)]) -> Result<Self> {
        let mut metadata = metadata.to_vec();
        // In front, where `is_ours` finds it.
        metadata.sort_by_key(|(key, _)| key != super::TOOL);
        if metadata.iter().all(|(key, _)| key != "format") {
            metadata.insert(0, ("format".into(), "pt".into()));
        }
        Ok(Self { writer, path: path.into(), form, metadata, regions: Vec::new(), position: 0 })
    }

    /// Writes the header and every tensor, each to its place. Slabs are whole rows in order, of any number.
    pub(crate) fn write(&mut self, tensors: &[StoredTensor], slabs: &mut dyn SlabStream) -> Result<()> {
        let Layout { header, places } = Layout::new(&self.path, tensors, self.form, &self.metadata)?;
        self.put(0, &header)?;
        let bytes = header.len() as u64;
        self.regions = vec![Region { tensor: None, begin: 0, bytes, xxh3: xxh3_64(&header) }];
        for (index, (tensor, places)) in tensors.iter().zip(&places).enumerate() {
            self.write_tensor(index, tensor, places, slabs)?;
        }
        Ok(())
    }

    fn write_tensor(
        &mut self,
        index: usize,
        tensor: &StoredTensor,
        places: &[Place],
        slabs: &mut dyn SlabStream,
    ) -> Result<()> {
        let path = self.path.clone();
        let fault = |fact: String| IoError::tensor(&path, tensor.info.name(), fact);
        let (rows, mut row) = (tensor.encoding.rows(&tensor.info), 0);
        let mut written: Vec<(u64, Xxh3)> = places.iter().map(|_| (0, Xxh3::new())).collect();
        loop {
            let Some(next) = slabs.next_slab() else {
                return Err(IoError::Stopped { path });
            };
            if (next.tensor, next.row_start) != (index, row) {
                return Err(fault(format!("a slab of row {} comes when row {row} is due", next.row_start)));
            }
            for (Place { piece, begin }, (bytes, hash)) in places.iter().zip(&mut written) {
                let part = piece.part.of(tensor, &next.rows, row == 0).map_err(fault)?;
                if *bytes + part.len() as u64 > piece.info.bytes() {
                    return Err(fault(format!("its rows have more than {} bytes", piece.info.bytes())));
                }
                self.put(begin + *bytes, &part)?;
                hash.update(&part);
                *bytes += part.len() as u64;
            }
            row += next.rows.row_count;
            slabs.recycle(next.rows);
            if row >= rows {
                break;
            }
        }
        for (Place { piece, begin }, (bytes, hash)) in places.iter().zip(written) {
            if bytes != piece.info.bytes() {
                return Err(fault(format!("its rows have {bytes} bytes, not {}", piece.info.bytes())));
            }
            let tensor = Some(piece.info.name().to_string());
            self.regions.push(Region { tensor, begin: *begin, bytes, xxh3: hash.digest() });
        }
        Ok(())
    }

    /// Gives the writer back. The metadata of the end has no place in this format.
    pub(crate) fn finish(mut self, _: &[(String, String)]) -> Result<W> {
        if self.regions.is_empty() {
            let layout = Layout::new(&self.path, &[], self.form, &self.metadata)?;
            self.put(0, &layout.header)?;
        }
        Ok(self.writer)
    }

    /// What was written where, for a reader that has no checksums to go by.
    pub(crate) fn regions(&self) -> Vec<Region> {
        self.regions.clone()
    }

    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let write = |writer: &mut W| {
            if at != self.position {
                writer.seek(SeekFrom::Start(at))?;
            }
            writer.write_all(bytes)
        };
        write(&mut self.writer).map_err(IoError::os(&self.path))?;
        self.position = at + bytes.len() as u64;
        Ok(())
    }
}
