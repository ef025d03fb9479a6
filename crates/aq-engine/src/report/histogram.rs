//! The chart of a tensor's weights before and after.

use super::details::Histogram;
use super::svg::{Canvas, Scale, WIDTH, number};

const HEIGHT: f64 = 190.0;
const LEFT: f64 = 58.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 150.0;

/// Shares of weights in equal bins, on a square-root axis: before as bars, after as a line of steps.
pub(super) fn chart(histogram: &Histogram) -> String {
    let total = histogram.before.iter().sum::<u64>().max(1) as f64;
    let share = |n: u64| n as f64 / total;
    let most = histogram.before.iter().chain(&histogram.after).copied().max().unwrap_or(0);
    let y = Scale::new([0.0, share(most).sqrt()], [BOTTOM, TOP]);
    let bins = histogram.before.len();
    let x = Scale::new([0.0, bins as f64], [LEFT, WIDTH - 10.0]);
    let mut canvas = Canvas::new(HEIGHT, &format!("Weights of {} before and after", histogram.tensor));
    for part in [0.25, 0.5, 1.0] {
        let at = y.at(share(most).sqrt() * part);
        canvas.path("grid", [(LEFT, at), (WIDTH - 10.0, at)].into_iter());
        let percent = number(share(most) * part * part * 100.0);
        canvas.text("axis", "end", LEFT - 6.0, at + 4.0, &format!("{percent} %"));
    }
    let mut steps = Vec::new();
    for (i, (&before, &after)) in histogram.before.iter().zip(&histogram.after).enumerate() {
        let (from, to) = (x.at(i as f64), x.at(i as f64 + 1.0));
        let top = y.at(share(before).sqrt());
        canvas.bar("before", [from, top, to - from - 0.4, BOTTOM - top], "");
        let top = y.at(share(after).sqrt());
        steps.extend([(from, top), (to, top)]);
    }
    canvas.path("after-line", steps.into_iter());
    canvas.path("frame", [(LEFT, TOP), (LEFT, BOTTOM), (WIDTH - 10.0, BOTTOM)].into_iter());
    for (value, anchor, at) in [
        (-histogram.limit, "start", LEFT),
        (0.0, "middle", (LEFT + WIDTH - 10.0) / 2.0),
        (histogram.limit, "end", WIDTH - 10.0),
    ] {
        canvas.text("axis", anchor, at, BOTTOM + 16.0, &number(value));
    }
    canvas.text("axis", "middle", (LEFT + WIDTH) / 2.0, BOTTOM + 34.0, "weight (ends count all beyond)");
    canvas.legend(LEFT, 16.0, &[("before", "before"), ("after", "after")]);
    canvas.finish()
}
