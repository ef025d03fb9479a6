//! Moments of the values of each step of time, from which the error of any grid follows without a look at the values.

use crate::quantizer::{Quantizer, Range};
use crate::rows::TimedRows;

/// Bins over the whole range of a layer.
const BINS: usize = 2048;

/// For each step, `sum(w)`, `sum(w x)` and `sum(w x^2)` over all values below each bin; `w` is the weight of the column.
pub(crate) struct Histograms {
    low: f32,
    per_unit: f32,
    bin_width: f64,
    /// `BINS + 1` sums a step.
    below: Vec<[f64; 3]>,
}

impl Histograms {
    /// Those of `rows`, all of whose values lie in `whole`.
    pub(crate) fn new(rows: &TimedRows, weights: &[f32], whole: Range) -> Self {
        let width = whole.width();
        let per_unit = if width > 0.0 { BINS as f32 / width } else { 0.0 };
        let per_unit = if per_unit.is_finite() { per_unit } else { 0.0 };
        let mut below = vec![[0.0; 3]; rows.steps.len() * (BINS + 1)];
        for (step, row) in rows.all() {
            let sums = &mut below[step * (BINS + 1)..][..BINS + 1];
            for (&x, &w) in row.iter().zip(weights) {
                let bin = (((x - whole.low) * per_unit) as usize).min(BINS - 1);
                let (x, w) = (f64::from(x), f64::from(w));
                let sum = &mut sums[bin + 1];
                *sum = [sum[0] + w, sum[1] + w * x, sum[2] + w * x * x];
            }
        }
        for sums in below.chunks_exact_mut(BINS + 1) {
            for i in 1..sums.len() {
                let before = sums[i - 1];
                sums[i].iter_mut().zip(before).for_each(|(sum, before)| *sum += before);
            }
        }
        Self { low: whole.low, per_unit, bin_width: f64::from(width) / BINS as f64, below }
    }

    /// Number of steps.
    pub(crate) fn steps(&self) -> usize {
        self.below.len() / (BINS + 1)
    }

    /// Appends the expected squared error of `grid` on each step.
    pub(crate) fn errors(&self, grid: Quantizer, out: &mut Vec<f64>) {
        let steps = self.below.chunks_exact(BINS + 1);
        let cells = self.cells(grid);
        out.extend(steps.map(|sums| cells.iter().map(|cell| cell.error(sums)).sum::<f64>()));
    }

    /// The bins that each value of the grid stands for. Where its values are closer than bins, those inside are taken together.
    fn cells(&self, grid: Quantizer) -> Vec<Cell> {
        let (scale, (lowest, highest)) = (f64::from(grid.scale()), grid.ends());
        let (first, last) = (lowest as i32, highest as i32);
        let value = |step: i32| f64::from(step) * scale;
        let mut cells = Vec::with_capacity((last - first + 1) as usize);
        if scale <= 0.0 {
            return vec![Cell { bins: (0, BINS), value: 0.0, spread: None }];
        }
        if scale < 2.0 * self.bin_width {
            let inside = (self.bin_of(value(first)), self.bin_of(value(last)));
            cells.push(Cell { bins: (0, inside.0), value: value(first), spread: None });
            cells.push(Cell { bins: inside, value: 0.0, spread: Some(scale * scale / 12.0) });
            cells.push(Cell { bins: (inside.1, BINS), value: value(last), spread: None });
            return cells;
        }
        let mut start = 0;
        for step in first..=last {
            let end = if step == last { BINS } else { self.bin_of(value(step) + scale / 2.0).max(start) };
            cells.push(Cell { bins: (start, end), value: value(step), spread: None });
            start = end;
        }
        cells
    }

    /// The edge of bins that is nearest to `x`.
    fn bin_of(&self, x: f64) -> usize {
        let at = (x - f64::from(self.low)) * f64::from(self.per_unit);
        at.clamp(0.0, BINS as f64).round_ties_even() as usize
    }
}

/// Bins whose values become one value.
struct Cell {
    bins: (usize, usize),
    value: f64,
    /// The mean squared error, where it does not depend on the values.
    spread: Option<f64>,
}

impl Cell {
    fn error(&self, below: &[[f64; 3]]) -> f64 {
        let (start, end) = (below[self.bins.0], below[self.bins.1]);
        let [weight, sum, squares] = [0, 1, 2].map(|i| end[i] - start[i]);
        match self.spread {
            Some(spread) => weight * spread,
            None => (squares - 2.0 * self.value * sum + self.value * self.value * weight).max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Step;

    /// Bell-shaped values without pattern.
    fn values(n: usize, factor: f32) -> Vec<f32> {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..n).map(|_| factor * (next() + next() + next())).collect()
    }

    #[test]
    fn errors_are_those_of_the_values() {
        let step = |factor| Step { first: 0.0, last: 0.0, rows: values(4000, factor) };
        let rows = TimedRows { cols: 8, steps: vec![step(1.0), step(9.0)] };
        let weights = [1.0, 2.0, 0.5, 1.0, 3.0, 1.0, 0.0, 1.0];
        let whole = rows.steps.iter().map(|s| Range::of(&s.rows)).fold(Range::ZERO, Range::union);
        let histograms = Histograms::new(&rows, &weights, whole);
        for (bits, clip) in [(8, 1.0), (8, 0.1), (6, 0.7), (4, 1.0), (4, 0.4), (2, 0.3)] {
            let grid = Quantizer::new(whole.clipped(clip), bits);
            let mut got = Vec::new();
            histograms.errors(grid, &mut got);
            for (step, got) in got.into_iter().enumerate() {
                let exact: f64 = rows.rows(step).map(|row| grid.error(row, &weights)).sum();
                assert!(
                    (got / exact - 1.0).abs() < 0.02,
                    "{bits} bits, clip {clip}, step {step}: {got} {exact}"
                );
            }
        }
    }

    #[test]
    fn layers_that_are_always_zero_have_no_error() {
        let rows = TimedRows { cols: 4, steps: vec![Step { rows: vec![0.0; 16], ..Step::default() }] };
        let histograms = Histograms::new(&rows, &[1.0; 4], Range::ZERO);
        let mut errors = Vec::new();
        histograms.errors(Quantizer::new(Range::ZERO, 8), &mut errors);
        assert_eq!((histograms.steps(), errors), (1, vec![0.0]));
    }
}
