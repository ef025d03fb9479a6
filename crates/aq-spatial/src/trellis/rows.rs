//! Rows without error feedback, and what is stored of a row.

use aq_codec::trellis::{Fit, Sequences, Trellis, encode_sequence, push_row};
use aq_core::{EncodedRows, RowQuantizer, Rows, Scratch, StrategyError};
use aq_kernels::trellis::SEQUENCE;

use crate::exponent::{limit, multiply, normalize, stored_exponent};
use crate::gain::{correction, slope_sums};
use crate::grid::{neighbour, round};
use crate::grouped::{count_rows, row_of, widen_row};

/// The least importance of a column, where the mean is 1.
const LEAST_IMPORTANCE: f64 = 1.0 / 64.0;

/// Importance in units of its mean, at least 1/64; `None` when there is none to speak of.
pub(super) fn relative(importance: &[f32]) -> Option<Vec<f32>> {
    let sum: f64 = importance.iter().map(|&h| f64::from(h)).sum();
    let mean = sum / importance.len() as f64;
    let usable = mean > 0.0 && mean.is_finite();
    usable.then(|| importance.iter().map(|&h| (f64::from(h) / mean).max(LEAST_IMPORTANCE) as f32).collect())
}

/// A layer that is ready to be quantized.
pub(super) struct TrellisRows<'a> {
    pub(super) store: Store,
    pub(super) importance: Option<Vec<f32>>,
    pub(super) tensor: &'a str,
    pub(super) cols: usize,
}

impl RowQuantizer for TrellisRows<'_> {
    fn quantize_rows(
        &self,
        rows: Rows<'_>,
        scratch: &mut Scratch,
        out: &mut EncodedRows,
    ) -> Result<(), StrategyError> {
        let count = count_rows(&rows, self.tensor, self.cols)?;
        let mut fits = std::mem::take(scratch.own::<Vec<Fit>>());
        for buffer in [&mut scratch.row, &mut scratch.decoded] {
            buffer.resize(self.cols, 0.0);
        }
        scratch.codes.resize(self.cols, 0);
        for row in 0..count {
            widen_row(row_of(rows.data, row * self.cols, self.cols), &mut scratch.row);
            self.push(scratch, &mut fits, out);
        }
        *scratch.own::<Vec<Fit>>() = fits;
        Ok(())
    }
}

impl TrellisRows<'_> {
    /// Quantizes the row in `scratch.row` and appends it to `out`.
    fn push(&self, scratch: &mut Scratch, fits: &mut Vec<Fit>, out: &mut EncodedRows) {
        let exponent = normalize(&mut scratch.row);
        self.encode(scratch, fits);
        let slope = self.store.gain.then(|| self.slope(scratch, fits));
        self.store.push(scratch, fits, exponent, slope.unwrap_or_default(), out);
    }

    /// Finds the states and the fit of each sequence.
    fn encode(&self, scratch: &mut Scratch, fits: &mut Vec<Fit>) {
        fits.clear();
        let sequences = scratch.row.chunks(SEQUENCE).zip(scratch.codes.chunks_mut(SEQUENCE));
        for (i, (weights, states)) in sequences.enumerate() {
            let importance = self.importance.as_ref().map(|h| &h[i * SEQUENCE..][..weights.len()]);
            fits.push(encode_sequence(self.store.trellis, weights, importance, states));
        }
    }

    /// `w h w` and `w h q` of the row.
    fn slope(&self, scratch: &mut Scratch, fits: &[Fit]) -> (f64, f64) {
        let sequences = scratch.codes.chunks(SEQUENCE).zip(scratch.decoded.chunks_mut(SEQUENCE));
        for (fit, (states, decoded)) in fits.iter().zip(sequences) {
            let table = self.store.trellis.table(fit.table);
            let values = states.iter().map(|&s| f32::from(table[usize::from(s)]) * fit.scale);
            decoded.iter_mut().zip(values).for_each(|(d, v)| *d = v);
        }
        slope_sums(self.importance.as_deref(), &scratch.row, &scratch.decoded)
    }
}

/// How rows are stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Store {
    pub(super) trellis: Trellis,
    pub(super) gain: bool,
}

impl Store {
    /// Appends the row of the states `scratch.codes` and `fits`, which are in units of `2^exponent`; `slope` is the norm of its outputs and
    /// their product with the decoded ones.
    pub(super) fn push(
        self,
        scratch: &mut Scratch,
        fits: &mut [Fit],
        exponent: i32,
        slope: (f64, f64),
        out: &mut EncodedRows,
    ) {
        if let Some(gain) = correction(slope.0, slope.1).filter(|_| self.gain) {
            fits.iter_mut().for_each(|fit| fit.scale *= gain.factor);
        }
        scratch.scales.clear();
        scratch.scales.extend(fits.iter().map(|fit| fit.scale));
        let stored = stored_exponent(&scratch.scales, &[], exponent);
        multiply(&mut scratch.scales, exponent - stored);
        let sequences = fits.iter_mut().zip(&scratch.scales).zip(scratch.codes.chunks(SEQUENCE));
        for ((fit, &scale), states) in sequences {
            fit.scale = self.storable(fit.table, scale, states, limit(stored));
        }
        let row = Sequences { states: &scratch.codes, fits, exponent: stored as i8 };
        push_row(self.trellis, row, out);
    }

    /// The f16 next to `scale`, or the largest that keeps the values of `states` within `limit`.
    fn storable(self, table: usize, scale: f32, states: &[u8], limit: f64) -> f32 {
        let scale = round(scale);
        if f64::from(scale) * 127.0 <= limit {
            return scale;
        }
        let table = self.trellis.table(table);
        let largest = states.iter().map(|&s| table[usize::from(s)].unsigned_abs()).max().unwrap_or(0);
        let fits = |scale: f32| f64::from(scale) * f64::from(largest) <= limit;
        if fits(scale) {
            return scale;
        }
        let near = round((limit / f64::from(largest)) as f32);
        if fits(near) { near } else { neighbour(near, -1).unwrap_or(0.0) }
    }
}
