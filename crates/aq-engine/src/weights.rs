//! Reads weights as f32 from any source.

use aq_codec::ReadScratch;
use aq_core::{DType, Encoding, LayerWeights, RowData, StrategyError, TensorInfo};
use aq_io::Source;

use crate::{EngineError, Result};

/// Reads runs of weights as f32, whatever their stored form; its buffers are reused.
#[derive(Debug, Default)]
pub(crate) struct WeightReader {
    bytes: Vec<u8>,
    scratch: ReadScratch,
    decoded: Vec<f32>,
    weights: Vec<f32>,
}

impl WeightReader {
    /// Weights `start .. start + count` of tensor `index`, counted over the flattened tensor. Whole numbers, booleans and wider
    /// floats are rounded to the nearest f32.
    pub(crate) fn read(
        &mut self,
        source: &dyn Source,
        index: usize,
        start: u64,
        count: usize,
    ) -> Result<&[f32]> {
        self.weights.resize(count, 0.0);
        match source.tensors()[index].encoding {
            Encoding::Raw => self.read_raw(source, index, start, count)?,
            _ => self.read_encoded(source, index, start, count)?,
        }
        Ok(&self.weights)
    }

    /// The same weights in the type they are stored in where kernels read that type, else as f32.
    pub(crate) fn read_rows<'a>(
        &'a mut self,
        source: &'a dyn Source,
        index: usize,
        start: u64,
        count: usize,
    ) -> Result<RowData<'a>> {
        let stored = &source.tensors()[index];
        let dtype = stored.info.dtype();
        if stored.encoding != Encoding::Raw || !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
            return Ok(RowData::F32(self.read(source, index, start, count)?));
        }
        let size = dtype.size() as u64;
        let range = start * size..(start + count as u64) * size;
        let aligned = |bytes: &[u8]| bytes.as_ptr().align_offset(dtype.size()) == 0;
        let bytes = match source.borrow_bytes(index, range.clone()) {
            Some(bytes) if aligned(bytes) => bytes,
            _ => {
                self.bytes.resize((range.end - range.start) as usize, 0);
                source.read_bytes(index, range.start, &mut self.bytes)?;
                &self.bytes
            }
        };
        if !aligned(bytes) || cfg!(target_endian = "big") {
            self.weights.resize(count, 0.0);
            aq_codec::bytes_to_f32(dtype, bytes, &mut self.weights)
                .map_err(|e| EngineError::Internal(e.to_string()))?;
            return Ok(RowData::F32(&self.weights));
        }
        Ok(match dtype {
            DType::F32 => RowData::F32(bytemuck::cast_slice(bytes)),
            DType::F16 => RowData::F16(bytemuck::cast_slice(bytes)),
            _ => RowData::BF16(bytemuck::cast_slice(bytes)),
        })
    }

    fn read_raw(&mut self, source: &dyn Source, index: usize, start: u64, count: usize) -> Result<()> {
        let dtype = source.tensors()[index].info.dtype();
        let size = dtype.size() as u64;
        let (from, to) = (start * size, (start + count as u64) * size);
        let bytes = match source.borrow_bytes(index, from..to) {
            Some(bytes) => bytes,
            None => {
                self.bytes.resize((to - from) as usize, 0);
                source.read_bytes(index, from, &mut self.bytes)?;
                &self.bytes
            }
        };
        aq_codec::bytes_to_f32(dtype, bytes, &mut self.weights).map_err(|e| {
            let tensor = source.tensors()[index].info.name().to_string();
            EngineError::Tensor { path: source.path().into(), tensor, reason: e.to_string() }
        })
    }

    fn read_encoded(&mut self, source: &dyn Source, index: usize, start: u64, count: usize) -> Result<()> {
        let stored = &source.tensors()[index];
        let (info, encoding) = (&stored.info, &stored.encoding);
        let cols = encoding.cols(info).max(1);
        let slab_rows = aq_core::slab_rows(info, encoding);
        let end = start + count as u64;
        let mut at = start;
        while at < end {
            let slab = at / cols / slab_rows;
            let (slab_start, slab_count) = aq_core::slab_range(info, encoding, slab);
            let first = at / cols - slab_start;
            let rows = (end.div_ceil(cols) - slab_start).min(slab_count) - first;
            let parts = source.read_slab(index, slab, &mut self.bytes)?;
            self.decoded.resize((rows * cols) as usize, 0.0);
            aq_codec::decode(encoding, info, parts, rows, first, &mut self.scratch, &mut self.decoded)
                .map_err(|e| {
                    let tensor = info.name().to_string();
                    EngineError::Tensor { path: source.path().into(), tensor, reason: e.to_string() }
                })?;
            let skip = (at - (slab_start + first) * cols) as usize;
            let n = (self.decoded.len() - skip).min((end - at) as usize);
            let out = (at - start) as usize;
            self.weights[out..out + n].copy_from_slice(&self.decoded[skip..skip + n]);
            at += n as u64;
        }
        Ok(())
    }
}

/// The weights of one tensor, for a strategy that looks at some of them before the rest.
pub(crate) struct TensorWeights<'a> {
    source: &'a dyn Source,
    index: usize,
}

impl<'a> TensorWeights<'a> {
    pub(crate) fn new(source: &'a dyn Source, index: usize) -> Self {
        Self { source, index }
    }

    /// Calls `visit` with blocks of whole rows of about `weights` weights, in order; they may be changed.
    ///
    /// # Errors
    /// When they cannot be read, or what `visit` says.
    pub(crate) fn visit(&self, weights: u64, visit: &mut dyn FnMut(&mut [f32]) -> Result<()>) -> Result<()> {
        let (info, mut reader) = (self.info(), WeightReader::default());
        let cols = info.cols().max(1);
        let rows = info.elements() / cols;
        let step = (weights / cols).max(1);
        for first in (0..rows).step_by(step as usize) {
            let count = step.min(rows - first) * cols;
            reader.read(self.source, self.index, first * cols, count as usize)?;
            visit(&mut reader.weights)?;
        }
        Ok(())
    }

    pub(crate) fn info(&self) -> &'a TensorInfo {
        &self.source.tensors()[self.index].info
    }
}

impl LayerWeights for TensorWeights<'_> {
    fn read_row(&self, row: u64, out: &mut Vec<f32>) -> Result<(), StrategyError> {
        let fault = |reason: String| StrategyError::Read { tensor: self.info().name().to_string(), reason };
        let cols = self.info().cols();
        let mut reader = WeightReader::default();
        let read = reader.read(self.source, self.index, row * cols, cols as usize);
        let weights = read.map_err(|e| fault(e.to_string()))?;
        if let Some(col) = aq_kernels::metric::first_non_finite(weights) {
            return Err(StrategyError::NotFinite {
                tensor: self.info().name().to_string(),
                row,
                col: col as u64,
            });
        }
        out.clear();
        out.extend_from_slice(weights);
        Ok(())
    }
}

/// Index of the first weight that is NaN or infinite.
pub(crate) fn first_non_finite(weights: RowData<'_>) -> Option<usize> {
    match weights {
        RowData::F32(x) => aq_kernels::metric::first_non_finite(x),
        RowData::F16(x) => first_with_all_bits(bytemuck::cast_slice(x), 0x7c00),
        RowData::BF16(x) => first_with_all_bits(bytemuck::cast_slice(x), 0x7f80),
    }
}

/// Index of the first number whose exponent bits, those of `mask`, are all set.
fn first_with_all_bits(bits: &[u16], mask: u16) -> Option<usize> {
    let any = |block: &[u16]| block.iter().fold(false, |any, b| any | (b & mask == mask));
    let block = bits.chunks(1024).position(any)? * 1024;
    bits[block..].iter().position(|b| b & mask == mask).map(|at| block + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn non_finite_weights_of_every_type_are_found() {
        for at in [0, 1, 1023, 1024, 2999] {
            let mut f32s = vec![1.5_f32; 3000];
            f32s[at] = f32::NAN;
            let f16s: Vec<f16> = f32s.iter().map(|&x| f16::from_f32(x)).collect();
            let mut bf16s = vec![bf16::MAX; 3000];
            bf16s[at] = bf16::NEG_INFINITY;
            for rows in [RowData::F32(&f32s), RowData::F16(&f16s), RowData::BF16(&bf16s)] {
                assert_eq!(first_non_finite(rows), Some(at));
            }
        }
        assert_eq!(first_non_finite(RowData::F16(&[f16::MAX, f16::MIN])), None);
    }
}
