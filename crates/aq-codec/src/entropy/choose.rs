//! What is decided for a slab before its codes are written.

use super::classes::{Classes, KEYS};
use super::fit::fit;
use super::histogram::Histogram;
use super::log2::{BIT, log2};
use super::steps::ColumnSteps;
use super::{SlabCodes, low_bytes, sequence, stream};

/// Columns choose classes of their own from this many rows on; with fewer rows, saying so costs more than it saves.
const FEWEST_ROWS: usize = 32;

/// The most low bits of a code that are stored as they are.
const MOST_LOW_BITS: u32 = 15;

/// Steps as they are written: the smallest index, and how far each one is above it.
#[derive(Debug, Clone)]
pub(super) struct RelativeSteps {
    pub(super) smallest: i8,
    pub(super) above: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(super) struct Choice {
    /// Low bits of each code that are stored as they are.
    pub(super) shift: u32,
    /// `None` when all steps are 1.
    pub(super) steps: Option<RelativeSteps>,
    pub(super) classes: Classes,
    /// The class of each column.
    pub(super) columns: Vec<u8>,
}

impl Choice {
    /// The choice of the fewest bytes for these codes.
    pub(super) fn new(slab: &SlabCodes<'_>, histograms: &mut Vec<Histogram>) -> Self {
        histograms.resize_with(KEYS, Histogram::default);
        let steps = relative(slab.steps);
        let shift = choose_shift(slab.codes, &mut histograms[0]);
        let equal = || vec![0; slab.cols];
        let keys = steps.as_ref().map_or_else(equal, |s| s.above.clone());
        let (mut classes, mut columns) = classify(slab, shift, &keys, true, histograms);
        if slab.codes.len() / slab.cols >= FEWEST_ROWS {
            let own = classify(slab, shift, &spreads(slab), false, histograms);
            if own.0.cost < classes.cost {
                (classes, columns) = own;
            }
        }
        Self { shift, steps, classes, columns }
    }

    /// Bytes of the codes and of what describes them, about: all but the rounding of the words.
    pub(super) fn bytes(&self, slab: &SlabCodes<'_>) -> u64 {
        let rows = (slab.codes.len() / slab.cols) as u64;
        let steps = self.steps.as_ref().map_or(0, |s| 8 + sequence::bits(&s.above));
        let centroids = 25 * self.classes.fits.len() as u64;
        let streams = rows.div_ceil(stream::rows(slab.cols) as u64);
        let bits = 9
            + steps
            + centroids
            + self.classes.cost.div_ceil(BIT)
            + streams * stream::extra_bits(slab.codes.len());
        bits.div_ceil(8) + rows * low_bytes(slab.cols, self.shift) as u64
    }
}

fn relative(steps: ColumnSteps<'_>) -> Option<RelativeSteps> {
    let ColumnSteps::Quarters(indices) = steps else { return None };
    let smallest = indices.iter().copied().min().unwrap_or(0);
    if smallest == 0 && indices.iter().all(|&i| i == 0) {
        return None;
    }
    let above = indices.iter().map(|&i| i.abs_diff(smallest)).collect();
    Some(RelativeSteps { smallest, above })
}

/// The fewest low bits that leave all but one code in 64 within the window of a histogram, or one more when that costs less.
fn choose_shift(codes: &[i32], histogram: &mut Histogram) -> u32 {
    let mut sizes = [0_usize; 33];
    codes.iter().for_each(|&c| sizes[32 - (c ^ (c >> 31)).leading_zeros() as usize] += 1);
    let mut outside = codes.len();
    let widest = sizes.iter().position(|&n| {
        outside -= n;
        outside <= codes.len() / 64
    });
    let shift = (widest.unwrap_or(32) as u32).saturating_sub(7).min(MOST_LOW_BITS - 1);
    if shift == 0 {
        return 0;
    }
    let mut cost = |shift: u32| {
        histogram.clear();
        codes.iter().for_each(|&c| histogram.add(c >> shift));
        fit(histogram, true).cost + codes.len() as u64 * u64::from(shift) * BIT
    };
    if cost(shift + 1) < cost(shift) { shift + 1 } else { shift }
}

fn classify(
    slab: &SlabCodes<'_>,
    shift: u32,
    keys: &[u8],
    by_step: bool,
    histograms: &mut [Histogram],
) -> (Classes, Vec<u8>) {
    histograms.iter_mut().filter(|h| h.total() > 0).for_each(Histogram::clear);
    for row in slab.codes.chunks_exact(slab.cols) {
        row.iter().zip(keys).for_each(|(code, &key)| histograms[usize::from(key)].add(code >> shift));
    }
    let classes = Classes::choose(histograms, keys, by_step, shift > 0);
    let columns = classes.of_columns(keys);
    (classes, columns)
}

/// How large the codes of each column are on average: eight keys an octave.
fn spreads(slab: &SlabCodes<'_>) -> Vec<u8> {
    let rows = (slab.codes.len() / slab.cols) as u64;
    let mut sums = vec![0_u64; slab.cols];
    for row in slab.codes.chunks_exact(slab.cols) {
        sums.iter_mut().zip(row).for_each(|(sum, code)| *sum += u64::from(code.unsigned_abs()));
    }
    sums.into_iter().map(|sum| (log2(256 * sum / rows + 1) * 8 / BIT).min(255) as u8).collect()
}
