//! Decoded symbols to weights.

use pulp::{Simd, WithSimd};

use crate::dispatch;

/// The weights of one row: `(values[classes[j]][symbols[j]] * steps[j]) * scale`, each product rounded to `f32`.
///
/// # Panics
/// When `symbols`, `classes` and `steps` are not as long as `out`, or a class has no values.
///
/// ```
/// let mut values = [[0.0; 256]; 2];
/// (values[0][1], values[1][3]) = (1.0, -2.5);
/// let mut out = [0.0; 2];
/// aq_kernels::rans::reconstruct(&[1, 3], &[0, 1], &values, &[1.0, 2.0], 0.5, &mut out);
/// assert_eq!(out, [0.5, -2.5]);
/// ```
pub fn reconstruct(
    symbols: &[u8],
    classes: &[u8],
    values: &[[f32; 256]],
    steps: &[f32],
    scale: f32,
    out: &mut [f32],
) {
    let n = out.len();
    assert_eq!((symbols.len(), classes.len(), steps.len()), (n, n, n), "one of each a column");
    dispatch::run(Reconstruct { symbols, classes, values, steps, scale, out });
}

struct Reconstruct<'a> {
    symbols: &'a [u8],
    classes: &'a [u8],
    values: &'a [[f32; 256]],
    steps: &'a [f32],
    scale: f32,
    out: &'a mut [f32],
}

impl WithSimd for Reconstruct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let columns = self.symbols.iter().zip(self.classes).zip(self.steps);
        for (out, ((&symbol, &class), step)) in self.out.iter_mut().zip(columns) {
            *out = self.values[usize::from(class)][usize::from(symbol)] * step * self.scale;
        }
    }
}

/// The weights of one row whose codes are integers: `(value(c) * steps[j]) * scale`, each product rounded to `f32`, where
/// `value(c)` is `c`, rounded to `f32`, less `sign(c) * deltas[min(|c|, 3) - 1][j]`, and 0 for 0.
///
/// # Panics
/// When `codes`, each of `deltas` and `steps` are not as long as `out`.
///
/// ```
/// let deltas: [&[f32]; 3] = [&[0.5; 4], &[0.25; 4], &[0.125; 4]];
/// let mut out = [0.0; 4];
/// aq_kernels::rans::reconstruct_codes(&[0, -1, 2, 99], deltas, &[1.0; 4], 2.0, &mut out);
/// assert_eq!(out, [0.0, -1.0, 3.5, 197.75]);
/// ```
pub fn reconstruct_codes(codes: &[i32], deltas: [&[f32]; 3], steps: &[f32], scale: f32, out: &mut [f32]) {
    let n = out.len();
    assert_eq!((codes.len(), steps.len(), deltas.map(<[f32]>::len)), (n, n, [n; 3]), "one of each a column");
    dispatch::run(ReconstructCodes { codes, deltas, steps, scale, out });
}

struct ReconstructCodes<'a> {
    codes: &'a [i32],
    deltas: [&'a [f32]; 3],
    steps: &'a [f32],
    scale: f32,
    out: &'a mut [f32],
}

impl WithSimd for ReconstructCodes<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let [one, two, more] = self.deltas;
        let columns = self.codes.iter().zip(one.iter().zip(two).zip(more)).zip(self.steps);
        for (out, ((&code, ((one, two), more)), step)) in self.out.iter_mut().zip(columns) {
            let size = code.unsigned_abs();
            let small = if size == 1 { *one } else { *two };
            let delta = if size > 2 { *more } else { small };
            let delta = if size == 0 { 0.0 } else { delta };
            // Signs are random, so a branch on them would be mispredicted every other time.
            let signed = f32::from_bits(delta.to_bits() ^ (code as u32 & 0x8000_0000));
            *out = (code as f32 - signed) * step * self.scale;
        }
    }
}
