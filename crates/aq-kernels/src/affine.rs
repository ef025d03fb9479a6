//! Codes from weights and weights from codes, given the scale and offset of a group.

use pulp::{Simd, WithSimd};

use crate::dispatch::run;
use crate::isa::{self, Isa, Kernel};
use crate::lanes::{LANES, clamp, fold_with, round_code};

/// The smallest and the largest value; `(inf, -inf)` for an empty slice.
///
/// NaN is skipped. Negative zero comes back as positive zero, so that the result does not depend on the order.
///
/// ```
/// assert_eq!(aq_kernels::affine::min_max(&[0.5, -2.0, 1.0]), (-2.0, 1.0));
/// assert_eq!(aq_kernels::affine::min_max(&[]), (f32::INFINITY, f32::NEG_INFINITY));
/// ```
pub fn min_max(x: &[f32]) -> (f32, f32) {
    isa::run(MinMax { x })
}

/// Turns weights into codes.
///
/// ```text
/// codes[i] = round_ties_even(clamp((x[i] - offset) * inverse_scale, 0, max_code))
/// ```
///
/// The difference and the product are each rounded to `f32`. NaN gives code 0. An inverse scale of 0 gives code 0 for
/// every finite weight, which is right for a constant group.
///
/// # Panics
/// When `codes` and `x` differ in length.
///
/// ```
/// let mut codes = [0; 4];
/// aq_kernels::affine::quantize(&[-1.0, 0.25, 0.75, 9.0], 2.0, 0.0, 15, &mut codes);
/// assert_eq!(codes, [0, 0, 2, 15]);
/// ```
pub fn quantize(x: &[f32], inverse_scale: f32, offset: f32, max_code: u8, codes: &mut [u8]) {
    assert_eq!(x.len(), codes.len(), "one code for each weight");
    isa::run(Quantize { x, inverse_scale, offset, top: f32::from(max_code), codes });
}

/// Turns codes into weights with an offset in units of the weights.
///
/// ```text
/// out[i] = codes[i] * scale + offset
/// ```
///
/// The product and the sum are each rounded to `f32`; they are never fused.
///
/// # Panics
/// When `out` and `codes` differ in length.
///
/// ```
/// let mut out = [0.0; 3];
/// aq_kernels::affine::dequantize_offset(&[0, 1, 15], 0.5, -4.0, &mut out);
/// assert_eq!(out, [-4.0, -3.5, 3.5]);
/// ```
pub fn dequantize_offset(codes: &[u8], scale: f32, offset: f32, out: &mut [f32]) {
    assert_eq!(codes.len(), out.len(), "one weight for each code");
    run(DequantizeOffset { codes, scale, offset, out });
}

/// Turns codes into weights with an integer zero point.
///
/// ```text
/// out[i] = (codes[i] - zero) * scale
/// ```
///
/// The difference is exact; the product is rounded to `f32`.
///
/// # Panics
/// When `out` and `codes` differ in length.
///
/// ```
/// let mut out = [0.0; 3];
/// aq_kernels::affine::dequantize_zero(&[0, 8, 15], 0.5, 8, &mut out);
/// assert_eq!(out, [-4.0, 0.0, 3.5]);
/// ```
pub fn dequantize_zero(codes: &[u8], scale: f32, zero: u8, out: &mut [f32]) {
    assert_eq!(codes.len(), out.len(), "one weight for each code");
    run(DequantizeZero { codes, scale, zero: f32::from(zero), out });
}

struct MinMax<'a> {
    x: &'a [f32],
}

impl Kernel for MinMax<'_> {
    type Output = (f32, f32);

    /// Two ranges in turn, so that none waits for the one before; more do not fit into the registers of AVX2.
    #[inline(always)]
    fn call<I: Isa>(self, isa: I) -> (f32, f32) {
        let (body, tail) = self.x.as_chunks::<{ 2 * LANES }>();
        let mut low = [isa.splat(f32::INFINITY); 2];
        let mut high = [isa.splat(f32::NEG_INFINITY); 2];
        for chunk in body {
            for (i, x) in chunk.as_chunks().0.iter().enumerate() {
                let v = isa.load(x);
                (low[i], high[i]) = (isa.min(v, low[i]), isa.max(v, high[i]));
            }
        }
        let (low, high) = (isa.smallest(isa.min(low[0], low[1])), isa.largest(isa.max(high[0], high[1])));
        let (tail_low, tail_high) = min_max_lanes(tail);
        let low = if tail_low < low { tail_low } else { low };
        let high = if tail_high > high { tail_high } else { high };
        (low + 0.0, high + 0.0)
    }
}

/// [`min_max`] of few weights, for kernels that need it on their way.
#[inline(always)]
pub(crate) fn min_max_lanes(x: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let (body, tail) = x.as_chunks::<LANES>();
    // Two loops: in one, compilers turn the lanes of AVX-512 around and back.
    for chunk in body {
        for i in 0..LANES {
            low[i] = if chunk[i] < low[i] { chunk[i] } else { low[i] };
        }
        for i in 0..LANES {
            high[i] = if chunk[i] > high[i] { chunk[i] } else { high[i] };
        }
    }
    for (i, &v) in tail.iter().enumerate() {
        low[i] = if v < low[i] { v } else { low[i] };
        high[i] = if v > high[i] { v } else { high[i] };
    }
    let low = fold_with(low, |a, b| if b < a { b } else { a });
    let high = fold_with(high, |a, b| if b > a { b } else { a });
    (low + 0.0, high + 0.0)
}

struct Quantize<'a> {
    x: &'a [f32],
    inverse_scale: f32,
    offset: f32,
    top: f32,
    codes: &'a mut [u8],
}

impl Kernel for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn call<I: Isa>(self, isa: I) {
        let (offset, inverse) = (isa.splat(self.offset), isa.splat(self.inverse_scale));
        let (zero, top) = (isa.splat(0.0), isa.splat(self.top));
        let whole = if I::ARRAYS { 0 } else { self.x.len() / LANES * LANES };
        let ((body, tail), (codes, last)) = (self.x.split_at(whole), self.codes.split_at_mut(whole));
        for (x, codes) in body.as_chunks().0.iter().zip(codes.as_chunks_mut().0) {
            let v = isa.mul(isa.sub(isa.load(x), offset), inverse);
            isa.narrow(isa.round(isa.min(isa.max(v, zero), top)), codes);
        }
        for (code, x) in last.iter_mut().zip(tail) {
            *code = round_code(clamp((x - self.offset) * self.inverse_scale, self.top));
        }
    }
}

struct DequantizeOffset<'a> {
    codes: &'a [u8],
    scale: f32,
    offset: f32,
    out: &'a mut [f32],
}

impl WithSimd for DequantizeOffset<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (out, &code) in self.out.iter_mut().zip(self.codes) {
            *out = f32::from(code) * self.scale + self.offset;
        }
    }
}

struct DequantizeZero<'a> {
    codes: &'a [u8],
    scale: f32,
    zero: f32,
    out: &'a mut [f32],
}

impl WithSimd for DequantizeZero<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (out, &code) in self.out.iter_mut().zip(self.codes) {
            *out = (f32::from(code) - self.zero) * self.scale;
        }
    }
}
