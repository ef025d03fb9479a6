//! Sums over weights in `f64`: dot products, errors, and the comparison of a tensor with its quantized form.
//!
//! Inputs are widened to `f64` first, so products of two weights are exact. Element `i` is added to lane `i % 16` and
//! the lanes are folded in a fixed tree: the result has the same bits at every SIMD level.

use pulp::{Simd, WithSimd};

use crate::dispatch::run;
use crate::lanes::{LANES, fold, padded};

/// The dot product `sum(a[i] * b[i])`.
///
/// # Panics
/// When `a` and `b` differ in length.
///
/// ```
/// assert_eq!(aq_kernels::metric::dot(&[1.0, 2.0], &[3.0, 4.0]), 11.0);
/// ```
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "slices of one length");
    run(Dot { a, b })
}

/// The sum of squares `sum(a[i]^2)`.
///
/// ```
/// assert_eq!(aq_kernels::metric::sum_squares(&[3.0, 4.0]), 25.0);
/// ```
pub fn sum_squares(a: &[f32]) -> f64 {
    run(Dot { a, b: a })
}

/// The squared error `sum((a[i] - b[i])^2)`.
///
/// # Panics
/// When `a` and `b` differ in length.
///
/// ```
/// assert_eq!(aq_kernels::metric::squared_error(&[1.0, 2.0], &[0.0, 4.0]), 5.0);
/// ```
pub fn squared_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "slices of one length");
    run(SquaredError { a, b })
}

/// The position of the first NaN or infinity, or `None`.
///
/// ```
/// use aq_kernels::metric::first_non_finite;
/// assert_eq!(first_non_finite(&[0.0, f32::NAN, f32::INFINITY]), Some(1));
/// assert_eq!(first_non_finite(&[0.0, f32::MAX]), None);
/// ```
pub fn first_non_finite(x: &[f32]) -> Option<usize> {
    run(FirstNonFinite { x })
}

/// Compares `b` with the true values `a` in one pass.
///
/// # Panics
/// When `a` and `b` differ in length.
///
/// ```
/// let c = aq_kernels::metric::compare(&[3.0, 4.0], &[3.0, 3.0]);
/// assert_eq!((c.dot, c.aa, c.bb, c.error, c.max_abs), (21.0, 25.0, 18.0, 1.0, 1.0));
/// assert_eq!(c.relative_mse(), 0.04);
/// ```
pub fn compare(a: &[f32], b: &[f32]) -> Comparison {
    assert_eq!(a.len(), b.len(), "slices of one length");
    run(Compare { a, b })
}

/// Sums over true values `a` and their replacement `b`, from which the usual figures follow.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Comparison {
    /// `sum(a * b)`.
    pub dot: f64,
    /// `sum(a^2)`.
    pub aa: f64,
    /// `sum(b^2)`.
    pub bb: f64,
    /// `sum((a - b)^2)`.
    pub error: f64,
    /// `max |a - b|`.
    pub max_abs: f64,
}

impl Comparison {
    /// Adds the values of another stretch of the same tensor. The order of merging decides the last bits.
    ///
    /// ```
    /// use aq_kernels::metric::compare;
    /// let mut c = compare(&[3.0], &[3.0]);
    /// c.merge(&compare(&[4.0], &[3.0]));
    /// assert_eq!(c, compare(&[3.0, 4.0], &[3.0, 3.0]));
    /// ```
    pub fn merge(&mut self, other: &Comparison) {
        self.dot += other.dot;
        self.aa += other.aa;
        self.bb += other.bb;
        self.error += other.error;
        self.max_abs = self.max_abs.max(other.max_abs);
    }

    /// The cosine of the angle between `a` and `b`, within `-1..=1`: 1 when both are all zero, 0 when one of them is.
    ///
    /// ```
    /// use aq_kernels::metric::compare;
    /// assert_eq!(compare(&[1.0, 0.0], &[0.0, 1.0]).cosine(), 0.0);
    /// assert_eq!(compare(&[0.0], &[0.0]).cosine(), 1.0);
    /// assert_eq!(compare(&[0.0], &[2.0]).cosine(), 0.0);
    /// ```
    pub fn cosine(&self) -> f64 {
        match (self.aa == 0.0, self.bb == 0.0) {
            (true, true) => 1.0,
            (false, false) => (self.dot / (self.aa.sqrt() * self.bb.sqrt())).clamp(-1.0, 1.0),
            _ => 0.0,
        }
    }

    /// The squared error over the squares of the true values: 0 without error, infinite when only `a` is all zero.
    ///
    /// ```
    /// use aq_kernels::metric::compare;
    /// assert_eq!(compare(&[2.0], &[1.0]).relative_mse(), 0.25);
    /// assert_eq!(compare(&[0.0], &[0.0]).relative_mse(), 0.0);
    /// assert_eq!(compare(&[0.0], &[1.0]).relative_mse(), f64::INFINITY);
    /// ```
    pub fn relative_mse(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.aa }
    }
}

/// Calls `step` with 16 pairs at a time, the last ones filled up with zeros, which add nothing to any sum here.
#[inline(always)]
fn for_pairs(a: &[f32], b: &[f32], mut step: impl FnMut(&[f32; LANES], &[f32; LANES])) {
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        step(a, b);
    }
    if !a_tail.is_empty() {
        step(&padded(a_tail, 0.0), &padded(b_tail, 0.0));
    }
}

struct Dot<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl WithSimd for Dot<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let mut sum = [0.0; LANES];
        for_pairs(self.a, self.b, |a, b| {
            for i in 0..LANES {
                sum[i] += f64::from(a[i]) * f64::from(b[i]);
            }
        });
        fold(sum)
    }
}

struct SquaredError<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl WithSimd for SquaredError<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let mut sum = [0.0; LANES];
        for_pairs(self.a, self.b, |a, b| {
            for i in 0..LANES {
                let d = f64::from(a[i]) - f64::from(b[i]);
                sum[i] += d * d;
            }
        });
        fold(sum)
    }
}

struct FirstNonFinite<'a> {
    x: &'a [f32],
}

impl WithSimd for FirstNonFinite<'_> {
    type Output = Option<usize>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Option<usize> {
        const BLOCK: usize = 64;
        let bad = |x: &f32| x.to_bits() & 0x7f80_0000 == 0x7f80_0000;
        for (n, block) in self.x.chunks(BLOCK).enumerate() {
            if block.iter().fold(false, |any, x| any | bad(x)) {
                return block.iter().position(bad).map(|i| n * BLOCK + i);
            }
        }
        None
    }
}

struct Compare<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl WithSimd for Compare<'_> {
    type Output = Comparison;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Comparison {
        let mut sums = Accumulator::default();
        if S::IS_SCALAR {
            sums.add(self.a, self.b);
        } else {
            sums.add_fused(self.a, self.b);
        }
        sums.finish()
    }
}

/// The sums of a comparison on their way, 16 lanes each.
#[derive(Default)]
pub(crate) struct Accumulator {
    dot: [f64; LANES],
    aa: [f64; LANES],
    bb: [f64; LANES],
    error: [f64; LANES],
    max_abs: [f64; LANES],
    /// Pairs that do not fill the lanes yet, and how many.
    waiting: [[f32; LANES]; 2],
    count: usize,
}

impl Accumulator {
    /// Adds the pairs that follow those added before.
    #[inline(always)]
    pub(crate) fn add(&mut self, a: &[f32], b: &[f32]) {
        self.add_with::<false>(a, b);
    }

    /// [`Self::add`] where the processor multiplies and adds in one instruction. A product of two `f32` is exact in
    /// `f64`, so the bits are the same.
    #[inline(always)]
    pub(crate) fn add_fused(&mut self, a: &[f32], b: &[f32]) {
        self.add_with::<true>(a, b);
    }

    #[inline(always)]
    fn add_with<const FUSED: bool>(&mut self, a: &[f32], b: &[f32]) {
        let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        if self.count == 0 {
            self.steps::<FUSED>(a, b);
        } else {
            self.wait(a.as_flattened(), b.as_flattened());
        }
        self.wait(a_tail, b_tail);
    }

    /// The sums are local to the loop, or else they would not stay in registers.
    #[inline(always)]
    fn steps<const FUSED: bool>(&mut self, a: &[[f32; LANES]], b: &[[f32; LANES]]) {
        let Self { mut dot, mut aa, mut bb, mut error, mut max_abs, .. } = *self;
        for (a, b) in a.iter().zip(b) {
            for i in 0..LANES {
                let (a, b) = (f64::from(a[i]), f64::from(b[i]));
                let d = a - b;
                dot[i] = if FUSED { a.mul_add(b, dot[i]) } else { a * b + dot[i] };
                aa[i] = if FUSED { a.mul_add(a, aa[i]) } else { a * a + aa[i] };
                bb[i] = if FUSED { b.mul_add(b, bb[i]) } else { b * b + bb[i] };
                error[i] += d * d;
                max_abs[i] = if d.abs() > max_abs[i] { d.abs() } else { max_abs[i] };
            }
        }
        *self = Self { dot, aa, bb, error, max_abs, ..*self };
    }

    #[inline(always)]
    fn wait(&mut self, a: &[f32], b: &[f32]) {
        for (&a, &b) in a.iter().zip(b) {
            (self.waiting[0][self.count], self.waiting[1][self.count]) = (a, b);
            self.count += 1;
            if self.count == LANES {
                let [a, b] = self.waiting;
                self.steps::<false>(&[a], &[b]);
                self.count = 0;
            }
        }
    }

    /// Zeros fill up the lanes: they add nothing.
    #[inline(always)]
    pub(crate) fn finish(mut self) -> Comparison {
        if self.count > 0 {
            let (a, b) =
                (padded(&self.waiting[0][..self.count], 0.0), padded(&self.waiting[1][..self.count], 0.0));
            self.steps::<false>(&[a], &[b]);
        }
        let mut max_abs = 0.0;
        for v in self.max_abs {
            max_abs = if v > max_abs { v } else { max_abs };
        }
        let Self { dot, aa, bb, error, .. } = self;
        Comparison { dot: fold(dot), aa: fold(aa), bb: fold(bb), error: fold(error), max_abs }
    }
}
