//! A guess of the score of plans that were not scored yet, from those that were.

use crate::{Evaluated, Problem};

/// Gaussian process over plans (Rasmussen and Williams, 2006, chapter 2): scores of plans are alike as far as their genes are.
///
/// ```text
/// score(g) ~ a + b predicted_error(g) + f(g)      cov(f(g), f(h)) = s exp(-distance(g, h) / length)
/// ```
///
/// The distance adds up over layers: 0 for equal genes, up to 1 for candidates a third of the layer's range apart by bytes. `a` and `b` are
/// those of least squares, with `b` at least 0; the length is the one of the highest likelihood among some.
pub(crate) struct Surrogate<'a> {
    problem: &'a Problem,
    genomes: Vec<&'a [u16]>,
    line: (f64, f64),
    length: f64,
    /// Cholesky factor of the covariances, row by row.
    factor: Vec<Vec<f64>>,
    /// Covariances solved for what the line leaves.
    weights: Vec<f64>,
    scale: f64,
    best: f64,
}

/// Plans that are looked at.
const MOST: usize = 96;
/// Lengths that are tried.
const LENGTHS: [f64; 7] = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
/// Noise of a score, in parts of the variance.
const NOISE: f64 = 1e-4;

impl<'a> Surrogate<'a> {
    /// Of the best plans that were scored. `None` while there are fewer than 3 or all have one score.
    pub(crate) fn new(problem: &'a Problem, visited: &'a [Evaluated]) -> Option<Self> {
        let mut known: Vec<&Evaluated> =
            visited.iter().filter(|e| e.score.is_some_and(f64::is_finite)).collect();
        known.sort_by(|a, b| a.cost().total_cmp(&b.cost()));
        known.truncate(MOST);
        let (first, middle) = (known.first()?.cost(), known[known.len() / 2].cost());
        // What is far worse than the rest says no more than that it is worse.
        let ceiling = middle + 2.0 * (middle - first);
        let scores: Vec<f64> = known.iter().map(|e| e.cost().min(ceiling)).collect();
        if known.len() < 3 || ceiling <= first {
            return None;
        }
        let genomes: Vec<&[u16]> = known.iter().map(|e| e.genome.as_slice()).collect();
        let errors: Vec<f64> = genomes.iter().map(|g| problem.error(g)).collect();
        let line = fitted_line(&errors, &scores);
        let rest: Vec<f64> = errors.iter().zip(&scores).map(|(e, s)| s - line.0 - line.1 * e).collect();
        let distances = distances(problem, &genomes);
        let fits = LENGTHS.iter().filter_map(|&length| Fit::new(&distances, &rest, length));
        let fit = fits.max_by(|a, b| a.likelihood.total_cmp(&b.likelihood))?;
        let Fit { length, factor, weights, scale, .. } = fit;
        Some(Self { problem, genomes, line, length, factor, weights, scale, best: first })
    }

    /// How much a plan may be expected to improve on the best score (Jones, Schonlau and Welch, 1998).
    pub(crate) fn expected_improvement(&self, genome: &[u16]) -> f64 {
        let near: Vec<f64> =
            self.genomes.iter().map(|g| (-distance(self.problem, g, genome) / self.length).exp()).collect();
        let mean = self.line.0
            + self.line.1 * self.problem.error(genome)
            + near.iter().zip(&self.weights).map(|(k, w)| k * w).sum::<f64>();
        let solved = forward(&self.factor, &near);
        let known: f64 = solved.iter().map(|v| v * v).sum();
        let deviation = (self.scale * (1.0 + NOISE - known).max(1e-9)).sqrt();
        let z = (self.best - mean) / deviation;
        deviation * (z * normal_cdf(z) + (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt())
    }
}

/// A fit with one length.
struct Fit {
    length: f64,
    factor: Vec<Vec<f64>>,
    weights: Vec<f64>,
    scale: f64,
    likelihood: f64,
}

impl Fit {
    fn new(distances: &[Vec<f64>], rest: &[f64], length: f64) -> Option<Self> {
        let n = rest.len();
        let row = |i: usize| -> Vec<f64> {
            let covariance = |j: usize| (-distances[i][j] / length).exp() + if i == j { NOISE } else { 0.0 };
            (0..=i).map(covariance).collect()
        };
        let factor = cholesky((0..n).map(row).collect())?;
        let half = forward(&factor, rest);
        let scale = (half.iter().map(|v| v * v).sum::<f64>() / n as f64).max(f64::MIN_POSITIVE);
        let determinant: f64 = factor.iter().enumerate().map(|(i, row)| row[i].ln()).sum();
        let likelihood = -determinant - scale.ln() * n as f64 / 2.0;
        let weights = backward(&factor, half);
        Some(Self { length, factor, weights, scale, likelihood })
    }
}

/// `a` and `b >= 0` of the least squares of `y - a - b x`.
fn fitted_line(x: &[f64], y: &[f64]) -> (f64, f64) {
    let n = x.len() as f64;
    let (mean_x, mean_y) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let (mut xx, mut xy) = (0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        xx += (x - mean_x) * (x - mean_x);
        xy += (x - mean_x) * (y - mean_y);
    }
    let slope = if xx > 0.0 && xy > 0.0 { xy / xx } else { 0.0 };
    (mean_y - slope * mean_x, slope)
}

fn distances(problem: &Problem, genomes: &[&[u16]]) -> Vec<Vec<f64>> {
    let row = |i: usize| genomes[..=i].iter().map(|g| distance(problem, g, genomes[i])).collect();
    (0..genomes.len()).map(row).collect()
}

fn distance(problem: &Problem, a: &[u16], b: &[u16]) -> f64 {
    let between = |layer: usize| {
        if a[layer] == b[layer] {
            return 0.0;
        }
        let steps = problem.rank(layer, a[layer]).abs_diff(problem.rank(layer, b[layer]));
        let third = (problem.layers()[layer].len() as f64 - 1.0) / 3.0;
        (f64::from(steps) / third.max(1.0)).min(1.0)
    };
    (0..a.len()).map(between).sum()
}

/// The lower factor of a matrix given by its lower rows; `None` where it is not positive definite.
fn cholesky(mut rows: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    for i in 0..rows.len() {
        let (above, from_i) = rows.split_at_mut(i);
        let row = &mut from_i[0];
        for j in 0..i {
            let inner: f64 = row[..j].iter().zip(&above[j]).map(|(a, b)| a * b).sum();
            row[j] = (row[j] - inner) / above[j][j];
        }
        let left = row[i] - row[..i].iter().map(|v| v * v).sum::<f64>();
        if left <= 0.0 {
            return None;
        }
        row[i] = left.sqrt();
    }
    Some(rows)
}

/// Solves `L x = b`.
fn forward(factor: &[Vec<f64>], b: &[f64]) -> Vec<f64> {
    let mut x: Vec<f64> = Vec::with_capacity(b.len());
    for (row, &value) in factor.iter().zip(b) {
        let inner: f64 = row.iter().zip(&x).map(|(a, b)| a * b).sum();
        x.push((value - inner) / row[x.len()]);
    }
    x
}

/// Solves `L^T x = b`.
fn backward(factor: &[Vec<f64>], mut b: Vec<f64>) -> Vec<f64> {
    for i in (0..b.len()).rev() {
        b[i] /= factor[i][i];
        let own = b[i];
        b[..i].iter_mut().zip(&factor[i]).for_each(|(b, l)| *b -= l * own);
    }
    b
}

/// The normal distribution function, to 1e-7 (Abramowitz and Stegun 26.2.17).
fn normal_cdf(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let terms = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let sum = terms.iter().rev().fold(0.0, |sum, term| (sum + term) * t);
    let tail = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum;
    if z >= 0.0 { 1.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Candidate, Operator};

    #[test]
    fn the_distribution_function_is_that_of_a_table() {
        for (z, p) in
            [(-3.0, 0.001_349_9), (-1.0, 0.158_655_3), (0.0, 0.5), (0.5, 0.691_462_5), (2.0, 0.977_249_9)]
        {
            assert!((normal_cdf(z) - p).abs() < 2e-7, "{z}: {}", normal_cdf(z));
        }
    }

    #[test]
    fn systems_are_solved() {
        let rows = vec![vec![4.0], vec![2.0, 5.0], vec![1.0, 3.0, 6.0]];
        let full = |i: usize, j: usize| if i >= j { rows[i][j] } else { rows[j][i] };
        let factor = cholesky(rows.clone()).expect("positive definite");
        let x = backward(&factor, forward(&factor, &[1.0, 2.0, 3.0]));
        for (i, b) in [1.0, 2.0, 3.0].into_iter().enumerate() {
            let product: f64 = (0..3).map(|j| full(i, j) * x[j]).sum();
            assert!((product - b).abs() < 1e-12);
        }
        assert!(cholesky(vec![vec![1.0], vec![2.0, 1.0]]).is_none());
    }

    #[test]
    fn what_lies_between_good_plans_promises_more_than_what_lies_between_bad_ones() {
        let layer: Vec<Candidate> = (0..7).map(|i| Candidate::new(i, 0.0)).collect();
        let problem = Problem::new(vec![layer; 4], 0, 100).expect("good");
        let scored = |gene: u16| {
            let score = Some(f64::from(gene.abs_diff(2)));
            Evaluated { genome: vec![gene; 4], score, operator: Operator::Start }
        };
        let visited: Vec<Evaluated> = [0, 1, 3, 4, 5, 6].map(scored).to_vec();
        let guess = Surrogate::new(&problem, &visited).expect("enough is known");
        let promise = |gene: u16| guess.expected_improvement(&[gene; 4]);
        assert!(promise(2) > 3.0 * promise(0) && promise(2) > 3.0 * promise(5));
        assert!(Surrogate::new(&problem, &visited[..2]).is_none());
    }
}
