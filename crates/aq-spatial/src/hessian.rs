//! The Hessian of a layer: the second moments of its inputs, in blocks of columns.

use aq_core::{InputRows, LayerStats, SecondMoments, StrategyError};
use aq_kernels::gram;

use crate::grouped::expect_length;

/// The widest layer whose Hessian is one block.
const FULL: usize = 2048;
/// Columns of a block of a wider layer.
const BLOCK: usize = 512;
/// Neighbouring rows that fall into the same half.
const RUN: usize = 16;
/// The most values of a Hessian: layers of more than 32768 columns have smaller blocks.
const VALUES: usize = 1 << 24;

/// `sum(weight * x^T x)` over the calibration rows `x` of a layer, block-diagonal.
#[derive(Debug, Clone)]
pub(crate) struct Hessian {
    /// Columns of a block; the last one may have fewer.
    pub(crate) block: usize,
    cols: usize,
    /// Rows that were seen.
    pub(crate) rows: u64,
    values: Vec<f64>,
}

impl Hessian {
    /// The stored moments of `inputs`, or those of all their rows, which have `cols` values each. No group of `group` columns is in two blocks if that can be.
    ///
    /// # Errors
    /// When the rows cannot be read or have another length.
    pub(crate) fn read(
        inputs: &dyn InputRows,
        tensor: &str,
        cols: usize,
        group: usize,
    ) -> Result<Self, StrategyError> {
        if let Some(stored) = Self::stored(inputs, tensor, cols)? {
            return Ok(stored);
        }
        let mut hessian = Self::empty(cols, group);
        visit_whole(inputs, tensor, cols, &mut |rows, weight| hessian.add(rows, weight))?;
        Ok(hessian)
    }

    /// The moments that are stored with `inputs`, in the blocks that they have; `None` where there are none.
    ///
    /// # Errors
    /// When they cannot be read or are of another number of columns.
    pub(crate) fn stored(
        inputs: &dyn InputRows,
        tensor: &str,
        cols: usize,
    ) -> Result<Option<Self>, StrategyError> {
        let Some(SecondMoments { block, rows, values }) = inputs.moments()? else { return Ok(None) };
        let block = block.clamp(1, cols.max(1));
        let expected = gram::block_diagonal_len(cols, block);
        expect_length("the stored Hessian", tensor, values.len(), expected)?;
        Ok(Some(Self { block, cols, rows, values }))
    }

    fn empty(cols: usize, group: usize) -> Self {
        let block = block_size(cols, group);
        Self { block, cols, rows: 0, values: vec![0.0; gram::block_diagonal_len(cols, block)] }
    }

    fn add(&mut self, rows: &[f32], weight: f64) {
        gram::add_rows(rows, self.cols, weight as f32, self.block, &mut self.values);
        self.rows += (rows.len() / self.cols) as u64;
    }

    /// The Hessians of every other run of [`RUN`] rows, and of the runs between them: one to decide by, one to check with.
    ///
    /// # Errors
    /// As [`Hessian::read`].
    pub(crate) fn read_halves(
        inputs: &dyn InputRows,
        tensor: &str,
        cols: usize,
        group: usize,
    ) -> Result<[Self; 2], StrategyError> {
        let mut halves = [Self::empty(cols, group), Self::empty(cols, group)];
        let mut runs = 0;
        visit_whole(inputs, tensor, cols, &mut |rows, weight| {
            for run in rows.chunks(RUN * cols) {
                halves[runs % 2].add(run, weight);
                runs += 1;
            }
        })?;
        Ok(halves)
    }

    /// `e H e`.
    pub(crate) fn quadratic(&self, e: &[f64]) -> f64 {
        let mut sum = 0.0;
        for (first, block) in self.blocks() {
            let n = block.len().isqrt();
            for (row, &own) in block.chunks_exact(n).zip(&e[first..first + n]) {
                let product: f64 = row.iter().zip(&e[first..first + n]).map(|(h, e)| h * e).sum();
                sum += own * product;
            }
        }
        sum
    }

    /// The Hessian of the rows of both.
    pub(crate) fn sum(mut self, other: &Self) -> Self {
        self.rows += other.rows;
        self.values.iter_mut().zip(&other.values).for_each(|(a, b)| *a += b);
        self
    }

    /// A Hessian of these values, for tests.
    #[cfg(test)]
    pub(crate) fn of(block: usize, cols: usize, rows: u64, values: Vec<f64>) -> Self {
        assert_eq!(values.len(), gram::block_diagonal_len(cols, block));
        Self { block, cols, rows, values }
    }

    /// The first column of each block, and its values: a row-major square matrix.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (usize, &[f64])> {
        let mut rest = self.values.as_slice();
        (0..self.cols).step_by(self.block).map(move |first| {
            let size = self.block.min(self.cols - first);
            let (block, after) = rest.split_at(size * size);
            rest = after;
            (first, block)
        })
    }

    /// The diagonal as the importance of columns, with some of their mean added to each; 1 where it is not finite.
    pub(crate) fn importance(&self, damping: f64) -> Vec<f32> {
        let diagonal: Vec<f64> =
            self.blocks().flat_map(|(_, block)| diagonal(block).collect::<Vec<_>>()).collect();
        let finite = || diagonal.iter().copied().filter(|v| v.is_finite());
        let mean = finite().sum::<f64>() / finite().count().max(1) as f64;
        let share = |v: &f64| (v / mean + damping) as f32;
        diagonal.iter().map(share).map(|v| if v.is_finite() { v } else { 1.0 }).collect()
    }
}

/// The most bytes that the Hessian of a layer of `cols` columns takes with its factor, in groups of `group`; 0 without calibration.
///
/// Two halves of it or the values in three forms, `f64` and two of `f32`, and two `f64` matrices of one block, of which one is a copy.
pub(crate) fn shared_bytes(stats: &LayerStats<'_>, cols: usize, group: usize) -> u64 {
    if stats.inputs.is_none() {
        return 0;
    }
    let block = block_size(cols, group).min(cols) as u64;
    24 * cols as u64 * block + 16 * block * block
}

/// Visits the blocks of calibration rows, which must be whole rows.
fn visit_whole(
    inputs: &dyn InputRows,
    tensor: &str,
    cols: usize,
    visit: &mut dyn FnMut(&[f32], f64),
) -> Result<(), StrategyError> {
    let mut ragged = None;
    inputs.visit(&mut |rows, weight| match rows.len().is_multiple_of(cols) {
        true => visit(rows, weight),
        false => ragged = Some(rows.len()),
    })?;
    let Some(length) = ragged else { return Ok(()) };
    expect_length("a block of calibration rows", tensor, length, length / cols * cols)
}

/// The diagonal of a square matrix.
pub(crate) fn diagonal(matrix: &[f64]) -> impl Iterator<Item = f64> {
    let n = matrix.len().isqrt();
    matrix.iter().copied().step_by(n + 1)
}

/// Columns of a block of the Hessian of a layer of `cols` columns, whose groups are not known.
///
/// ```
/// assert_eq!([768, 2048, 4096].map(aq_spatial::hessian_block), [768, 2048, 512]);
/// ```
pub fn hessian_block(cols: usize) -> usize {
    block_size(cols.max(1), 1)
}

/// All columns up to [`FULL`], else whole groups of about [`BLOCK`] columns together.
pub(crate) fn block_size(cols: usize, group: usize) -> usize {
    let most = BLOCK.min(VALUES / cols).max(1);
    match group {
        _ if cols <= FULL => cols,
        group if group <= most => most / group * group,
        group if group <= FULL && most == BLOCK => group,
        _ => most,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_whole_groups() {
        let cases =
            [(512, 128, 512), (2048, 2048, 2048), (4096, 128, 512), (4096, 96, 480), (4096, 1024, 1024)];
        for (cols, group, block) in cases {
            assert_eq!(block_size(cols, group), block, "{cols} {group}");
        }
        assert_eq!(block_size(4096, 4096), 512, "a whole row");
        assert_eq!((block_size(300_001, 16), block_size(300_001, 64), block_size(1 << 22, 64)), (48, 55, 4));
    }

    struct Known(SecondMoments);

    impl InputRows for Known {
        fn visit(&self, visit: &mut dyn FnMut(&[f32], f64)) -> Result<(), StrategyError> {
            visit(&[1.0, 2.0, 3.0], 1.0);
            Ok(())
        }

        fn moments(&self) -> Result<Option<SecondMoments>, StrategyError> {
            Ok(Some(self.0.clone()))
        }
    }

    #[test]
    fn stored_moments_come_before_rows() {
        let moments = SecondMoments { block: 2, rows: 9, values: vec![4.0, 1.0, 1.0, 5.0, 6.0] };
        let hessian = Hessian::read(&Known(moments.clone()), "w", 3, 1).expect("fits");
        assert_eq!((hessian.block, hessian.rows, hessian.values), (2, 9, moments.values.clone()));
        assert!(Hessian::read(&Known(moments), "w", 4, 1).is_err(), "of another width");
    }

    #[test]
    fn unknown_importance_is_the_mean() {
        let hessian = Hessian::of(2, 3, 1, vec![4.0, 9.0, 9.0, f64::NAN, 2.0]);
        let close = |a: f32, b: f32| (a - b).abs() < 1e-6;
        let importance = hessian.importance(0.01);
        assert!(close(importance[0], 4.0 / 3.0 + 0.01) && close(importance[2], 2.0 / 3.0 + 0.01));
        assert_eq!(importance[1], 1.0);
        assert_eq!(Hessian::of(1, 1, 0, vec![0.0]).importance(0.01), [1.0]);
    }
}
