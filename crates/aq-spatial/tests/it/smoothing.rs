//! Smoothed layers, with any strategy inside.

use aq_codec::{ReadScratch, Side, decode};
use aq_core::{
    BitWidth, EncodedRows, InputRows, LayerInputs, LayerPlan, LayerStats, RowData, Rows, Scratch, SlabParts,
    SmoothingPlan, StrategyError,
};
use aq_kernels::affine::{dequantize_zero, min_max, quantize};
use aq_spatial::{Transformed, estimate};

use crate::support::{Blocks, Case, METHODS, gauss, strategy};

const COLS: usize = 256;

/// A layer whose inputs have eight channels that are 100 times as large as the others, as Xiao et al. (2023) found them.
struct Layer {
    weights: Vec<f32>,
    known: Vec<f32>,
    held_out: Vec<f32>,
}

impl InputRows for Layer {
    fn visit(&self, visit: &mut dyn FnMut(&[f32], f64)) -> Result<(), StrategyError> {
        self.known.chunks(32 * COLS).for_each(|block| visit(block, 1.0));
        Ok(())
    }
}

/// What came out of a layer: decoded weights, and the held-out inputs as they meet the codes.
struct Outcome {
    weights: Vec<f32>,
    inputs: Vec<f32>,
    factors: Vec<f32>,
}

impl Layer {
    fn new(rows: usize, seed: u64) -> Self {
        let mut inputs = gauss(512 * COLS, seed + 1);
        inputs.iter_mut().skip(3).step_by(COLS / 8).for_each(|x| *x *= 100.0);
        let held_out = inputs.split_off(256 * COLS);
        let weights = gauss(rows * COLS, seed).iter().map(|w| w * 0.02).collect();
        Self { weights, known: inputs, held_out }
    }

    fn quantize(&self, case: &Case, plan: &LayerPlan) -> Outcome {
        let info = case.info(self.weights.len());
        let importance: Vec<f32> = (0..COLS)
            .map(|j| self.known.iter().skip(j).step_by(COLS).map(|x| x * x).sum::<f32>() / 256.0)
            .collect();
        let stats = LayerStats { importance: Some(&importance), inputs: Some(self), ..LayerStats::default() };
        let blocks = [RowData::F32(&self.weights)];
        let known = Blocks { blocks: &blocks, cols: COLS };
        let layer = LayerInputs { info: &info, stats, weights: Some(&known) };
        let (strategy, transformed) = (strategy(case.method), Transformed::new(layer, plan));
        let quantizer = transformed.prepare(&*strategy, plan).expect("inputs that fit");
        let (mut scratch, mut out) = (Scratch::default(), EncodedRows::default());
        let rows = Rows { data: RowData::F32(&self.weights), cols: COLS, first_row: 0 };
        quantizer.quantize_rows(rows, &mut scratch, &mut out).expect("rows that fit");
        quantizer.end_slab(&mut scratch, &mut out).expect("a slab");
        out.side.extend_from_slice(quantizer.side());
        aq_codec::seal(&mut out);
        let estimate = estimate(&*strategy, &info, &stats, plan);
        if plan.smoothing != SmoothingPlan::Auto {
            assert_eq!(estimate.bytes, out.bytes() + if estimate.transformed { 4 } else { 0 });
        }
        let parts = SlabParts { side: &out.side, ..out.parts() };
        let mut weights = vec![0.0; self.weights.len()];
        let scratch = &mut ReadScratch::default();
        decode(&estimate.encoding, &info, parts, out.row_count, 0, scratch, &mut weights)
            .expect("parts that fit");
        let mut inputs = self.held_out.clone();
        transformed.transform_inputs(&mut inputs).expect("factors");
        let side = Side::parse(&out.side, &info).expect("side data");
        let stored = side.smoothing.map_or(vec![1.0; COLS], |s| {
            s.as_chunks::<2>().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect()
        });
        Outcome { weights, inputs, factors: stored }
    }

    /// Relative squared error of the outputs, inputs quantized token by token to `bits`.
    fn error(&self, outcome: &Outcome, bits: u8) -> f64 {
        let (mut error, mut truth) = (0.0, 0.0);
        for (x, token) in self.held_out.chunks(COLS).zip(outcome.inputs.chunks(COLS)) {
            let token = quantized(token, bits);
            for (w, q) in self.weights.chunks(COLS).zip(outcome.weights.chunks(COLS)) {
                let dot = |terms: &mut dyn Iterator<Item = f32>| terms.map(f64::from).sum::<f64>();
                let y = dot(&mut x.iter().zip(w).map(|(x, w)| x * w));
                let smooth = q.iter().zip(&outcome.factors).map(|(q, s)| q * s);
                let got = dot(&mut token.iter().zip(smooth).map(|(x, q)| x * q));
                (error, truth) = (error + (y - got) * (y - got), truth + y * y);
            }
        }
        error / truth
    }
}

fn quantized(token: &[f32], bits: u8) -> Vec<f32> {
    let (top, (low, high)) = (((1u32 << bits) - 1) as f32, min_max(token));
    let scale = (high.max(0.0) - low.min(0.0)) / top;
    let zero = (-low.min(0.0) / scale).round_ties_even();
    let (mut codes, mut out) = (vec![0; token.len()], vec![0.0; token.len()]);
    quantize(token, 1.0 / scale, -zero * scale, top as u8, &mut codes);
    dequantize_zero(&codes, scale, zero as u8, &mut out);
    out
}

fn plan(case: &Case, smoothing: SmoothingPlan) -> LayerPlan {
    LayerPlan { smoothing, act_bits: BitWidth::new(8).ok(), ..case.plan() }
}

#[test]
fn every_strategy_works_inside_smoothing() {
    let layer = Layer::new(48, 1);
    for (method, bits) in METHODS.into_iter().flat_map(|m| [2, 4, 8].map(|b| (m, b))) {
        let case = Case { method, bits, group: 64, gain: true, cols: COLS };
        if !case.exists() {
            continue;
        }
        let outcome = layer.quantize(&case, &plan(&case, SmoothingPlan::Alpha(50)));
        assert!(
            outcome.factors[3] > 3.0 * outcome.factors[4],
            "{method}: an outlier channel has a large factor"
        );
        let error = layer.error(&outcome, 8);
        assert!(error < 0.7 * 4f64.powi(2 - i32::from(bits)).max(1e-4), "{method} {bits}: {error}");
    }
}

#[test]
fn smoothing_halves_the_output_error_of_layers_with_outlier_channels() {
    for (bits, seed) in [(4, 10), (4, 11), (8, 12), (8, 13)] {
        let layer = Layer::new(64, seed);
        let case = Case { method: "ls", bits, group: 64, gain: true, cols: COLS };
        let error = |smoothing| layer.error(&layer.quantize(&case, &plan(&case, smoothing)), 8);
        let (off, auto) = (error(SmoothingPlan::Off), error(SmoothingPlan::Auto));
        println!("W{bits}A8: {off:.3e} without, {auto:.3e} with");
        assert!(2.0 * auto < off, "W{bits}A8: {off} without, {auto} with");
    }
}

#[test]
fn what_a_shift_takes_away_is_not_smoothed() {
    let mut layer = Layer::new(64, 14);
    for inputs in [&mut layer.known, &mut layer.held_out] {
        inputs.iter_mut().skip(3).step_by(COLS / 8).for_each(|x| *x = *x / 100.0 + 100.0);
    }
    let case = Case { method: "ls", bits: 8, group: 64, gain: true, cols: COLS };
    let spread = |act_shift| {
        let plan =
            LayerPlan { act_shift, act_bits: BitWidth::new(4).ok(), ..plan(&case, SmoothingPlan::Auto) };
        let factors = layer.quantize(&case, &plan).factors;
        factors.iter().fold(0.0, |a: f32, &b| a.max(b)) / factors.iter().fold(f32::MAX, |a, &b| a.min(b))
    };
    let (shifted, not) = (spread(true), spread(false));
    assert!(
        4.0 * shifted < not,
        "factors differ {shifted} times where inputs are shifted, {not} times where not"
    );
}

#[test]
fn auto_is_no_worse_than_any_formula() {
    let layer = Layer::new(64, 20);
    let case = Case { method: "ls", bits: 4, group: 64, gain: true, cols: COLS };
    let error = |smoothing| layer.error(&layer.quantize(&case, &plan(&case, smoothing)), 8);
    let auto = error(SmoothingPlan::Auto);
    for formula in
        [SmoothingPlan::Awq, SmoothingPlan::Ptq4dit, SmoothingPlan::Alpha(50), SmoothingPlan::Alpha(100)]
    {
        let other = error(formula);
        assert!(auto < 1.1 * other, "{formula:?}: {other}, auto {auto}");
    }
}

#[test]
fn without_inputs_there_is_none() {
    let layer = Layer::new(8, 30);
    let case = Case { method: "ls", bits: 4, group: 64, gain: true, cols: COLS };
    let (info, plan) = (case.info(layer.weights.len()), plan(&case, SmoothingPlan::Auto));
    let transformed = Transformed::new(LayerInputs::new(&info), &plan);
    let strategy = strategy("ls");
    let quantizer = transformed.prepare(&*strategy, &plan).expect("a layer");
    assert_eq!(quantizer.step_downs()[0].to, "no smoothing");
    assert!(Side::parse(quantizer.side(), &info).is_ok_and(|side| side.smoothing.is_none()));
}
