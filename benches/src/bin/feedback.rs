//! Times what error feedback needs: Gram matrices, factors of inverses, and nanoseconds a weight of sweeps and descents.
//!
//! `feedback [COLUMNS]` (512): one block of that many columns; the least of 7 runs at each SIMD level.

use std::hint::black_box;

use aq_benches::{time, weights};
use aq_kernels::feedback::{
    AffineGrid, AffineGrids, Lanes, ROWS, UniformGrid, descend, subtract_products, sweep_affine,
    sweep_uniform,
};
use aq_kernels::{cholesky, gram, levels, with_level};

/// Input rows of a Gram matrix.
const INPUTS: usize = 1024;

struct Block {
    n: usize,
    x: Vec<f32>,
    h: Vec<f64>,
    h32: Vec<f32>,
    feedback: Vec<f32>,
    w: Vec<Lanes>,
    group: Vec<u32>,
    grids: Vec<AffineGrid>,
}

fn main() {
    let n = std::env::args().nth(1).map_or(512, |n| n.parse().expect("a number of columns"));
    let block = Block::new(n);
    for level in levels() {
        with_level(level, || block.time(level.name()));
    }
}

impl Block {
    fn new(n: usize) -> Self {
        let x = weights(INPUTS.max(2 * n) * n);
        let mut h = vec![0.0; n * n];
        gram::add_rows(&x, n, 1.0 / x.len() as f32, n, &mut h);
        let mut u = vec![0.0; n * n];
        cholesky::inverse_factor(&mut h.clone(), n, &mut u).expect("positive definite");
        let feedback = (0..n * n).map(|i| (u[i] / u[i / n * n + i / n]) as f32).collect();
        let h32 = h.iter().map(|&v| v as f32).collect();
        let w = weights(n * ROWS).as_chunks().0.to_vec();
        let group = (0..n as u32).map(|col| col / 128).collect();
        let grids = vec![AffineGrid::new([1.0; ROWS], [-1.5; ROWS]); n.div_ceil(128)];
        Self { n, x, h, h32, feedback, w, group, grids }
    }

    fn time(&self, level: &str) {
        let n = self.n;
        let mut h = vec![0.0; n * n];
        let rows = &self.x[..INPUTS * n];
        let s = least(|| gram::add_rows(black_box(rows), n, 1.0, n, &mut h));
        let products = (INPUTS * n * n / 2) as f64;
        println!("{level:7} gram            {:8.2} ms, {:.3} ns a product", s * 1e3, s * 1e9 / products);
        let mut u = vec![0.0; n * n];
        let s = least(|| {
            h.copy_from_slice(&self.h);
            cholesky::inverse_factor(&mut h, n, &mut u).expect("positive definite");
        });
        println!("{level:7} inverse_factor  {:8.2} ms", s * 1e3);
        self.time_sweeps(level);
    }

    fn time_sweeps(&self, level: &str) {
        let n = self.n;
        let grids = AffineGrids { grids: &self.grids, group: &self.group, max_code: 3 };
        let (mut w, mut codes) = (self.w.clone(), vec![[0; ROWS]; n]);
        self.report(level, "sweep_affine", || {
            w.copy_from_slice(&self.w);
            sweep_affine(&mut w, &self.feedback, grids, &mut codes);
        });
        let steps = vec![1.0; n];
        let uniform =
            UniformGrid { steps: &steps, factors: &[1.0; ROWS], rounding_offset: 0.1, shrink: [0.05; 3] };
        let mut wide = vec![[0; ROWS]; n];
        self.report(level, "sweep_uniform", || {
            w.copy_from_slice(&self.w);
            sweep_uniform(&mut w, &self.feedback, uniform, &mut wide);
        });
        let lost: Vec<Lanes> = (0..n)
            .map(|i| std::array::from_fn(|row| f32::from(codes[i][row]) - 1.5 - self.w[i][row]))
            .collect();
        let all: Vec<u32> = (0..n as u32).collect();
        let mut residual = vec![[0.0; ROWS]; n];
        self.report(level, "residual", || {
            residual.fill([0.0; ROWS]);
            subtract_products(&lost, &all, &self.h32, n, 0, &mut residual);
        });
        let inverse: Vec<f32> = (0..n).map(|i| 1.0 / self.h32[i * n + i]).collect();
        let (start, mut room) = (codes.clone(), residual.clone());
        let mut moved = 0;
        self.report(level, "descend", || {
            codes.copy_from_slice(&start);
            room.copy_from_slice(&residual);
            moved = descend(&mut room, &self.h32, &inverse, grids, &mut codes);
        });
        println!("{level:7} codes moved     {:8.2} %", moved as f64 / (n * ROWS) as f64 * 100.0);
    }

    fn report(&self, level: &str, what: &str, mut run: impl FnMut()) {
        let ns = least(&mut run) * 1e9 / (self.n * ROWS) as f64;
        println!("{level:7} {what:15} {ns:8.2} ns a weight");
    }
}

/// The least seconds of one call over 7 runs.
fn least(run: impl FnMut()) -> f64 {
    time(7, 0.05, run).into_iter().fold(f64::INFINITY, f64::min)
}
