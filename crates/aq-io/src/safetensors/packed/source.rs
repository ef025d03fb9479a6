//! Packed layers, read: each is seen as one encoded tensor.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use aq_codec::pack_zero_points;
use aq_core::{SlabParts, StoredTensor, slab_range};

use super::super::checksums::CHECKSUMS;
use super::finder::{Finder, index};
use super::layer::{Layer, append};
use super::{ACTIVATIONS, LAYOUT_KEY, config, part_name};
use crate::{Format, IoError, Result, Source};

/// A model some of whose tensors make up layers.
struct PackedSource {
    file: Box<dyn Source>,
    tensors: Vec<StoredTensor>,
    parts: Vec<Part>,
    metadata: BTreeMap<String, String>,
}

/// What a tensor is made of.
enum Part {
    /// The tensor of the file with that index.
    Plain(usize),
    Layer(Layer),
}

/// `file`, with the tensors of each packed layer as one, where the configuration in `folder` says that there are such. A layer that the
/// configuration has and the file has not is an error in a `whole` model.
///
/// # Errors
/// When a layer is not what the configuration says, or that cannot be read.
pub(crate) fn recognise(file: Box<dyn Source>, folder: &Path, whole: bool) -> Result<Box<dyn Source>> {
    let is_codes = |t: &StoredTensor| t.info.name().ends_with(".packed.codes");
    if !file.tensors().iter().any(is_codes) {
        return Ok(file);
    }
    let Some((path, said)) = config::read(folder)? else { return Ok(file) };
    let mut metadata = file.metadata().clone();
    metadata.retain(|key, _| ![LAYOUT_KEY, CHECKSUMS].contains(&key.as_str()));
    metadata.extend(said.activations.map(|a| (ACTIVATIONS.to_string(), a.to_string())));
    let finder =
        Finder { file: &*file, path: &path, index: index(&*file), usual: (said.bits, said.group_size) };
    let (mut layers, mut taken) = (HashMap::new(), vec![false; file.tensors().len()]);
    for (name, form) in &said.layers {
        if !whole && !finder.index.contains_key(part_name(name, "codes").as_str()) {
            continue;
        }
        let (stored, layer) = finder.layer(name, form)?;
        layer.indices().for_each(|i| taken[i] = true);
        finder.index.get(part_name(name, "signs").as_str()).into_iter().for_each(|&i| taken[i] = true);
        layers.insert(layer.codes, (stored, layer));
    }
    let (mut tensors, mut parts) = (Vec::new(), Vec::new());
    for (i, tensor) in file.tensors().iter().enumerate() {
        if let Some((stored, layer)) = layers.remove(&i) {
            tensors.push(stored);
            parts.push(Part::Layer(layer));
        } else if !taken[i] {
            tensors.push(tensor.clone());
            parts.push(Part::Plain(i));
        }
    }
    Ok(Box::new(PackedSource { file, tensors, parts, metadata }))
}

impl PackedSource {
    /// The rows of a layer: codes, where they cannot be borrowed, scales, offsets, exponents and side data one after the other, and where each
    /// of them ends.
    fn read_layer(
        &self,
        stored: &StoredTensor,
        layer: &Layer,
        rows: (u64, u64),
        buffer: &mut Vec<u8>,
    ) -> Result<[usize; 5]> {
        let (file, cols) = (&*self.file, stored.info.cols() as usize);
        buffer.clear();
        if self.borrowed_codes(layer, rows).is_none() {
            append(file, layer.codes, rows, layer.row.codes, buffer)?;
        }
        let codes = buffer.len();
        append(file, layer.scales, rows, layer.row.scales, buffer)?;
        let scales = buffer.len();
        if layer.affine.offset == aq_core::OffsetKind::F16 {
            append(file, layer.offsets, rows, layer.row.offsets, buffer)?;
        } else {
            let mut zeros = Vec::new();
            append(file, layer.offsets, rows, layer.row.scales / 2, &mut zeros)?;
            if !pack_zero_points(&layer.affine, cols, &zeros, buffer) {
                return Err(IoError::tensor(
                    self.path(),
                    stored.info.name(),
                    "a zero point is above the largest code",
                ));
            }
        }
        let offsets = buffer.len();
        if let Some(exponents) = layer.exponents {
            append(file, exponents, rows, 1, buffer)?;
            if buffer.get(offsets..).unwrap_or_default().iter().all(|&e| e == 0) {
                buffer.truncate(offsets);
            }
        }
        let extra = buffer.len();
        buffer.extend(layer.side(file)?);
        Ok([codes, scales, offsets, extra, buffer.len()])
    }

    fn borrowed_codes(&self, layer: &Layer, (first, count): (u64, u64)) -> Option<&[u8]> {
        let bytes = layer.row.codes as u64;
        self.file.borrow_bytes(layer.codes, first * bytes..(first + count) * bytes)
    }
}

impl Source for PackedSource {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn format(&self) -> Format {
        Format::Diffusers
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
            Some(Part::Layer(layer)) => layer.bytes,
            None => 0,
        }
    }

    fn read_bytes(&self, index: usize, start: u64, dst: &mut [u8]) -> Result<()> {
        match self.parts.get(index) {
            Some(Part::Plain(i)) => self.file.read_bytes(*i, start, dst),
            _ => Err(IoError::unsupported(self.path(), "packed codes are no plain elements")),
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
        let (row_start, count) = slab_range(&stored.info, &stored.encoding, slab);
        match part {
            Part::Plain(i) => {
                buffer.clear();
                append(&*self.file, *i, (row_start, count), stored.info.dtype().size(), buffer)?;
                Ok(SlabParts { codes: buffer, row_start, ..SlabParts::default() })
            }
            Part::Layer(layer) => {
                let [codes, scales, offsets, extra, side] =
                    self.read_layer(stored, layer, (row_start, count), buffer)?;
                let part = |range: Range<usize>| buffer.get(range).unwrap_or_default();
                Ok(SlabParts {
                    codes: self.borrowed_codes(layer, (row_start, count)).unwrap_or_else(|| part(0..codes)),
                    scales: part(codes..scales),
                    offsets: part(scales..offsets),
                    extra: part(offsets..extra),
                    side: part(extra..side),
                    row_start,
                })
            }
        }
    }
}
