//! Twins of what works with Hessians: `gram`, `cholesky` and `feedback`, for one row where the kernels take 16.

use crate::feedback::UniformGrid;

pub fn gram_add_rows(x: &[f32], cols: usize, weight: f32, block: usize, h: &mut [f64]) {
    let mut at = 0;
    for first in (0..cols).step_by(block) {
        let size = block.min(cols - first);
        for row in x.chunks(cols) {
            let y: Vec<f64> = row[first..first + size].iter().map(|x| f64::from(x * weight.sqrt())).collect();
            for (i, j) in (0..size * size).map(|n| (n / size, n % size)) {
                h[at + i * size + j] += y[i] * y[j];
            }
        }
        at += size * size;
    }
}

/// The factor `U`, or the column without a positive pivot.
pub fn inverse_factor(h: &[f64], n: usize) -> Result<Vec<f64>, usize> {
    let mut l = h.to_vec();
    for k in (0..n).rev() {
        if !(l[k * n + k] > 0.0 && l[k * n + k] < f64::INFINITY) {
            return Err(k);
        }
        l[k * n + k] = l[k * n + k].sqrt();
        for j in 0..k {
            l[k * n + j] /= l[k * n + k];
        }
        for i in 0..k {
            for j in 0..=i {
                l[i * n + j] -= l[k * n + i] * l[k * n + j];
            }
        }
    }
    let mut u = vec![0.0; n * n];
    for i in 0..n {
        u[i * n + i] = 1.0;
        for k in i..n {
            u[i * n + k] /= l[k * n + k];
            for j in k + 1..n {
                u[i * n + j] -= u[i * n + k] * l[j * n + k];
            }
        }
    }
    Ok(u)
}

/// `out[j] -= values[i] * matrix[rows[i]][first + j]`.
pub fn subtract_products(
    values: &[f32],
    rows: &[u32],
    matrix: &[f32],
    n: usize,
    first: usize,
    out: &mut [f32],
) {
    for (value, &row) in values.iter().zip(rows) {
        for (j, out) in out.iter_mut().enumerate() {
            *out -= value * matrix[row as usize * n + first + j];
        }
    }
}

/// Rounds `w` column by column with `round`, which gives a code and its value. What each column lost takes its place.
fn sweep<C>(w: &mut [f32], feedback: &[f32], mut round: impl FnMut(usize, f32) -> (C, f32)) -> Vec<C> {
    let n = w.len();
    let mut codes = Vec::new();
    for i in 0..n {
        let (code, value) = round(i, w[i]);
        let error = w[i] - value;
        for j in i + 1..n {
            w[j] -= error * feedback[i * n + j];
        }
        w[i] = error;
        codes.push(code);
    }
    codes
}

/// The scale and offset of each group, the group of each column, and the largest code.
pub type RowGrids<'a> = (&'a [(f32, f32)], &'a [u32], u8);

pub fn sweep_affine(w: &mut [f32], feedback: &[f32], (grids, group, max_code): RowGrids<'_>) -> Vec<u8> {
    let mut values = Vec::new();
    let codes = sweep(w, feedback, |i, w| {
        let (scale, offset) = grids[group[i] as usize];
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let code = ((w - offset) * inverse).clamp(0.0, f32::from(max_code)).round_ties_even();
        values.push(code * scale + offset);
        (code as u8, code * scale + offset)
    });
    w.copy_from_slice(&values);
    codes
}

/// One row, the one of `factor`.
pub fn sweep_uniform(w: &mut [f32], feedback: &[f32], grid: UniformGrid<'_>, factor: f32) -> Vec<i16> {
    sweep(w, feedback, |i, w| {
        let step = grid.steps[i] * factor;
        let v = if step > 0.0 { w * (1.0 / step) } else { 0.0 };
        let magnitude = (v.abs() - grid.rounding_offset).clamp(0.0, 32767.0).round_ties_even();
        let shrink = if magnitude == 0.0 { 0.0 } else { grid.shrink[(magnitude as usize).min(3) - 1] };
        let sign = if v < 0.0 { -1.0 } else { 1.0 };
        ((sign * magnitude) as i16, sign * (magnitude - shrink) * step + 0.0)
    })
}

pub fn descend(
    residual: &mut [f32],
    h: &[f32],
    inverse_diagonal: &[f32],
    (grids, group, max_code): RowGrids<'_>,
    codes: &mut [u8],
) -> usize {
    let n = residual.len();
    let mut moved = 0;
    for i in 0..n {
        let (scale, offset) = grids[group[i] as usize];
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let code = f32::from(codes[i]);
        let exact = residual[i] * inverse * inverse_diagonal[i];
        let new = (code + exact).clamp(0.0, f32::from(max_code)).round_ties_even();
        codes[i] = new as u8;
        if new == code {
            continue;
        }
        let change = (new * scale + offset) - (code * scale + offset);
        for j in 0..n {
            residual[j] -= change * h[i * n + j];
        }
        moved += 1;
    }
    moved
}
