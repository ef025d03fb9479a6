//! A product of two thin integer matrices that is added to the decoded weights.

use std::ops::Range;

/// The largest rank.
pub const MAX_RANK: usize = 64;

/// The low-rank part `L1 L2` of a tensor, as stored.
///
/// ```text
/// w[i][j] += sum over k of (left[i][k] * scale[k]) * right[k][j]
/// ```
///
/// Terms are added one after the other in the order of `k`; each product and each sum is rounded to `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LowRank<'a> {
    /// One little-endian f32 a component.
    pub scales: &'a [u8],
    /// Rows of `rank` signed bytes, one a row of the tensor.
    pub left: &'a [u8],
    /// `rank` rows of `cols` signed bytes.
    pub right: &'a [u8],
}

impl<'a> LowRank<'a> {
    /// Splits a section of side data; `None` when its length is not that of a part of a `rows` x `cols` tensor.
    pub(crate) fn parse(bytes: &'a [u8], rows: u64, cols: u64) -> Option<Self> {
        let (rank, rest) = bytes.split_first_chunk::<2>()?;
        let rank = usize::from(u16::from_le_bytes(*rank));
        let due = section_bytes(rank, rows, cols)?;
        if rank == 0 || rank > MAX_RANK || due != bytes.len() as u64 {
            return None;
        }
        let (scales, rest) = rest.split_at_checked(rank * 4)?;
        let (left, right) = rest.split_at_checked(rank * rows as usize)?;
        Some(Self { scales, left, right })
    }

    /// Components.
    pub fn rank(&self) -> usize {
        self.scales.len() / 4
    }

    /// Adds row `row` of the product to `out`.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn add(&self, row: usize, out: &mut [f32]) {
        self.each(row, 0..self.rank(), out, |w, term| w + term);
    }

    /// Subtracts the components `range` of row `row` of the product from `out`.
    ///
    /// # Panics
    /// When there is no such row or component.
    pub fn subtract(&self, row: usize, range: Range<usize>, out: &mut [f32]) {
        self.each(row, range, out, |w, term| w - term);
    }

    fn each(&self, row: usize, range: Range<usize>, out: &mut [f32], change: impl Fn(f32, f32) -> f32) {
        let rank = self.rank();
        let left = &self.left[row * rank..][..rank];
        let scales = &self.scales.as_chunks::<4>().0[range.clone()];
        let right = self.right.chunks_exact(out.len().max(1)).skip(range.start);
        for ((&left, &scale), right) in left[range].iter().zip(scales).zip(right) {
            let factor = f32::from(left as i8) * f32::from_le_bytes(scale);
            for (w, &right) in out.iter_mut().zip(right) {
                *w = change(*w, factor * f32::from(right as i8));
            }
        }
    }
}

/// Bytes of the section of a part of that rank; `None` when they pass 64 bits.
pub(crate) fn section_bytes(rank: usize, rows: u64, cols: u64) -> Option<u64> {
    rows.checked_add(cols)?.checked_add(4)?.checked_mul(rank as u64)?.checked_add(2)
}
