//! One packed layer of a file, and reading its rows.

use aq_codec::{LowRank, Rotation, RowBytes, Side};
use aq_core::AffineEncoding;

use crate::{IoError, Result, Source};

/// The indices of a layer's tensors in the file.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) affine: AffineEncoding,
    pub(super) row: RowBytes,
    pub(super) codes: usize,
    pub(super) scales: usize,
    pub(super) offsets: usize,
    pub(super) exponents: Option<usize>,
    pub(super) smoothing: Option<usize>,
    pub(super) low_rank: Option<[usize; 3]>,
    pub(super) rotation: Option<Rotation>,
    pub(super) bytes: u64,
}

impl Layer {
    /// The tensors that are read.
    pub(super) fn indices(&self) -> impl Iterator<Item = usize> + '_ {
        let always = [self.codes, self.scales, self.offsets].into_iter();
        always.chain(self.exponents).chain(self.smoothing).chain(self.low_rank.into_iter().flatten())
    }

    /// The side data as slabs have it.
    pub(super) fn side(&self, file: &dyn Source) -> Result<Vec<u8>> {
        let all = |index: usize| {
            let mut bytes = vec![0; file.stored_bytes(index) as usize];
            file.read_bytes(index, 0, &mut bytes).map(|()| bytes)
        };
        let smoothing = self.smoothing.map(all).transpose()?;
        let low_rank = self
            .low_rank
            .map(|[part, left, right]| Ok::<_, IoError>([all(part)?, all(left)?, all(right)?]))
            .transpose()?;
        let low_rank = low_rank.as_ref().map(|[scales, left, right]| LowRank { scales, left, right });
        Ok(Side { rotation: self.rotation, smoothing: smoothing.as_deref(), low_rank }.bytes())
    }
}
