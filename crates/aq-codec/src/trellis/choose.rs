//! The scale and states of a sequence.

use aq_kernels::metric::{dot, sum_squares};
use aq_kernels::trellis::{SEQUENCE, encode};

use super::Trellis;

/// What the root mean square of a sequence is in units of each of the two tables, to begin with.
pub const UNITS: [f32; 2] = [27.0, 19.0];
/// Sequences whose mean magnitude is below this share of their root mean square take the second table: it is 0.80 for normal
/// weights and 0.71 for a Laplace distribution.
const HEAVY: f64 = 0.745;
/// Ratio of the scales that are tried.
const STEP: f32 = 1.15;
/// Steps to larger scales and to smaller ones: outliers ask for much larger ones, nothing for much smaller ones.
const STEPS: [usize; 2] = [8, 3];

/// The table and scale of a sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Which of the two tables.
    pub table: usize,
    /// The scale before rounding; not negative.
    pub scale: f32,
}

/// The table that a sequence takes, by its tails.
///
/// ```
/// use aq_codec::trellis::table_for;
/// assert_eq!(table_for(&[0.9, -1.0, 1.1]), 0);
/// assert_eq!(table_for(&[0.0, 0.0, 0.1, -1.0]), 1);
/// ```
pub fn table_for(weights: &[f32]) -> usize {
    let magnitude: f64 = weights.iter().map(|&w| f64::from(w.abs())).sum();
    let limit = HEAVY * HEAVY * sum_squares(weights) * weights.len() as f64;
    usize::from(magnitude * magnitude < limit)
}

/// Finds the states of a sequence and its scale by least squares, weighted by `importance` where there is one.
///
/// ```text
/// minimise  sum(importance * (w - scale * table[state])^2)     over the scale and the states of a circular stream
/// ```
///
/// The scale starts from the root mean square; states are found for it, and for 1.15 times as much, and so on as long as
/// that is better, else for less. For given states the best scale is `sum(h w t) / sum(h t^2)`, and what is
/// compared is the error that it leaves. The states do not depend on the power of two of the weights, as long as sums
/// of their squares are normal `f32` numbers.
///
/// `states` gets a state for each weight; its low bits are the code. A sequence of zeros has scale 0.
///
/// # Panics
/// When the lengths differ or there are more than 256 weights.
///
/// # Examples
/// ```
/// use aq_codec::trellis::{Trellis, encode_sequence};
/// use aq_core::BitWidth;
/// let trellis = Trellis::new(BitWidth::new(4)?, 8).expect("there is one");
/// let weights: [f32; 4] = [0.5, -0.25, 1.0, -1.0];
/// let mut states = [0; 4];
/// let fit = encode_sequence(trellis, &weights, None, &mut states);
/// let values = states.map(|s| f32::from(trellis.table(fit.table)[usize::from(s)]) * fit.scale);
/// assert!(weights.iter().zip(values).all(|(w, v)| (w - v).abs() < 0.2));
/// # Ok::<(), aq_core::CoreError>(())
/// ```
pub fn encode_sequence(
    trellis: Trellis,
    weights: &[f32],
    importance: Option<&[f32]>,
    states: &mut [u8],
) -> Fit {
    let table = table_for(weights);
    let rms = (sum_squares(weights) / weights.len().max(1) as f64).sqrt() as f32;
    states.fill(0);
    if rms == 0.0 {
        return Fit { table, scale: 0.0 };
    }
    let first = rms / UNITS[table];
    let mut search = Search { trellis, weights, importance, table, best: Tried { score: 0.0, scale: first } };
    search.improves(first, states);
    let larger = first * STEP;
    if search.improves(larger, states) {
        search.climb(larger, STEP, STEPS[0], states);
    } else {
        search.climb(first, 1.0 / STEP, STEPS[1], states);
    }
    Fit { table, scale: search.best.scale }
}

struct Search<'a> {
    trellis: Trellis,
    weights: &'a [f32],
    importance: Option<&'a [f32]>,
    table: usize,
    best: Tried,
}

/// States for one scale, by what they are worth.
#[derive(Clone, Copy)]
struct Tried {
    /// What they take away from the error: `sum(h w t)^2 / sum(h t^2)`.
    score: f64,
    /// The best scale for them.
    scale: f32,
}

impl Search<'_> {
    /// Goes on from `scale` in steps as long as each is better than the one before.
    fn climb(&mut self, mut scale: f32, ratio: f32, steps: usize, states: &mut [u8]) {
        for _ in 0..steps {
            scale *= ratio;
            if !self.improves(scale, states) {
                return;
            }
        }
    }

    /// Encodes at `scale`, and keeps that when it is better.
    fn improves(&mut self, scale: f32, states: &mut [u8]) -> bool {
        let n = self.weights.len();
        let (mut x, mut tried) = ([0.0; SEQUENCE], [0; SEQUENCE]);
        let inverse = 1.0 / scale;
        x.iter_mut().zip(self.weights).for_each(|(x, w)| *x = w * inverse);
        let table = self.trellis.table(self.table);
        encode(self.trellis.bits(), table, &x[..n], self.importance, &mut tried[..n]);
        x.iter_mut().zip(&tried[..n]).for_each(|(x, &s)| *x = f32::from(table[usize::from(s)]));
        let found = self.rate(&x[..n]);
        let better = found.score > self.best.score;
        if better {
            self.best = found;
            states.copy_from_slice(&tried[..n]);
        }
        better
    }

    fn rate(&self, values: &[f32]) -> Tried {
        let (product, norm) = match self.importance {
            None => (dot(self.weights, values), sum_squares(values)),
            Some(importance) => {
                let mut weighted = [0.0; SEQUENCE];
                let terms = weighted.iter_mut().zip(values).zip(importance);
                terms.for_each(|((weighted, v), h)| *weighted = v * h);
                let weighted = &weighted[..values.len()];
                (dot(self.weights, weighted), dot(values, weighted))
            }
        };
        let scale = product / norm;
        let score = if product > 0.0 { product * scale } else { 0.0 };
        Tried { score, scale: scale as f32 }
    }
}
