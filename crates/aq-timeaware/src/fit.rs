//! Ranges and shifts fitted to the rows of a layer, and what they cost on rows.

use std::borrow::Cow;

use crate::activation::ActivationPlan;
use crate::centers::{Center, Centers};
use crate::grouping::{Boundaries, uniform_groups};
use crate::quantizer::{Quantizer, Range, weighted_squares};
use crate::range::{RATIOS, RangeTable, group_ranges};
use crate::rows::{Step, TimedRows};
use crate::shift::Shift;

/// Which centers are taken off the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shifting {
    /// None.
    Off,
    /// Those of all times.
    Shared(Center),
    /// Those of each group of times.
    Own(Center),
}

/// A cut with what was fitted to it.
#[derive(Debug, Clone)]
pub(crate) struct Fitted {
    pub(crate) cut: Boundaries,
    /// One for all groups or one a group; empty for none.
    shifts: Vec<Shift>,
    /// One a group; empty for ranges of tokens.
    ranges: Vec<Range>,
    /// Factor on the ranges of tokens.
    clip: f32,
    /// Relative squared error on the rows of the layer.
    pub(crate) error: f64,
}

/// Factors on the ranges of tokens.
fn clips() -> impl Iterator<Item = f32> {
    RATIOS.into_iter().filter(|&ratio| ratio >= 0.5)
}

/// The rows of a layer with the weights of their columns.
pub(crate) struct Layer<'a> {
    rows: &'a TimedRows,
    weights: Vec<f32>,
    bits: u8,
    /// `sum(n_c x_c^2)`.
    total: f64,
    centers: Centers,
}

impl<'a> Layer<'a> {
    /// `None` without rows, or when squares or ranges are too large.
    pub(crate) fn new(rows: &'a TimedRows, weights: &[f32], bits: u8) -> Option<Self> {
        let weights = with_mean_one(weights, rows.cols);
        let total: f64 = rows.all().map(|(_, row)| weighted_squares(row, &weights, |x| x)).sum();
        let whole = rows.steps.iter().map(|s| Range::of(&s.rows)).fold(Range::ZERO, Range::union);
        let usable = rows.all().next().is_some() && total.is_finite() && whole.width().is_finite();
        let centers = Centers::new(rows, &weights);
        usable.then_some(Self { rows, weights, bits, total, centers })
    }

    /// Steps of its rows.
    pub(crate) fn steps(&self) -> usize {
        self.rows.steps.len()
    }

    /// One range for all times, one for each of `groups` groups of equal length, and one for each group of the best cut that is found:
    /// into groups of like ranges, of like centers, or of equal length.
    pub(crate) fn ranges(&self, how: Shifting, groups: usize) -> [Fitted; 3] {
        let shifted = Shifted::new(self, how);
        let whole = Boundaries::whole(self.steps());
        let (fixed, uniform) = (shifted.fit(whole), shifted.fit(uniform_groups(self.steps(), groups)));
        let by_range = shifted.fit(shifted.table.groups(groups));
        let by_center = matches!(how, Shifting::Own(_)).then(|| shifted.fit(self.groups_by_center(groups)));
        // Histograms are a little coarse; what was measured decides, and of equal ones the first.
        let all = [Some(by_range), by_center, Some(uniform.clone())].into_iter().flatten();
        let less = |best: Fitted, next: Fitted| if next.error < best.error { next } else { best };
        let best = all.fold(fixed.clone(), less);
        [fixed, uniform, best]
    }

    /// The range of each group of `cut` by what is in it alone, and what they cost.
    pub(crate) fn fit(&self, how: Shifting, cut: Boundaries) -> Fitted {
        let shifts = self.shifts(how, &cut);
        let rows = taken_off(self.rows, &cut, &shifts);
        let ranges = group_ranges(&rows, &self.weights, self.bits, &cut);
        self.measured(Fitted { cut, shifts, ranges, clip: 1.0, error: 0.0 })
    }

    fn measured(&self, fitted: Fitted) -> Fitted {
        Fitted { error: self.error(&fitted, 0), ..fitted }
    }

    /// The cut into groups of like centers.
    pub(crate) fn groups_by_center(&self, groups: usize) -> Boundaries {
        self.centers.groups(groups)
    }

    /// Ranges of each token with the factor on them that errs least, 0.5 or more.
    pub(crate) fn token(&self, how: Shifting, groups: usize, group_size: usize) -> Fitted {
        let cut = match how {
            Shifting::Own(_) => self.centers.groups(groups),
            _ => Boundaries::whole(self.steps()),
        };
        let shifts = self.shifts(how, &cut);
        let mut errors: Vec<(f32, f64)> = clips().map(|clip| (clip, 0.0)).collect();
        self.each_shifted(&cut, &shifts, |_, row| {
            for (part, weights) in self.parts(row, group_size) {
                let range = Range::of(part);
                for (clip, error) in &mut errors {
                    *error += Quantizer::new(range.clipped(*clip), self.bits).error(part, weights);
                }
            }
        });
        let best = errors.into_iter().reduce(|best, next| if next.1 < best.1 { next } else { best });
        let (clip, error) = best.unwrap_or((1.0, f64::INFINITY));
        Fitted { cut, shifts, ranges: Vec::new(), clip, error: self.relative(error) }
    }

    /// The relative squared error on these rows of what was fitted to others of the same steps.
    pub(crate) fn error(&self, fitted: &Fitted, group_size: usize) -> f64 {
        let grids: Vec<_> = fitted.ranges.iter().map(|&range| Quantizer::new(range, self.bits)).collect();
        let mut error = 0.0;
        self.each_shifted(&fitted.cut, &fitted.shifts, |group, row| match grids.get(group) {
            Some(grid) => error += grid.error(row, &self.weights),
            None => {
                for (part, weights) in self.parts(row, group_size) {
                    let range = Range::of(part).clipped(fitted.clip);
                    error += Quantizer::new(range, self.bits).error(part, weights);
                }
            }
        });
        self.relative(error)
    }

    /// What a runtime needs. `group_size` is that of ranges of tokens.
    pub(crate) fn plan(&self, fitted: &Fitted, group_size: u32) -> ActivationPlan {
        let Fitted { cut, shifts, ranges, clip, .. } = fitted;
        let boundaries: Vec<f64> = cut.cuts().iter().map(|&step| self.rows.boundary(step)).collect();
        let plan = match ranges.is_empty() {
            true => ActivationPlan::token(self.bits, group_size, *clip),
            false => ActivationPlan::ranges(self.bits, boundaries.clone(), ranges),
        };
        plan.shifted(boundaries, shifts.clone())
    }

    fn relative(&self, error: f64) -> f64 {
        if self.total > 0.0 { error / self.total } else { 0.0 }
    }

    /// The runs of channels that share a range in ranges of tokens, with their weights.
    fn parts<'b>(
        &'b self,
        row: &'b [f32],
        group_size: usize,
    ) -> impl Iterator<Item = (&'b [f32], &'b [f32])> {
        let size = if group_size == 0 { row.len() } else { group_size };
        row.chunks(size).zip(self.weights.chunks(size))
    }

    fn shifts(&self, how: Shifting, cut: &Boundaries) -> Vec<Shift> {
        match how {
            Shifting::Off => Vec::new(),
            Shifting::Shared(center) => vec![self.centers.of(center, 0..self.steps())],
            Shifting::Own(center) => cut.ranges().map(|run| self.centers.of(center, run)).collect(),
        }
    }

    /// Visits all rows, less their shift, with the number of their group.
    fn each_shifted(&self, cut: &Boundaries, shifts: &[Shift], mut visit: impl FnMut(usize, &[f32])) {
        let (values, mut room) = (values(shifts), Vec::with_capacity(self.rows.cols));
        for (group, run) in cut.ranges().enumerate() {
            for row in run.flat_map(|step| self.rows.rows(step)) {
                match of_group(&values, group) {
                    None => visit(group, row),
                    Some(shift) => {
                        room.clear();
                        room.extend(row.iter().zip(shift).map(|(x, s)| x - s));
                        visit(group, &room);
                    }
                }
            }
        }
    }
}

/// A layer with the centers of all times taken off, and the ranges to choose from.
struct Shifted<'a> {
    layer: &'a Layer<'a>,
    how: Shifting,
    shifts: Vec<Shift>,
    table: RangeTable,
}

impl<'a> Shifted<'a> {
    fn new(layer: &'a Layer<'a>, how: Shifting) -> Self {
        let whole = Boundaries::whole(layer.steps());
        let shifts = layer.shifts(how, &whole);
        let rows = taken_off(layer.rows, &whole, &shifts);
        let table = RangeTable::new(&rows, &layer.weights, layer.bits);
        Self { layer, how, shifts, table }
    }

    /// The best range of each group of `cut`, and what they cost.
    fn fit(&self, cut: Boundaries) -> Fitted {
        if matches!(self.how, Shifting::Own(_)) && cut.count() > 1 {
            return self.layer.fit(self.how, cut);
        }
        let (ranges, shifts) = (self.table.ranges(&cut), self.shifts.clone());
        self.layer.measured(Fitted { cut, shifts, ranges, clip: 1.0, error: 0.0 })
    }
}

/// The rows of each group of `cut` less its shift.
fn taken_off<'a>(rows: &'a TimedRows, cut: &Boundaries, shifts: &[Shift]) -> Cow<'a, TimedRows> {
    if shifts.is_empty() {
        return Cow::Borrowed(rows);
    }
    let values = values(shifts);
    let mut steps = Vec::with_capacity(rows.steps.len());
    for (group, run) in cut.ranges().enumerate() {
        let shift = of_group(&values, group).unwrap_or_default();
        for step in &rows.steps[run] {
            let less = step.rows.iter().zip(shift.iter().cycle()).map(|(x, s)| x - s);
            steps.push(Step { rows: less.collect(), ..*step });
        }
    }
    Cow::Owned(TimedRows { cols: rows.cols, steps })
}

fn values(shifts: &[Shift]) -> Vec<Vec<f32>> {
    shifts.iter().map(Shift::values).collect()
}

/// The shift of a group, of one for all or one for each.
fn of_group(values: &[Vec<f32>], group: usize) -> Option<&[f32]> {
    values.get(group).or(values.first()).map(Vec::as_slice)
}

/// `weights` over their mean; 1 where they are of another number, not finite or all 0.
fn with_mean_one(weights: &[f32], cols: usize) -> Vec<f32> {
    let mean = weights.iter().map(|&w| f64::from(w)).sum::<f64>() / cols as f64;
    let usable = weights.len() == cols && mean.is_finite() && mean > 0.0;
    if usable { weights.iter().map(|&w| (f64::from(w) / mean) as f32).collect() } else { vec![1.0; cols] }
}
