//! The search for the grid of a layer: as fine as the wanted rate allows.

use aq_codec::entropy::power;

use super::layer::EntropyLayer;
use super::tile::Tile;
use super::trial::{Sample, Trial};
use crate::octave;

/// Parts of an octave in which the unit is searched.
const FINENESS: u32 = 12;
/// Trials at most, for one dead zone.
const TRIALS: usize = 14;
/// What magnitudes may lose before they are rounded.
const DEAD_ZONES: [f32; 4] = [0.04, 0.08, 0.12, 0.16];
/// How far below the wanted rate the found one may lie.
const SLACK: f64 = 0.001;

/// The grid of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    /// The logarithm of the unit of all scales, in parts of an octave.
    log_unit: i32,
    pub(super) rounding_offset: f32,
    /// How far below its middle a bin's centroid lies, in 1/256 of a step.
    pub(super) deltas: [i8; 3],
}

impl Found {
    /// Where the search begins: the step of a Gaussian source of that root mean square at that rate.
    pub(super) fn start(rate: f64, rms: f64) -> Self {
        let rms = if rms > 0.0 && rms.is_finite() { rms } else { 1.0 };
        let steps = ((2.0 - rate) * f64::from(1 << FINENESS)) as i32;
        Self { log_unit: octave::log2(rms, FINENESS) + steps, rounding_offset: 0.0, deltas: [0; 3] }
    }

    /// The unit of all scales.
    pub(super) fn unit(&self) -> f32 {
        power(self.log_unit, FINENESS as u8).clamp(f32::MIN_POSITIVE, f32::MAX / 2.0)
    }

    /// The deltas in steps.
    pub(super) fn shrink(&self) -> [f32; 3] {
        self.deltas.map(|d| f32::from(d) / 256.0)
    }
}

/// The grid that takes at most `rate` bits per weight, hardly less, and errs least.
pub(super) fn search(layer: &EntropyLayer, sample: &Sample, rate: f64, start: Found) -> Found {
    let mut tile = Tile::default();
    let (mut best, trial) = meet(layer, sample, rate, start, &mut tile);
    let mut cost = trial.cost();
    for rounding_offset in DEAD_ZONES {
        let wider = Found { rounding_offset, ..best };
        let first = sample.trial(layer, &wider, &mut tile);
        let settled = Found { deltas: first.deltas, ..wider };
        let trial = sample.trial(layer, &settled, &mut tile);
        if trial.cost() >= cost {
            break;
        }
        (best, cost) = (settled, trial.cost());
    }
    meet(layer, sample, rate, best, &mut tile).0
}

/// Moves the unit until the rate is met; centroids follow on the way.
fn meet(layer: &EntropyLayer, sample: &Sample, rate: f64, start: Found, tile: &mut Tile) -> (Found, Trial) {
    let (mut low, mut high) = (None::<(i32, f64)>, None::<(i32, f64)>);
    let mut found = start;
    let mut good = None;
    for _ in 0..TRIALS {
        let trial = sample.trial(layer, &found, tile);
        if trial.bits <= rate {
            good = Some((found, trial));
            high = Some((found.log_unit, trial.bits));
            if trial.bits >= rate * (1.0 - SLACK) {
                break;
            }
        } else {
            low = Some((found.log_unit, trial.bits));
        }
        let next = next_unit(low, high, rate, (found.log_unit, trial.bits));
        if Some(next) == low.map(|l| l.0) || Some(next) == high.map(|h| h.0) {
            break;
        }
        found = Found { log_unit: next, deltas: trial.deltas, ..found };
    }
    // Without calibration nothing says that the coarsest grid that was tried is coarse enough; it is what there is.
    good.unwrap_or_else(|| {
        let trial = sample.trial(layer, &found, tile);
        (found, trial)
    })
}

/// Between two units, by the line through them; outwards an octave for each bit that is missing or too many.
fn next_unit(low: Option<(i32, f64)>, high: Option<(i32, f64)>, rate: f64, last: (i32, f64)) -> i32 {
    let aim = rate * (1.0 - SLACK / 2.0);
    let octave = f64::from(1 << FINENESS);
    match (low, high) {
        (Some((a, more)), Some((b, less))) => {
            let share = ((more - aim) / (more - less)).clamp(0.02, 0.98);
            (f64::from(a) + f64::from(b - a) * share).round_ties_even() as i32
        }
        _ => {
            let bits = (last.1 - aim).clamp(-4.0, 4.0);
            let step = if bits > 0.0 { (bits * 1.2).max(0.01) } else { (bits * 1.05).min(-0.01) };
            last.0 + (step * octave) as i32
        }
    }
}
