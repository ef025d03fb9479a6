//! Reads weights as f32 from any source.

use aq_core::Encoding;
use aq_io::Source;

use crate::{EngineError, Result};

/// Reads runs of weights as f32, whatever their stored form; its buffers are reused.
#[derive(Debug, Default)]
pub(crate) struct WeightReader {
    bytes: Vec<u8>,
    codes: Vec<u8>,
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
            Encoding::Affine(_) => self.read_encoded(source, index, start, count)?,
        }
        Ok(&self.weights)
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
            aq_codec::decode(encoding, info, parts, rows, first, &mut self.codes, &mut self.decoded)
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
