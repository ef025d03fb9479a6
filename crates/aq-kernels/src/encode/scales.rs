//! Scales times the gain of their row.

use pulp::{Simd, WithSimd};

use crate::dispatch::run;
use crate::float16::{Convert, NarrowF16, WidenF16};
use crate::lanes::{LANES, fold_with};

/// Multiplies scales, none of which is negative, by `factor` and rounds them to half precision.
///
/// Returns the smallest one above 0 and the largest one, both before they were rounded to half precision; infinity and 0 where
/// there is none.
///
/// ```
/// let mut scales = [0.5, 0.0, 0.1];
/// assert_eq!(aq_kernels::encode::multiply_scales(&mut scales, 2.0), (0.2, 1.0));
/// assert_eq!(scales, [1.0, 0.0, half::f16::from_f32(0.2).to_f32()]);
/// ```
pub fn multiply_scales(scales: &mut [f32], factor: f32) -> (f32, f32) {
    run(MultiplyScales { scales, factor })
}

struct MultiplyScales<'a> {
    scales: &'a mut [f32],
    factor: f32,
}

impl WithSimd for MultiplyScales<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (f32, f32) {
        let (body, tail) = self.scales.as_chunks_mut::<LANES>();
        let mut seen = Seen { smallest: [f32::INFINITY; LANES], largest: [0.0; LANES] };
        for scales in body {
            seen.multiply(scales, self.factor);
        }
        let mut last = [0.0; LANES];
        last[..tail.len()].copy_from_slice(tail);
        seen.multiply(&mut last, self.factor);
        tail.copy_from_slice(&last[..tail.len()]);
        let smallest = fold_with(seen.smallest, |a, b| if b < a { b } else { a });
        (smallest, fold_with(seen.largest, |a, b| if b > a { b } else { a }))
    }
}

struct Seen {
    smallest: [f32; LANES],
    largest: [f32; LANES],
}

impl Seen {
    #[inline(always)]
    fn multiply(&mut self, scales: &mut [f32; LANES], factor: f32) {
        for ((stored, smallest), largest) in scales.iter_mut().zip(&mut self.smallest).zip(&mut self.largest)
        {
            let scale = *stored * factor;
            let positive = if scale > 0.0 { scale } else { f32::INFINITY };
            *smallest = if positive < *smallest { positive } else { *smallest };
            *largest = if scale > *largest { scale } else { *largest };
            *stored = WidenF16::convert(NarrowF16::convert(scale));
        }
    }
}
