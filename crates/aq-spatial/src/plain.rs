//! The short way of the plain case: a row of usual magnitude on its whole range, from its source type to packed codes.
//!
//! It gives the bytes of the long way in `row.rs`, which remains for all other rows; a test compares them.

use aq_codec::{AffineRow, push_grids};
use aq_core::{EncodedRows, OffsetKind, Scratch};
use aq_kernels::Weights;
use aq_kernels::encode::{GridsMut, Sums, encode_min_max, multiply_scales};

use crate::exponent::{has_normal_scales, is_plain};
use crate::gain::correction;
use crate::row::{Method, RowEncoder};

/// Quantizes a row and appends it to `out`; `false`, with nothing appended, where it takes the long way or some weight is not finite.
pub(crate) fn push_plain<M: Method>(
    encoder: &RowEncoder<'_, M>,
    weights: Weights<'_>,
    scratch: &mut Scratch,
    out: &mut EncodedRows,
) -> bool {
    if !M::WHOLE_RANGE || encoder.encoding.offset != OffsetKind::ZeroPoint {
        return false;
    }
    let start = out.codes.len();
    out.codes.resize(start + encoder.encoding.bits.packed_len(weights.len()), 0);
    let done = PlainRow { encoder, weights, packed: &mut out.codes[start..] }.encode(scratch);
    if !done {
        out.codes.truncate(start);
        return false;
    }
    let row = AffineRow { codes: &[], scales: &scratch.scales, offsets: &scratch.offsets, exponent: 0 };
    push_grids(&encoder.encoding, row, out);
    true
}

struct PlainRow<'a, M> {
    encoder: &'a RowEncoder<'a, M>,
    weights: Weights<'a>,
    packed: &'a mut [u8],
}

impl<M: Method> PlainRow<'_, M> {
    /// Fills the packed codes, scales and zero points; `false` when the row is not plain after all.
    fn encode(&mut self, scratch: &mut Scratch) -> bool {
        let groups = self.encoder.encoding.group_size.groups(self.weights.len());
        scratch.scales.resize(groups, 0.0);
        scratch.offsets.resize(groups, 0.0);
        let grids = GridsMut { scales: &mut scratch.scales, zeros: &mut scratch.offsets };
        let encoding = self.encoder.encoding;
        let (bits, group) = (encoding.bits.get(), encoding.group_size.weights(self.weights.len()));
        let (extremes, sums) = encode_min_max(bits, group, self.weights, grids, self.packed);
        // The norm is not finite when some weight is not.
        let plain = sums.norm.is_finite() && is_plain(&extremes);
        plain && (!self.encoder.gain || correct_gain(sums, scratch))
    }
}

/// Multiplies the scales by the gain of the row; `false` when that takes an exponent.
///
/// The long way then looks whether rounding left the slope where it should be. Here it always did: 0 is on the grid, so
/// a weight and its decoded form never differ in sign, no group takes anything from `sum(w * q)`, and rounding normal
/// scales changes each share by at most 2^-11, which is less than the tolerance.
fn correct_gain(sums: Sums, scratch: &mut Scratch) -> bool {
    let Some(gain) = correction(sums.norm, sums.product) else { return true };
    let (smallest, largest) = multiply_scales(&mut scratch.scales, gain.factor);
    has_normal_scales(smallest, largest)
}

#[cfg(test)]
mod tests {
    use aq_core::{AffineEncoding, BitWidth, GroupSize};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::MinMax;

    /// Rows of many magnitudes and shapes, few of which are not plain.
    fn rows() -> Vec<Vec<f32>> {
        let mut random = StdRng::seed_from_u64(7);
        let mut rows =
            vec![vec![0.0; 200], vec![1e-7; 64], vec![-3.0; 33], vec![f32::MAX; 5], vec![1e30, -1e-30]];
        for n in 1..400 {
            let (spread, shift) =
                (random.random_range(-8.0..4.0_f32).exp2(), random.random_range(-2.0..2.0_f32));
            let shift = if n % 3 == 0 { shift } else { 0.0 };
            rows.push(
                (0..n).map(|_| (random.random_range(-1.0..1.0_f32).powi(3) + shift) * spread).collect(),
            );
        }
        rows
    }

    #[test]
    fn rows_with_weights_that_are_not_finite_are_not_plain() -> Result<(), aq_core::CoreError> {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for bits in [2, 3, 4, 5, 6, 8] {
                for (n, at) in [(1, 0), (64, 5), (200, 199), (3000, 2500)] {
                    let group_size = GroupSize::new(64)?;
                    let encoding = AffineEncoding {
                        bits: BitWidth::new(bits)?,
                        group_size,
                        offset: OffsetKind::ZeroPoint,
                    };
                    let encoder = RowEncoder { method: &MinMax, encoding, gain: false, importance: None };
                    let mut row = vec![0.25; n];
                    row[at] = bad;
                    let mut out = EncodedRows::default();
                    let (scratch, row) = (&mut Scratch::default(), Weights::F32(&row));
                    assert!(
                        !push_plain(&encoder, row, scratch, &mut out),
                        "{bad} at {at} of {n}, {bits} bits"
                    );
                    assert_eq!(out, EncodedRows::default());
                }
            }
        }
        Ok(())
    }

    #[test]
    fn both_ways_give_the_same_bytes() -> Result<(), aq_core::CoreError> {
        let (mut plain, mut all) = (0, 0);
        for bits in [2, 3, 4, 5, 6, 8] {
            for (group_size, gain) in [(0, true), (32, false), (32, true), (128, true), (64, false)] {
                let group_size = if group_size == 0 { GroupSize::ROW } else { GroupSize::new(group_size)? };
                let encoding =
                    AffineEncoding { bits: BitWidth::new(bits)?, group_size, offset: OffsetKind::ZeroPoint };
                let encoder = RowEncoder { method: &MinMax, encoding, gain, importance: None };
                for row in rows() {
                    let (mut short, mut long) = (EncodedRows::default(), EncodedRows::default());
                    all += 1;
                    if push_plain(&encoder, Weights::F32(&row), &mut Scratch::default(), &mut short) {
                        plain += 1;
                        let mut scratch = Scratch { row: row.clone(), ..Scratch::default() };
                        encoder.push(&mut scratch, &mut long);
                        assert_eq!(short, long, "{bits} bits, {group_size:?}, {gain}, {row:?}");
                    } else {
                        assert_eq!(short, EncodedRows::default());
                    }
                }
            }
        }
        assert!(plain > all * 8 / 10, "{plain} of {all} rows are plain");
        Ok(())
    }
}
