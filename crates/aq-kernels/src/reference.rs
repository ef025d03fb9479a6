//! A plain twin of every kernel, written to be seen right rather than to be fast. Tests and benchmarks compare with it.
#![allow(missing_docs, reason = "each function is documented at the kernel of its name")]

pub mod codebook;
mod hessian;
mod rans;
mod trellis;

use half::{bf16, f16};

use crate::encode::Sums;
use crate::lanes::LANES;
use crate::metric::Comparison;
use crate::product::{Matrix, MatrixOffsets, TokenI8};
use crate::search::{self, BLOCK, Clip, Grid, REFITS, Range, in_order};

pub use hessian::*;
pub use rans::{rans_decode, rans_encode, rans_reconstruct, rans_reconstruct_codes};
pub use trellis::{
    trellis_decode, trellis_descend, trellis_encode, trellis_encode_with_feedback, trellis_pack,
};

pub fn min_max(x: &[f32]) -> (f32, f32) {
    let low = x.iter().fold(f32::INFINITY, |a, &v| a.min(v));
    let high = x.iter().fold(f32::NEG_INFINITY, |a, &v| a.max(v));
    (low + 0.0, high + 0.0)
}

pub fn quantize(x: &[f32], inverse_scale: f32, offset: f32, max_code: u8, codes: &mut [u8]) {
    for (code, x) in codes.iter_mut().zip(x) {
        *code = ((x - offset) * inverse_scale).clamp(0.0, f32::from(max_code)).round_ties_even() as u8;
    }
}

pub fn dequantize_offset(codes: &[u8], scale: f32, offset: f32, out: &mut [f32]) {
    for (out, &code) in out.iter_mut().zip(codes) {
        *out = f32::from(code) * scale + offset;
    }
}

pub fn dequantize_zero(codes: &[u8], scale: f32, zero: u8, out: &mut [f32]) {
    for (out, &code) in out.iter_mut().zip(codes) {
        *out = (i32::from(code) - i32::from(zero)) as f32 * scale;
    }
}

/// The scale and zero point of a group for [`crate::encode::encode_min_max`], with the range and the scale before rounding.
pub fn min_max_grid(x: &[f32], top: f32) -> (f32, f32, [f32; 3]) {
    let (low, high) = min_max(x);
    let (low, high) = (low.min(0.0), high.max(0.0));
    let fitted = (high - low) / top;
    let scale = f16::from_f32(fitted.min(65504.0));
    let zero = |scale: f32| (-low / scale).round_ties_even().clamp(0.0, top) + 0.0;
    let seen = [low, high, fitted];
    let (nearest, below) = (scale.to_f32(), f16::from_bits(scale.to_bits().saturating_sub(1)).to_f32());
    if nearest == 0.0 {
        return (0.0, 0.0, seen);
    }
    let largest_code = ((low + fitted * top) / nearest + zero(nearest)).round_ties_even();
    let scale = if largest_code < top && below > 0.0 { below } else { nearest };
    (scale, zero(scale), seen)
}

pub fn grid_sums(group: usize, x: &[f32], codes: &[u8], scales: &[f32], zeros: &[f32]) -> Sums {
    let (mut norm, mut product) = ([0.0; 16], [0.0; 16]);
    for (g, (x, codes)) in x.chunks(group).zip(codes.chunks(group)).enumerate() {
        for (x, codes) in x.chunks(128).zip(codes.chunks(128)) {
            for lane in 0..16 {
                let in_lane = || x.iter().zip(codes).skip(lane).step_by(16);
                let add = |sum: f32, term: f32| sum + term;
                let squares = in_lane().map(|(x, _)| x * x).fold(0.0, add);
                let products = in_lane().map(|(x, &code)| x * (f32::from(code) - zeros[g])).fold(0.0, add);
                norm[lane] += f64::from(squares);
                product[lane] += f64::from(products) * f64::from(scales[g]);
            }
        }
    }
    Sums { norm: sum(norm.into_iter()), product: sum(product.into_iter()) }
}

/// Sets `width` bits of a stream of bits, which are 0 so far, from bit `at` on.
fn put(out: &mut [u8], at: usize, width: usize, value: u8) {
    for i in 0..width {
        out[(at + i) / 8] |= (value >> i & 1) << ((at + i) % 8);
    }
}

/// Where each piece of each code goes: `(code, its first bit, width, bit of the output)`.
fn layout(bits: usize, n: usize) -> Vec<(usize, usize, usize, usize)> {
    let mut pieces = Vec::new();
    for start in (0..n).step_by(128) {
        let len = (n - start).min(128);
        let m = len - len % 8;
        let (mut base, mut first) = (start * bits, 0);
        for p in [8, 4, 2, 1].into_iter().filter(|p| bits & p != 0) {
            let stride = m * p / 8;
            for i in 0..m {
                pieces.push((start + i, first, p, base + i % stride * 8 + i / stride * p));
            }
            (base, first) = (base + m * p, first + p);
        }
        for i in m..len {
            pieces.push((start + i, 0, bits, base + (i - m) * bits));
        }
    }
    pieces
}

pub fn pack(bits: u8, codes: &[u8], out: &mut [u8]) {
    out.fill(0);
    for (code, first, width, at) in layout(usize::from(bits), codes.len()) {
        put(out, at, width, codes[code] >> first);
    }
}

pub fn unpack(bits: u8, packed: &[u8], codes: &mut [u8]) {
    codes.fill(0);
    for (code, first, width, at) in layout(usize::from(bits), codes.len()) {
        for i in 0..width {
            codes[code] |= (packed[(at + i) / 8] >> ((at + i) % 8) & 1) << (first + i);
        }
    }
}

pub fn widen_f16(x: &[f16], out: &mut [f32]) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out = x.to_f32());
}

pub fn widen_bf16(x: &[bf16], out: &mut [f32]) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out = x.to_f32());
}

pub fn narrow_f16(x: &[f32], out: &mut [f16]) {
    out.iter_mut().zip(x).for_each(|(out, &x)| *out = f16::from_f32(x));
}

pub fn narrow_bf16(x: &[f32], out: &mut [bf16]) {
    out.iter_mut().zip(x).for_each(|(out, &x)| *out = bf16::from_f32(x));
}

/// Adds up in 16 lanes and folds them: `((0 + 8) + (4 + 12)) + ...`.
fn sum<T: Copy + Default + std::ops::Add<Output = T>>(values: impl Iterator<Item = T>) -> T {
    let mut lanes = [T::default(); 16];
    values.enumerate().for_each(|(i, v)| lanes[i % 16] = lanes[i % 16] + v);
    let eight: [T; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
    let four: [T; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

fn wide<'a>(a: &'a [f32], b: &'a [f32]) -> impl Iterator<Item = (f64, f64)> + Clone + 'a {
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a), f64::from(b)))
}

pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    sum(wide(a, b).map(|(a, b)| a * b))
}

pub fn sum_squares(a: &[f32]) -> f64 {
    sum(a.iter().map(|&a| f64::from(a) * f64::from(a)))
}

pub fn squared_error(a: &[f32], b: &[f32]) -> f64 {
    sum(wide(a, b).map(|(a, b)| (a - b) * (a - b)))
}

pub fn first_non_finite(x: &[f32]) -> Option<usize> {
    x.iter().position(|x| !x.is_finite())
}

pub fn compare(a: &[f32], b: &[f32]) -> Comparison {
    Comparison {
        dot: dot(a, b),
        aa: sum_squares(a),
        bb: sum_squares(b),
        error: squared_error(a, b),
        max_abs: wide(a, b).fold(0.0, |max, (a, b)| (a - b).abs().max(max)),
    }
}

/// All the clipped ranges and all the refits, none skipped.
pub fn ls_search(x: &[f32], importance: Option<&[f32]>, max_code: u8) -> (f32, f32) {
    let ones = vec![1.0; x.len()];
    let h = importance.unwrap_or(&ones);
    let top = f32::from(max_code);
    let (low, high) = min_max(x);
    let range = Range::new(low, high, top);
    if x.is_empty() || !range.usable() {
        return (0.0, if x.is_empty() { 0.0 } else { low });
    }
    let error = |clip: Clip, sums: usize| in_order(clip_error(x, h, top, range.grid(clip), sums));
    let best_of = |clips: &[Clip]| {
        let errors = clips.iter().map(|&clip| error(clip, LANES / clips.len()));
        let (at, least) = errors.enumerate().min_by_key(|&(_, error)| error).expect("there are clips");
        (clips[at], least)
    };
    let (even, least) = best_of(&Clip::even());
    let (moved, error) = best_of(&even.around(top));
    let mut best = range.grid(if error < least { moved } else { even });
    let error = |grid: Grid| grid.in_weights(sums(x, h, top, grid).dd);
    for _ in 0..REFITS {
        let grid = best.refit(&sums(x, h, top, best));
        best = if grid.usable() && error(grid) < error(best) { grid } else { best };
    }
    (best.scale, best.offset)
}

/// The error of a grid, each block in as many sums as weights are looked at together.
fn clip_error(x: &[f32], h: &[f32], top: f32, grid: Grid, sums: usize) -> f64 {
    let blocks = x.chunks(BLOCK).zip(h.chunks(BLOCK)).map(|(x, h)| {
        let mut sum = [0.0; 2];
        for (i, (&x, &h)) in x.iter().zip(h).enumerate() {
            let v = (x - grid.offset) * grid.inverse;
            let d = v - v.clamp(0.0, top).round_ties_even();
            sum[i % sums] += d * d * h;
        }
        f64::from(sum[0] + sum[1])
    });
    grid.in_weights(blocks.sum())
}

fn sums(x: &[f32], h: &[f32], top: f32, grid: Grid) -> search::Sums {
    let mut total = search::Sums::default();
    for (x, h) in x.chunks(BLOCK).zip(h.chunks(BLOCK)) {
        let v = |i: usize| (x[i] - grid.offset) * grid.inverse;
        let k = |i: usize| v(i).clamp(0.0, top).round_ties_even();
        let d = |i: usize| v(i) - k(i);
        total.h += f64::from(sum(h.iter().copied()));
        total.k += f64::from(sum((0..x.len()).map(|i| h[i] * k(i))));
        total.kk += f64::from(sum((0..x.len()).map(|i| h[i] * k(i) * k(i))));
        total.d += f64::from(sum((0..x.len()).map(|i| h[i] * d(i))));
        total.kd += f64::from(sum((0..x.len()).map(|i| h[i] * d(i) * k(i))));
        total.dd += f64::from(sum((0..x.len()).map(|i| d(i) * d(i) * h[i])));
    }
    total
}

/// Codes of a row of a matrix, and the scale, zero point and offset of each group.
fn matrix_row(m: &Matrix<'_>, r: usize) -> (Vec<u8>, Vec<(f32, u8, f32)>) {
    let (mut codes, groups) = (vec![0; m.cols], m.cols.div_ceil(m.group));
    let bytes = m.packed.len() / (m.scales.len() / groups);
    let mut rest = &m.packed[r * bytes..][..bytes];
    for codes in codes.chunks_mut(m.group) {
        let (packed, after) = rest.split_at(crate::pack::packed_len(m.bits, codes.len()));
        unpack(m.bits, packed, codes);
        rest = after;
    }
    let grid = |g: usize| match m.offsets {
        MatrixOffsets::Zero(zeros) => (m.scales[g].to_f32(), zeros[g], 0.0),
        MatrixOffsets::Value(offsets) => (m.scales[g].to_f32(), 0, offsets[g].to_f32()),
    };
    (codes, (r * groups..(r + 1) * groups).map(grid).collect())
}

pub fn matvec_i8(m: &Matrix<'_>, token: TokenI8<'_>, y: &mut [f32]) {
    for (r, y) in y.iter_mut().enumerate() {
        let (codes, grids) = matrix_row(m, r);
        let groups = codes.chunks(m.group).zip(token.values.chunks(m.group)).zip(&grids);
        let terms = groups.map(|((codes, values), &(scale, zero, offset))| {
            let dot: i32 = codes.iter().zip(values).map(|(&c, &v)| i32::from(c) * i32::from(v)).sum();
            let sum: i32 = values.iter().map(|&v| i32::from(v)).sum();
            match m.offsets {
                MatrixOffsets::Zero(_) => scale * (dot - i32::from(zero) * sum) as f32,
                MatrixOffsets::Value(_) => scale * dot as f32 + offset * sum as f32,
            }
        });
        *y = sum(terms) * token.scale;
    }
}

pub fn matvec_f32(m: &Matrix<'_>, x: &[f32], y: &mut [f32]) {
    for (r, y) in y.iter_mut().enumerate() {
        let (codes, grids) = matrix_row(m, r);
        let weight = |i: usize| {
            let (scale, zero, offset) = grids[i / m.group];
            match m.offsets {
                MatrixOffsets::Zero(_) => (f32::from(codes[i]) - f32::from(zero)) * scale,
                MatrixOffsets::Value(_) => f32::from(codes[i]) * scale + offset,
            }
        };
        *y = sum((0..m.cols).map(|i| weight(i) * x[i]));
    }
}

pub fn hadamard(x: &mut [f32], size: usize) {
    for block in x.chunks_mut(size) {
        let mut h = 1;
        while h < size {
            let old = block.to_vec();
            for (i, v) in block.iter_mut().enumerate() {
                *v = if i & h == 0 { old[i] + old[i + h] } else { old[i - h] - old[i] };
            }
            h *= 2;
        }
        block.iter_mut().for_each(|v| *v *= (1.0 / (size as f64).sqrt()) as f32);
    }
}
