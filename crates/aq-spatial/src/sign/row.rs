//! How one row becomes signs and scales.

use aq_codec::{SignRow, push_sign_row};
use aq_core::{EncodedRows, Scratch, SignEncoding, SignLevels};

use super::fit::{binary_scale, ternary_scale};
use crate::exponent::{normalize, round_scales};
use crate::gain::{correction, slope_sums};

/// Everything that the rows of a layer share.
pub(super) struct RowEncoder<'a> {
    pub(super) encoding: SignEncoding,
    pub(super) gain: bool,
    pub(super) importance: Option<&'a [f32]>,
}

impl RowEncoder<'_> {
    /// Quantizes the row in `scratch.row` and appends it to `out`.
    pub(super) fn push(&self, scratch: &mut Scratch, out: &mut EncodedRows) {
        scratch.codes.resize(scratch.row.len(), 0);
        scratch.decoded.resize(scratch.row.len(), 0.0);
        let exponent = normalize(&mut scratch.row);
        self.find_scales(scratch);
        let mut exponent = round_scales(&mut scratch.row, &mut scratch.scales, 1.0, exponent);
        self.choose_codes(scratch);
        if self.gain {
            exponent = self.correct_gain(scratch, exponent);
        }
        let row = SignRow { codes: &scratch.codes, scales: &scratch.scales, exponent: exponent as i8 };
        push_sign_row(&self.encoding, row, out);
    }

    fn find_scales(&self, scratch: &mut Scratch) {
        let size = self.encoding.group_size.weights(scratch.row.len());
        let mut order = std::mem::take(scratch.own::<Vec<u64>>());
        scratch.scales.clear();
        for (i, weights) in scratch.row.chunks(size).enumerate() {
            let importance = self.importance.map(|h| &h[i * size..][..weights.len()]);
            // Where nothing matters, everything matters alike.
            let importance = importance.filter(|h| h.iter().any(|&h| h > 0.0));
            scratch.scales.push(match self.encoding.levels {
                SignLevels::Binary => binary_scale(weights, importance),
                SignLevels::Ternary => ternary_scale(weights, importance, &mut order),
            });
        }
        *scratch.own::<Vec<u64>>() = order;
    }

    /// Chooses the code of the nearest value for each weight, and writes the values down.
    fn choose_codes(&self, scratch: &mut Scratch) {
        let size = self.encoding.group_size.weights(scratch.row.len());
        let Scratch { row, codes, decoded, scales, .. } = scratch;
        let groups = row.chunks(size).zip(codes.chunks_mut(size)).zip(decoded.chunks_mut(size));
        for (((weights, codes), decoded), &scale) in groups.zip(scales.iter()) {
            for ((&w, code), value) in weights.iter().zip(codes).zip(decoded) {
                let sign = sign(self.encoding.levels, w, scale);
                *value = f32::from(sign) * scale;
                *code = match self.encoding.levels {
                    SignLevels::Binary => u8::from(sign > 0),
                    SignLevels::Ternary => (sign + 1) as u8,
                };
            }
        }
    }

    /// Multiplies the scales of the row by its gain; codes stay. Returns the exponent to store.
    fn correct_gain(&self, scratch: &mut Scratch, exponent: i32) -> i32 {
        let (norm, product) = slope_sums(self.importance, &scratch.row, &scratch.decoded);
        let Some(gain) = correction(norm, product) else { return exponent };
        scratch.scales.iter_mut().for_each(|scale| *scale *= gain.factor);
        round_scales(&mut scratch.row, &mut scratch.scales, 1.0, exponent)
    }
}

/// What the weight is nearest to in units of the scale; of two values equally near the smaller one, and 1 for a weight of 0 where there is no 0.
fn sign(levels: SignLevels, w: f32, scale: f32) -> i8 {
    let is_zero = levels == SignLevels::Ternary && (w.abs() <= scale / 2.0 || scale == 0.0);
    match (is_zero, w < 0.0) {
        (true, _) => 0,
        (false, true) => -1,
        (false, false) => 1,
    }
}
