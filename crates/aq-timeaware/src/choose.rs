//! The ranges of one layer, and what each way to choose them costs.

use crate::activation::{ActivationPlan, Mode};
use crate::fit::{Fitted, Layer, Shifting};
use crate::grouping::Boundaries;
use crate::rows::TimedRows;
use crate::shifting::best_shifting;

/// How inputs are to be quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivationOptions {
    /// Bits of a code, 2 to 8.
    pub bits: u8,
    /// Where ranges come from.
    pub mode: Mode,
    /// Channels that share a range in [`Mode::Token`]; 0 for the whole token.
    pub group_size: u32,
    /// The most groups of time, at least 1.
    pub groups: usize,
    /// Whether [`Mode::Groups`] takes groups of equal length, whatever they buy: to compare with.
    pub uniform: bool,
    /// Whether channels may be shifted.
    pub shift: bool,
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
    /// What was asked for, without shifts.
    pub unshifted: f64,
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
    /// let options = ActivationOptions { bits: 8, mode: Mode::Groups, group_size: 0, groups: 10, uniform: false, shift: true };
    /// assert_eq!(Choice::unmeasured(&options, "there is no calibration").plan.mode, Mode::Token);
    /// ```
    pub fn unmeasured(options: &ActivationOptions, reason: &str) -> Self {
        let plan = ActivationPlan::token(options.bits, options.group_size, 1.0);
        Self { plan, errors: None, reason: reason.into() }
    }
}

/// Chooses ranges and shifts for a layer from its calibration rows and measures what each way to choose ranges costs on them.
///
/// `weights` has one value a column: the squared norm of the weight's column that the input meets, or 1; their scale does not matter.
/// Groups that take less than 2 % off the error of one static range are left out, shifts that take less than 5 % off (of each group less than 15 %), and ranges where
/// there are no rows; [`Choice::reason`] says so. Deterministic.
pub fn choose(rows: &TimedRows, weights: &[f32], options: &ActivationOptions) -> Choice {
    let Some(layer) = Layer::new(rows, weights, options.bits) else {
        return Choice::unmeasured(options, "its calibration has no rows, or values too large for a range");
    };
    let plain = Found::new(&layer, Shifting::Off, options);
    let how = if options.shift { best_shifting(rows, weights, options, &plain.cut) } else { Shifting::Off };
    let shifted = (how != Shifting::Off).then(|| Found::new(&layer, how, options));
    let unshifted = plain.chosen.error;
    let found = shifted.filter(|found| found.chosen.error < unshifted).unwrap_or(plain);
    let errors = Errors { unshifted, ..found.errors };
    let plan = layer.plan(&found.chosen, options.group_size);
    Choice { plan, reason: found.reason(options, unshifted, rows.steps.len()), errors: Some(errors) }
}

/// Ranges of a layer whose channels are shifted in one way.
struct Found {
    how: Shifting,
    /// All but `unshifted`.
    errors: Errors,
    /// The best cut into groups of time.
    cut: Boundaries,
    /// What was asked for, or one static range where groups are not worth it.
    chosen: Fitted,
}

impl Found {
    fn new(layer: &Layer<'_>, how: Shifting, options: &ActivationOptions) -> Self {
        let [fixed, uniform, best] = layer.ranges(how, options.groups);
        let token = layer.token(how, options.groups, options.group_size as usize);
        let errors = Errors {
            fixed: fixed.error,
            uniform: uniform.error,
            groups: best.error,
            token: token.error,
            unshifted: 0.0,
        };
        let cut = best.cut.clone();
        let chosen = match options.mode {
            Mode::Token => token,
            Mode::Groups if options.uniform => uniform,
            Mode::Groups if best.error < fixed.error * (1.0 - WORTH) => best,
            Mode::Groups | Mode::Static => fixed,
        };
        Self { how, errors, cut, chosen }
    }

    /// What groups bought over one static range and over ranges of each token, and what shifts bought, in a sentence.
    fn reason(&self, options: &ActivationOptions, unshifted: f64, steps: usize) -> String {
        let Self { errors, cut, chosen, .. } = self;
        let share = |error: f64, of: f64| if of > 0.0 { error / of } else { 1.0 };
        let (groups, token) = (share(errors.groups, errors.fixed), share(errors.token, errors.fixed));
        let bought =
            format!("{} groups of time leave {groups:.3} of the error of one static range", cut.count());
        let dynamic = format!("ranges of each token leave {token:.3}");
        let left = share(chosen.error, unshifted);
        let shifted = match (self.how, chosen.cut.count()) {
            (Shifting::Off, _) => String::new(),
            (Shifting::Own(_), 2..) => {
                format!("; channels shifted by group of time leave {left:.3} of the error without shifts")
            }
            _ => format!("; shifted channels leave {left:.3} of the error without shifts"),
        };
        let ranges = match options.mode {
            Mode::Groups if options.uniform => "groups of equal length were asked for".into(),
            Mode::Groups if steps < 2 => {
                format!(
                    "time groups are left out: the calibration does not tell times apart; {dynamic} of the static error"
                )
            }
            Mode::Groups if groups > 1.0 - WORTH => format!("time groups are left out: {bought}; {dynamic}"),
            _ => format!("{bought}; {dynamic}"),
        };
        ranges + &shifted
    }
}
