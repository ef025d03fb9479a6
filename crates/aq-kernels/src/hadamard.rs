//! The block Hadamard transform, which spreads an outlier over its block. It is its own inverse.

use crate::isa::{Isa, Kernel, run};
use crate::lanes::LANES;

/// The largest block.
pub const MAX_SIZE: usize = 1024;

/// Transforms each block of `size` weights in place, orthonormally.
///
/// ```text
/// for h = 1, 2, 4, ... below size:  (x[i], x[i + h]) = (x[i] + x[i + h], x[i] - x[i + h])
/// then x[i] = x[i] * f32(1 / sqrt(size))
/// ```
///
/// Each operation is rounded to `f32`, in that order. At a size of `4^k` the factor is a power of two.
///
/// # Panics
/// When `size` is no power of two up to [`MAX_SIZE`], or `x` is not whole blocks.
///
/// ```
/// let mut x = [8.0, 0.0, 0.0, 0.0];
/// aq_kernels::hadamard::transform(&mut x, 4);
/// assert_eq!(x, [4.0; 4]);
/// ```
pub fn transform(x: &mut [f32], size: usize) {
    assert!(size.is_power_of_two() && size <= MAX_SIZE, "a power of two up to {MAX_SIZE}, not {size}");
    assert_eq!(x.len() % size, 0, "whole blocks of {size}");
    run(Transform { x, size });
}

/// The factor that makes the transform orthonormal.
pub(crate) fn factor(size: usize) -> f32 {
    (1.0 / (size as f64).sqrt()) as f32
}

struct Transform<'a> {
    x: &'a mut [f32],
    size: usize,
}

impl Kernel for Transform<'_> {
    type Output = ();

    #[inline(always)]
    fn call<I: Isa>(self, isa: I) {
        let Self { x, size } = self;
        let factor = factor(size);
        for block in x.chunks_exact_mut(size) {
            if size < LANES {
                small(block, factor);
            } else {
                large(isa, block, factor);
            }
        }
    }
}

#[inline(always)]
fn small(block: &mut [f32], factor: f32) {
    let mut h = 1;
    while h < block.len() {
        for i in 0..block.len() {
            if i & h == 0 {
                (block[i], block[i + h]) = (block[i] + block[i + h], block[i] - block[i + h]);
            }
        }
        h *= 2;
    }
    for v in block {
        *v *= factor;
    }
}

/// Steps within 16 lanes first, then steps between whole vectors.
#[inline(always)]
fn large<I: Isa>(isa: I, block: &mut [f32], factor: f32) {
    let vectors = block.as_chunks_mut::<LANES>().0;
    for v in vectors.iter_mut() {
        let lanes = within::<1, I>(isa, isa.load(v));
        let lanes = within::<2, I>(isa, lanes);
        let lanes = within::<4, I>(isa, lanes);
        isa.store(within::<8, I>(isa, lanes), v);
    }
    let mut h = 1;
    while h < vectors.len() {
        for pair in vectors.chunks_exact_mut(2 * h) {
            let (a, b) = pair.split_at_mut(h);
            for (a, b) in a.iter_mut().zip(b) {
                let (left, right) = (isa.load(a), isa.load(b));
                isa.store(isa.add(left, right), a);
                isa.store(isa.sub(left, right), b);
            }
        }
        h *= 2;
    }
    let factor = isa.splat(factor);
    for v in vectors {
        isa.store(isa.mul(isa.load(v), factor), v);
    }
}

/// One step at a distance of `H` lanes: `b - a` is `b + a * -1` to the last bit.
#[inline(always)]
fn within<const H: usize, I: Isa>(isa: I, v: I::F) -> I::F {
    let mut signs = [1.0; LANES];
    for (i, sign) in signs.iter_mut().enumerate() {
        *sign = if i & H == 0 { 1.0 } else { -1.0 };
    }
    isa.add(isa.swap::<H>(v), isa.mul(v, isa.load(&signs)))
}
