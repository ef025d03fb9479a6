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
