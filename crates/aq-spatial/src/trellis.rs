//! Trellis-coded rows: sequences of 256 weights, each with the best path through a trellis and a scale.

use aq_codec::encoded_bytes;
use aq_codec::trellis::{Fit, Sequences, Trellis, encode_sequence, push_row};
use aq_core::{
    EncodedRows, Encoding, Estimate, LayerInputs, LayerPlan, LayerStats, QuantStrategy, RowQuantizer, Rows,
    Scratch, StepDown, StrategyError, StrategyId, TensorInfo, TrellisEncoding,
};
use aq_kernels::trellis::SEQUENCE;

use crate::exponent::{limit, multiply, normalize, stored_exponent};
use crate::gain::{correction, slope_sums};
use crate::grid::{neighbour, round};
use crate::grouped::{self, SteppedDown, count_rows, row_of, widen_row};
use crate::ls::LeastSquares;

/// Trellis-coded quantization at exactly 2, 3 or 4 bits and one f16 scale for each 256 weights, ids `trellis` and `trellis6`.
///
/// ```text
/// minimise  sum(h * (w - scale * table[state])^2)     h: importance of the input channel, or 1
/// ```
///
/// over the scale and all circular bit streams of a sequence, as [`encode_sequence`] does it. States have 8 bits under
/// `trellis`; under `trellis6` they have 6, which errs more and is encoded about three times as fast. Importance is taken
/// relative to its mean, and as 1/64 of it where it is less, so that no weight is left to chance. The gain of a row goes
/// into its scales. The group size is not used. At 5 bits and more this is `ls`, which the report says.
#[derive(Debug, Clone, Copy)]
pub struct TrellisCoded {
    id: &'static str,
    state_bits: u8,
    /// Relative squared error of Gaussian weights at 2, 3 and 4 bits.
    relative_mse: [f64; 3],
}

impl TrellisCoded {
    /// States of 8 bits, id `trellis`.
    pub const BEST: TrellisCoded =
        TrellisCoded { id: "trellis", state_bits: 8, relative_mse: [0.0805, 0.0222, 0.0066] };
    /// States of 6 bits, id `trellis6`.
    pub const FAST: TrellisCoded =
        TrellisCoded { id: "trellis6", state_bits: 6, relative_mse: [0.0872, 0.0256, 0.0077] };

    fn too_wide(&self, plan: &LayerPlan) -> StepDown {
        let (from, to) = (self.id.into(), "ls".into());
        StepDown { from, to, reason: format!("a trellis has 2, 3 or 4 bits, not {}", plan.bits) }
    }
}

impl QuantStrategy for TrellisCoded {
    fn id(&self) -> StrategyId {
        StrategyId::new(self.id)
    }

    fn supports(&self, layer: &TensorInfo) -> bool {
        grouped::supports(layer)
    }

    fn estimate(&self, layer: &TensorInfo, stats: &LayerStats<'_>, plan: &LayerPlan) -> Estimate {
        if Trellis::new(plan.bits, self.state_bits).is_none() {
            return LeastSquares.estimate(layer, stats, plan);
        }
        let encoding = Encoding::Trellis(TrellisEncoding { bits: plan.bits });
        let relative_mse = self.relative_mse[usize::from(plan.bits.get()) - 2];
        Estimate { encoding, bytes: encoded_bytes(layer, &encoding), relative_mse, transformed: false }
    }

    fn prepare<'a>(
        &'a self,
        layer: &LayerInputs<'a>,
        plan: &LayerPlan,
    ) -> Result<Box<dyn RowQuantizer + 'a>, StrategyError> {
        grouped::check(self.id, layer)?;
        let Some(trellis) = Trellis::new(plan.bits, self.state_bits) else {
            let inner = LeastSquares.prepare(layer, plan)?;
            return Ok(Box::new(SteppedDown::new(inner, self.too_wide(plan))));
        };
        let importance = layer.stats.importance.and_then(relative);
        let (tensor, cols) = (layer.info.name(), layer.info.cols() as usize);
        Ok(Box::new(TrellisRows { trellis, importance, gain: plan.gain, tensor, cols }))
    }
}

/// The least importance of a column, where the mean is 1.
const LEAST_IMPORTANCE: f64 = 1.0 / 64.0;

/// Importance in units of its mean, at least 1/64; `None` when there is none to speak of.
fn relative(importance: &[f32]) -> Option<Vec<f32>> {
    let sum: f64 = importance.iter().map(|&h| f64::from(h)).sum();
    let mean = sum / importance.len() as f64;
    let usable = mean > 0.0 && mean.is_finite();
    usable.then(|| importance.iter().map(|&h| (f64::from(h) / mean).max(LEAST_IMPORTANCE) as f32).collect())
}

/// A layer that is ready to be quantized.
struct TrellisRows<'a> {
    trellis: Trellis,
    importance: Option<Vec<f32>>,
    gain: bool,
    tensor: &'a str,
    cols: usize,
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
        if self.gain {
            self.correct_gain(scratch, fits);
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

    /// Finds the states and the fit of each sequence.
    fn encode(&self, scratch: &mut Scratch, fits: &mut Vec<Fit>) {
        fits.clear();
        let sequences = scratch.row.chunks(SEQUENCE).zip(scratch.codes.chunks_mut(SEQUENCE));
        for (i, (weights, states)) in sequences.enumerate() {
            let importance = self.importance.as_ref().map(|h| &h[i * SEQUENCE..][..weights.len()]);
            fits.push(encode_sequence(self.trellis, weights, importance, states));
        }
    }

    /// Multiplies the scales by what makes the slope of the row 1.
    fn correct_gain(&self, scratch: &mut Scratch, fits: &mut [Fit]) {
        let sequences = scratch.codes.chunks(SEQUENCE).zip(scratch.decoded.chunks_mut(SEQUENCE));
        for (fit, (states, decoded)) in fits.iter().zip(sequences) {
            let table = self.trellis.table(fit.table);
            let values = states.iter().map(|&s| f32::from(table[usize::from(s)]) * fit.scale);
            decoded.iter_mut().zip(values).for_each(|(d, v)| *d = v);
        }
        let (norm, product) = slope_sums(self.importance.as_deref(), &scratch.row, &scratch.decoded);
        if let Some(gain) = correction(norm, product) {
            fits.iter_mut().for_each(|fit| fit.scale *= gain.factor);
        }
    }

    /// The f16 next to `scale`, or the largest that keeps the values of `states` within `limit`.
    fn storable(&self, table: usize, scale: f32, states: &[u8], limit: f64) -> f32 {
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
