//! A model some of whose plain tensors are read as another element type.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use aq_core::{DType, SlabParts, StoredTensor};
use aq_io::{Format, IoError, Source};

use crate::{EngineError, Result};

/// A source with casts to F32, F16 or BF16.
pub(crate) struct Recast<'a> {
    inner: &'a dyn Source,
    tensors: Vec<StoredTensor>,
    casts: HashMap<usize, DType>,
}

impl<'a> Recast<'a> {
    /// `inner` with the tensors of these indices, which are plain, as these types.
    ///
    /// # Errors
    /// When a tensor is too large for its new type.
    pub(crate) fn new(inner: &'a dyn Source, casts: HashMap<usize, DType>) -> Result<Self> {
        let mut tensors = inner.tensors().to_vec();
        for (&index, &dtype) in &casts {
            let cast = tensors[index].info.with_dtype(dtype);
            tensors[index].info = cast.map_err(|e| EngineError::Config(e.to_string()))?;
        }
        Ok(Self { inner, tensors, casts })
    }

    fn read_cast(&self, index: usize, dtype: DType, start: u64, dst: &mut [u8]) -> aq_io::Result<()> {
        let info = &self.inner.tensors()[index].info;
        let fault = |fact: String| IoError::tensor(self.inner.path(), info.name(), fact);
        let size = dtype.size() as u64;
        let (first, end) = (start / size, (start + dst.len() as u64).div_ceil(size));
        let count = (end - first) as usize;
        let mut bytes = vec![0; count * info.dtype().size()];
        self.inner.read_bytes(index, first * info.dtype().size() as u64, &mut bytes)?;
        let mut values = vec![0.0; count];
        aq_codec::bytes_to_f32(info.dtype(), &bytes, &mut values).map_err(|e| fault(e.to_string()))?;
        // From half of a unit in the last place above it on, numbers round to infinity.
        let too_large = |v: &&f32| dtype == DType::F16 && v.is_finite() && v.abs() >= 65520.0;
        if let Some(value) = values.iter().find(too_large) {
            return Err(fault(format!("holds {value}, which is too large for F16")));
        }
        bytes.resize(count * dtype.size(), 0);
        aq_codec::f32_to_bytes(dtype, &values, &mut bytes).map_err(|e| fault(e.to_string()))?;
        dst.copy_from_slice(&bytes[(start - size * first) as usize..][..dst.len()]);
        Ok(())
    }
}

impl Source for Recast<'_> {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn format(&self) -> Format {
        self.inner.format()
    }

    fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        self.inner.metadata()
    }

    fn stored_bytes(&self, index: usize) -> u64 {
        match self.casts.contains_key(&index) {
            true => self.tensors[index].info.bytes(),
            false => self.inner.stored_bytes(index),
        }
    }

    fn read_bytes(&self, index: usize, start: u64, dst: &mut [u8]) -> aq_io::Result<()> {
        match self.casts.get(&index) {
            Some(&dtype) => self.read_cast(index, dtype, start, dst),
            None => self.inner.read_bytes(index, start, dst),
        }
    }

    fn borrow_bytes(&self, index: usize, range: Range<u64>) -> Option<&[u8]> {
        if self.casts.contains_key(&index) { None } else { self.inner.borrow_bytes(index, range) }
    }

    fn read_slab<'b>(
        &'b self,
        index: usize,
        slab: u64,
        buffer: &'b mut Vec<u8>,
    ) -> aq_io::Result<SlabParts<'b>> {
        self.inner.read_slab(index, slab, buffer)
    }
}
