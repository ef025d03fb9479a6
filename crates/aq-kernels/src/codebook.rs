//! Small tables of values: the nearest value of a weight, the value of a code, and the scale that fits a group to a table.

use pulp::{Simd, WithSimd};

use crate::dispatch;
use crate::isa::{self, Isa, Kernel};
use crate::lanes::{LANES, fold};
use crate::search::BLOCK;

/// The most values of a table.
pub const MAX_VALUES: usize = 16;

/// A table of values in rising order, with the limits between neighbours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Table {
    pub(crate) values: [f32; MAX_VALUES],
    pub(crate) limits: [f32; MAX_VALUES],
    pub(crate) len: usize,
}

impl Table {
    /// Takes 4, 8 or 16 values in rising order. The limit between two neighbours `a` and `b` is `(a + b) * 0.5`, rounded to `f32`.
    ///
    /// # Panics
    /// When there is another number of values, or one is not above the one before it.
    ///
    /// ```
    /// let table = aq_kernels::codebook::Table::new(&[-1.5, -0.5, 0.5, 1.5]);
    /// assert_eq!((table.values().len(), table.largest()), (4, 1.5));
    /// ```
    pub fn new(values: &[f32]) -> Self {
        assert!(matches!(values.len(), 4 | 8 | 16), "4, 8 or 16 values, not {}", values.len());
        assert!(values.is_sorted_by(|a, b| a < b), "values in rising order");
        let mut table =
            Self { values: [0.0; MAX_VALUES], limits: [f32::INFINITY; MAX_VALUES], len: values.len() };
        table.values[..values.len()].copy_from_slice(values);
        for (limit, pair) in table.limits.iter_mut().zip(values.windows(2)) {
            *limit = (pair[0] + pair[1]) * 0.5;
        }
        table
    }

    /// The values.
    pub fn values(&self) -> &[f32] {
        &self.values[..self.len]
    }

    /// The largest magnitude.
    pub fn largest(&self) -> f32 {
        self.values().iter().fold(0.0, |largest: f32, v| largest.max(v.abs()))
    }
}

/// Sums over a group of weights `x`, their importance `h` and the nearest values `t` of a table.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Fit {
    /// `sum(h x t)`.
    pub product: f64,
    /// `sum(h t t)`.
    pub square: f64,
}

impl Fit {
    /// The scale of least squared error for these values, `product / square`; `None` when it is not positive and finite.
    ///
    /// ```
    /// use aq_kernels::codebook::Fit;
    /// assert_eq!(Fit { product: 3.0, square: 2.0 }.scale(), Some(1.5));
    /// assert_eq!(Fit::default().scale(), None);
    /// ```
    pub fn scale(&self) -> Option<f32> {
        let scale = (self.product / self.square) as f32;
        (scale > 0.0 && scale.is_finite()).then_some(scale)
    }

    /// What that scale takes away from `sum(h x x)`: the larger, the smaller the error.
    pub fn explained(&self) -> f64 {
        if self.square > 0.0 { self.product * self.product / self.square } else { 0.0 }
    }
}

/// The code of the value next to each weight.
///
/// ```text
/// codes[i] = number of limits below x[i] * inverse_scale
/// ```
///
/// The product is rounded to `f32`. A weight on a limit gets the lower code, NaN gets code 0.
///
/// # Panics
/// When `codes` and `x` differ in length.
///
/// ```
/// use aq_kernels::codebook::{Table, nearest};
/// let mut codes = [9; 4];
/// nearest(&Table::new(&[-1.0, 0.0, 1.0, 3.0]), &[-8.0, 0.9, 1.1, 4.0], 0.5, &mut codes);
/// assert_eq!(codes, [0, 1, 2, 2]);
/// ```
pub fn nearest(table: &Table, x: &[f32], inverse_scale: f32, codes: &mut [u8]) {
    assert_eq!(x.len(), codes.len(), "one code for each weight");
    match table.len {
        4 => dispatch::run(Nearest::<3> { table, x, inverse_scale, codes }),
        8 => dispatch::run(Nearest::<7> { table, x, inverse_scale, codes }),
        _ => dispatch::run(Nearest::<15> { table, x, inverse_scale, codes }),
    }
}

/// The sums from which the scale of a group follows, for the nearest values at another scale.
///
/// Products and sums are rounded to `f32` for 256 weights at a time, in 16 lanes by place, then added in `f64`.
///
/// # Panics
/// When `importance` and `x` differ in length.
///
/// ```
/// use aq_kernels::codebook::{Table, fit};
/// let found = fit(&Table::new(&[-1.5, -0.5, 0.5, 1.5]), &[3.2, -1.0, 0.9, -2.8], None, 0.5);
/// assert_eq!(found.scale(), Some(1.99));
/// ```
pub fn fit(table: &Table, x: &[f32], importance: Option<&[f32]>, inverse_scale: f32) -> Fit {
    assert!(importance.is_none_or(|h| h.len() == x.len()), "one importance for each weight");
    match table.len {
        4 => dispatch::run(FitScale::<3> { table, x, importance, inverse_scale }),
        8 => dispatch::run(FitScale::<7> { table, x, importance, inverse_scale }),
        _ => dispatch::run(FitScale::<15> { table, x, importance, inverse_scale }),
    }
}

/// Turns codes into values: `out[i] = values[codes[i] % 16]`.
///
/// # Panics
/// When `out` and `codes` differ in length.
///
/// ```
/// let mut values = [0.0; 16];
/// values[..4].copy_from_slice(&[-3.0, -1.0, 1.0, 3.0]);
/// let mut out = [0.0; 3];
/// aq_kernels::codebook::look_up(&values, &[0, 3, 1], &mut out);
/// assert_eq!(out, [-3.0, 3.0, -1.0]);
/// ```
pub fn look_up(values: &[f32; MAX_VALUES], codes: &[u8], out: &mut [f32]) {
    assert_eq!(codes.len(), out.len(), "one weight for each code");
    isa::run(LookUp { values, codes, out });
}

struct Nearest<'a, const LIMITS: usize> {
    table: &'a Table,
    x: &'a [f32],
    inverse_scale: f32,
    codes: &'a mut [u8],
}

impl<const LIMITS: usize> WithSimd for Nearest<'_, LIMITS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (code, x) in self.codes.iter_mut().zip(self.x) {
            let v = x * self.inverse_scale;
            let mut above = 0;
            for limit in &self.table.limits[..LIMITS] {
                above += u32::from(v > *limit);
            }
            *code = above as u8;
        }
    }
}

struct FitScale<'a, const LIMITS: usize> {
    table: &'a Table,
    x: &'a [f32],
    importance: Option<&'a [f32]>,
    inverse_scale: f32,
}

impl<const LIMITS: usize> WithSimd for FitScale<'_, LIMITS> {
    type Output = Fit;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Fit {
        let mut total = Fit::default();
        for (i, x) in self.x.chunks(BLOCK).enumerate() {
            let (product, square) = match self.importance {
                None => self.block(x, |t, _| t),
                Some(h) => {
                    let h = &h[i * BLOCK..][..x.len()];
                    self.block(x, |t, i| t * h[i])
                }
            };
            total.product += f64::from(product);
            total.square += f64::from(square);
        }
        total
    }
}

impl<const LIMITS: usize> FitScale<'_, LIMITS> {
    /// Sums of `weigh(t) * x` and `weigh(t) * t` over a block; `weigh` takes the value and its place.
    #[inline(always)]
    fn block(&self, x: &[f32], weigh: impl Fn(f32, usize) -> f32) -> (f32, f32) {
        let (mut products, mut squares) = ([0f32; LANES], [0f32; LANES]);
        let (body, tail) = x.as_chunks::<LANES>();
        for (n, x) in body.iter().enumerate() {
            for i in 0..LANES {
                let t = self.value(x[i]);
                let weighted = weigh(t, n * LANES + i);
                products[i] += weighted * x[i];
                squares[i] += weighted * t;
            }
        }
        for (i, &x) in tail.iter().enumerate() {
            let t = self.value(x);
            let weighted = weigh(t, body.len() * LANES + i);
            products[i] += weighted * x;
            squares[i] += weighted * t;
        }
        (fold(products), fold(squares))
    }

    #[inline(always)]
    fn value(&self, x: f32) -> f32 {
        let v = x * self.inverse_scale;
        let mut value = self.table.values[0];
        for k in 0..LIMITS {
            value = if v > self.table.limits[k] { self.table.values[k + 1] } else { value };
        }
        value
    }
}

struct LookUp<'a> {
    values: &'a [f32; MAX_VALUES],
    codes: &'a [u8],
    out: &'a mut [f32],
}

impl Kernel for LookUp<'_> {
    type Output = ();

    #[inline(always)]
    fn call<I: Isa>(self, isa: I) {
        let table = isa.load(self.values);
        let (codes, tail) = self.codes.as_chunks::<LANES>();
        let (out, rest) = self.out.as_chunks_mut::<LANES>();
        for (out, codes) in out.iter_mut().zip(codes) {
            isa.store(isa.look_up(table, isa.widen(codes)), out);
        }
        for (out, &code) in rest.iter_mut().zip(tail) {
            *out = self.values[usize::from(code) % MAX_VALUES];
        }
    }
}
