//! Columns in classes of alike distribution, each with a frequency table.
//!
//! Every column has a key: the index of its step, or how large its codes are on average. A class is a run of keys.
//! From one class a key on, the two neighbours whose union costs least are merged, until one is left; of the last sixteen
//! states the one of the fewest bits wins, tables and what says which column is in which class included.

use super::fit::{Fit, fit};
use super::histogram::Histogram;
use super::log2::{BIT, log2};
use super::sequence;

/// The most classes of a slab.
pub(super) const MOST_CLASSES: usize = 16;

/// Number of keys.
pub(super) const KEYS: usize = 256;

/// The classes of a slab.
#[derive(Debug, Clone)]
pub(super) struct Classes {
    /// Whether keys are the indices of the steps; else each column says its class.
    pub(super) by_step: bool,
    /// The first key of each class but the first.
    pub(super) bounds: Vec<u8>,
    /// The table of each class.
    pub(super) fits: Vec<Fit>,
    /// All bits, in units of 1 / [`BIT`].
    pub(super) cost: u64,
}

impl Classes {
    /// The class of a key.
    pub(super) fn of(&self, key: u8) -> u8 {
        self.bounds.partition_point(|&bound| bound <= key) as u8
    }

    /// The cheapest classes for the codes of each key. `keys` has the key of each column.
    pub(super) fn choose(histograms: &[Histogram], keys: &[u8], by_step: bool, shifted: bool) -> Self {
        let mut runs: Vec<Run> =
            (0..KEYS).filter(|&k| histograms[k].total() > 0).map(|k| Run::new(k, &histograms[k])).collect();
        let mut best: Option<Self> = None;
        loop {
            if runs.len() <= MOST_CLASSES {
                let found = Self::of_runs(&mut runs, keys, by_step, shifted);
                if best.as_ref().is_none_or(|b| found.cost < b.cost) {
                    best = Some(found);
                }
            }
            if runs.len() <= 1 {
                break;
            }
            merge_cheapest(&mut runs);
        }
        best.expect("at least one state")
    }

    fn of_runs(runs: &mut [Run], keys: &[u8], by_step: bool, shifted: bool) -> Self {
        let bounds = runs.iter().skip(1).map(|run| run.first).collect();
        let fits: Vec<Fit> = runs
            .iter_mut()
            .map(|r| r.fit.get_or_insert_with(|| fit(&r.histogram, shifted)).clone())
            .collect();
        let mut classes = Self { by_step, bounds, fits, cost: 0 };
        let side =
            if by_step { 5 * classes.bounds.len() as u64 } else { sequence::bits(&classes.of_columns(keys)) };
        classes.cost = classes.fits.iter().map(|f| f.cost).sum::<u64>() + side * BIT;
        classes
    }

    /// The class of each column.
    pub(super) fn of_columns(&self, keys: &[u8]) -> Vec<u8> {
        keys.iter().map(|&key| self.of(key)).collect()
    }
}

/// Neighbouring keys that are one class for now.
struct Run {
    first: u8,
    histogram: Histogram,
    entropy: u64,
    fit: Option<Fit>,
    /// What a union with the next run would add to the entropy.
    union: Option<u64>,
}

impl Run {
    fn new(key: usize, histogram: &Histogram) -> Self {
        let (histogram, entropy) = (histogram.clone(), entropy(histogram));
        Self { first: key as u8, histogram, entropy, fit: None, union: None }
    }

    fn union(&mut self, next: &Histogram, next_entropy: u64) -> u64 {
        *self.union.get_or_insert_with(|| {
            let mut both = self.histogram.clone();
            both.merge(next);
            entropy(&both).saturating_sub(self.entropy + next_entropy)
        })
    }
}

fn merge_cheapest(runs: &mut Vec<Run>) {
    let mut cheapest = (u64::MAX, 0);
    for i in 0..runs.len() - 1 {
        let [run, next] = &mut runs[i..i + 2] else { unreachable!("two runs") };
        cheapest = cheapest.min((run.union(&next.histogram, next.entropy), i));
    }
    let i = cheapest.1;
    let next = runs.remove(i + 1);
    let run = &mut runs[i];
    run.histogram.merge(&next.histogram);
    run.entropy = entropy(&run.histogram);
    (run.fit, run.union) = (None, None);
    if i > 0 {
        runs[i - 1].union = None;
    }
}

/// The entropy of all codes together, in units of 1 / [`BIT`] bits.
fn entropy(histogram: &Histogram) -> u64 {
    let total = log2(histogram.total());
    histogram.counts().map(|n| n * (total - log2(n).min(total))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histograms(spreads: &[(usize, i32)]) -> Vec<Histogram> {
        let mut histograms = vec![Histogram::default(); KEYS];
        for &(key, spread) in spreads {
            (0..4000).for_each(|i| histograms[key].add(i * i % (2 * spread + 1) - spread));
        }
        histograms
    }

    #[test]
    fn unlike_columns_get_classes_and_like_ones_share() {
        let keys: Vec<u8> = [3, 4, 90, 91, 200].repeat(20);
        let histograms = histograms(&[(3, 1), (4, 1), (90, 20), (91, 20), (200, 60)]);
        let classes = Classes::choose(&histograms, &keys, true, false);
        assert_eq!(classes.bounds, [90, 200]);
        assert_eq!([3, 4, 89, 90, 91, 199, 200, 255].map(|k| classes.of(k)), [0, 0, 0, 1, 1, 1, 2, 2]);
        assert!(classes.cost < Classes::choose(&histograms, &keys, false, false).cost);
    }

    #[test]
    fn more_kinds_than_classes_are_merged() {
        let spreads: Vec<(usize, i32)> = (0..40).map(|i| (i * 6, 1 << (i / 6))).collect();
        let classes = Classes::choose(&histograms(&spreads), &[0; 8], true, false);
        assert!((4..=MOST_CLASSES).contains(&classes.fits.len()), "{}", classes.fits.len());
        assert_eq!(classes.bounds.len() + 1, classes.fits.len());
    }
}
