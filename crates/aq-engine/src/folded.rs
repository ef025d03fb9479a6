//! A model some of whose tensors are scaled by rows and columns as they are read.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use aq_core::{DType, SlabParts, StoredTensor, TensorInfo};
use aq_io::{Format, IoError, Source};

/// How a tensor is changed: `((w + before[row]) / rows[row]) * cols[col] - before[row]`, computed in f64 and rounded once to f32.
/// What is empty changes nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Change {
    pub(crate) before: Vec<f32>,
    pub(crate) rows: Vec<f32>,
    pub(crate) cols: Vec<f32>,
}

impl Change {
    fn apply(&self, first: u64, cols: u64, values: &mut [f32]) {
        let of = |list: &[f32], i: u64, none: f32| f64::from(list.get(i as usize).copied().unwrap_or(none));
        for (at, value) in (first..).zip(values) {
            let (row, col) = (at / cols, at % cols);
            let before = of(&self.before, row, 0.0);
            let scaled = (f64::from(*value) + before) / of(&self.rows, row, 1.0) * of(&self.cols, col, 1.0);
            *value = (scaled - before) as f32;
        }
    }
}

/// A source with changes; changed tensors are of type F32.
pub(crate) struct FoldedSource<'a> {
    inner: &'a dyn Source,
    tensors: Vec<StoredTensor>,
    changes: HashMap<usize, Change>,
}

impl<'a> FoldedSource<'a> {
    /// `inner` as it is.
    pub(crate) fn unchanged(inner: &'a dyn Source) -> Self {
        Self { inner, tensors: inner.tensors().to_vec(), changes: HashMap::new() }
    }

    /// `inner` with `changes` to some of its plain tensors.
    ///
    /// # Errors
    /// When a tensor cannot be of type F32, which no plain tensor of a float type is.
    pub(crate) fn new(
        inner: &'a dyn Source,
        changes: HashMap<usize, Change>,
    ) -> Result<Self, aq_core::CoreError> {
        let mut tensors = inner.tensors().to_vec();
        for &index in changes.keys() {
            let info = &tensors[index].info;
            tensors[index].info = TensorInfo::new(info.name(), info.shape().to_vec(), DType::F32)?;
        }
        Ok(Self { inner, tensors, changes })
    }

    fn read_changed(&self, index: usize, change: &Change, start: u64, dst: &mut [u8]) -> aq_io::Result<()> {
        let info = &self.inner.tensors()[index].info;
        let (first, end) = (start / 4, (start + dst.len() as u64).div_ceil(4));
        let size = info.dtype().size() as u64;
        let mut bytes = vec![0; ((end - first) * size) as usize];
        self.inner.read_bytes(index, first * size, &mut bytes)?;
        let mut values = vec![0.0; (end - first) as usize];
        aq_codec::bytes_to_f32(info.dtype(), &bytes, &mut values)
            .map_err(|e| IoError::tensor(self.inner.path(), info.name(), e.to_string()))?;
        // A vector has a row for each element, as its factors do.
        let cols = if info.shape().len() < 2 { 1 } else { info.cols() };
        change.apply(first, cols, &mut values);
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        dst.copy_from_slice(&bytes[(start - 4 * first) as usize..][..dst.len()]);
        Ok(())
    }
}

impl Source for FoldedSource<'_> {
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
        match self.changes.get(&index) {
            Some(_) => self.tensors[index].info.bytes(),
            None => self.inner.stored_bytes(index),
        }
    }

    fn read_bytes(&self, index: usize, start: u64, dst: &mut [u8]) -> aq_io::Result<()> {
        match self.changes.get(&index) {
            Some(change) => self.read_changed(index, change, start, dst),
            None => self.inner.read_bytes(index, start, dst),
        }
    }

    fn borrow_bytes(&self, index: usize, range: Range<u64>) -> Option<&[u8]> {
        if self.changes.contains_key(&index) { None } else { self.inner.borrow_bytes(index, range) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_are_scaled() {
        let change = Change { rows: vec![2.0, 4.0], cols: vec![1.0, 10.0, 100.0], before: Vec::new() };
        let mut values = [3.0, 4.0, 8.0, 8.0];
        change.apply(1, 3, &mut values);
        assert_eq!(values, [15.0, 200.0, 2.0, 20.0]);
    }

    #[test]
    fn a_modulation_keeps_what_it_stands_for() {
        // The scale of a modulation is used as 1 + v.
        let change = Change { rows: vec![4.0], before: vec![1.0], cols: Vec::new() };
        let mut values = [0.5];
        change.apply(0, 1, &mut values);
        assert_eq!(1.0 + values[0], 1.5 / 4.0);
    }
}
