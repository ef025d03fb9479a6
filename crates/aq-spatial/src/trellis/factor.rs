//! What error feedback needs of a Hessian when columns come in their own order, from the last to the first, in blocks.
//!
//! With `H = C^T D C`, `D` diagonal and `C` upper triangular with a diagonal of 1, the error of `e = w - q` is
//!
//! ```text
//! e H e = sum over j of D[j] * (e[j] + sum over i > j of C[j][i] * e[i])^2
//! ```
//!
//! so what columns behind `j` lost, column `j` makes up for by `w[j] += C[j][i] * e[i]`. Columns of a block `b` are encoded
//! together; what the columns behind it lost moves all of them at once, by `w_b += C_bb^-1 C_bi e_i`, after which the block's own error is that
//! of `D` and `C_bb` alone: LDL feedback in blocks, as of QuIP# (Tseng et al., ICML 2024) and QTIP (NeurIPS 2024).

use aq_core::StepDown;
use aq_kernels::cholesky::factor;
use aq_kernels::trellis::SEQUENCE;

use crate::factored::{DAMPING, Ladder, without_feedback};
use crate::hessian::Hessian;

/// What the rows of a layer share for some neighbouring columns, which begin with a sequence.
pub(super) struct Block {
    /// First column.
    pub(super) first: usize,
    /// `D`.
    pub(super) importance: Vec<f32>,
    /// Row `i`: by how much columns `j < i` fall for each unit that column `i` lost, `-C[j][i]` within a sequence and `-(C_bb^-1 C_bi)[j]` before it.
    pub(super) matrix: Vec<f32>,
    /// For each sequence `C_bb^T D C_bb`, what its errors count when those before it make up for them: rows of 256 values.
    pub(super) own: Vec<f32>,
    /// The damped Hessian, with a mean diagonal value of about 1.
    pub(super) h: Vec<f32>,
    /// What was added to its diagonal; 0 where the diagonal is all there is.
    pub(super) damping: f64,
}

/// Factors every block of the Hessian, and says what that took beyond the first damping.
pub(super) fn factor_blocks(hessian: &Hessian) -> (Vec<Block>, Vec<StepDown>) {
    let mut ladder = Ladder::default();
    let blocks = hessian.blocks().map(|(first, values)| factor_block(&mut ladder, first, values)).collect();
    (blocks, ladder.steps(hessian))
}

fn factor_block(ladder: &mut Ladder, first: usize, values: &[f64]) -> Block {
    let n = values.len().isqrt();
    let order: Vec<u32> = (0..n as u32).rev().collect();
    match ladder.climb(values, &order, DAMPING[0], |h| factor(h, n).is_ok()) {
        Err(mean) => {
            let block = without_feedback(first, values, mean);
            let importance: Vec<f32> = block.h.iter().step_by(n + 1).copied().collect();
            let mut own = vec![0.0; n * SEQUENCE];
            (0..n).for_each(|i| own[i * SEQUENCE + i % SEQUENCE] = importance[i]);
            Block { first, importance, matrix: vec![0.0; n * n], own, h: block.h, damping: 0.0 }
        }
        Ok(mut damped) => {
            // Columns were factored in the opposite order.
            damped.h.reverse();
            ladder.matrix.reverse();
            let importance = unit_diagonal(&mut ladder.matrix, n);
            join_sequences(&mut ladder.matrix, n);
            let matrix = turned(&ladder.matrix, n);
            let own = own_hessians(&ladder.matrix, &importance);
            Block { first, importance, matrix, own, h: damped.h, damping: damped.damping }
        }
    }
}

/// Divides rows by their diagonal values and returns the squares of those.
fn unit_diagonal(c: &mut [f64], n: usize) -> Vec<f32> {
    let row = |(j, row): (usize, &mut [f64])| {
        let pivot = row[j];
        row[j..].iter_mut().for_each(|v| *v /= pivot);
        (pivot * pivot) as f32
    };
    c.chunks_exact_mut(n).enumerate().map(row).collect()
}

/// Multiplies what lies right of each sequence's own columns with the inverse of those.
fn join_sequences(c: &mut [f64], n: usize) {
    for start in (0..n).step_by(SEQUENCE) {
        let end = n.min(start + SEQUENCE);
        for j in (start..end).rev() {
            let (before, after) = c.split_at_mut((j + 1) * n);
            let row = &mut before[j * n..];
            let (own, right) = row.split_at_mut(end);
            for (k, behind) in (j + 1..end).zip(after.chunks_exact(n)) {
                for (v, z) in right.iter_mut().zip(&behind[end..]) {
                    *v -= own[k] * z;
                }
            }
        }
    }
}

/// `C_bb^T D C_bb` of each sequence.
fn own_hessians(c: &[f64], importance: &[f32]) -> Vec<f32> {
    let n = importance.len();
    let mut own = vec![0.0; n * SEQUENCE];
    for start in (0..n).step_by(SEQUENCE) {
        let len = SEQUENCE.min(n - start);
        let mut sums = vec![0.0; len * len];
        for k in 0..len {
            let row = &c[(start + k) * n + start..][k..len];
            let weight = f64::from(importance[start + k]);
            for (sums, &left) in sums.chunks_exact_mut(len).skip(k).zip(row) {
                let left = left * weight;
                sums[k..].iter_mut().zip(row).for_each(|(sum, right)| *sum += left * right);
            }
        }
        for (own, sums) in own[start * SEQUENCE..].chunks_exact_mut(SEQUENCE).zip(sums.chunks_exact(len)) {
            own.iter_mut().zip(sums).for_each(|(own, &sum)| *own = sum as f32);
        }
    }
    own
}

/// The negative of the part above the diagonal, turned.
fn turned(c: &[f64], n: usize) -> Vec<f32> {
    let mut matrix = vec![0.0; n * n];
    for (j, row) in c.chunks_exact(n).enumerate() {
        for (i, &v) in row.iter().enumerate().skip(j + 1) {
            matrix[i * n + j] = -v as f32;
        }
    }
    matrix
}
