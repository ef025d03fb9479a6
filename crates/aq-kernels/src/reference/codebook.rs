//! Twins of the kernels on tables of values.

use super::sum;
use crate::codebook::{Fit, Table};
use crate::search::BLOCK;

fn code_of(table: &Table, x: f32, inverse_scale: f32) -> usize {
    table.limits[..table.len - 1].iter().filter(|&&limit| x * inverse_scale > limit).count()
}

pub fn nearest(table: &Table, x: &[f32], inverse_scale: f32, codes: &mut [u8]) {
    for (code, &x) in codes.iter_mut().zip(x) {
        *code = code_of(table, x, inverse_scale) as u8;
    }
}

pub fn fit(table: &Table, x: &[f32], importance: Option<&[f32]>, inverse_scale: f32) -> Fit {
    let mut total = Fit::default();
    for (n, x) in x.chunks(BLOCK).enumerate() {
        let t = |i: usize| table.values[code_of(table, x[i], inverse_scale)];
        let weighted = |i: usize| importance.map_or(t(i), |h| t(i) * h[n * BLOCK + i]);
        total.product += f64::from(sum((0..x.len()).map(|i| weighted(i) * x[i])));
        total.square += f64::from(sum((0..x.len()).map(|i| weighted(i) * t(i))));
    }
    total
}

pub fn look_up(values: &[f32; 16], codes: &[u8], out: &mut [f32]) {
    for (out, &code) in out.iter_mut().zip(codes) {
        *out = values[usize::from(code) % 16];
    }
}
