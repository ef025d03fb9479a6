//! A model some of whose plain tensors are shown in another form than they are stored in.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use aq_core::{CoreError, DType, SlabParts, StoredTensor, TensorInfo};
use aq_io::{Format, IoError, Source};

use crate::{EngineError, Result};

/// The other form of a plain tensor.
pub(crate) trait View: Send + Sync {
    /// The tensor as it is shown.
    fn shown(&self, stored: &TensorInfo) -> std::result::Result<TensorInfo, CoreError>;

    /// Fills `dst` with the bytes from `start` on that are shown of tensor `index` of `source`; there are so many.
    fn read(&self, source: &dyn Source, index: usize, start: u64, dst: &mut [u8]) -> aq_io::Result<()>;
}

/// A source with views in place of some of its plain tensors.
pub(crate) struct Overlay<'a, V> {
    inner: &'a dyn Source,
    tensors: Vec<StoredTensor>,
    views: HashMap<usize, V>,
}

impl<'a, V: View> Overlay<'a, V> {
    /// `inner` with views of the tensors of these indices.
    ///
    /// # Errors
    /// When a tensor would be too large.
    pub(crate) fn new(inner: &'a dyn Source, views: HashMap<usize, V>) -> Result<Self> {
        let mut tensors = inner.tensors().to_vec();
        for (&index, view) in &views {
            let shown = view.shown(&tensors[index].info);
            tensors[index].info = shown.map_err(|e| EngineError::Config(e.to_string()))?;
        }
        Ok(Self { inner, tensors, views })
    }
}

/// Reads elements of type `dtype` that `change` makes of the values of a tensor: it is given the index of the first one, and says what is wrong
/// with them.
pub(crate) fn read_elements(
    (source, index): (&dyn Source, usize),
    dtype: DType,
    start: u64,
    dst: &mut [u8],
    change: impl FnOnce(u64, &mut [f32]) -> std::result::Result<(), String>,
) -> aq_io::Result<()> {
    let info = &source.tensors()[index].info;
    let fault = |fact: String| IoError::tensor(source.path(), info.name(), fact);
    let (size, own) = (dtype.size() as u64, info.dtype().size() as u64);
    let (first, end) = (start / size, (start + dst.len() as u64).div_ceil(size));
    let count = (end - first) as usize;
    let mut bytes = vec![0; count * own as usize];
    source.read_bytes(index, first * own, &mut bytes)?;
    let mut values = vec![0.0; count];
    aq_codec::bytes_to_f32(info.dtype(), &bytes, &mut values).map_err(|e| fault(e.to_string()))?;
    change(first, &mut values).map_err(fault)?;
    bytes.resize(count * size as usize, 0);
    aq_codec::f32_to_bytes(dtype, &values, &mut bytes).map_err(|e| fault(e.to_string()))?;
    dst.copy_from_slice(&bytes[(start - size * first) as usize..][..dst.len()]);
    Ok(())
}

impl<V: View> Source for Overlay<'_, V> {
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
        match self.views.contains_key(&index) {
            true => self.tensors[index].info.bytes(),
            false => self.inner.stored_bytes(index),
        }
    }

    fn read_bytes(&self, index: usize, start: u64, dst: &mut [u8]) -> aq_io::Result<()> {
        let Some(view) = self.views.get(&index) else { return self.inner.read_bytes(index, start, dst) };
        let info = &self.tensors[index].info;
        if start.checked_add(dst.len() as u64).is_none_or(|end| end > info.bytes()) {
            return Err(IoError::tensor(self.path(), info.name(), "it has no such bytes"));
        }
        view.read(self.inner, index, start, dst)
    }

    fn borrow_bytes(&self, index: usize, range: Range<u64>) -> Option<&[u8]> {
        if self.views.contains_key(&index) { None } else { self.inner.borrow_bytes(index, range) }
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
