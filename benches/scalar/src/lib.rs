//! What the kernels compute, as the plain loops one would write, one weight after the other.
//!
//! The root manifest compiles this crate at `opt-level = 1`, at which no loop becomes vectors, so that "so many times a
//! plain loop" means the same on every compiler. Each gives the same bits as its kernel; benchmarks check that before
//! they time it.

mod rans;
mod trellis;

use half::f16;

pub use rans::{rans_decode, rans_reconstruct};
pub use trellis::{trellis_decode, trellis_encode};

/// Lanes of the sums of the kernels.
const LANES: usize = 16;
/// Codes that are packed together.
const CHUNK: usize = 128;

/// The smallest and the largest weight.
#[inline(never)]
pub fn min_max(x: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    for &v in x {
        low = if v < low { v } else { low };
        high = if v > high { v } else { high };
    }
    (low + 0.0, high + 0.0)
}

/// Codes from weights.
#[inline(never)]
pub fn quantize(x: &[f32], inverse_scale: f32, offset: f32, max_code: u8, codes: &mut [u8]) {
    let top = f32::from(max_code);
    for (code, x) in codes.iter_mut().zip(x) {
        *code = round(clamp((x - offset) * inverse_scale, top));
    }
}

/// Weights from codes and the value of code 0.
#[inline(never)]
pub fn dequantize_offset(codes: &[u8], scale: f32, offset: f32, out: &mut [f32]) {
    for (out, &code) in out.iter_mut().zip(codes) {
        *out = f32::from(code) * scale + offset;
    }
}

/// Weights from codes and the code of 0.
#[inline(never)]
pub fn dequantize_zero(codes: &[u8], scale: f32, zero: f32, out: &mut [f32]) {
    for (out, &code) in out.iter_mut().zip(codes) {
        *out = (f32::from(code) - zero) * scale;
    }
}

/// The parts that a code of `bits` bits is stored in: the first bit and the width of each.
fn parts(bits: usize) -> impl Iterator<Item = (usize, usize)> {
    let widths = [8, 4, 2, 1].into_iter().filter(move |p| bits & p != 0);
    widths.scan(0, |first, width| {
        let part = (*first, width);
        *first += width;
        Some(part)
    })
}

/// Packs codes. Every chunk of 128, and what is left, is a multiple of 8.
#[inline(never)]
pub fn pack(bits: u8, codes: &[u8], out: &mut [u8]) {
    let mut rest = out;
    for codes in codes.chunks(CHUNK) {
        for (first, width) in parts(usize::from(bits)) {
            let (part, after) = rest.split_at_mut(codes.len() * width / 8);
            let mask = u8::MAX >> (8 - width);
            for (at, codes) in codes.chunks(part.len()).enumerate() {
                for (byte, code) in part.iter_mut().zip(codes) {
                    let old = if at == 0 { 0 } else { *byte };
                    *byte = old | (code >> first & mask) << (at * width);
                }
            }
            rest = after;
        }
    }
}

/// Undoes [`pack`].
#[inline(never)]
pub fn unpack(bits: u8, packed: &[u8], codes: &mut [u8]) {
    let mut rest = packed;
    for codes in codes.chunks_mut(CHUNK) {
        for (first, width) in parts(usize::from(bits)) {
            let (part, after) = rest.split_at(codes.len() * width / 8);
            let mask = u8::MAX >> (8 - width);
            for (at, codes) in codes.chunks_mut(part.len()).enumerate() {
                for (byte, code) in part.iter().zip(codes) {
                    let old = if first == 0 { 0 } else { *code };
                    *code = old | (byte >> (at * width) & mask) << first;
                }
            }
            rest = after;
        }
    }
}

/// Weights to packed codes on the whole range of each group, 0 included.
///
/// # Panics
/// When a group is no multiple of 8 weights, or longer than 1024.
#[inline(never)]
pub fn encode(bits: u8, group: usize, x: &[f32], (scales, zeros): (&mut [f32], &mut [f32]), out: &mut [u8]) {
    let top = u8::MAX >> (8 - bits);
    let mut codes = [0; 1024];
    let pieces = x.chunks(group).zip(out.chunks_mut(group / 8 * usize::from(bits)));
    for (((x, out), scale), zero) in pieces.zip(scales).zip(zeros) {
        (*scale, *zero) = grid(x, f32::from(top));
        let inverse = if *scale > 0.0 { 1.0 / *scale } else { 0.0 };
        let codes = &mut codes[..x.len()];
        quantize(x, inverse, -(*zero * *scale), top, codes);
        pack(bits, codes, out);
    }
}

/// The scale and the code of 0 of a group.
fn grid(x: &[f32], top: f32) -> (f32, f32) {
    let (low, high) = min_max(x);
    let (low, high) = (low.min(0.0), high.max(0.0));
    let fitted = (high - low) / top;
    let nearest = f16::from_f32(fitted.min(65504.0));
    let smaller = f16::from_bits(nearest.to_bits().saturating_sub(1)).to_f32();
    let nearest = nearest.to_f32();
    if nearest == 0.0 {
        return (0.0, 0.0);
    }
    let zero = |scale: f32| f32::from(round(clamp(-low / scale, top)));
    let largest = round(clamp((low + fitted * top) / nearest + zero(nearest), top));
    let scale = if f32::from(largest) < top && smaller > 0.0 { smaller } else { nearest };
    (scale, zero(scale))
}

/// Packed codes to weights.
///
/// # Panics
/// When a group is no multiple of 8 weights, or longer than 1024.
#[inline(never)]
pub fn decode(bits: u8, group: usize, packed: &[u8], scales: &[f32], zeros: &[u8], out: &mut [f32]) {
    let mut codes = [0; 1024];
    let pieces = packed.chunks(group / 8 * usize::from(bits)).zip(out.chunks_mut(group));
    for ((packed, out), (&scale, &zero)) in pieces.zip(scales.iter().zip(zeros)) {
        let codes = &mut codes[..out.len()];
        unpack(bits, packed, codes);
        dequantize_zero(codes, scale, f32::from(zero), out);
    }
}

/// Dot product, both sums of squares, squared error and largest difference.
#[inline(never)]
pub fn compare(a: &[f32], b: &[f32]) -> [f64; 5] {
    let ([mut dot, mut aa, mut bb, mut error], mut max) = ([[0.0; LANES]; 4], 0.0);
    for (i, (&a, &b)) in a.iter().zip(b).enumerate() {
        let (a, b, lane) = (f64::from(a), f64::from(b), i % LANES);
        let difference = a - b;
        dot[lane] += a * b;
        aa[lane] += a * a;
        bb[lane] += b * b;
        error[lane] += difference * difference;
        max = if difference.abs() > max { difference.abs() } else { max };
    }
    [fold(dot), fold(aa), fold(bb), fold(error), max]
}

/// The dot product.
#[inline(never)]
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0; LANES];
    for (i, (&a, &b)) in a.iter().zip(b).enumerate() {
        lanes[i % LANES] += f64::from(a) * f64::from(b);
    }
    fold(lanes)
}

/// The sum of the squared differences.
#[inline(never)]
pub fn squared_error(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0; LANES];
    for (i, (&a, &b)) in a.iter().zip(b).enumerate() {
        let difference = f64::from(a) - f64::from(b);
        lanes[i % LANES] += difference * difference;
    }
    fold(lanes)
}

/// The upper half onto the lower half, until one is left.
fn fold(mut lanes: [f64; LANES]) -> f64 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

#[inline(always)]
fn clamp(v: f32, top: f32) -> f32 {
    let v = if v > 0.0 { v } else { 0.0 };
    if v < top { v } else { top }
}

/// Adding 1.5 * 2^23 leaves no bits for a fraction.
#[inline(always)]
fn round(v: f32) -> u8 {
    (v + 12_582_912.0).to_bits() as u8
}
