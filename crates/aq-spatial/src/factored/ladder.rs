//! Dampings one after the other, and the report of what it took.

use aq_core::StepDown;

use super::DAMPING;
use crate::hessian::{Hessian, diagonal};

/// A matrix that could be factored.
pub(crate) struct Damped {
    /// As in [`FactoredBlock`](super::FactoredBlock), in the order that was asked for.
    pub(crate) h: Vec<f32>,
    pub(crate) damping: f64,
    pub(super) mean: f64,
}

/// Dampings one after the other, and what came of them. The matrix is reused from block to block.
#[derive(Default)]
pub(crate) struct Ladder {
    counts: Counts,
    /// What the last block was factored into.
    pub(crate) matrix: Vec<f64>,
}

impl Ladder {
    /// Lets `solve` factor the matrix of `values`, over its mean diagonal value, with columns in order and damped as little as that
    /// takes. Else the mean, or NaN, with which only the diagonal can be used.
    pub(crate) fn climb(
        &mut self,
        values: &[f64],
        order: &[u32],
        damping: f64,
        mut solve: impl FnMut(&mut [f64]) -> bool,
    ) -> Result<Damped, f64> {
        let mean = self.mean(values)?;
        for (i, damping) in [damping, DAMPING[1].max(damping), DAMPING[2]].into_iter().enumerate() {
            self.arrange(values, order, mean, damping);
            let h: Vec<f32> = self.matrix.iter().map(|&v| v as f32).collect();
            if solve(&mut self.matrix) {
                return Ok(Damped { h, damping, mean });
            }
            self.counts.failed[i] += 1;
        }
        Err(mean)
    }

    /// What was done beyond the first damping, and why.
    pub(crate) fn steps(&self, hessian: &Hessian) -> Vec<StepDown> {
        self.counts.steps(hessian)
    }

    /// The mean diagonal value of a matrix that can be factored; else NaN.
    fn mean(&mut self, values: &[f64]) -> Result<f64, f64> {
        let mean = diagonal(values).sum::<f64>() / values.len().isqrt() as f64;
        self.counts.blocks += 1;
        if !(values.iter().all(|v| v.is_finite()) && mean.is_finite()) {
            self.counts.not_finite += 1;
            return Err(f64::NAN);
        }
        if mean <= 0.0 {
            self.counts.zero += 1;
            return Err(f64::NAN);
        }
        self.counts.dead += diagonal(values).filter(|&v| v == 0.0).count();
        Ok(mean)
    }

    /// The matrix with its columns in order, over its mean and damped.
    fn arrange(&mut self, values: &[f64], order: &[u32], mean: f64, damping: f64) {
        let n = order.len();
        self.matrix.clear();
        for &row in order {
            let row = &values[row as usize * n..][..n];
            self.matrix.extend(order.iter().map(|&col| row[col as usize] / mean));
        }
        self.matrix.iter_mut().step_by(n + 1).for_each(|v| *v += damping);
    }
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
