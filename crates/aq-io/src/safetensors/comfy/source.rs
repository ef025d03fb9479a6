//! Layers of signed bytes, read: each is seen as one encoded tensor.

use std::collections::HashMap;
use std::path::Path;

use aq_codec::{Rotation, Side};
use aq_core::{
    AffineEncoding, BitWidth, DType, Encoding, GroupSize, OffsetKind, SlabParts, StoredTensor, TensorInfo,
};
use half::f16;
use serde::Deserialize;

use super::super::layered::{self, LayeredSource, append, index};
use super::{ZERO, turned_back};
use crate::{IoError, Result, Source};

/// The longest description that is read.
const MAX_DESCRIPTION: u64 = 64 << 10;

/// What a `comfy_quant` tensor says.
#[derive(Deserialize)]
struct Description {
    format: String,
    #[serde(default)]
    convrot: bool,
    #[serde(default)]
    convrot_groupsize: usize,
}

/// A layer: the index of its codes in the file, and its scales as f16 and powers of two.
struct Layer {
    codes: usize,
    scales: Vec<u8>,
    exponents: Vec<u8>,
    zeros: Vec<u8>,
    side: Vec<u8>,
    bytes: u64,
}

/// `file`, with the tensors of each layer of signed bytes as one. A layer whose scales are no f16 times a power of two stays as it lies.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn recognise(file: Box<dyn Source>) -> Result<Box<dyn Source>> {
    let index = index(&*file);
    let (mut layers, mut taken) = (HashMap::new(), vec![false; file.tensors().len()]);
    for (name, &description) in &index {
        let Some(layer) = name.strip_suffix(".comfy_quant") else { continue };
        let find = |suffix: &str| index.get(&format!("{layer}.{suffix}")).copied();
        let (Some(codes), Some(scales)) = (find("weight"), find("weight_scale")) else { continue };
        if let Some(read) = Layer::read(&*file, [codes, scales, description])? {
            layers.insert(codes, (read.stored(&file.tensors()[codes].info)?, read));
            [scales, description].into_iter().for_each(|i| taken[i] = true);
        }
    }
    if layers.is_empty() {
        return Ok(file);
    }
    let about = (file.format(), file.metadata().clone());
    Ok(Box::new(LayeredSource::new(file, about, layers, &taken)))
}

impl Layer {
    /// The layer of three tensors; `None` where they are not what such a layer has.
    fn read(file: &dyn Source, [codes, scales, description]: [usize; 3]) -> Result<Option<Self>> {
        let info = |i: usize| &file.tensors()[i].info;
        let (weight, scale) = (info(codes), info(scales));
        let fits = weight.dtype() == DType::I8
            && weight.shape().len() == 2
            && weight.elements() > 0
            && weight.cols() <= aq_core::MAX_ROW_WEIGHTS
            && scale.dtype() == DType::F32
            && scale.elements() == weight.rows()
            && info(description).dtype() == DType::U8
            && info(description).bytes() <= MAX_DESCRIPTION;
        if !fits {
            return Ok(None);
        }
        let (mut text, mut values) =
            (vec![0; info(description).bytes() as usize], vec![0; scale.bytes() as usize]);
        file.read_bytes(description, 0, &mut text)?;
        file.read_bytes(scales, 0, &mut values)?;
        let Some(rotation) = rotation(&text, weight) else { return Ok(None) };
        let parts: Option<Vec<(f16, i8)>> =
            values.as_chunks::<4>().0.iter().map(|&b| split(f32::from_le_bytes(b))).collect();
        let Some(parts) = parts else { return Ok(None) };
        let bytes = [codes, scales, description].iter().map(|&i| file.stored_bytes(i)).sum();
        Ok(Some(Self {
            codes,
            scales: parts.iter().flat_map(|(scale, _)| scale.to_le_bytes()).collect(),
            exponents: parts.iter().map(|&(_, exponent)| exponent as u8).collect(),
            zeros: vec![ZERO; parts.len()],
            side: Side { rotation, ..Side::default() }.bytes(),
            bytes,
        }))
    }

    fn stored(&self, info: &TensorInfo) -> Result<StoredTensor> {
        let bits = BitWidth::ALL[BitWidth::ALL.len() - 1];
        let affine = AffineEncoding { bits, group_size: GroupSize::ROW, offset: OffsetKind::ZeroPoint };
        // What type it had before is not said anywhere.
        let info = info
            .with_dtype(DType::F32)
            .map_err(|e| IoError::malformed(Path::new(info.name()), e.to_string()))?;
        Ok(StoredTensor { info, encoding: Encoding::Affine(affine), transformed: !self.side.is_empty() })
    }
}

/// The rotation that a description says; `None` where it says something else than signed bytes.
fn rotation(text: &[u8], weight: &TensorInfo) -> Option<Option<Rotation>> {
    let description: Description = serde_json::from_slice(text).ok()?;
    if description.format != "int8_tensorwise" {
        return None;
    }
    if !description.convrot {
        return Some(None);
    }
    // The order of columns is that of one size.
    let block = Some(description.convrot_groupsize).filter(|&block| block == super::BLOCK)?;
    Rotation::regular(block, weight.cols() as usize).map(Some)
}

/// A scale as an f16 times a power of two; `None` where it is none.
fn split(scale: f32) -> Option<(f16, i8)> {
    if scale == 0.0 {
        return Some((f16::ZERO, 0));
    }
    let exponent =
        i8::try_from((scale.to_bits() >> 23 & 0xff) as i32 - 127).ok().filter(|_| scale.is_normal())?;
    let mantissa = f32::from_bits(scale.to_bits() & 0x807f_ffff | 127 << 23);
    let half = f16::from_f32(mantissa);
    (half.to_f32() == mantissa).then_some((half, exponent))
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
        buffer.clear();
        append(file, self.codes, rows, stored.info.cols(), buffer)?;
        turned_back(buffer, stored.transformed);
        let (first, count) = (rows.0 as usize, rows.1 as usize);
        let part = |bytes: &'a [u8], size: usize| {
            bytes.get(first * size..(first + count) * size).unwrap_or_default()
        };
        Ok(SlabParts {
            codes: buffer,
            scales: part(&self.scales, 2),
            offsets: part(&self.zeros, 1),
            extra: part(&self.exponents, 1),
            side: &self.side,
            row_start: rows.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_split_exactly_or_not_at_all() {
        for (scale, expected) in [(0.0, Some((0.0, 0))), (1.0, Some((1.0, 0))), (-0.375, Some((-1.5, -2)))] {
            assert_eq!(split(scale), expected.map(|(s, e): (f32, i8)| (f16::from_f32(s), e)));
        }
        assert_eq!([0.1f32, 1e-45, f32::INFINITY].map(split), [None; 3]);
        let (half, exponent) = split(f16::from_f32(1.2345).to_f32() * 2f32.powi(-100)).expect("exact");
        assert_eq!((half, exponent), (f16::from_f32(1.2345), -100));
    }
}
