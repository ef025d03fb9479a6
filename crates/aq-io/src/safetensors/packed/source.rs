//! Packed layers, read: each is seen as one encoded tensor.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use aq_codec::pack_zero_points;
use aq_core::{OffsetKind, SlabParts, StoredTensor};

use super::super::checksums::CHECKSUMS;
use super::super::layered::{self, LayeredSource, append, index};
use super::finder::Finder;
use super::layer::Layer;
use super::{ACTIVATIONS, LAYOUT_KEY, config, part_name};
use crate::{Format, IoError, Result, Source};

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
    Ok(Box::new(LayeredSource::new(file, (Format::Diffusers, metadata), layers, &taken)))
}

impl Layer {
    /// The rows of a layer: codes, where they cannot be borrowed, scales, offsets, exponents and side data one after the other, and where each
    /// of them ends.
    fn read_parts(
        &self,
        file: &dyn Source,
        stored: &StoredTensor,
        rows: (u64, u64),
        buffer: &mut Vec<u8>,
    ) -> Result<[usize; 5]> {
        let cols = stored.info.cols() as usize;
        let of_scales = self.row.scales as u64;
        buffer.clear();
        if self.borrowed_codes(file, rows).is_none() {
            append(file, self.codes, rows, self.row.codes as u64, buffer)?;
        }
        let codes = buffer.len();
        append(file, self.scales, rows, of_scales, buffer)?;
        let scales = buffer.len();
        if self.affine.offset == OffsetKind::F16 {
            append(file, self.offsets, rows, self.row.offsets as u64, buffer)?;
        } else {
            let mut zeros = Vec::new();
            append(file, self.offsets, rows, of_scales / 2, &mut zeros)?;
            if !pack_zero_points(&self.affine, cols, &zeros, buffer) {
                return Err(IoError::tensor(
                    file.path(),
                    stored.info.name(),
                    "a zero point is above the largest code",
                ));
            }
        }
        let offsets = buffer.len();
        if let Some(exponents) = self.exponents {
            append(file, exponents, rows, 1, buffer)?;
            if buffer.get(offsets..).unwrap_or_default().iter().all(|&e| e == 0) {
                buffer.truncate(offsets);
            }
        }
        let extra = buffer.len();
        buffer.extend(self.side(file)?);
        Ok([codes, scales, offsets, extra, buffer.len()])
    }

    fn borrowed_codes<'a>(&self, file: &'a dyn Source, (first, count): (u64, u64)) -> Option<&'a [u8]> {
        let bytes = self.row.codes as u64;
        file.borrow_bytes(self.codes, first * bytes..(first + count) * bytes)
    }
}

impl layered::Layer for Layer {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read<'a>(
        &'a self,
        file: &'a dyn Source,
        stored: &StoredTensor,
        rows: (u64, u64),
        buffer: &'a mut Vec<u8>,
    ) -> Result<SlabParts<'a>> {
        let [codes, scales, offsets, extra, side] = self.read_parts(file, stored, rows, buffer)?;
        let part = |range: Range<usize>| buffer.get(range).unwrap_or_default();
        Ok(SlabParts {
            codes: self.borrowed_codes(file, rows).unwrap_or_else(|| part(0..codes)),
            scales: part(codes..scales),
            offsets: part(scales..offsets),
            extra: part(offsets..extra),
            side: part(extra..side),
            row_start: rows.0,
        })
    }
}
