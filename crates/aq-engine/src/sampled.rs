//! A model of some rows of each weight, evenly spread: what is measured on it costs little, however large the model is.

use aq_core::{CoreError, Encoding, StoredTensor, TensorInfo};
use aq_io::Source;

use crate::overlay::{Overlay, View};

/// Rows that are taken together: methods look at so many at a time.
const BLOCK_ROWS: u64 = 16;

/// Blocks of rows, evenly spread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeptRows {
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

/// About `weights` weights of each plain tensor of `inner`, and all of the others.
///
/// # Errors
/// Never for a source that was opened: fewer rows take fewer bytes.
pub(crate) fn sampled(inner: &dyn Source, weights: u64) -> crate::Result<Overlay<'_, KeptRows>> {
    let kept = inner.tensors().iter().enumerate();
    let kept = kept.filter_map(|(index, stored)| Some((index, KeptRows::of(stored, weights)?)));
    Overlay::new(inner, kept.collect())
}

impl View for KeptRows {
    fn shown(&self, stored: &TensorInfo) -> Result<TensorInfo, CoreError> {
        let mut shape = stored.shape().to_vec();
        shape[0] = self.blocks * BLOCK_ROWS;
        TensorInfo::new(stored.name(), shape, stored.dtype())
    }

    fn read(&self, source: &dyn Source, index: usize, start: u64, dst: &mut [u8]) -> aq_io::Result<()> {
        let (mut at, mut rest) = (start, dst);
        while !rest.is_empty() {
            let (row, within) = (at / self.row_bytes, at % self.row_bytes);
            let until_block_ends = (BLOCK_ROWS - row % BLOCK_ROWS) * self.row_bytes - within;
            let count = until_block_ends.min(rest.len() as u64);
            let (now, later) = rest.split_at_mut(count as usize);
            source.read_bytes(index, self.source(row) * self.row_bytes + within, now)?;
            (at, rest) = (at + count, later);
        }
        Ok(())
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
