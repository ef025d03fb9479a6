//! Hessians ready for error feedback: columns in order, damped, inverted and factored.
//!
//! A Hessian of few rows, or of inputs that go together, has no inverse. Some of its mean diagonal value is added to the
//! diagonal: 0.01 of it, then 0.1, then all of it, and at last only the diagonal is used. Each step is reported.

use aq_core::StepDown;
use aq_kernels::cholesky::inverse_factor;

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
    let mut blocks = Vec::new();
    let mut counts = Counts::default();
    for (first, values) in hessian.blocks() {
        blocks.push(room.factor(first, values, damping, &mut counts));
    }
    (blocks, counts.steps(hessian))
}

/// What happened to how many blocks.
#[derive(Debug, Default)]
struct Counts {
    blocks: usize,
    not_finite: usize,
    zero: usize,
    /// Blocks that had no inverse at each damping.
    failed: [usize; DAMPING.len()],
    /// Columns that are always zero in blocks that are not.
    dead: usize,
}

impl Counts {
    fn steps(&self, hessian: &Hessian) -> Vec<StepDown> {
        let step =
            |from: &str, to: &str, reason: String| StepDown { from: from.into(), to: to.into(), reason };
        let of = |n: usize| format!("{n} of {} blocks of its Hessian", self.blocks);
        let damped = |i: usize| format!("damping {}", DAMPING[i]);
        let mut steps = Vec::new();
        if self.not_finite > 0 {
            let reason = format!("{} hold NaN or infinite values", of(self.not_finite));
            steps.push(step("Hessian", "diagonal", reason));
        }
        if self.zero > 0 {
            steps.push(step("Hessian", "diagonal", format!("{} are zero", of(self.zero))));
        }
        if hessian.rows < hessian.block as u64 && self.zero < self.blocks {
            let reason =
                format!("it is singular: {} calibration rows for {} columns", hessian.rows, hessian.block);
            steps.push(step("Hessian", &damped(0), reason));
        } else if self.dead > 0 {
            let reason = format!("it is singular: {} input channels are always 0", self.dead);
            steps.push(step("Hessian", &damped(0), reason));
        }
        for (i, &failed) in self.failed.iter().enumerate().filter(|(_, failed)| **failed > 0) {
            let to = if i + 1 < DAMPING.len() { damped(i + 1) } else { "diagonal".into() };
            steps.push(step(&damped(i), &to, format!("{} are not positive definite", of(failed))));
        }
        steps
    }
}

/// Two matrices, reused from block to block.
#[derive(Default)]
struct Room {
    h: Vec<f64>,
    u: Vec<f64>,
}

impl Room {
    fn factor(&mut self, first: usize, values: &[f64], damping: f64, counts: &mut Counts) -> FactoredBlock {
        let n = values.len().isqrt();
        let mean = diagonal(values).sum::<f64>() / n as f64;
        counts.blocks += 1;
        if !(values.iter().all(|v| v.is_finite()) && mean.is_finite()) {
            counts.not_finite += 1;
            return without_feedback(first, values, f64::NAN);
        }
        if mean <= 0.0 {
            counts.zero += 1;
            return without_feedback(first, values, f64::NAN);
        }
        counts.dead += diagonal(values).filter(|&v| v == 0.0).count();
        let order = by_diagonal(values);
        for (i, damping) in [damping, DAMPING[1].max(damping), DAMPING[2]].into_iter().enumerate() {
            self.arrange(values, &order, mean, damping);
            let h: Vec<f32> = self.h.iter().map(|&v| v as f32).collect();
            if inverse_factor(&mut self.h, n, &mut self.u).is_ok() {
                let inverse_diagonal = h.iter().step_by(n + 1).map(|h| 1.0 / h).collect();
                let pivots = self.u.iter().step_by(n + 1).copied().collect();
                let feedback = self.feedback(n);
                return FactoredBlock { first, order, feedback, h, damping, inverse_diagonal, pivots, mean };
            }
            counts.failed[i] += 1;
        }
        without_feedback(first, values, mean)
    }

    /// The matrix with its columns in order, over its mean and damped.
    fn arrange(&mut self, values: &[f64], order: &[u32], mean: f64, damping: f64) {
        let n = order.len();
        self.h.clear();
        for &row in order {
            let row = &values[row as usize * n..][..n];
            self.h.extend(order.iter().map(|&col| row[col as usize] / mean));
        }
        self.h.iter_mut().step_by(n + 1).for_each(|v| *v += damping);
        self.u.resize(n * n, 0.0);
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
fn without_feedback(first: usize, values: &[f64], mean: f64) -> FactoredBlock {
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
