//! Whether the channels of a layer are shifted, and by what.

use crate::activation::Mode;
use crate::centers::Center;
use crate::choose::ActivationOptions;
use crate::fit::{Fitted, Layer, Shifting};
use crate::grouping::{Boundaries, uniform_groups};
use crate::rows::{Step, TimedRows};

/// What a shift must take off the error of none.
const WORTH: f64 = 0.05;
/// What shifts of each group, which are as many times as long, must take off the error of a shared one or none.
const OWN_WORTH: f64 = 0.15;

/// A shift by centers.
type Way = fn(Center) -> Shifting;

/// The best way to shift the channels of a layer, [`Shifting::Off`] where none is worth it. Each is fitted to every other row and
/// judged on the rest, so what only follows single rows is not chosen. `like` has groups of like ranges.
pub(crate) fn best_shifting(
    rows: &TimedRows,
    weights: &[f32],
    options: &ActivationOptions,
    like: &Boundaries,
) -> Shifting {
    let (fitting, judging) = halves(rows);
    let bits = options.bits;
    let (Some(fitting), Some(judging)) =
        (Layer::new(&fitting, weights, bits), Layer::new(&judging, weights, bits))
    else {
        return Shifting::Off;
    };
    let judged = |how| {
        let fitted = fitted(&fitting, how, options, like);
        (how, judging.error(&fitted, options.group_size as usize))
    };
    let centers: &[Center] = match options.mode {
        Mode::Token => &[Center::Mean],
        Mode::Static | Mode::Groups => &[Center::Mean, Center::Middle],
    };
    let mut ways: Vec<(Way, f64)> = vec![(Shifting::Shared, WORTH)];
    if options.mode != Mode::Static && options.groups > 1 && rows.steps.len() > 1 {
        ways.push((Shifting::Own, OWN_WORTH));
    }
    let mut best = judged(Shifting::Off);
    for (way, worth) in ways {
        let all = centers.iter().map(|&center| judged(way(center)));
        let least = all.reduce(|a, b| if b.1 < a.1 { b } else { a });
        best = least.filter(|least| least.1 < best.1 * (1.0 - worth)).unwrap_or(best);
    }
    best.0
}

/// What `options` ask for: ranges of groups that are like before they are shifted, or of like centers where each has its own.
fn fitted(layer: &Layer<'_>, how: Shifting, options: &ActivationOptions, like: &Boundaries) -> Fitted {
    let steps = layer.steps();
    let cut = match (options.mode, how) {
        (Mode::Token, _) => return layer.token(how, options.groups, options.group_size as usize),
        (Mode::Static, _) => Boundaries::whole(steps),
        (Mode::Groups, _) if options.uniform => uniform_groups(steps, options.groups),
        (Mode::Groups, Shifting::Own(_)) => layer.groups_by_center(options.groups),
        (Mode::Groups, _) => like.clone(),
    };
    layer.fit(how, cut)
}

/// The rows of even and of odd number, with all steps in both.
fn halves(rows: &TimedRows) -> (TimedRows, TimedRows) {
    let empty = || {
        let steps = rows.steps.iter().map(|step| Step { rows: Vec::new(), ..*step });
        TimedRows { cols: rows.cols, steps: steps.collect() }
    };
    let mut parts = [empty(), empty()];
    for (number, (step, row)) in rows.all().enumerate() {
        parts[number % 2].steps[step].rows.extend_from_slice(row);
    }
    let [even, odd] = parts;
    (even, odd)
}
