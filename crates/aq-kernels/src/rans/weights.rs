//! Decoded symbols to weights.

use pulp::{Simd, WithSimd};

use crate::dispatch;

/// The weights of one row: `((values[classes[j]][symbols[j]] * steps[j]) * scale) * factor`, each product rounded to `f32`.
///
/// # Panics
/// When `symbols`, `classes` and `steps` are not as long as `out`, or a class has no values.
///
/// ```
/// let mut values = [[0.0; 256]; 2];
/// (values[0][1], values[1][3]) = (1.0, -2.5);
/// let mut out = [0.0; 2];
/// aq_kernels::rans::reconstruct(&[1, 3], &[0, 1], &values, &[1.0, 2.0], 0.5, 4.0, &mut out);
/// assert_eq!(out, [2.0, -10.0]);
/// ```
pub fn reconstruct(
    symbols: &[u8],
    classes: &[u8],
    values: &[[f32; 256]],
    steps: &[f32],
    scale: f32,
    factor: f32,
    out: &mut [f32],
) {
    let n = out.len();
    assert_eq!((symbols.len(), classes.len(), steps.len()), (n, n, n), "one of each a column");
    dispatch::run(Reconstruct { symbols, classes, values, steps, scale, factor, out });
}

struct Reconstruct<'a> {
    symbols: &'a [u8],
    classes: &'a [u8],
    values: &'a [[f32; 256]],
    steps: &'a [f32],
    scale: f32,
    factor: f32,
    out: &'a mut [f32],
}

impl WithSimd for Reconstruct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let columns = self.symbols.iter().zip(self.classes).zip(self.steps);
        for (out, ((&symbol, &class), step)) in self.out.iter_mut().zip(columns) {
            *out = self.values[usize::from(class)][usize::from(symbol)] * step * self.scale * self.factor;
        }
    }
}

/// The weights of one row whose codes are integers: `((value(code) * steps[j]) * scale) * factor`, each product rounded to `f32`,
/// where `value(c)` is `c`, rounded to `f32`, less `sign(c) * deltas[classes[j]][min(|c|, 3)]`.
///
/// # Panics
/// When `codes`, `classes` and `steps` are not as long as `out`, or a class has no deltas.
///
/// ```
/// let deltas = [[0.0, 0.5, 0.25, 0.125]];
/// let mut out = [0.0; 4];
/// aq_kernels::rans::reconstruct_codes(&[0, -1, 2, 99], &[0; 4], &deltas, &[1.0; 4], 2.0, 1.0, &mut out);
/// assert_eq!(out, [0.0, -1.0, 3.5, 197.75]);
/// ```
pub fn reconstruct_codes(
    codes: &[i32],
    classes: &[u8],
    deltas: &[[f32; 4]],
    steps: &[f32],
    scale: f32,
    factor: f32,
    out: &mut [f32],
) {
    let n = out.len();
    assert_eq!((codes.len(), classes.len(), steps.len()), (n, n, n), "one of each a column");
    dispatch::run(ReconstructCodes { codes, classes, deltas, steps, scale, factor, out });
}

struct ReconstructCodes<'a> {
    codes: &'a [i32],
    classes: &'a [u8],
    deltas: &'a [[f32; 4]],
    steps: &'a [f32],
    scale: f32,
    factor: f32,
    out: &'a mut [f32],
}

impl WithSimd for ReconstructCodes<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let columns = self.codes.iter().zip(self.classes).zip(self.steps);
        for (out, ((&code, &class), step)) in self.out.iter_mut().zip(columns) {
            let delta = self.deltas[usize::from(class)][code.unsigned_abs().min(3) as usize];
            // Signs are random, so a branch on them would be mispredicted every other time.
            let signed = f32::from_bits(delta.to_bits() ^ (code as u32 & 0x8000_0000));
            let value = code as f32 - signed;
            *out = value * step * self.scale * self.factor;
        }
    }
}
