//! Error feedback on 16 rows at once against its twin on one, at every level.

use aq_kernels::feedback::{
    AffineGrid, AffineGrids, ROWS, UniformGrid, descend, subtract_products, sweep_affine, sweep_uniform,
};
use aq_kernels::{cholesky, gram, reference};

use crate::tester::{Random, assert_same, at_every_level};

/// A layer of 16 rows: a Hessian, the feedback from it, weights and grids.
struct Layer {
    n: usize,
    h: Vec<f32>,
    feedback: Vec<f32>,
    w: Vec<[f32; ROWS]>,
    grids: Vec<AffineGrid>,
    row_grids: Vec<Vec<(f32, f32)>>,
    group: Vec<u32>,
    top: u8,
}

impl Layer {
    /// Inputs that go together, and a grid for each 24 columns.
    fn new(n: usize, top: u8) -> Self {
        let mut random = Random(n as u64 + 1);
        let mut x = Vec::new();
        for _ in 0..2 * n + 8 {
            let common = random.normal();
            x.extend((0..n).map(|_| random.normal() + common));
        }
        let mut h = vec![0.0; n * n];
        gram::add_rows(&x, n, 1.0 / n as f32, n, &mut h);
        let mut u = vec![0.0; n * n];
        cholesky::inverse_factor(&mut h.clone(), n, &mut u).expect("positive definite");
        let feedback = (0..n * n).map(|i| (u[i] / u[i / n * n + i / n]) as f32).collect();
        let row_grids: Vec<Vec<(f32, f32)>> = (0..ROWS)
            .map(|row| {
                let scale = 6.0 / f32::from(top) * (0.5 + random.unit());
                let grid = |_| if row == 5 { (0.0, 0.25) } else { (scale, random.normal() - 3.0) };
                (0..n.div_ceil(24)).map(grid).collect()
            })
            .collect();
        let grids = (0..n.div_ceil(24))
            .map(|g| {
                let of_row = |row: usize| row_grids[row][g];
                AffineGrid::new(
                    std::array::from_fn(|row| of_row(row).0),
                    std::array::from_fn(|row| of_row(row).1),
                )
            })
            .collect();
        let w = (0..n).map(|_| std::array::from_fn(|_| random.normal())).collect();
        let group = (0..n as u32).map(|col| col / 24).collect();
        let h = h.iter().map(|&v| v as f32).collect();
        Self { n, h, feedback, w, grids, row_grids, group, top }
    }

    fn row(&self, row: usize) -> Vec<f32> {
        lane(&self.w, row)
    }

    fn grids(&self) -> AffineGrids<'_> {
        AffineGrids { grids: &self.grids, group: &self.group, max_code: self.top }
    }

    fn row_grids(&self, row: usize) -> reference::RowGrids<'_> {
        (&self.row_grids[row], &self.group, self.top)
    }

    fn inverse_diagonal(&self) -> Vec<f32> {
        (0..self.n).map(|i| 1.0 / self.h[i * self.n + i]).collect()
    }
}

fn lane<T: Copy>(values: &[[T; ROWS]], row: usize) -> Vec<T> {
    values.iter().map(|lanes| lanes[row]).collect()
}

fn layers() -> impl Iterator<Item = Layer> {
    [1, 2, 5, 31, 32, 33, 64, 67, 100, 130]
        .into_iter()
        .flat_map(|n| [3, 15, 255].into_iter().map(move |top| Layer::new(n, top)))
}

#[test]
fn products() {
    for layer in layers() {
        let n = layer.n;
        let rows: Vec<u32> = (0..n as u32).rev().filter(|r| r % 3 != 1).collect();
        let values = &layer.w[..rows.len()];
        for first in [0, n / 3, n] {
            at_every_level(|level| {
                let mut got = vec![[0.5; ROWS]; n - first];
                subtract_products(values, &rows, &layer.h, n, first, &mut got);
                for row in 0..ROWS {
                    let mut want = vec![0.5; n - first];
                    let values = lane(values, row);
                    reference::subtract_products(&values, &rows, &layer.h, n, first, &mut want);
                    assert_same(&lane(&got, row), &want, &format!("{level}, {n} columns from {first}"));
                }
            });
        }
    }
}

#[test]
fn sweeps_over_affine_grids() {
    for layer in layers() {
        at_every_level(|level| {
            let (mut w, mut codes) = (layer.w.clone(), vec![[9; ROWS]; layer.n]);
            sweep_affine(&mut w, &layer.feedback, layer.grids(), &mut codes);
            for row in 0..ROWS {
                let mut want = layer.row(row);
                let expected = reference::sweep_affine(&mut want, &layer.feedback, layer.row_grids(row));
                let what = format!("{level}, {} columns, row {row}, top {}", layer.n, layer.top);
                assert_same(&lane(&codes, row), &expected, &what);
                assert_same(&lane(&w, row), &want, &what);
            }
        });
    }
}

#[test]
fn sweeps_over_uniform_grids() {
    let factors: [f32; ROWS] = std::array::from_fn(|row| if row == 3 { 0.0 } else { 0.1 * row as f32 + 0.2 });
    for layer in layers() {
        let steps: Vec<f32> =
            (0..layer.n).map(|i| if i == 4 { 1e-7 } else { 0.3 + i as f32 * 0.01 }).collect();
        for (rounding_offset, shrink) in [(0.0, [0.0; 3]), (0.15, [0.05, 0.02, 0.01])] {
            let grid = UniformGrid { steps: &steps, factors: &factors, rounding_offset, shrink };
            at_every_level(|level| {
                let (mut w, mut codes) = (layer.w.clone(), vec![[9; ROWS]; layer.n]);
                sweep_uniform(&mut w, &layer.feedback, grid, &mut codes);
                for (row, &factor) in factors.iter().enumerate() {
                    let mut want = layer.row(row);
                    let expected = reference::sweep_uniform(&mut want, &layer.feedback, grid, factor);
                    let what = format!("{level}, {} columns, row {row}", layer.n);
                    assert_eq!(lane(&codes, row), expected, "{what}");
                    assert_same(&lane(&w, row), &want, &what);
                }
            });
        }
    }
}

#[test]
fn descents() {
    for layer in layers() {
        at_every_level(|level| {
            let mut codes = vec![[0; ROWS]; layer.n];
            sweep_affine(&mut layer.w.clone(), &layer.feedback, layer.grids(), &mut codes);
            let start = codes.clone();
            let mut residual = layer.w.clone();
            let moved =
                descend(&mut residual, &layer.h, &layer.inverse_diagonal(), layer.grids(), &mut codes);
            let mut expected_moves = 0;
            for row in 0..ROWS {
                let (mut want, mut expected) = (layer.row(row), lane(&start, row));
                let grids = layer.row_grids(row);
                let inverse = layer.inverse_diagonal();
                expected_moves += reference::descend(&mut want, &layer.h, &inverse, grids, &mut expected);
                let what = format!("{level}, {} columns, row {row}, top {}", layer.n, layer.top);
                assert_same(&lane(&codes, row), &expected, &what);
                assert_same(&lane(&residual, row), &want, &what);
            }
            assert_eq!(moved, expected_moves, "{level}");
        });
    }
}

/// `(w - q) H (w - q)` over all rows.
fn output_error(layer: &Layer, codes: &[[u8; ROWS]]) -> f64 {
    let n = layer.n;
    let row_error = |row: usize| {
        let value = |i: usize| {
            let (scale, offset) = layer.row_grids[row][layer.group[i] as usize];
            f64::from(layer.w[i][row]) - f64::from(f32::from(codes[i][row]) * scale + offset)
        };
        let lost: Vec<f64> = (0..n).map(value).collect();
        (0..n * n).map(|i| lost[i / n] * f64::from(layer.h[i]) * lost[i % n]).sum::<f64>()
    };
    (0..ROWS).filter(|&row| row != 5).map(row_error).sum()
}

#[test]
fn feedback_lowers_the_output_error_and_descent_lowers_it_further() {
    for top in [3, 15] {
        let layer = Layer::new(100, top);
        let codes_with = |feedback: &[f32]| {
            let mut codes = vec![[0; ROWS]; layer.n];
            sweep_affine(&mut layer.w.clone(), feedback, layer.grids(), &mut codes);
            codes
        };
        let nearest = output_error(&layer, &codes_with(&vec![0.0; layer.n * layer.n]));
        let mut codes = codes_with(&layer.feedback);
        let swept = output_error(&layer, &codes);
        let lost: Vec<[f32; ROWS]> = (0..layer.n)
            .map(|i| {
                std::array::from_fn(|row| {
                    let (scale, offset) = layer.row_grids[row][layer.group[i] as usize];
                    f32::from(codes[i][row]) * scale + offset - layer.w[i][row]
                })
            })
            .collect();
        let mut residual = vec![[0.0; ROWS]; layer.n];
        let all: Vec<u32> = (0..layer.n as u32).collect();
        subtract_products(&lost, &all, &layer.h, layer.n, 0, &mut residual);
        let moved = descend(&mut residual, &layer.h, &layer.inverse_diagonal(), layer.grids(), &mut codes);
        let descended = output_error(&layer, &codes);
        println!("top {top}: nearest {nearest:.3}, swept {swept:.3}, {moved} moves, {descended:.3}");
        assert!(swept < 0.9 * nearest && moved > 0 && descended < swept, "{nearest} {swept} {descended}");
    }
}
