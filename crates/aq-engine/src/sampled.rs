//! A model of some rows of each weight, evenly spread: what is measured on it costs little, however large the model is.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use aq_core::{Encoding, SlabParts, StoredTensor, TensorInfo};
use aq_io::{Format, IoError, Source};

/// Rows that are taken together: methods look at so many at a time.
const BLOCK_ROWS: u64 = 16;

/// A source that shows some rows of its plain weights; all of the others.
pub(crate) struct SampledSource<'a> {
    inner: &'a dyn Source,
    tensors: Vec<StoredTensor>,
    kept: Vec<Option<KeptRows>>,
}

/// Blocks of rows, evenly spread.
#[derive(Debug, Clone, Copy)]
struct KeptRows {
    all: u64,
    blocks: u64,
    row_bytes: u64,
}

impl KeptRows {
    /// About `weights` weights of a tensor, at least two blocks; `None` where that is all of it.
    fn of(stored: &StoredTensor, weights: u64) -> Option<Self> {
        let info = &stored.info;
        if stored.encoding != Encoding::Raw || info.shape().len() < 2 || info.cols() == 0 {
            return None;
        }
        let blocks = (weights / info.cols() / BLOCK_ROWS).max(2);
        let row_bytes = info.cols() * info.dtype().size() as u64;
        (blocks * BLOCK_ROWS < info.rows()).then(|| Self { all: info.rows(), blocks, row_bytes })
    }

    /// The row of the tensor that is shown as row `row`.
    fn source(self, row: u64) -> u64 {
        let (block, within) = (row / BLOCK_ROWS, row % BLOCK_ROWS);
        block * (self.all - BLOCK_ROWS) / (self.blocks - 1) + within
    }
}

impl<'a> SampledSource<'a> {
    /// About `weights` weights of each tensor of `inner`.
    ///
    /// # Errors
    /// Never for a source that was opened: fewer rows take fewer bytes.
    pub(crate) fn new(inner: &'a dyn Source, weights: u64) -> Result<Self, aq_core::CoreError> {
        let kept: Vec<_> = inner.tensors().iter().map(|stored| KeptRows::of(stored, weights)).collect();
        let shown = |(stored, kept): (&StoredTensor, &Option<KeptRows>)| {
            let Some(kept) = kept else { return Ok(stored.clone()) };
            let mut shape = stored.info.shape().to_vec();
            shape[0] = kept.blocks * BLOCK_ROWS;
            let info = TensorInfo::new(stored.info.name(), shape, stored.info.dtype())?;
            Ok(StoredTensor::new(info, Encoding::Raw))
        };
        let tensors = inner.tensors().iter().zip(&kept).map(shown).collect::<Result<_, _>>()?;
        Ok(Self { inner, tensors, kept })
    }

    fn outside(&self, index: usize) -> IoError {
        IoError::tensor(self.path(), self.tensors[index].info.name(), "it has no such bytes")
    }
}

impl Source for SampledSource<'_> {
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
        match self.kept[index] {
            Some(_) => self.tensors[index].info.bytes(),
            None => self.inner.stored_bytes(index),
        }
    }

    fn read_bytes(&self, index: usize, start: u64, dst: &mut [u8]) -> aq_io::Result<()> {
        let Some(kept) = self.kept[index] else { return self.inner.read_bytes(index, start, dst) };
        if start + dst.len() as u64 > self.tensors[index].info.bytes() {
            return Err(self.outside(index));
        }
        let (mut at, mut rest) = (start, dst);
        while !rest.is_empty() {
            let (row, within) = (at / kept.row_bytes, at % kept.row_bytes);
            let until_block_ends = (BLOCK_ROWS - row % BLOCK_ROWS) * kept.row_bytes - within;
            let count = until_block_ends.min(rest.len() as u64);
            let (now, later) = rest.split_at_mut(count as usize);
            self.inner.read_bytes(index, kept.source(row) * kept.row_bytes + within, now)?;
            (at, rest) = (at + count, later);
        }
        Ok(())
    }

    fn borrow_bytes(&self, index: usize, range: Range<u64>) -> Option<&[u8]> {
        if self.kept[index].is_some() { None } else { self.inner.borrow_bytes(index, range) }
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
    fn blocks_are_spread_from_the_first_row_to_the_last() {
        let kept = KeptRows { all: 100, blocks: 3, row_bytes: 4 };
        let rows: Vec<u64> = (0..48).map(|row| kept.source(row)).collect();
        assert_eq!((rows[0], rows[16], rows[47]), (0, 42, 99));
        assert!(rows.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
