//! The grids on the whole range of 16 groups at a time.

use half::f16;

use crate::float16::{Convert, NarrowF16, WidenF16};
use crate::lanes::{LANES, clamp, round_even};

/// The grids of 16 groups.
pub(super) struct Grids {
    pub(super) fitted: [f32; LANES],
    pub(super) scale: [f32; LANES],
    pub(super) zero: [f32; LANES],
    pub(super) inverse: [f32; LANES],
    pub(super) low: [f32; LANES],
}

impl Grids {
    #[inline(always)]
    pub(super) fn new(low: &[f32; LANES], high: &[f32; LANES], top: f32) -> Self {
        let [mut fitted, mut scale, mut zero, mut inverse, mut grid_low] = [[0.0; LANES]; 5];
        for i in 0..LANES {
            fitted[i] = (high[i] - low[i]) / top;
            let bits = NarrowF16::convert(if fitted[i] < 65504.0 { fitted[i] } else { 65504.0 }).to_bits();
            let nearest = WidenF16::convert(f16::from_bits(bits));
            let smaller = WidenF16::convert(f16::from_bits(bits.wrapping_sub(1)));
            let reached = (low[i] + fitted[i] * top) / nearest + zero_point(low[i], nearest, top);
            let unused = round_even(clamp(reached, top)) < top;
            scale[i] = if unused && bits > 1 { smaller } else { nearest };
            zero[i] = if bits > 0 { zero_point(low[i], scale[i], top) } else { 0.0 };
            inverse[i] = if bits > 0 { 1.0 / scale[i] } else { 0.0 };
            grid_low[i] = -(zero[i] * scale[i]);
        }
        Grids { fitted, scale, zero, inverse, low: grid_low }
    }
}

#[inline(always)]
fn zero_point(low: f32, scale: f32, top: f32) -> f32 {
    round_even(clamp(-low / scale, top))
}
