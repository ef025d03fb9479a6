//! Layers whose distribution is known.

use std::path::Path;

use serde_json::{Map, json};

use crate::random::Random;
use crate::safetensors::{Content, Tensor};

/// Correlated layers have so many inputs and outputs.
const INPUTS: usize = 512;
const OUTPUTS: usize = 256;
/// Time buckets of samples, and rows of each: for calibration, and to measure on.
const BUCKETS: usize = 8;
pub(crate) const CALIBRATION_ROWS: usize = 512;
pub(crate) const HELD_OUT_ROWS: usize = 64;

/// Writes one layer `[rows, 4096]` of independent weights of unit variance.
pub(crate) fn independent(path: &Path, rows: usize, mut draw: impl FnMut() -> f64) -> anyhow::Result<()> {
    const COLUMNS: usize = 4096;
    let values: Vec<f32> = (0..rows * COLUMNS).map(|_| draw() as f32).collect();
    let shape = [rows as u64, COLUMNS as u64];
    let tensors = vec![Tensor::f32("layer.weight", &shape, &values)];
    Content { tensors, ..Content::default() }.write(path)
}

/// A layer of heavy-tailed weights with rows and columns of differing size, and the law of its inputs: a spectrum that
/// decays as `i^-0.8` in random directions, and 8 input channels 8 times as large as the others.
pub(crate) struct Correlated {
    pub(crate) weights: Vec<f32>,
    /// `mixing[i]` times independent normal numbers is input `i`.
    mixing: Vec<Vec<f64>>,
    random: Random,
}

impl Correlated {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let spectrum: Vec<f64> = (1..=INPUTS).map(|i| (i as f64).powf(-0.8)).collect();
        let mean = spectrum.iter().sum::<f64>() / INPUTS as f64;
        let mut mixing = orthogonal(&mut random, INPUTS);
        for row in &mut mixing {
            row.iter_mut().zip(&spectrum).for_each(|(value, power)| *value *= (power / mean).sqrt());
        }
        for outlier in outliers(&mut random) {
            mixing[outlier].iter_mut().for_each(|value| *value *= 8.0);
        }
        let weights = weights(&mut random);
        Correlated { weights, mixing, random }
    }

    /// So many rows of inputs for each bucket, row after row.
    pub(crate) fn samples(&mut self, rows: usize) -> Vec<f32> {
        let mut samples = Vec::with_capacity(BUCKETS * rows * INPUTS);
        for _ in 0..BUCKETS * rows {
            let normal: Vec<f64> = (0..INPUTS).map(|_| self.random.normal()).collect();
            let input =
                |mixing: &Vec<f64>| mixing.iter().zip(&normal).map(|(m, x)| m * x).sum::<f64>() as f32;
            samples.extend(self.mixing.iter().map(input));
        }
        samples
    }
}

/// Writes the weights of the layers to one file.
pub(crate) fn write_weights(path: &Path, layers: &[Correlated]) -> anyhow::Result<()> {
    let shape = [OUTPUTS as u64, INPUTS as u64];
    let tensor =
        |(i, layer): (usize, &Correlated)| Tensor::f32(&format!("layers.{i}.weight"), &shape, &layer.weights);
    let tensors = layers.iter().enumerate().map(tensor).collect();
    Content { tensors, ..Content::default() }.write(path)
}

/// Writes a samples file with fresh inputs of the layers, `rows` a bucket.
pub(crate) fn write_samples(path: &Path, layers: &mut [Correlated], rows: usize) -> anyhow::Result<()> {
    let shape = [BUCKETS as u64, rows as u64, INPUTS as u64];
    let times: Vec<f32> = (0..BUCKETS).map(|bucket| (bucket as f32 + 0.5) / BUCKETS as f32).collect();
    let mut tensors = vec![Tensor::f32("timesteps", &[BUCKETS as u64], &times)];
    for (i, layer) in layers.iter_mut().enumerate() {
        tensors.push(Tensor::f32(&format!("layers.{i}"), &shape, &layer.samples(rows)));
    }
    let metadata = [("aq.calibration", "samples/1"), ("aq.time", "t"), ("aq.aliases", "{}")];
    let metadata = Map::from_iter(metadata.map(|(key, value)| (key.to_owned(), json!(value))));
    Content { metadata, tensors }.write(path)
}

/// The rows of a random orthogonal matrix, by the modified Gram-Schmidt process.
fn orthogonal(random: &mut Random, n: usize) -> Vec<Vec<f64>> {
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(n);
    while rows.len() < n {
        let mut row: Vec<f64> = (0..n).map(|_| random.normal()).collect();
        for other in &rows {
            let dot: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
            row.iter_mut().zip(other).for_each(|(a, b)| *a -= dot * b);
        }
        let length = row.iter().map(|a| a * a).sum::<f64>().sqrt();
        row.iter_mut().for_each(|a| *a /= length);
        rows.push(row);
    }
    rows
}

fn outliers(random: &mut Random) -> Vec<usize> {
    let mut chosen = Vec::new();
    while chosen.len() < 8 {
        let channel = random.below(INPUTS);
        if !chosen.contains(&channel) {
            chosen.push(channel);
        }
    }
    chosen
}

fn weights(random: &mut Random) -> Vec<f32> {
    let size = |random: &mut Random| (0.3 * random.normal()).exp();
    let columns: Vec<f64> = (0..INPUTS).map(|_| size(random)).collect();
    let mut weights = Vec::with_capacity(OUTPUTS * INPUTS);
    for _ in 0..OUTPUTS {
        let row = size(random) / (INPUTS as f64).sqrt();
        weights.extend(columns.iter().map(|column| (row * column * random.student(6)) as f32));
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orthogonal_rows_have_length_one_and_no_product() {
        let rows = orthogonal(&mut Random(5), 24);
        for (i, a) in rows.iter().enumerate() {
            for (j, b) in rows.iter().enumerate() {
                let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-12, "{i} {j} {dot}");
            }
        }
    }

    #[test]
    fn inputs_are_correlated_with_a_few_large_channels() {
        let mut layer = Correlated::new(1);
        let samples = layer.samples(16);
        let power = |i: usize| {
            samples.chunks(INPUTS).map(|row| f64::from(row[i]).powi(2)).sum::<f64>()
                / (samples.len() / INPUTS) as f64
        };
        let large = (0..INPUTS).filter(|&i| power(i) > 16.0).count();
        assert!((7..=9).contains(&large), "{large}");
        assert_ne!(Correlated::new(1).samples(1), Correlated::new(2).samples(1));
    }
}
