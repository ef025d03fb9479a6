//! The directions of the outputs in which a layer's error is largest.

use aq_core::{InputRows, StrategyError};

/// Columns of a block of vectors: a multiple of this, so that sums over columns are whole vectors.
const STEP: usize = 16;
/// Vectors beyond those asked for, which make the others more exact.
const OVERSAMPLING: usize = 8;
/// Rounds of multiplying by the matrix.
const ROUNDS: usize = 3;

/// An error matrix `E` of whole rows and how much each direction of the inputs counts.
pub(super) struct WeightedError<'a> {
    /// `rows * cols` values.
    pub(super) error: &'a [f32],
    pub(super) cols: usize,
    pub(super) inputs: InputWeights<'a>,
}

/// How much a direction of the inputs counts: the matrix `H` of which outputs err by `E H E^T`.
#[derive(Clone, Copy)]
pub(super) enum InputWeights<'a> {
    /// `H = X^T X` over the rows that are not every fourth, of which those are left to judge by; plus a hundredth of its mean diagonal.
    Rows(&'a dyn InputRows),
    /// `H` is diagonal.
    Diagonal(&'a [f32]),
    /// `H` is 1.
    Equal,
}

/// Every so many input rows one is left to judge the result by.
pub(super) const JUDGE: usize = 4;

/// A matrix of few columns, row by row; `width` columns of which are a multiple of 16.
#[derive(Clone)]
pub(super) struct Thin {
    pub(super) values: Vec<f32>,
    pub(super) width: usize,
}

impl Thin {
    fn zeros(rows: usize, width: usize) -> Self {
        Self { values: vec![0.0; rows * width], width }
    }

    pub(super) fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.width..][..self.width]
    }

    fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.values[i * self.width..][..self.width]
    }
}

impl WeightedError<'_> {
    fn rows(&self) -> usize {
        self.error.len() / self.cols
    }

    /// Orthonormal directions of the outputs, in order of the error in them: at least `rank` where there are so many.
    ///
    /// They are the leading eigenvectors of `E H E^T` by the randomized method of Halko, Martinsson and Tropp, "Finding structure with
    /// randomness", 2011: a random block, multiplied 3 times by the matrix and made orthonormal each time, then turned to the eigenvectors
    /// within its span. Products are rounded to `f32` and summed in order, so the bits are the same on every machine.
    ///
    /// # Errors
    /// When the inputs cannot be read.
    pub(super) fn directions(&self, rank: usize, seed: u64) -> Result<Thin, StrategyError> {
        let width = (rank + OVERSAMPLING).next_multiple_of(STEP);
        let mut block = random(self.rows(), width, seed);
        for _ in 0..ROUNDS {
            orthonormalize(&mut block);
            block = self.multiply(&block)?;
        }
        orthonormalize(&mut block);
        let image = self.multiply(&block)?;
        Ok(turn(&block, &eigenvectors(inner_products(&block, &image), width)))
    }

    /// `E H E^T block`.
    fn multiply(&self, block: &Thin) -> Result<Thin, StrategyError> {
        let weighted = self.weigh(self.transposed(block))?;
        let mut out = Thin::zeros(self.rows(), block.width);
        for (i, row) in self.error.chunks_exact(self.cols).enumerate() {
            let sums = out.row_mut(i);
            row.iter().enumerate().for_each(|(j, &e)| add(sums, e, weighted.row(j)));
        }
        Ok(out)
    }

    /// `E^T block`.
    pub(super) fn transposed(&self, block: &Thin) -> Thin {
        let mut out = Thin::zeros(self.cols, block.width);
        for (i, row) in self.error.chunks_exact(self.cols).enumerate() {
            row.iter().enumerate().for_each(|(j, &e)| add(out.row_mut(j), e, block.row(i)));
        }
        out
    }

    /// `H z`.
    fn weigh(&self, mut z: Thin) -> Result<Thin, StrategyError> {
        match self.inputs {
            InputWeights::Equal => Ok(z),
            InputWeights::Diagonal(h) => {
                h.iter().enumerate().for_each(|(j, h)| z.row_mut(j).iter_mut().for_each(|v| *v *= h));
                Ok(z)
            }
            InputWeights::Rows(inputs) => self.weigh_by_rows(inputs, &z),
        }
    }

    fn weigh_by_rows(&self, inputs: &dyn InputRows, z: &Thin) -> Result<Thin, StrategyError> {
        let mut out = Thin::zeros(self.cols, z.width);
        let (mut n, mut trace, mut product) = (0, 0f64, vec![0.0; z.width]);
        inputs.visit(&mut |block, weight| {
            for x in block.chunks_exact(self.cols) {
                n += 1;
                if n % JUDGE == 0 {
                    continue;
                }
                product.fill(0.0);
                x.iter().enumerate().for_each(|(j, &x)| add(&mut product, x, z.row(j)));
                let weight = weight as f32;
                x.iter().enumerate().for_each(|(j, &x)| add(out.row_mut(j), weight * x, &product));
                trace += f64::from(weight) * x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
            }
        })?;
        let damping = (0.01 * trace / self.cols as f64) as f32;
        add(&mut out.values, damping, &z.values);
        Ok(out)
    }
}

/// `sums += factor * values`, each product and sum rounded.
#[inline]
pub(super) fn add(sums: &mut [f32], factor: f32, values: &[f32]) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
}

/// Ones and minus ones.
fn random(rows: usize, width: usize, seed: u64) -> Thin {
    let mut state = (seed ^ 0x6c6f_7772_616e_6b00) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if state >> 63 == 0 { 1.0 } else { -1.0 }
    };
    Thin { values: (0..rows * width).map(|_| next()).collect(), width }
}

/// Makes the columns orthonormal, each against those before it, twice; a column that vanishes becomes 0.
fn orthonormalize(block: &mut Thin) {
    let (width, rows) = (block.width, block.values.len() / block.width);
    let mut columns: Vec<Vec<f64>> =
        (0..width).map(|k| (0..rows).map(|i| f64::from(block.values[i * width + k])).collect()).collect();
    for k in 0..width {
        let (done, rest) = columns.split_at_mut(k);
        let column = &mut rest[0];
        let before = dot(column, column);
        for other in done.iter().chain(done.iter()) {
            let share = dot(other, column);
            column.iter_mut().zip(other).for_each(|(c, o)| *c -= share * o);
        }
        let norm = dot(column, column);
        let scale = if norm > before * 1e-20 && norm > 0.0 { 1.0 / norm.sqrt() } else { 0.0 };
        column.iter_mut().for_each(|c| *c *= scale);
    }
    for (k, column) in columns.iter().enumerate() {
        column.iter().enumerate().for_each(|(i, &c)| block.values[i * width + k] = c as f32);
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `a^T b`, made symmetric.
fn inner_products(a: &Thin, b: &Thin) -> Vec<f64> {
    let width = a.width;
    let mut out = vec![0f64; width * width];
    for (a, b) in a.values.chunks_exact(width).zip(b.values.chunks_exact(width)) {
        for (sums, &a) in out.chunks_exact_mut(width).zip(a) {
            sums.iter_mut().zip(b).for_each(|(sum, &b)| *sum += f64::from(a) * f64::from(b));
        }
    }
    (0..width * width).map(|i| (out[i] + out[i % width * width + i / width]) * 0.5).collect()
}

/// Columns of eigenvectors of a symmetric matrix, largest eigenvalue first, by Jacobi's rotations.
fn eigenvectors(mut a: Vec<f64>, n: usize) -> Vec<f64> {
    let mut v: Vec<f64> = (0..n * n).map(|i| if i % (n + 1) == 0 { 1.0 } else { 0.0 }).collect();
    for _ in 0..12 {
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut v, n, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&x, &y| a[y * n + y].total_cmp(&a[x * n + x]));
    (0..n * n).map(|i| v[i / n * n + order[i % n]]).collect()
}

/// The rotation that makes element `(p, q)` vanish.
fn rotate(a: &mut [f64], v: &mut [f64], n: usize, p: usize, q: usize) {
    let off = a[p * n + q];
    if off == 0.0 {
        return;
    }
    let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * off);
    let t = 1f64.copysign(theta) / (theta.abs() + (theta * theta + 1.0).sqrt());
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    for k in 0..n {
        let (x, y) = (a[k * n + p], a[k * n + q]);
        (a[k * n + p], a[k * n + q]) = (c * x - s * y, s * x + c * y);
        let (x, y) = (v[k * n + p], v[k * n + q]);
        (v[k * n + p], v[k * n + q]) = (c * x - s * y, s * x + c * y);
    }
    for k in 0..n {
        let (x, y) = (a[p * n + k], a[q * n + k]);
        (a[p * n + k], a[q * n + k]) = (c * x - s * y, s * x + c * y);
    }
}

/// `block turned`, for a square matrix of as many columns.
fn turn(block: &Thin, turned: &[f64]) -> Thin {
    let width = block.width;
    let row = |row: &[f32]| -> Vec<f32> {
        let mut sums = vec![0f64; width];
        for (&x, factors) in row.iter().zip(turned.chunks_exact(width)) {
            sums.iter_mut().zip(factors).for_each(|(sum, f)| *sum += f64::from(x) * f);
        }
        sums.iter().map(|&sum| sum as f32).collect()
    };
    Thin { values: block.values.chunks_exact(width).flat_map(row).collect(), width }
}
