//! Sequences of which each weight makes up for what the weights behind it lost.

use std::ops::Range;

use super::SEQUENCE;
use super::encode::{Encoder, Task};
use super::viterbi::{Pass, Run, pass, start};
use crate::isa::{Isa, Kernel, run};
use crate::lanes::LANES;

/// Weights that a pass goes on by before errors are fed back.
const STEP: usize = 8;
/// Weights behind a step that are decided when it has ended: by then nearly all paths have the same states there.
const DELAY: usize = STEP;

/// How the errors of a sequence count, and what they do to the weights before them.
#[derive(Debug, Clone, Copy)]
pub struct Feedback<'a> {
    /// What the error of each weight counts that is not made up for.
    pub importance: &'a [f32],
    /// Row `i` begins at `i * stride`: by how much weight `j < i` has to fall for each unit that weight `i` is above its value.
    pub matrix: &'a [f32],
    /// Values from the beginning of one row to that of the next.
    pub stride: usize,
}

/// Finds the states of a sequence with a small quadratic error from `x`.
///
/// ```text
/// minimise  e H e      e = x - table[states]      H = C^T D C, D diagonal, C upper triangular with a diagonal of 1
///         = sum over j of D[j] * (e[j] + sum over i > j of C[j][i] * e[i])^2
/// importance = D       matrix[i][j] = -C[j][i]
/// ```
///
/// The search of [`encode`](super::encode) goes from the last weight to the first. After every 8 weights the best path so far
/// decides the states of the 8 before those, and their errors move the weights that are still to come, `x[j] -= e[i] *
/// matrix[i][j]`: error feedback with decisions that are delayed (Duel-Hallen and Heegard, "Delayed decision-feedback sequence
/// estimation", IEEE Trans. Communications 37, 1989) in place of the blocks of QTIP's LDLQ (Tseng et al., NeurIPS 2024). The 8 weights just
/// behind a step do not reach it, and the seam is that of `x` without feedback. Sequences of up to 8 weights are encoded without.
/// Products and differences are each rounded to `f32`, `i` from the first on.
///
/// `x` is left moved; what does not reach the next step any more is not in it.
///
/// # Panics
/// As [`encode`](super::encode), and when `importance` has not one value for each weight or `matrix` lacks rows.
///
/// # Examples
/// ```
/// use aq_kernels::trellis::{Feedback, encode_with_feedback};
/// let table: Vec<i8> = (0..64).map(|s| (s * 37 % 64 - 32) as i8).collect();
/// let (mut x, mut states) = ([4.4; 64], [0; 64]);
/// // Only the sum of all weights counts: what one loses the others can make up for.
/// let matrix = [-1.0; 64 * 64];
/// let feedback = Feedback { importance: &[1.0; 64], matrix: &matrix, stride: 64 };
/// encode_with_feedback(2, &table, &mut x, feedback, &mut states);
/// assert!((0..64).all(|i| states[i] >> 2 == states[(i + 1) % 64] & 15));
/// ```
pub fn encode_with_feedback(
    bits: u8,
    table: &[i8],
    x: &mut [f32],
    feedback: Feedback<'_>,
    states: &mut [u8],
) {
    assert!(x.len() <= SEQUENCE && states.len() == x.len(), "a state for each of at most 256 weights");
    assert!(feedback.importance.len() == x.len(), "an importance for each weight");
    Task::Fed(Fed { x, feedback }).solve(bits, table, states);
}

/// A sequence with feedback.
pub(super) struct Fed<'a> {
    pub(super) x: &'a mut [f32],
    feedback: Feedback<'a>,
}

impl Fed<'_> {
    pub(super) fn run(&self) -> Run<'_> {
        self.part(0..self.x.len())
    }

    fn part(&self, range: Range<usize>) -> Run<'_> {
        Run { x: &self.x[range.clone()], importance: Some(&self.feedback.importance[range]) }
    }

    /// Moves the weights before `before` by the errors of `range`.
    fn feed(&mut self, errors: &[f32; SEQUENCE], range: Range<usize>, before: usize) {
        if range.is_empty() {
            return;
        }
        let (errors, out) = (&errors[range.clone()], &mut self.x[..before]);
        let Feedback { matrix, stride, .. } = self.feedback;
        run(Feed { errors, rows: &matrix[range.start * stride..], stride, out });
    }
}

impl<const STATES: usize, const BITS: u32> Encoder<STATES, BITS> {
    pub(super) fn encode_fed(&mut self, mut fed: Fed<'_>, states: &mut [u8]) {
        let seam = self.seam(fed.run());
        let (mut original, mut errors) = ([0.0; SEQUENCE], [0.0; SEQUENCE]);
        original[..fed.x.len()].copy_from_slice(fed.x);
        let (mut least, mut open) = (start(Some(seam)), fed.x.len());
        for first in (0..fed.x.len()).step_by(STEP).rev() {
            let step = first..fed.x.len().min(first + STEP);
            let choices = &mut self.choices[step.clone()];
            let (run, seam) = (fed.part(step), (first == 0).then_some(seam));
            let found =
                pass(Pass::<'_, STATES, BITS> { run, table: &self.table, least: &mut least, seam, choices });
            if first == 0 {
                return self.follow_from(0, found.state, states);
            }
            let decided = open.min(first + DELAY)..open;
            self.follow_from(first, found.state, &mut states[first..open]);
            for i in decided.clone() {
                errors[i] = original[i] - self.table[usize::from(states[i])];
            }
            open = decided.start;
            fed.feed(&errors, decided, first);
        }
    }
}

/// Subtracts from each weight its products with the errors.
pub(super) struct Feed<'a> {
    pub(super) errors: &'a [f32],
    /// A row for each error.
    pub(super) rows: &'a [f32],
    pub(super) stride: usize,
    pub(super) out: &'a mut [f32],
}

impl Kernel for Feed<'_> {
    type Output = ();

    #[inline(always)]
    fn call<I: Isa>(self, isa: I) {
        let Self { errors, rows, stride, out } = self;
        let (pieces, rest) = out.as_chunks_mut::<LANES>();
        let first = pieces.len() * LANES;
        for (i, &error) in errors.iter().enumerate() {
            for (out, factor) in rest.iter_mut().zip(&rows[i * stride + first..]) {
                *out -= error * factor;
            }
        }
        for (piece, out) in pieces.iter_mut().enumerate() {
            let mut sum = isa.load(out);
            for (i, &error) in errors.iter().enumerate() {
                let factors: &[f32] = &rows[i * stride + piece * LANES..][..LANES];
                let factors: &[f32; LANES] = factors.try_into().expect("a slice of that length");
                sum = isa.sub(sum, isa.mul(isa.splat(error), isa.load(factors)));
            }
            isa.store(sum, out);
        }
    }
}
