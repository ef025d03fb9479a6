//! What the choice of factors is made from: ranges of all inputs and weights, and some rows of both.

use aq_core::{InputRows, LayerInputs, LayerWeights, StrategyError};

use crate::grouped::expect_length;

/// Calibration rows to measure on, at most.
const INPUTS: usize = 32;
/// Rows of weights to measure on, at most.
const WEIGHTS: u64 = 16;

/// Ranges and rows of layers that see the same inputs.
pub(super) struct Sample {
    pub(super) cols: usize,
    /// Largest magnitude of each channel.
    pub(super) largest_inputs: Vec<f32>,
    /// Mean magnitude of each channel.
    pub(super) mean_inputs: Vec<f32>,
    /// Mean of each channel.
    pub(super) centers: Vec<f32>,
    /// Largest magnitude of the weights of each channel.
    pub(super) largest_weights: Vec<f32>,
    /// Largest magnitude of each channel in each timestep bucket.
    pub(super) absmax: Vec<f32>,
    /// Some calibration rows.
    pub(super) inputs: Vec<f32>,
    /// Some rows of weights.
    pub(super) weights: Vec<f32>,
}

impl Sample {
    /// Reads all inputs of the first layer and all weights of `layers`; `None` when there are no inputs or weights at hand.
    pub(super) fn read(layers: &[LayerInputs<'_>]) -> Result<Option<Self>, StrategyError> {
        let Some(first) = layers.first() else { return Ok(None) };
        let (cols, stats) = (first.info.cols() as usize, first.stats);
        let Some(inputs) = stats.inputs else { return Ok(None) };
        let mut sample = Self {
            cols,
            largest_inputs: vec![0.0; cols],
            mean_inputs: vec![0.0; cols],
            centers: vec![0.0; cols],
            largest_weights: vec![0.0; cols],
            absmax: stats.absmax.unwrap_or_default().to_vec(),
            inputs: Vec::new(),
            weights: Vec::new(),
        };
        sample.read_inputs(inputs, first.info.name())?;
        for layer in layers {
            let Some(weights) = layer.weights else { return Ok(None) };
            expect_length("a row", layer.info.name(), layer.info.cols() as usize, cols)?;
            sample.read_weights(weights, layer.info.rows(), WEIGHTS.div_ceil(layers.len() as u64))?;
        }
        if sample.absmax.is_empty() {
            sample.absmax.clone_from(&sample.largest_inputs);
        }
        expect_length("ranges over time", first.info.name(), sample.absmax.len() % cols, 0)?;
        Ok((!sample.inputs.is_empty()).then_some(sample))
    }

    fn read_inputs(&mut self, inputs: &dyn InputRows, tensor: &str) -> Result<(), StrategyError> {
        let (mut sums, mut seen) = (vec![(0f64, 0f64); self.cols], 0u64);
        let (mut step, mut ragged) = (1, None);
        inputs.visit(&mut |rows, _| {
            if !rows.len().is_multiple_of(self.cols) {
                ragged = Some(rows.len());
            }
            for row in rows.chunks_exact(self.cols) {
                let channels = self.largest_inputs.iter_mut().zip(&mut sums).zip(row);
                channels.for_each(|((largest, (magnitude, sum)), &x)| {
                    *largest = largest.max(x.abs());
                    *magnitude += f64::from(x.abs());
                    *sum += f64::from(x);
                });
                if seen.is_multiple_of(step) {
                    if self.inputs.len() == 2 * INPUTS * self.cols {
                        keep_every_other(&mut self.inputs, self.cols);
                        step *= 2;
                    }
                    if seen.is_multiple_of(step) {
                        self.inputs.extend_from_slice(row);
                    }
                }
                seen += 1;
            }
        })?;
        if self.inputs.len() > INPUTS * self.cols {
            keep_every_other(&mut self.inputs, self.cols);
        }
        let mean = |sum: f64| (sum / seen.max(1) as f64) as f32;
        (self.mean_inputs, self.centers) = sums.iter().map(|&(m, s)| (mean(m), mean(s))).unzip();
        ragged.map_or(Ok(()), |len| expect_length("a block of calibration rows", tensor, len, self.cols))
    }

    fn read_weights(
        &mut self,
        weights: &dyn LayerWeights,
        rows: u64,
        wanted: u64,
    ) -> Result<(), StrategyError> {
        let step = rows.div_ceil(wanted).max(1);
        let mut row = Vec::new();
        for i in 0..rows {
            weights.read_row(i, &mut row)?;
            self.largest_weights
                .iter_mut()
                .zip(&row)
                .for_each(|(largest, w)| *largest = largest.max(w.abs()));
            if i % step == step / 2 {
                self.weights.extend_from_slice(&row);
            }
        }
        Ok(())
    }
}

/// Keeps rows 0, 2, 4 ...
fn keep_every_other(rows: &mut Vec<f32>, cols: usize) {
    let kept = (rows.len() / cols).div_ceil(2);
    (1..kept).for_each(|i| rows.copy_within(2 * i * cols..(2 * i + 1) * cols, i * cols));
    rows.truncate(kept * cols);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_row_stays() {
        let mut rows = vec![0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0];
        keep_every_other(&mut rows, 2);
        assert_eq!(rows, [0.0, 0.0, 2.0, 2.0, 4.0, 4.0]);
    }
}
