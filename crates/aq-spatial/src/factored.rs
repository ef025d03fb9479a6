//! Hessians ready for error feedback: columns in order, damped, inverted and factored.
//!
//! A Hessian of few rows, or of inputs that go together, has no inverse. Some of its mean diagonal value is added to the
//! diagonal: 0.01 of it, then 0.1, then all of it, and at last only the diagonal is used. Each step is reported.

mod ladder;

use aq_core::StepDown;
use aq_kernels::cholesky::inverse_factor;

pub(crate) use ladder::{Damped, Ladder};

use crate::hessian::{Hessian, diagonal};

/// Shares of the mean diagonal value that are added to the diagonal, one after the other until there is an inverse.
pub(crate) const DAMPING: [f64; 3] = [0.01, 0.1, 1.0];

/// What the rows of a layer share for some neighbouring columns.
#[derive(Debug, Clone)]
pub(crate) struct FactoredBlock {
    /// First column.
    pub(crate) first: usize,
    /// Columns from `first` on, in the order in which they are rounded: the largest diagonal value first.
    pub(crate) order: Vec<u32>,
    /// `U[i][j] / U[i][i]` for the factor `U` of the inverse, in that order, row-major.
    pub(crate) feedback: Vec<f32>,
    /// The damped Hessian in that order, with a mean diagonal value of about 1, row-major.
    pub(crate) h: Vec<f32>,
    /// What was added to its diagonal; 0 where the diagonal is all there is.
    pub(crate) damping: f64,
    /// `1 / h[i][i]`.
    pub(crate) inverse_diagonal: Vec<f32>,
    /// `U[i][i]`, in units of the block's own mean diagonal value: rounding errors of column `i` count with `U[i][i]^-2`.
    pub(crate) pivots: Vec<f64>,
    /// The mean diagonal value of the Hessian; 1 where it is not known.
    pub(crate) mean: f64,
}

/// Factors every block. The steps say what was done beyond the first damping, and why.
pub(crate) fn factor(hessian: &Hessian) -> (Vec<FactoredBlock>, Vec<StepDown>) {
    factor_damped(hessian, DAMPING[0])
}

/// The same with another first damping, in place of 0.01.
pub(crate) fn factor_damped(hessian: &Hessian, damping: f64) -> (Vec<FactoredBlock>, Vec<StepDown>) {
    let mut room = Room::default();
    let blocks = hessian.blocks().map(|(first, values)| room.factor(first, values, damping)).collect();
    (blocks, room.ladder.steps(hessian))
}

/// Factors blocks for the order of their diagonal values.
#[derive(Default)]
struct Room {
    ladder: Ladder,
    u: Vec<f64>,
}

impl Room {
    fn factor(&mut self, first: usize, values: &[f64], damping: f64) -> FactoredBlock {
        let n = values.len().isqrt();
        let order = by_diagonal(values);
        self.u.resize(n * n, 0.0);
        let u = &mut self.u;
        let solve = |h: &mut [f64]| inverse_factor(h, n, u).is_ok();
        match self.ladder.climb(values, &order, damping, solve) {
            Err(mean) => without_feedback(first, values, mean),
            Ok(Damped { h, damping, mean }) => {
                let inverse_diagonal = h.iter().step_by(n + 1).map(|h| 1.0 / h).collect();
                let pivots = self.u.iter().step_by(n + 1).copied().collect();
                let feedback = self.feedback(n);
                FactoredBlock { first, order, feedback, h, damping, inverse_diagonal, pivots, mean }
            }
        }
    }

    fn feedback(&self, n: usize) -> Vec<f32> {
        let rows = self.u.chunks_exact(n).enumerate();
        rows.flat_map(|(i, row)| row.iter().map(move |v| (v / row[i]) as f32)).collect()
    }
}

/// Columns by falling diagonal value, those that are equal as they come.
fn by_diagonal(values: &[f64]) -> Vec<u32> {
    let diagonal: Vec<f64> = diagonal(values).collect();
    let mut order: Vec<u32> = (0..diagonal.len() as u32).collect();
    order.sort_by(|&a, &b| diagonal[b as usize].total_cmp(&diagonal[a as usize]));
    order
}

/// A block of which only the diagonal is used, where it is positive and finite.
pub(crate) fn without_feedback(first: usize, values: &[f64], mean: f64) -> FactoredBlock {
    let n = values.len().isqrt();
    let mut h = vec![0.0; n * n];
    for (h, value) in h.iter_mut().step_by(n + 1).zip(diagonal(values)) {
        let share = (value / mean + DAMPING[0]) as f32;
        *h = if share.is_finite() && share >= DAMPING[0] as f32 { share } else { 1.0 };
    }
    let inverse_diagonal: Vec<f32> = h.iter().step_by(n + 1).map(|h| 1.0 / h).collect();
    let pivots = inverse_diagonal.iter().map(|&v| f64::from(v).sqrt()).collect();
    let (order, feedback) = ((0..n as u32).collect(), vec![0.0; n * n]);
    let mean = if mean.is_finite() && mean > 0.0 { mean } else { 1.0 };
    FactoredBlock { first, order, feedback, h, damping: 0.0, inverse_diagonal, pivots, mean }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factored(rows: u64, values: Vec<f64>) -> (FactoredBlock, Vec<String>) {
        let n = values.len().isqrt();
        let (mut blocks, steps) = factor(&Hessian::of(n, n, rows, values));
        let step = |s: &StepDown| format!("{} -> {}: {}", s.from, s.to, s.reason);
        (blocks.remove(0), steps.iter().map(step).collect())
    }

    #[test]
    fn columns_come_by_falling_diagonal() {
        let (block, steps) = factored(9, vec![1.0, 0.5, 0.0, 0.5, 4.0, 0.2, 0.0, 0.2, 1.0]);
        assert_eq!((block.order, steps.len()), (vec![1, 0, 2], 0));
        assert!((block.h[0] - 2.01).abs() < 1e-6 && (block.h[1] - 0.25).abs() < 1e-6);
        assert!((block.inverse_diagonal[0] * block.h[0] - 1.0).abs() < 1e-6);
        // What the first column loses the second one takes over: -(h[1][1]^-1) h[1][0], but for the third.
        assert!((block.feedback[1] + 0.25 / 0.51).abs() < 1e-6, "{:?}", block.feedback);
    }

    #[test]
    fn damping_rises_until_there_is_an_inverse() {
        let cases = [
            (
                1.05,
                vec!["damping 0.01 -> damping 0.1: 1 of 1 blocks of its Hessian are not positive definite"],
            ),
            (
                1.5,
                vec![
                    "damping 0.01 -> damping 0.1: 1 of 1 blocks of its Hessian are not positive definite",
                    "damping 0.1 -> damping 1: 1 of 1 blocks of its Hessian are not positive definite",
                ],
            ),
        ];
        for (off, expected) in cases {
            let (block, steps) = factored(9, vec![1.0, off, off, 1.0]);
            assert_eq!(steps, expected);
            assert!(block.feedback[1] < 0.0);
        }
        let (block, steps) = factored(9, vec![1.0, 3.0, 3.0, 1.0]);
        assert_eq!(steps.len(), 3);
        assert!(steps[2].starts_with("damping 1 -> diagonal"), "{steps:?}");
        assert_eq!(block.feedback, [0.0; 4]);
    }

    #[test]
    fn what_cannot_be_inverted_is_reported() {
        let (block, steps) = factored(9, vec![0.0; 4]);
        assert_eq!(
            (block.h, steps),
            (
                vec![1.0, 0.0, 0.0, 1.0],
                vec!["Hessian -> diagonal: 1 of 1 blocks of its Hessian are zero".into()]
            )
        );
        for poison in [f64::NAN, f64::INFINITY] {
            let (block, steps) = factored(9, vec![2.0, poison, poison, 2.0]);
            assert!(steps[0].ends_with("hold NaN or infinite values"), "{steps:?}");
            assert_eq!((block.h, block.feedback), (vec![1.0, 0.0, 0.0, 1.0], vec![0.0; 4]));
        }
        let (block, steps) = factored(1, vec![1.0, 1.0, 1.0, 1.0]);
        assert_eq!(steps, ["Hessian -> damping 0.01: it is singular: 1 calibration rows for 2 columns"]);
        assert!((block.feedback[1] + 1.0 / 1.01).abs() < 1e-6);
        let (_, steps) = factored(9, vec![1.0, 0.0, 0.0, 0.0]);
        assert_eq!(steps, ["Hessian -> damping 0.01: it is singular: 1 input channels are always 0"]);
    }
}
