//! The outputs of a layer before and after quantization, on given inputs.

use pulp::{Simd, WithSimd};

use crate::dispatch::run;
use crate::lanes::{LANES, fold, padded};

/// Sums over inputs `x` and rows `w` with their replacement `q`, from which the error of a layer's output follows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct OutputComparison {
    /// `sum((x . w)^2)`.
    pub truth: f64,
    /// `sum((x . (w - q))^2)`.
    pub error: f64,
    /// `sum((x . w) (x . q))`.
    pub cross: f64,
}

impl OutputComparison {
    /// Adds the sums over other rows. The order of merging decides the last bits.
    pub fn merge(&mut self, other: &OutputComparison) {
        self.truth += other.truth;
        self.error += other.error;
        self.cross += other.cross;
    }

    /// The squared error of the outputs over their squares: 0 without error, infinite when only the true outputs are all zero.
    ///
    /// ```
    /// let outputs = aq_kernels::output::OutputComparison { truth: 4.0, error: 1.0, cross: 3.0 };
    /// assert_eq!((outputs.relative_error(), outputs.slope()), (0.25, 0.75));
    /// ```
    pub fn relative_error(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.truth }
    }

    /// The slope of the quantized on the true outputs, `sum((x . w) (x . q)) / sum((x . w)^2)`; 1 for outputs that are all zero.
    pub fn slope(&self) -> f64 {
        if self.truth == 0.0 { 1.0 } else { self.cross / self.truth }
    }
}

/// Compares the outputs of one row: `inputs` holds rows of `w.len()` values, `error` is room for as many.
///
/// Products and sums are rounded to `f32`, in 16 lanes by column; the difference `w - q` is taken before the product, so small
/// errors are not lost. Squares are summed in `f64` in the order of the inputs.
///
/// # Panics
/// When `w`, `q` and `error` differ in length, or `inputs` does not hold whole rows.
///
/// ```
/// use aq_kernels::output::compare_outputs;
/// let sums = compare_outputs(&[1.0, 0.0, 0.0, 2.0], &[3.0, 1.0], &[2.0, 1.0], &mut [0.0; 2]);
/// assert_eq!((sums.truth, sums.error, sums.cross), (13.0, 1.0, 10.0));
/// ```
pub fn compare_outputs(inputs: &[f32], w: &[f32], q: &[f32], error: &mut [f32]) -> OutputComparison {
    assert!(w.len() == q.len() && w.len() == error.len(), "slices of one length");
    if w.is_empty() {
        return OutputComparison::default();
    }
    assert!(inputs.len().is_multiple_of(w.len()), "whole rows");
    run(Outputs { inputs, w, q, error })
}

struct Outputs<'a> {
    inputs: &'a [f32],
    w: &'a [f32],
    q: &'a [f32],
    error: &'a mut [f32],
}

impl WithSimd for Outputs<'_> {
    type Output = OutputComparison;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> OutputComparison {
        for ((e, w), q) in self.error.iter_mut().zip(self.w).zip(self.q) {
            *e = w - q;
        }
        let mut total = OutputComparison::default();
        let cols = self.w.len();
        let (fours, rest) = self.inputs.split_at(self.inputs.len() / (4 * cols) * 4 * cols);
        for four in fours.chunks_exact(4 * cols) {
            let x = std::array::from_fn(|i| &four[i * cols..(i + 1) * cols]);
            add::<4>(products(x, self.w, self.error), &mut total);
        }
        for x in rest.chunks_exact(cols) {
            add::<1>(products([x], self.w, self.error), &mut total);
        }
        total
    }
}

/// The products of `N` inputs with the row and with its error.
#[inline(always)]
fn products<const N: usize>(x: [&[f32]; N], w: &[f32], error: &[f32]) -> [(f32, f32); N] {
    let mut sums = [([0f32; LANES], [0f32; LANES]); N];
    let (w, w_tail) = w.as_chunks::<LANES>();
    let (e, e_tail) = error.as_chunks::<LANES>();
    for (i, (w, e)) in w.iter().zip(e).enumerate() {
        for (sums, x) in sums.iter_mut().zip(x) {
            step(sums, &x.as_chunks::<LANES>().0[i], w, e);
        }
    }
    if !w_tail.is_empty() {
        let (w, e) = (padded(w_tail, 0.0), padded(e_tail, 0.0));
        for (sums, x) in sums.iter_mut().zip(x) {
            step(sums, &padded(x.as_chunks::<LANES>().1, 0.0), &w, &e);
        }
    }
    sums.map(|(own, error)| (fold(own), fold(error)))
}

#[inline(always)]
fn step(sums: &mut ([f32; LANES], [f32; LANES]), x: &[f32; LANES], w: &[f32; LANES], error: &[f32; LANES]) {
    for lane in 0..LANES {
        sums.0[lane] += x[lane] * w[lane];
        sums.1[lane] += x[lane] * error[lane];
    }
}

#[inline(always)]
fn add<const N: usize>(products: [(f32, f32); N], total: &mut OutputComparison) {
    for (own, error) in products {
        let (own, error) = (f64::from(own), f64::from(error));
        total.truth += own * own;
        total.error += error * error;
        total.cross += own * (own - error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{levels, with_level};

    #[test]
    fn every_level_gives_the_bits_of_the_plain_sums() {
        for cols in [1, 15, 16, 17, 100] {
            for rows in [0, 1, 3, 4, 9] {
                let value = |i: usize| ((i * 7919 + cols * 31) % 1009) as f32 / 1009.0 - 0.5;
                let inputs: Vec<f32> = (0..rows * cols).map(value).collect();
                let w: Vec<f32> = (0..cols).map(|i| value(i + 5)).collect();
                let q: Vec<f32> = w.iter().map(|w| (w * 8.0).round() / 8.0).collect();
                let all = levels().into_iter().map(|level| {
                    with_level(level, || compare_outputs(&inputs, &w, &q, &mut vec![0.0; cols]))
                });
                let all: Vec<OutputComparison> = all.collect();
                assert!(all.iter().all(|sums| *sums == all[0]), "{cols} columns, {rows} inputs");
                let (mut truth, mut error) = (0.0, 0.0);
                for x in inputs.chunks(cols) {
                    let dot = |w: &[f32]| x.iter().zip(w).map(|(x, w)| f64::from(x * w)).sum::<f64>();
                    truth += dot(&w).powi(2);
                    error += (dot(&w) - dot(&q)).powi(2);
                }
                assert!((all[0].truth - truth).abs() <= 1e-4 * truth);
                assert!((all[0].error - error).abs() <= 1e-4 * error);
            }
        }
    }
}
