//! Half precision and bfloat16 to `f32` and back, as integer arithmetic that compilers turn into vectors.
//!
//! Widening is exact. Narrowing rounds to nearest, ties to even; what is too large becomes infinity. A NaN stays a NaN
//! with its sign and the upper bits of its payload, made quiet.

use half::{bf16, f16};
use pulp::{Simd, WithSimd};

use crate::dispatch::run;

/// Widens half precision to `f32`, exactly.
///
/// # Panics
/// When `x` and `out` differ in length.
///
/// ```
/// let mut out = [0.0; 2];
/// aq_kernels::float16::widen_f16(&[half::f16::ONE, half::f16::MAX], &mut out);
/// assert_eq!(out, [1.0, 65504.0]);
/// ```
pub fn widen_f16(x: &[f16], out: &mut [f32]) {
    map(x, out, WidenF16);
}

/// Widens bfloat16 to `f32`, exactly.
///
/// # Panics
/// When `x` and `out` differ in length.
///
/// ```
/// let mut out = [0.0; 2];
/// aq_kernels::float16::widen_bf16(&[half::bf16::ONE, half::bf16::NEG_INFINITY], &mut out);
/// assert_eq!(out, [1.0, f32::NEG_INFINITY]);
/// ```
pub fn widen_bf16(x: &[bf16], out: &mut [f32]) {
    map(x, out, WidenBf16);
}

/// Narrows `f32` to half precision, rounding to nearest, ties to even; from 65520 on the result is infinite.
///
/// # Panics
/// When `x` and `out` differ in length.
///
/// ```
/// let mut out = [half::f16::ZERO; 3];
/// aq_kernels::float16::narrow_f16(&[1.0, 2049.0, 65520.0], &mut out);
/// assert_eq!(out.map(f32::from), [1.0, 2048.0, f32::INFINITY]);
/// ```
pub fn narrow_f16(x: &[f32], out: &mut [f16]) {
    map(x, out, NarrowF16);
}

/// Narrows `f32` to bfloat16, rounding to nearest, ties to even.
///
/// # Panics
/// When `x` and `out` differ in length.
///
/// ```
/// let mut out = [half::bf16::ZERO; 2];
/// aq_kernels::float16::narrow_bf16(&[1.0, 257.0], &mut out);
/// assert_eq!(out.map(f32::from), [1.0, 256.0]);
/// ```
pub fn narrow_bf16(x: &[f32], out: &mut [bf16]) {
    map(x, out, NarrowBf16);
}

/// A conversion of one element.
pub(crate) trait Convert<A, B> {
    fn convert(a: A) -> B;
}

pub(crate) struct WidenF16;
pub(crate) struct WidenBf16;
pub(crate) struct NarrowF16;
pub(crate) struct NarrowBf16;

impl Convert<f16, f32> for WidenF16 {
    #[inline(always)]
    fn convert(a: f16) -> f32 {
        let bits = u32::from(a.to_bits());
        let (sign, magnitude) = ((bits & 0x8000) << 16, (bits & 0x7fff) << 13);
        let normal = magnitude + (112 << 23);
        // Adding 2^-14 makes a subnormal fraction normal; taking it away again is exact.
        let subnormal = (f32::from_bits(magnitude + (113 << 23)) - f32::from_bits(113 << 23)).to_bits();
        let quiet = if magnitude > 0x0f80_0000 { 0x0040_0000 } else { 0 };
        let special = (magnitude + (224 << 23)) | quiet;
        let finite = if magnitude < 1 << 23 { subnormal } else { normal };
        f32::from_bits(sign | if magnitude >= 0x0f80_0000 { special } else { finite })
    }
}

impl Convert<bf16, f32> for WidenBf16 {
    #[inline(always)]
    fn convert(a: bf16) -> f32 {
        let bits = u32::from(a.to_bits()) << 16;
        let quiet = if bits & 0x7fff_ffff > 0x7f80_0000 { 0x0040_0000 } else { 0 };
        f32::from_bits(bits | quiet)
    }
}

impl Convert<f32, f16> for NarrowF16 {
    #[inline(always)]
    fn convert(a: f32) -> f16 {
        let bits = a.to_bits();
        let (sign, magnitude) = ((bits >> 16) & 0x8000, bits & 0x7fff_ffff);
        let odd = (magnitude >> 13) & 1;
        let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + odd) >> 13;
        // Beside 0.5 the last bit of an f32 is 2^-24, the unit of subnormal halves: the sum rounds as wanted.
        let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5_f32.to_bits());
        let payload = 0x200 | ((magnitude >> 13) & 0x3ff);
        let special = 0x7c00 | if magnitude > 0x7f80_0000 { payload } else { 0 };
        let finite = if magnitude < 113 << 23 { subnormal } else { normal };
        f16::from_bits((sign | if magnitude >= 143 << 23 { special } else { finite }) as u16)
    }
}

impl Convert<f32, bf16> for NarrowBf16 {
    #[inline(always)]
    fn convert(a: f32) -> bf16 {
        let bits = a.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        let nan = bits & 0x7fff_ffff > 0x7f80_0000;
        bf16::from_bits((if nan { bits | 0x0040_0000 } else { rounded } >> 16) as u16)
    }
}

fn map<A: Copy, B, C: Convert<A, B>>(x: &[A], out: &mut [B], _: C) {
    assert_eq!(x.len(), out.len(), "slices of one length");
    run(Map::<A, B, C> { x, out, how: std::marker::PhantomData });
}

struct Map<'a, A, B, C> {
    x: &'a [A],
    out: &'a mut [B],
    how: std::marker::PhantomData<C>,
}

impl<A: Copy, B, C: Convert<A, B>> WithSimd for Map<'_, A, B, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (out, &x) in self.out.iter_mut().zip(self.x) {
            *out = C::convert(x);
        }
    }
}
