//! How one row is quantized with a table.

use aq_codec::{CodebookRow, push_codebook_row};
use aq_core::{CodebookEncoding, EncodedRows, LayerPlan, Scratch};
use aq_kernels::affine::min_max;
use aq_kernels::codebook::{MAX_VALUES, Table, fit, look_up, nearest};
use aq_kernels::metric::sum_squares;

use crate::exponent::{normalize, round_scales};
use crate::gain::{correction, slope_sums};

/// How the scale of a group is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScaleRule {
    /// The one of least squared error.
    Fitted,
    /// The largest magnitude of the group.
    Largest,
}

/// Everything that the rows of a layer share.
pub(super) struct RowEncoder<'a> {
    table: Table,
    rule: ScaleRule,
    encoding: CodebookEncoding,
    gain: bool,
    importance: Option<&'a [f32]>,
}

impl<'a> RowEncoder<'a> {
    pub(super) fn new(
        table: Table,
        rule: ScaleRule,
        plan: &LayerPlan,
        importance: Option<&'a [f32]>,
    ) -> Self {
        Self { table, rule, encoding: super::encoding(plan), gain: plan.gain, importance }
    }

    /// Quantizes the row in `scratch.row` and appends it to `out`.
    pub(super) fn push(&self, scratch: &mut Scratch, out: &mut EncodedRows) {
        let cols = scratch.row.len();
        scratch.codes.resize(cols, 0);
        scratch.decoded.resize(cols, 0.0);
        let exponent = normalize(&mut scratch.row);
        self.find_scales(scratch);
        let largest = self.table.largest();
        let mut exponent = round_scales(&mut scratch.row, &mut scratch.scales, largest, exponent);
        self.choose_codes(scratch);
        if self.gain {
            exponent = self.correct_gain(scratch, exponent);
        }
        let row = CodebookRow { codes: &scratch.codes, scales: &scratch.scales, exponent: exponent as i8 };
        push_codebook_row(&self.encoding, self.table.values(), row, out);
    }

    fn find_scales(&self, scratch: &mut Scratch) {
        let size = self.encoding.group_size.weights(scratch.row.len());
        scratch.scales.clear();
        for (i, weights) in scratch.row.chunks(size).enumerate() {
            let importance = self.importance.map(|h| &h[i * size..][..weights.len()]);
            scratch.scales.push(match self.rule {
                ScaleRule::Fitted => fitted_scale(&self.table, weights, importance),
                ScaleRule::Largest => largest(weights) / self.table.largest(),
            });
        }
    }

    fn choose_codes(&self, scratch: &mut Scratch) {
        let size = self.encoding.group_size.weights(scratch.row.len());
        let groups = scratch.row.chunks(size).zip(scratch.codes.chunks_mut(size));
        for ((weights, codes), &scale) in groups.zip(&scratch.scales) {
            nearest(&self.table, weights, inverse(scale), codes);
        }
    }

    /// Multiplies the scales of the row by its gain; codes stay. Returns the exponent to store.
    ///
    /// Rounding the corrected scales leaves the slope within its tolerance: they have no offset, so each group's share changes by
    /// at most `2^-11` of itself.
    fn correct_gain(&self, scratch: &mut Scratch, exponent: i32) -> i32 {
        self.decode(scratch);
        let (norm, product) = slope_sums(self.importance, &scratch.row, &scratch.decoded);
        let Some(gain) = correction(norm, product) else { return exponent };
        scratch.scales.iter_mut().for_each(|scale| *scale *= gain.factor);
        round_scales(&mut scratch.row, &mut scratch.scales, self.table.largest(), exponent)
    }

    fn decode(&self, scratch: &mut Scratch) {
        let size = self.encoding.group_size.weights(scratch.row.len());
        let mut values = [0.0; MAX_VALUES];
        values[..self.table.values().len()].copy_from_slice(self.table.values());
        let groups = scratch.codes.chunks(size).zip(scratch.decoded.chunks_mut(size));
        for ((codes, out), &scale) in groups.zip(&scratch.scales) {
            look_up(&values.map(|value| value * scale), codes, out);
        }
    }
}

/// Multiples of the root mean square at which the search for a scale starts.
const STARTS: [f32; 3] = [0.8, 1.0, 1.25];
/// Refits of the scale from each start.
const REFITS: usize = 3;

/// The scale of least squared error, 0 for a group of zeros. Codes and scale are fitted in turn from each start.
pub(super) fn fitted_scale(table: &Table, weights: &[f32], importance: Option<&[f32]>) -> f32 {
    let typical = root_mean_square(weights, importance);
    let mut best = (0.0, 0.0);
    for start in STARTS {
        let mut scale = start * typical;
        for _ in 0..REFITS {
            let found = fit(table, weights, importance, inverse(scale));
            let Some(next) = found.scale() else { break };
            scale = next;
            if found.explained() > best.1 {
                best = (scale, found.explained());
            }
        }
    }
    best.0
}

fn root_mean_square(weights: &[f32], importance: Option<&[f32]>) -> f32 {
    let mean = match importance {
        None => sum_squares(weights) / weights.len() as f64,
        Some(h) => {
            let terms = weights.iter().zip(h).map(|(&w, &h)| f64::from(h) * f64::from(w) * f64::from(w));
            let (square, total) = (terms.sum::<f64>(), h.iter().map(|&h| f64::from(h)).sum::<f64>());
            if total > 0.0 { square / total } else { sum_squares(weights) / weights.len() as f64 }
        }
    };
    mean.sqrt() as f32
}

fn largest(weights: &[f32]) -> f32 {
    let (low, high) = min_max(weights);
    high.max(-low)
}

/// 0 where there is no inverse: every weight is then next to the value next to 0.
pub(super) fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}
