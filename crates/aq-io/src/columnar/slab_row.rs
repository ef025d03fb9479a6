//! A slab as one row of the columnar formats, whatever file it comes from.

use std::borrow::Cow;

use aq_core::{Encoding, SlabParts, StoredTensor, slab_range};

use super::feed::checksum;
use super::schema::numbers;
use crate::{Result, Source};

/// The columns of one row that differ from slab to slab or follow from the encoding; docs/format.md says what they mean.
#[derive(Debug)]
pub struct SlabRow<'a> {
    /// The tensor: its name, shape, source type and codec.
    pub tensor: &'a StoredTensor,
    /// First row of the slab.
    pub row_start: u64,
    /// Its number of rows.
    pub row_count: u64,
    /// Bits of one code; of one element of a tensor that is kept.
    pub bits: u8,
    /// Weights that share a scale.
    pub group_size: i32,
    /// Packed codes, or elements.
    pub codes: &'a [u8],
    /// Scales.
    pub scales: &'a [u8],
    /// Offsets.
    pub offsets: &'a [u8],
    /// Exponents, behind the side data of the tensor if it has any.
    pub extra: Cow<'a, [u8]>,
    /// Checksum of the four parts.
    pub xxh3: u64,
}

/// Row `slab` of tensor `index` of `source`. Its parts are borrowed from the memory map where there is one, else from `buffer`.
///
/// # Errors
/// When the file cannot be read or is damaged there.
///
/// # Panics
/// When there is no such tensor or slab.
pub fn slab_row<'a>(
    source: &'a dyn Source,
    index: usize,
    slab: u64,
    buffer: &'a mut Vec<u8>,
) -> Result<SlabRow<'a>> {
    let tensor = &source.tensors()[index];
    let (row_start, row_count) = slab_range(&tensor.info, &tensor.encoding, slab);
    let parts = match tensor.encoding {
        Encoding::Raw => SlabParts { codes: elements(source, index, slab, buffer)?, ..SlabParts::default() },
        _ => source.read_slab(index, slab, buffer)?,
    };
    let extra = extra(tensor, slab, &parts);
    let SlabParts { codes, scales, offsets, .. } = parts;
    let xxh3 = checksum(&SlabParts { extra: &extra, ..parts });
    let (bits, group_size) = numbers(tensor);
    Ok(SlabRow { tensor, row_start, row_count, bits, group_size, codes, scales, offsets, extra, xxh3 })
}

/// The elements of a slab of a tensor that is kept.
fn elements<'a>(
    source: &'a dyn Source,
    index: usize,
    slab: u64,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8]> {
    let info = &source.tensors()[index].info;
    let (start, count) = slab_range(info, &Encoding::Raw, slab);
    let size = info.dtype().size() as u64;
    if let Some(bytes) = source.borrow_bytes(index, start * size..(start + count) * size) {
        return Ok(bytes);
    }
    buffer.resize((count * size) as usize, 0);
    source.read_bytes(index, start * size, buffer)?;
    Ok(buffer)
}

/// The column `extra`: in front, for a tensor with side data, a length and in the first slab the data.
fn extra<'a>(tensor: &StoredTensor, slab: u64, parts: &SlabParts<'a>) -> Cow<'a, [u8]> {
    if !tensor.transformed {
        return Cow::Borrowed(parts.extra);
    }
    let side = if slab == 0 { parts.side } else { &[] };
    Cow::Owned([&(side.len() as u32).to_le_bytes(), side, parts.extra].concat())
}
