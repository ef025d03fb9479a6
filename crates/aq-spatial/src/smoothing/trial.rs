//! The output error that factors leave, measured on a sample.

use aq_codec::{ReadScratch, Rotation, decode, seal};
use aq_core::{
    DType, EncodedRows, LayerInputs, LayerPlan, LayerStats, QuantStrategy, RowData, Rows, Scratch,
    SmoothingPlan, StrategyError, TensorInfo,
};
use aq_kernels::affine::{dequantize_zero, min_max, quantize};
use aq_kernels::output::{OutputComparison, compare_outputs};

use super::sample::Sample;
use crate::LeastSquares;

/// A sample that factors are tried on.
pub(super) struct Trial<'s> {
    sample: &'s Sample,
    plan: LayerPlan,
    rotation: Option<(Rotation, Vec<f32>)>,
}

impl<'s> Trial<'s> {
    pub(super) fn new(sample: &'s Sample, plan: &LayerPlan, rotation: Option<Rotation>) -> Self {
        let rotation = rotation.map(|rotation| {
            let mut signs = Vec::new();
            rotation.signs(sample.cols, &mut signs);
            (rotation, signs)
        });
        let plan = LayerPlan { smoothing: SmoothingPlan::Off, rotation: None, ..plan.clone() };
        Self { sample, plan, rotation }
    }

    /// The squared error of the outputs over their squares, inputs and weights quantized with these factors. Where inputs may be shifted,
    /// they are rounded around 0 and around the centers of their channels, and the smaller error counts.
    pub(super) fn error(&self, factors: &[f32]) -> Result<f64, StrategyError> {
        let Sample { cols, inputs, weights, centers, .. } = self.sample;
        let mut smooth = scaled(weights, factors, |w, s| w * s);
        let [mut tokens, mut centers] = [inputs, centers].map(|x| scaled(x, factors, |x, s| x / s));
        if let Some((rotation, signs)) = &self.rotation {
            [&mut smooth, &mut tokens, &mut centers]
                .into_iter()
                .for_each(|rows| rotation.forward(signs, rows));
        }
        let quantized = self.quantize_weights(&smooth, &tokens)?;
        let Some(bits) = self.plan.act_bits else { return Ok(self.output_error(&tokens, &quantized)) };
        let error = |centers: &[f32]| self.output_error(&rounded(&tokens, centers, bits.get()), &quantized);
        let plain = error(&vec![0.0; *cols]);
        Ok(if self.plan.act_shift { plain.min(error(&centers)) } else { plain })
    }

    /// The error of the outputs for `tokens` and `weights` in place of the sample's.
    fn output_error(&self, tokens: &[f32], weights: &[f32]) -> f64 {
        let cols = self.sample.cols;
        // Beside each other, so that one product has the output and its error: `x w - x' w' = [x x'] ([w 0] - [0 w'])`.
        let beside = self.sample.inputs.chunks_exact(cols).zip(tokens.chunks_exact(cols));
        let pairs: Vec<f32> = beside.flat_map(|(x, token)| x.iter().chain(token).copied()).collect();
        let (mut w, mut q, mut room) = (vec![0.0; 2 * cols], vec![0.0; 2 * cols], vec![0.0; 2 * cols]);
        let mut total = OutputComparison::default();
        for (row, quantized) in self.sample.weights.chunks_exact(cols).zip(weights.chunks_exact(cols)) {
            w[..cols].copy_from_slice(row);
            q[cols..].copy_from_slice(quantized);
            total.merge(&compare_outputs(&pairs, &w, &q, &mut room));
        }
        total.relative_error()
    }

    fn quantize_weights(&self, weights: &[f32], inputs: &[f32]) -> Result<Vec<f32>, StrategyError> {
        let cols = self.sample.cols;
        let info = TensorInfo::new("sample", vec![(weights.len() / cols) as u64, cols as u64], DType::F32)
            .map_err(|e| StrategyError::Read { tensor: "sample".into(), reason: e.to_string() })?;
        let importance = mean_squares(inputs, cols);
        let stats = LayerStats { importance: Some(&importance), ..LayerStats::default() };
        let layer = LayerInputs { info: &info, stats, weights: None };
        let (mut scratch, mut encoded) = (Scratch::default(), EncodedRows::default());
        let rows = Rows { data: RowData::F32(weights), cols, first_row: 0 };
        LeastSquares.prepare(&layer, &self.plan)?.quantize_rows(rows, &mut scratch, &mut encoded)?;
        seal(&mut encoded);
        let encoding = LeastSquares.estimate(&info, &stats, &self.plan).encoding;
        let mut decoded = vec![0.0; weights.len()];
        let scratch = &mut ReadScratch::default();
        decode(&encoding, &info, encoded.parts(), encoded.row_count, 0, scratch, &mut decoded)
            .map_err(|e| StrategyError::Read { tensor: "sample".into(), reason: e.to_string() })?;
        Ok(decoded)
    }
}

fn scaled(rows: &[f32], factors: &[f32], scale: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    rows.chunks_exact(factors.len())
        .flat_map(|row| row.iter().zip(factors))
        .map(|(&v, &s)| scale(v, s))
        .collect()
}

fn mean_squares(rows: &[f32], cols: usize) -> Vec<f32> {
    let mut sums = vec![0f32; cols];
    rows.chunks_exact(cols).for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * x));
    sums.iter().map(|sum| sum / (rows.len() / cols) as f32).collect()
}

/// Tokens whose distances from the centers of their channels are quantized.
fn rounded(tokens: &[f32], centers: &[f32], bits: u8) -> Vec<f32> {
    let mut rounded = tokens.to_vec();
    for token in rounded.chunks_exact_mut(centers.len()) {
        token.iter_mut().zip(centers).for_each(|(x, center)| *x -= center);
        quantize_token(token, bits);
        token.iter_mut().zip(centers).for_each(|(x, center)| *x += center);
    }
    rounded
}

/// Replaces a token by its quantized form, on its own range with 0 in it.
fn quantize_token(token: &mut [f32], bits: u8) {
    let top = ((1u32 << bits) - 1) as f32;
    let (low, high) = min_max(token);
    let scale = (high.max(0.0) - low.min(0.0)) / top;
    if scale <= 0.0 || !scale.is_finite() {
        return;
    }
    let zero = (-low.min(0.0) / scale).round_ties_even().min(top);
    let mut codes = vec![0; token.len()];
    quantize(token, 1.0 / scale, -zero * scale, top as u8, &mut codes);
    dequantize_zero(&codes, scale, zero as u8, token);
}
