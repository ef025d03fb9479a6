//! Ranges that groups of steps may share, and what each costs.

use crate::grouping::{Boundaries, optimal_groups};
use crate::histogram::Histograms;
use crate::quantizer::{Quantizer, Range};
use crate::rows::TimedRows;

/// Shares of a range that are tried in place of the whole.
pub(crate) const RATIOS: [f32; 14] =
    [1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.35, 0.25, 0.12, 0.06, 0.03, 0.01];
/// The most ranges that are tried, each in the sizes of [`RATIOS`].
const MAX_RANGES: usize = 48;

/// The expected squared error of every candidate range on every step of a layer, weighted by column.
///
/// Candidates are the ranges of single steps and of runs of steps, whole and clipped to parts. The error of values inside a
/// range comes from rounding, that of values outside from clipping; both are taken from histograms of the steps. What a group costs is the
/// least over the candidates of the sum over its steps, so the dynamic programme over groups is exact for parameters that a group shares.
pub struct RangeTable {
    ranges: Vec<Range>,
    /// `steps + 1` sums a candidate: the error of all steps before one.
    before: Vec<f64>,
    steps: usize,
}

impl RangeTable {
    /// Tries the candidates at `bits` bits. `weights` has one value a column: the squared norm of the weight's column that the
    /// input meets, or 1.
    pub fn new(rows: &TimedRows, weights: &[f32], bits: u8) -> Self {
        let own: Vec<Range> = rows.steps.iter().map(|s| Range::of(&s.rows)).collect();
        let whole = own.iter().copied().fold(Range::ZERO, Range::union);
        let histograms = Histograms::new(rows, weights, whole);
        let clipped = |range: Range| RATIOS.into_iter().map(move |ratio| range.clipped(ratio));
        let ranges: Vec<Range> = candidates(&own).into_iter().flat_map(clipped).collect();
        let steps = histograms.steps();
        let (mut before, mut errors) = (Vec::with_capacity(ranges.len() * (steps + 1)), Vec::new());
        for &range in &ranges {
            errors.clear();
            histograms.errors(Quantizer::new(range, bits), &mut errors);
            let mut sum = 0.0;
            before.push(sum);
            before.extend(errors.iter().map(|error| {
                sum += error;
                sum
            }));
        }
        Self { ranges, before, steps }
    }

    /// The range that the steps `first .. end` share at least cost, and that cost; of equal ones the one that is tried first.
    pub fn best(&self, first: usize, end: usize) -> (Range, f64) {
        let mut best = (Range::ZERO, f64::INFINITY);
        for (range, before) in self.ranges.iter().zip(self.before.chunks_exact(self.steps + 1)) {
            let cost = before[end] - before[first];
            if cost < best.1 {
                best = (*range, cost);
            }
        }
        best
    }

    /// The range of each group.
    pub fn ranges(&self, groups: &Boundaries) -> Vec<Range> {
        groups.ranges().map(|group| self.best(group.start, group.end).0).collect()
    }

    /// The cut into at most `groups` groups of least cost.
    pub fn groups(&self, groups: usize) -> Boundaries {
        optimal_groups(&|first, end| self.best(first, end).1, self.steps, groups)
    }
}

/// The range of each group that errs least, of those that its rows have and parts of it.
pub(crate) fn group_ranges(rows: &TimedRows, weights: &[f32], bits: u8, groups: &Boundaries) -> Vec<Range> {
    let own: Vec<Range> = rows.steps.iter().map(|s| Range::of(&s.rows)).collect();
    let whole = own.iter().copied().fold(Range::ZERO, Range::union);
    let histograms = Histograms::new(rows, weights, whole);
    let mut errors = Vec::new();
    let mut best_of = |run: std::ops::Range<usize>| {
        let range = own[run.clone()].iter().copied().fold(Range::ZERO, Range::union);
        let mut best = (range, f64::INFINITY);
        for tried in RATIOS.into_iter().map(|ratio| range.clipped(ratio)) {
            errors.clear();
            histograms.errors(Quantizer::new(tried, bits), &mut errors);
            let error: f64 = errors[run.clone()].iter().sum();
            if error < best.1 {
                best = (tried, error);
            }
        }
        best.0
    };
    groups.ranges().map(&mut best_of).collect()
}

/// The ranges of runs of steps, all different, at most [`MAX_RANGES`]: those of all steps together and of single steps come first,
/// and what room is left is given to other runs evenly by width.
fn candidates(own: &[Range]) -> Vec<Range> {
    let whole = own.iter().copied().fold(Range::ZERO, Range::union);
    let mut chosen = vec![whole];
    let mut add = |range: Range| {
        if chosen.len() < MAX_RANGES && !chosen.contains(&range) {
            chosen.push(range);
        }
    };
    let spread = own.len().div_ceil(MAX_RANGES / 2).max(1);
    own.iter().step_by(spread).for_each(|&range| add(range));
    let mut runs = Vec::new();
    for first in 0..own.len() {
        let mut run = own[first];
        for &next in &own[first + 1..] {
            run = run.union(next);
            runs.push(run);
        }
    }
    runs.sort_by(|a, b| a.width().total_cmp(&b.width()).then(a.low.total_cmp(&b.low)));
    runs.dedup();
    let step = runs.len().div_ceil(MAX_RANGES / 2).max(1);
    runs.into_iter().step_by(step).for_each(add);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grouping::uniform_groups;
    use crate::rows::Step;

    fn rows(growth: impl Fn(usize) -> f32, steps: usize) -> TimedRows {
        let step = |i: usize| {
            let values = (0..256).map(|j| growth(i) * ((j * 37 % 101) as f32 / 50.0 - 1.0));
            Step { first: i as f64, last: i as f64, rows: values.collect() }
        };
        TimedRows { cols: 16, steps: (0..steps).map(step).collect() }
    }

    #[test]
    fn groups_follow_the_ranges() {
        let table = RangeTable::new(&rows(|i| if i < 3 { 1.0 } else { 7.0 }, 9), &[1.0; 16], 8);
        let groups = table.groups(2);
        assert_eq!(groups.cuts(), [3]);
        let ranges = table.ranges(&groups);
        assert!(ranges[0].width() < 2.1 && ranges[1].width() > 13.0, "{ranges:?}");
    }

    #[test]
    fn costs_of_optimal_groups_are_never_above_those_of_equal_ones() {
        for steps in [1, 2, 13, 100] {
            let table = RangeTable::new(&rows(|i| 1.0 + (i * 7 % 5) as f32, steps), &[1.0; 16], 4);
            let cost =
                |groups: &Boundaries| groups.ranges().map(|r| table.best(r.start, r.end).1).sum::<f64>();
            for groups in [1, 2, 5, 10] {
                let (best, equal) = (cost(&table.groups(groups)), cost(&uniform_groups(steps, groups)));
                assert!(best <= equal * (1.0 + 1e-9), "{steps} steps, {groups} groups: {best} {equal}");
            }
        }
    }

    #[test]
    fn candidates_are_few_and_differ() {
        let own: Vec<Range> =
            (0..100).map(|i| Range { low: -(i as f32), high: (i * 31 % 100) as f32 }).collect();
        let chosen = candidates(&own);
        assert!(chosen.len() > MAX_RANGES / 2 && chosen.len() <= MAX_RANGES);
        assert_eq!(chosen[0], Range { low: -99.0, high: 99.0 });
        assert!((1..chosen.len()).all(|i| !chosen[..i].contains(&chosen[i])));
    }
}
