//! Where input channels lie over runs of steps, and how far that drifts.

use std::ops::Range;

use crate::grouping::{Boundaries, optimal_groups};
use crate::rows::TimedRows;
use crate::shift::Shift;

/// Which point of a channel is taken off it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Center {
    /// The mean of its values.
    Mean,
    /// Halfway between its least and its largest value.
    Middle,
}

/// Sums and ends of the channels of each step.
pub(crate) struct Centers {
    weights: Vec<f32>,
    /// Rows before each step.
    rows: Vec<f64>,
    /// Sums of each channel over the rows before each step.
    sums: Vec<f64>,
    /// `sum(w_c x_c^2)` over the rows before each step.
    squares: Vec<f64>,
    /// The least and the largest value of each channel in each step.
    ends: Vec<(f32, f32)>,
}

impl Centers {
    pub(crate) fn new(rows: &TimedRows, weights: &[f32]) -> Self {
        let cols = rows.cols;
        let (mut sum, mut square, mut count) = (vec![0f64; cols], 0f64, 0f64);
        let (mut counts, mut sums, mut squares) = (vec![0.0], sum.clone(), vec![0.0]);
        let mut ends = Vec::with_capacity(rows.steps.len() * cols);
        for step in 0..rows.steps.len() {
            let mut own = vec![(f32::INFINITY, f32::NEG_INFINITY); cols];
            for row in rows.rows(step) {
                count += 1.0;
                for (((&x, &w), sum), end) in row.iter().zip(weights).zip(&mut sum).zip(&mut own) {
                    let (x64, w) = (f64::from(x), f64::from(w));
                    *sum += x64;
                    square += w * x64 * x64;
                    *end = (end.0.min(x), end.1.max(x));
                }
            }
            counts.push(count);
            sums.extend_from_slice(&sum);
            squares.push(square);
            ends.append(&mut own);
        }
        Self { weights: weights.to_vec(), rows: counts, sums, squares, ends }
    }

    /// The cut into at most `groups` groups that leaves least around the means of their channels:
    ///
    /// ```text
    /// sum over the rows of a group of n_c (x_c - mean_c)^2
    /// ```
    pub(crate) fn groups(&self, groups: usize) -> Boundaries {
        optimal_groups(&|first, end| self.spread(first, end), self.rows.len() - 1, groups)
    }

    /// `sum(w_c (x_c - mean_c)^2)` over the rows of the steps `first .. end`.
    fn spread(&self, first: usize, end: usize) -> f64 {
        let rows = self.rows[end] - self.rows[first];
        if rows == 0.0 {
            return 0.0;
        }
        let sums = self.run_sums(first..end);
        let means: f64 = sums.zip(&self.weights).map(|(sum, &w)| f64::from(w) * sum * sum).sum();
        (self.squares[end] - self.squares[first] - means / rows).max(0.0)
    }

    fn run_sums(&self, run: Range<usize>) -> impl Iterator<Item = f64> {
        let cols = self.weights.len();
        let at = |step: usize| &self.sums[step * cols..][..cols];
        at(run.end).iter().zip(at(run.start)).map(|(end, start)| end - start)
    }

    /// The centers of the channels over the steps of `run`; 0 where it has no rows.
    pub(crate) fn of(&self, center: Center, run: Range<usize>) -> Shift {
        let (cols, rows) = (self.weights.len(), self.rows[run.end] - self.rows[run.start]);
        if rows == 0.0 {
            return Shift::nearest(&vec![0.0; cols]);
        }
        let values: Vec<f64> = match center {
            Center::Mean => self.run_sums(run).map(|sum| sum / rows).collect(),
            Center::Middle => {
                let mut ends = self.ends[run.start * cols..][..cols].to_vec();
                for step in self.ends[run.start * cols..run.end * cols].chunks_exact(cols) {
                    ends.iter_mut().zip(step).for_each(|(e, s)| *e = (e.0.min(s.0), e.1.max(s.1)));
                }
                ends.iter().map(|&(low, high)| (f64::from(low) + f64::from(high)) / 2.0).collect()
            }
        };
        Shift::nearest(&values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Step;

    fn rows(values: &[&[f32]]) -> TimedRows {
        let step =
            |(i, rows): (usize, &&[f32])| Step { first: i as f64, last: i as f64, rows: rows.to_vec() };
        TimedRows { cols: 2, steps: values.iter().enumerate().map(step).collect() }
    }

    #[test]
    fn centers_are_means_and_middles_of_runs() {
        let rows = rows(&[&[1.0, 2.0, 3.0, 4.0], &[], &[8.0, -4.0]]);
        let centers = Centers::new(&rows, &[1.0, 1.0]);
        let near = |shift: Shift, want: [f32; 2]| {
            shift.values().iter().zip(want).all(|(got, want)| (got - want).abs() <= shift.scale)
        };
        assert!(near(centers.of(Center::Mean, 0..3), [4.0, 2.0 / 3.0]));
        assert!(near(centers.of(Center::Middle, 0..3), [4.5, 0.0]));
        assert!(near(centers.of(Center::Mean, 2..3), [8.0, -4.0]));
        assert_eq!(centers.of(Center::Middle, 1..2).values(), [0.0, 0.0]);
    }

    #[test]
    fn spreads_are_what_means_leave() {
        let rows = rows(&[&[1.0, 2.0, 3.0, 4.0], &[5.0, 9.0]]);
        let centers = Centers::new(&rows, &[1.0, 0.5]);
        // Around (3, 5): 4 + 0 + 4 and half of 9 + 1 + 16.
        assert!((centers.spread(0, 2) - 21.0).abs() < 1e-9);
        assert_eq!(centers.spread(1, 2), 0.0);
    }

    #[test]
    fn groups_follow_the_drift() {
        let step = |center: f32| vec![center - 0.1, -center, center + 0.1, -center];
        let all: Vec<Vec<f32>> = [1.0, 1.1, 5.0, 5.1, 5.0].map(step).to_vec();
        let centers = Centers::new(&rows(&all.iter().map(Vec::as_slice).collect::<Vec<_>>()), &[1.0, 1.0]);
        assert_eq!(centers.groups(2).cuts(), [2]);
        assert_eq!(centers.groups(1).count(), 1);
    }
}
