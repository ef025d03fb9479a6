//! Powers of two that bring the weights of a row into the range of f16.
//!
//! A row is handled as `weights * 2^exponent`. Normal weights have exponent 0. Weights so small or so large that
//! scales or offsets would leave the normal range of f16 get another one, the same for the whole row: its largest
//! parameter then lies in `[2^13, 2^14)`. Below it f16 keeps full precision over a ratio of `2^27` and some over `2^37`. A
//! group whose scale is smaller still, beside so much larger ones, decodes to 0 or to a constant: its weights are
//! below the last bit that matters in any sum with the rest of the row.

use aq_kernels::affine::min_max;
use aq_kernels::encode::Extremes;

use crate::grid::round;

/// Weights of this magnitude need no power of two before their parameters are found: `[2^-20, 2^20)`.
const USUAL: std::ops::Range<i32> = -20..20;
/// Exponents of the normal f16 numbers up to `2^14`, which leaves room for the gain.
const NORMAL: std::ops::Range<i32> = -14..14;

/// Brings a row of unusual magnitude to one between 1 and 2, so that no sum of squares overflows or vanishes.
///
/// Returns the exponent to undo that; 0 when the row is left as it is.
pub(crate) fn normalize(row: &mut [f32]) -> i32 {
    let (low, high) = min_max(row);
    let largest = high.max(-low);
    if largest == 0.0 || USUAL.contains(&floor_log2(largest)) {
        return 0;
    }
    multiply(row, -floor_log2(largest));
    floor_log2(largest)
}

/// Whether [`normalize`] and [`stored_exponent`] of a row with zero points would both give 0.
pub(crate) fn is_plain(row: &Extremes) -> bool {
    let largest = row.high.max(-row.low);
    let usual = largest == 0.0 || USUAL.contains(&floor_log2(largest));
    usual && (row.largest_scale == 0.0 || has_normal_scales(row.smallest_scale, row.largest_scale))
}

/// Whether scales in that range, not counting 0, need no exponent.
pub(crate) fn has_normal_scales(smallest: f32, largest: f32) -> bool {
    NORMAL.contains(&floor_log2(smallest)) && NORMAL.contains(&floor_log2(largest))
}

/// The exponent to store for a row whose parameters are `scales * 2^exponent` and `offsets * 2^exponent`.
///
/// Zero points are no parameters of this kind: `offsets` is empty for them.
pub(crate) fn stored_exponent(scales: &[f32], offsets: &[f32], exponent: i32) -> i32 {
    let (_, scale) = min_max(scales);
    let (low, high) = min_max(offsets);
    let largest = scale.max(high).max(-low);
    if largest <= 0.0 {
        return 0;
    }
    let largest = floor_log2(largest) + exponent;
    let offsets = offsets.iter().copied().chain(std::iter::repeat(0.0));
    let small = |(&scale, offset): (&f32, f32)| {
        let decisive = if scale > 0.0 { scale } else { offset.abs() };
        decisive > 0.0 && floor_log2(decisive) + exponent < NORMAL.start
    };
    if largest < NORMAL.end && !scales.iter().zip(offsets).any(small) {
        return 0;
    }
    (largest - (NORMAL.end - 1)).clamp(-126, 127)
}

/// Brings a row and the scales of its groups from a factor of `2^exponent` to the one that is stored, rounds the scales to f16 and returns
/// that exponent. No scale times `largest`, the largest value of a code, decodes to more than `f32` has.
pub(crate) fn round_scales(row: &mut [f32], scales: &mut [f32], largest: f32, exponent: i32) -> i32 {
    let stored = stored_exponent(scales, &[], exponent);
    multiply(row, exponent - stored);
    multiply(scales, exponent - stored);
    let most = limit(stored) / f64::from(largest);
    for scale in scales {
        let nearest = round(*scale);
        let fits = f64::from(nearest) <= most;
        *scale = if fits { nearest } else { round((most * (1.0 - 2f64.powi(-9))) as f32) };
    }
    stored
}

/// Multiplies by `2^exponent`, rounding once.
pub(crate) fn multiply(values: &mut [f32], exponent: i32) {
    if exponent != 0 {
        let factor = power_of_two(exponent);
        values.iter_mut().for_each(|v| *v = (f64::from(*v) * factor) as f32);
    }
}

/// The largest magnitude that a row of that exponent may decode to before it is multiplied.
pub(crate) fn limit(exponent: i32) -> f64 {
    f64::from(f32::MAX) * power_of_two(-exponent)
}

fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// `floor(log2(value))` of a positive number.
fn floor_log2(value: f32) -> i32 {
    (f64::from(value).to_bits() >> 52) as i32 - 1023
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_rows_are_left_alone() {
        let mut row = [0.5, -3.0, 0.0];
        assert_eq!((normalize(&mut row), row), (0, [0.5, -3.0, 0.0]));
        assert_eq!(normalize(&mut [0.0; 3]), 0);
    }

    #[test]
    fn unusual_rows_come_back_exactly() {
        for row in [[3e38, -1e38], [1e-38, 3e-40], [f32::MAX, 1.0], [f32::from_bits(1), 0.0]] {
            let mut scaled = row;
            let exponent = normalize(&mut scaled);
            assert!((1.0..2.0).contains(&scaled[0]), "{scaled:?}");
            multiply(&mut scaled, exponent);
            assert_eq!(scaled, row);
        }
    }

    #[test]
    fn exponents_follow_the_largest_parameter() {
        let cases: [(&[f32], &[f32], i32, i32); 8] = [
            (&[0.1, 0.2], &[-1.0, 1e-9], 0, 0),
            (&[0.0, 0.0], &[0.0, 0.0], 5, 0),
            (&[16384.0], &[], 0, 1),
            (&[6e-5], &[], 0, -28),
            (&[0.1, 6e-5], &[], 0, -17),
            (&[0.0], &[-1e-6], 0, -33),
            (&[1.0], &[-1.9], 120, 107),
            (&[1.0], &[], -149, -126),
        ];
        for (scales, offsets, exponent, expected) in cases {
            assert_eq!(stored_exponent(scales, offsets, exponent), expected, "{scales:?} {offsets:?}");
        }
    }
}
