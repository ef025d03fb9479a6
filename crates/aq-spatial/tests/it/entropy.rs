//! `entropy` meets its rate, errs as little as theory allows, and depends on nothing but weights, inputs and rate.

use aq_codec::{ReadScratch, decode};
use aq_core::{
    DType, EncodedRows, Encoding, LayerInputs, LayerPlan, LayerStats, QuantStrategy, Rate, RowData, Rows,
    Scratch, TensorInfo,
};
use aq_spatial::Entropy;

use crate::support::{Blocks, Case, Inputs, gauss, laplace, relative_mse, slope, student5};

/// A layer at a rate.
#[derive(Debug, Clone, Copy)]
struct Layer {
    cols: usize,
    rate: f64,
    gain: bool,
}

impl Layer {
    fn new(cols: usize, rate: f64) -> Self {
        Self { cols, rate, gain: true }
    }

    fn encode(self, blocks: &[RowData<'_>], stats: LayerStats<'_>) -> EncodedRows {
        let n: usize = blocks.iter().map(RowData::len).sum();
        let info = self.info(n);
        let weights = Blocks { blocks, cols: self.cols };
        let layer = LayerInputs { info: &info, stats, weights: Some(&weights) };
        let case = Case { method: "entropy", bits: 2, group: 0, gain: self.gain, cols: self.cols };
        let plan = LayerPlan { rate: Some(Rate::new(self.rate).expect("a rate")), ..case.plan() };
        let quantizer = Entropy.prepare(&layer, &plan).expect("inputs that fit");
        let (mut scratch, mut out) = (Scratch::default(), EncodedRows::default());
        for &data in blocks {
            let rows = Rows { data, cols: self.cols, first_row: out.row_count };
            quantizer.quantize_rows(rows, &mut scratch, &mut out).expect("rows that fit");
        }
        quantizer.end_slab(&mut scratch, &mut out).expect("rows that can be stored");
        out
    }

    fn info(self, n: usize) -> TensorInfo {
        let shape = vec![(n / self.cols) as u64, self.cols as u64];
        TensorInfo::new("w", shape, DType::F32).expect("a valid shape")
    }

    /// Bits per weight, and the decoded weights.
    fn round_trip(self, weights: &[f32], stats: LayerStats<'_>) -> (f64, Vec<f32>) {
        let encoded = self.encode(&[RowData::F32(weights)], stats);
        let mut out = vec![0.0; weights.len()];
        let (info, rows) = (self.info(weights.len()), encoded.row_count);
        let mut scratch = ReadScratch::default();
        decode(&Encoding::Entropy, &info, encoded.parts(), rows, 0, &mut scratch, &mut out)
            .expect("parts that fit");
        (encoded.bytes() as f64 * 8.0 / weights.len() as f64, out)
    }
}

#[test]
fn rates_are_met_with_every_byte() {
    for (rows, cols) in [(128, 128), (300, 200), (1024, 512)] {
        for rate in [0.7, 1.0, 1.5, 2.1, 3.3, 5.0, 8.0] {
            let weights = student5(rows * cols, 51);
            let (bits, _) = Layer::new(cols, rate).round_trip(&weights, LayerStats::default());
            // A stream ends on a word, and a scale has one part of an octave.
            let slack = rate * 0.003 + 600.0 / weights.len() as f64;
            assert!(bits < rate * 1.001 + 300.0 / weights.len() as f64, "{rows} x {cols}, {rate}: {bits}");
            assert!(bits > rate - slack, "{rows} x {cols}, {rate}: {bits}");
        }
    }
}

/// The entropy-coded uniform grid of least error, by numerical integration, at 1, 2, 3 and 4 bits.
#[test]
fn errors_are_those_of_theory() {
    const N: usize = 512 * 2048;
    let sources = [
        ("normal", gauss(N, 52), [0.3483, 0.0889, 0.0222, 0.00556]),
        ("Laplace", laplace(N, 53), [0.2618, 0.0729, 0.01897, 0.00479]),
        ("Student", student5(N, 54), [0.2925, 0.0808, 0.02025, 0.00506]),
    ];
    for (name, weights, errors) in sources {
        for (rate, expected) in (1..).zip(errors) {
            let layer = Layer { gain: false, ..Layer::new(2048, f64::from(rate)) };
            let (bits, q) = layer.round_trip(&weights, LayerStats::default());
            let error = relative_mse(&weights, &q);
            println!("{name} at {bits:.4} bits: {error:.5}, theory {expected}");
            assert!(error < 1.03 * expected, "{name} at {rate} bits: {error} against {expected}");
        }
    }
}

#[test]
fn outputs_err_less_than_with_gptq_at_more_bits() {
    for (rows, cols) in [(256, 192), (64, 600), (40, 2304)] {
        let (weights, inputs) = (student5(rows * cols, 55), Inputs::new(2 * cols.min(500), cols));
        for bits in [2, 3] {
            let case = Case { method: "gptq", bits, group: 64, gain: true, cols };
            let (other, _) = case.encode_with(&[RowData::F32(&weights)], inputs.stats());
            let before = inputs.output_error(&weights, &case.decode(&other));
            let rate = f64::from(bits) + 0.3;
            let (own, q) = Layer::new(cols, rate).round_trip(&weights, inputs.stats());
            let error = inputs.output_error(&weights, &q);
            println!("{rows} x {cols} at {own:.3} bits: {error:.5}, gptq at {bits}.5 bits {before:.5}");
            assert!(error < 0.7 * before, "{rows} x {cols}, {bits} bits: {error} against {before}");
        }
    }
}

#[test]
fn the_gain_restores_the_slope() {
    let weights = laplace(200 * 300, 56);
    let (_, q) = Layer::new(300, 1.5).round_trip(&weights, LayerStats::default());
    for (w, q) in weights.chunks(300).zip(q.chunks(300)) {
        // The gain is stored in sixteenths of an octave.
        assert!((slope(w, q) - 1.0).abs() < 0.025, "{}", slope(w, q));
    }
}

#[test]
fn bytes_depend_on_neither_blocks_nor_simd_level() {
    for cols in [70, 600] {
        let weights = student5(75 * cols, 57);
        let inputs = Inputs::new(300, cols);
        for stats in [LayerStats::default(), inputs.stats()] {
            let layer = Layer::new(cols, 2.2);
            let whole = layer.encode(&[RowData::F32(&weights)], stats);
            for rows in [1, 5, 16, 17] {
                let blocks: Vec<_> = weights.chunks(rows * cols).map(RowData::F32).collect();
                assert_eq!(layer.encode(&blocks, stats), whole, "{cols} columns, {rows} rows");
            }
            for level in aq_kernels::levels() {
                let again = aq_kernels::with_level(level, || layer.encode(&[RowData::F32(&weights)], stats));
                assert_eq!(again, whole, "{cols} columns, {level}");
            }
        }
    }
}

#[test]
fn rows_of_any_magnitude_come_back() {
    let cols = 128;
    let mut weights = gauss(64 * cols, 58);
    weights[3 * cols..4 * cols].iter_mut().for_each(|w| *w *= 1e-36);
    weights[5 * cols..6 * cols].iter_mut().for_each(|w| *w *= 1e36);
    weights[7 * cols..8 * cols].fill(0.0);
    weights[8 * cols..9 * cols].fill(0.37);
    weights[9 * cols] = 1e6;
    let inputs = Inputs::new(300, cols);
    for stats in [LayerStats::default(), inputs.stats()] {
        let (_, q) = Layer::new(cols, 4.0).round_trip(&weights, stats);
        assert!(q.iter().all(|v| v.is_finite()));
        assert!(q[7 * cols..8 * cols].iter().all(|&v| v == 0.0));
        let largest = 5 * cols..6 * cols;
        let error = relative_mse(&weights[largest.clone()], &q[largest]);
        assert!(error < 0.1, "{error}");
    }
    let (_, q) = Layer::new(cols, 4.0).round_trip(&weights, LayerStats::default());
    for row in [0, 3, 8, 9, 20] {
        let range = row * cols..(row + 1) * cols;
        let error = relative_mse(&weights[range.clone()], &q[range]);
        assert!(error < 0.02, "row {row}: {error}");
    }
}

#[test]
fn tiny_layers_are_stored() {
    for (rows, cols) in [(1, 1), (1, 7), (3, 5), (17, 1)] {
        for weights in [gauss(rows * cols, 59), vec![0.0; rows * cols], vec![f32::MAX; rows * cols]] {
            let (_, q) = Layer::new(cols, 2.0).round_trip(&weights, LayerStats::default());
            assert!(q.iter().all(|v| v.is_finite()), "{weights:?} {q:?}");
        }
    }
}
