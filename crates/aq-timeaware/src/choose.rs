//! The ranges of one layer, and what each way to choose them costs.

use crate::activation::{ActivationPlan, Mode};
use crate::grouping::{Boundaries, uniform_groups};
use crate::quantizer::{Quantizer, Range, weighted_squares};
use crate::range::{RATIOS, RangeTable};
use crate::rows::TimedRows;

/// How inputs are to be quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivationOptions {
    /// Bits of a code, 2 to 8.
    pub bits: u8,
    /// Where ranges come from.
    pub mode: Mode,
    /// Channels that share a range in [`Mode::Token`]; 0 for the whole token.
    pub group_size: u32,
    /// The most groups of time in [`Mode::Groups`], at least 1.
    pub groups: usize,
    /// Whether [`Mode::Groups`] takes groups of equal length, whatever they buy: to compare with.
    pub uniform: bool,
}

/// Relative squared errors of a layer's inputs on its calibration rows:
///
/// ```text
/// sum(n_c (x_c - q(x_c))^2) / sum(n_c x_c^2)            n_c: squared norm of column c of the weight
/// ```
///
/// which is that of the layer's outputs if the errors of channels do not go together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Errors {
    /// One range for all times.
    pub fixed: f64,
    /// A range for each of as many groups of equal length as asked for.
    pub uniform: f64,
    /// A range for each group of the best cut into as many groups.
    pub groups: f64,
    /// Ranges of each token, times the best factor.
    pub token: f64,
}

/// What was chosen for a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// What a runtime needs.
    pub plan: ActivationPlan,
    /// What each way costs; `None` where no rows say so.
    pub errors: Option<Errors>,
    /// What groups bought, or why something else was chosen than asked for.
    pub reason: String,
}

/// What groups must take off the error of one static range to be stored.
const WORTH: f64 = 0.02;

impl Choice {
    /// Ranges of each token, for want of rows to choose others by.
    ///
    /// ```
    /// use aq_timeaware::{ActivationOptions, Choice, Mode};
    /// let options = ActivationOptions { bits: 8, mode: Mode::Groups, group_size: 0, groups: 10, uniform: false };
    /// assert_eq!(Choice::unmeasured(&options, "there is no calibration").plan.mode, Mode::Token);
    /// ```
    pub fn unmeasured(options: &ActivationOptions, reason: &str) -> Self {
        let plan = ActivationPlan::token(options.bits, options.group_size, 1.0);
        Self { plan, errors: None, reason: reason.into() }
    }
}

/// Chooses ranges for a layer from its calibration rows and measures what each way costs on them.
///
/// `weights` has one value a column: the squared norm of the weight's column that the input meets, or 1; their scale does not matter.
/// Groups that take less than 2 % off the error of one static range are left out, and so are ranges where there are no rows;
/// [`Choice::reason`] says so. Deterministic.
pub fn choose(rows: &TimedRows, weights: &[f32], options: &ActivationOptions) -> Choice {
    let Some(layer) = Layer::new(rows, weights, options.bits) else {
        return Choice::unmeasured(options, "its calibration has no rows, or values too large for a range");
    };
    let table = RangeTable::new(rows, &layer.weights, options.bits);
    let fixed = layer.grouped(&table, Boundaries::whole(rows.steps.len()));
    let uniform = layer.grouped(&table, uniform_groups(rows.steps.len(), options.groups));
    let best = layer.grouped(&table, table.groups(options.groups));
    // Histograms are a little coarse; what was measured decides.
    let best = if uniform.error < best.error { uniform.clone() } else { best };
    let best = if fixed.error <= best.error { fixed.clone() } else { best };
    let (clip, token) = layer.token(options.group_size as usize);
    let errors = Errors { fixed: fixed.error, uniform: uniform.error, groups: best.error, token };
    let plan = match options.mode {
        Mode::Token => ActivationPlan::token(options.bits, options.group_size, clip),
        Mode::Groups if options.uniform => layer.plan(&uniform),
        Mode::Groups if best.error < fixed.error * (1.0 - WORTH) => layer.plan(&best),
        Mode::Groups | Mode::Static => layer.plan(&fixed),
    };
    let reason = match options.uniform {
        true => "groups of equal length were asked for".into(),
        false => reason(options.mode, &errors, &best, rows),
    };
    Choice { plan, errors: Some(errors), reason }
}

/// What groups bought over one static range and over ranges of each token, in a sentence.
fn reason(mode: Mode, errors: &Errors, best: &Grouped, rows: &TimedRows) -> String {
    let share = |error: f64| if errors.fixed > 0.0 { error / errors.fixed } else { 1.0 };
    let (count, groups, token) = (best.groups.count(), share(errors.groups), share(errors.token));
    let bought = format!("{count} groups of time leave {groups:.3} of the error of one static range");
    let dynamic = format!("ranges of each token leave {token:.3}");
    match mode {
        Mode::Groups if rows.steps.len() < 2 => {
            format!(
                "time groups are left out: the calibration does not tell times apart; {dynamic} of the static error"
            )
        }
        Mode::Groups if groups > 1.0 - WORTH => format!("time groups are left out: {bought}; {dynamic}"),
        _ => format!("{bought}; {dynamic}"),
    }
}

/// A cut with its ranges.
#[derive(Clone)]
struct Grouped {
    groups: Boundaries,
    ranges: Vec<Range>,
    error: f64,
}

/// The rows of a layer with the weights of their columns.
struct Layer<'a> {
    rows: &'a TimedRows,
    weights: Vec<f32>,
    bits: u8,
    /// `sum(n_c x_c^2)`.
    total: f64,
}

impl<'a> Layer<'a> {
    /// `None` without rows, or when squares or ranges are too large.
    fn new(rows: &'a TimedRows, weights: &[f32], bits: u8) -> Option<Self> {
        let weights = with_mean_one(weights, rows.cols);
        let total: f64 = rows.all().map(|(_, row)| weighted_squares(row, &weights, |x| x)).sum();
        let whole = rows.steps.iter().map(|s| Range::of(&s.rows)).fold(Range::ZERO, Range::union);
        let usable = rows.all().next().is_some() && total.is_finite() && whole.width().is_finite();
        usable.then_some(Self { rows, weights, bits, total })
    }

    fn relative(&self, error: f64) -> f64 {
        if self.total > 0.0 { error / self.total } else { 0.0 }
    }

    /// The best ranges of `groups`, and their measured error.
    fn grouped(&self, table: &RangeTable, groups: Boundaries) -> Grouped {
        let ranges = table.ranges(&groups);
        let mut error = 0.0;
        for (steps, &range) in groups.ranges().zip(&ranges) {
            let grid = Quantizer::new(range, self.bits);
            let rows = steps.flat_map(|step| self.rows.rows(step));
            error += rows.map(|row| grid.error(row, &self.weights)).sum::<f64>();
        }
        Grouped { groups, ranges, error: self.relative(error) }
    }

    /// The factor on the ranges of tokens that errs least, 0.5 or more, and its measured error.
    fn token(&self, group_size: usize) -> (f32, f64) {
        let size = if group_size == 0 { self.rows.cols } else { group_size };
        let parts = || self.rows.all().flat_map(|(_, row)| row.chunks(size).zip(self.weights.chunks(size)));
        let ranges: Vec<Range> = parts().map(|(part, _)| Range::of(part)).collect();
        let mut best = (1.0, f64::INFINITY);
        for ratio in RATIOS.into_iter().filter(|&ratio| ratio >= 0.5) {
            let error = parts().zip(&ranges).map(|((part, weights), range)| {
                Quantizer::new(range.clipped(ratio), self.bits).error(part, weights)
            });
            let error = self.relative(error.sum());
            if error < best.1 {
                best = (ratio, error);
            }
        }
        best
    }

    fn plan(&self, grouped: &Grouped) -> ActivationPlan {
        let boundaries = grouped.groups.cuts().iter().map(|&step| self.rows.boundary(step)).collect();
        ActivationPlan::ranges(self.bits, boundaries, &grouped.ranges)
    }
}

/// `weights` over their mean; 1 where they are of another number, not finite or all 0.
fn with_mean_one(weights: &[f32], cols: usize) -> Vec<f32> {
    let mean = weights.iter().map(|&w| f64::from(w)).sum::<f64>() / cols as f64;
    let usable = weights.len() == cols && mean.is_finite() && mean > 0.0;
    if usable { weights.iter().map(|&w| (f64::from(w) / mean) as f32).collect() } else { vec![1.0; cols] }
}
