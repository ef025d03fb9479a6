//! One safetensors file, written.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use aq_core::{Encoding, StoredTensor, TensorInfo};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::checksums::{self, CHECKSUMS};
use super::layout::{Form, Layout, Place, header, is_wide};
use super::packed::{LateParts, LatePiece, LayerForm, layer_of};
use crate::output::Region;
use crate::{IoError, Result, SlabStream};

/// Writes tensors. The header comes first in the file, so its metadata is given at the start; it is written last.
pub(crate) struct SafetensorsSink<W> {
    writer: W,
    path: PathBuf,
    form: Form,
    metadata: Vec<(String, String)>,
    written: Vec<Written>,
    /// Late pieces that lie in front of the others.
    front: Vec<LatePiece>,
    /// Packed layers and their forms.
    layers: Vec<(String, LayerForm)>,
    header: Option<Region>,
    position: u64,
}

/// A tensor of the file that was written.
struct Written {
    info: TensorInfo,
    begin: u64,
    xxh3: u64,
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
        let (written, front, layers) = Default::default();
        Ok(Self {
            writer,
            path: path.into(),
            form,
            metadata,
            written,
            front,
            layers,
            header: None,
            position: 0,
        })
    }

    /// Writes every tensor, each to its place, and the header. Slabs are whole rows in order, of any number.
    pub(crate) fn write(&mut self, tensors: &[StoredTensor], slabs: &mut dyn SlabStream) -> Result<()> {
        let mut layout = Layout::new(&self.path, tensors, self.form, &self.metadata)?;
        for (index, tensor) in tensors.iter().enumerate() {
            let places = layout.places.get(index).map(Vec::as_slice).unwrap_or_default();
            let late = self.write_tensor(index, tensor, places, slabs)?;
            self.write_late(tensor, late, &mut layout.end)?;
        }
        self.write_front(layout.start)
    }

    fn write_tensor(
        &mut self,
        index: usize,
        tensor: &StoredTensor,
        places: &[Place],
        slabs: &mut dyn SlabStream,
    ) -> Result<LateParts> {
        let path = self.path.clone();
        let fault = |fact: String| IoError::tensor(&path, tensor.info.name(), fact);
        let (rows, mut row, mut late) = (tensor.encoding.rows(&tensor.info), 0, LateParts::default());
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
            if self.form == Form::Packed && tensor.encoding != Encoding::Raw {
                late.add(&next.rows);
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
            self.written.push(Written { info: piece.info.clone(), begin: *begin, xxh3: hash.digest() });
        }
        Ok(late)
    }

    /// Writes the late pieces of `tensor`, if it is a packed layer, from `end` on; those of wide elements wait for the end.
    fn write_late(&mut self, tensor: &StoredTensor, late: LateParts, end: &mut u64) -> Result<()> {
        let (Form::Packed, Encoding::Affine(affine)) = (self.form, tensor.encoding) else { return Ok(()) };
        let name = tensor.info.name();
        let layer = layer_of(name).unwrap_or(name);
        let finished = late.finish(layer, tensor, &affine);
        let (form, pieces) = finished.map_err(|fact| IoError::tensor(&self.path, name, fact))?;
        self.layers.push((layer.into(), form));
        let (wide, narrow): (Vec<_>, Vec<_>) = pieces.into_iter().partition(|piece| is_wide(&piece.info));
        self.front.extend(wide);
        for LatePiece { info, bytes } in narrow {
            self.put(*end, &bytes)?;
            self.written.push(Written { begin: *end, xxh3: xxh3_64(&bytes), info });
            *end += bytes.len() as u64;
        }
        Ok(())
    }

    /// Writes the header and the late pieces of wide elements, the widest last, so that they end where the others start.
    fn write_front(&mut self, start: u64) -> Result<()> {
        let mut front = std::mem::take(&mut self.front);
        front.sort_by_key(|piece| piece.info.dtype().size());
        let base = start.saturating_sub(front.iter().map(|piece| piece.bytes.len() as u64).sum());
        let mut at = base;
        for LatePiece { info, bytes } in front {
            self.put(at, &bytes)?;
            self.written.push(Written { begin: at, xxh3: xxh3_64(&bytes), info });
            at += bytes.len() as u64;
        }
        self.written.sort_by_key(|written| (written.begin, written.info.bytes()));
        if self.form.is_checksummed() {
            let digests = checksums::text(self.written.iter().map(|written| written.xxh3));
            self.metadata.push((CHECKSUMS.into(), digests));
        }
        let entries: Vec<_> = self.written.iter().map(|written| (&written.info, written.begin)).collect();
        let header = header(&entries, base, &self.metadata, base);
        let bytes = header.len() as u64;
        if bytes != base {
            return Err(IoError::malformed(
                &self.path,
                format!("a header of {bytes} bytes has {base} bytes of room"),
            ));
        }
        self.put(0, &header)?;
        self.header = Some(Region { tensor: None, begin: 0, bytes, xxh3: xxh3_64(&header) });
        Ok(())
    }

    /// Gives the writer back. The metadata of the end has no place in this format.
    pub(crate) fn finish(mut self, _: &[(String, String)]) -> Result<W> {
        if self.header.is_none() {
            let layout = Layout::new(&self.path, &[], self.form, &self.metadata)?;
            self.write_front(layout.start)?;
        }
        Ok(self.writer)
    }

    /// What was written where, the header first, for a reader that has no checksums to go by.
    pub(crate) fn regions(&self) -> Vec<Region> {
        let region = |Written { info, begin, xxh3 }: &Written| Region {
            tensor: Some(info.name().into()),
            begin: *begin,
            bytes: info.bytes(),
            xxh3: *xxh3,
        };
        self.header.iter().cloned().chain(self.written.iter().map(region)).collect()
    }

    /// The packed layers that were written.
    pub(crate) fn layers(&self) -> &[(String, LayerForm)] {
        &self.layers
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
