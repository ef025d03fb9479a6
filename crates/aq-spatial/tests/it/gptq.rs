//! `gptq` with calibration inputs.

use aq_core::{EncodedRows, LayerInputs, LayerStats, RowData, Rows, Scratch, StepDown, StrategyError};

use crate::support::{Case, Inputs, gauss, relative_mse, strategy, student5};

fn case(bits: u8, group: u32, cols: usize) -> Case {
    Case { method: "gptq", bits, group, gain: true, cols }
}

fn quantize(case: Case, weights: &[f32], inputs: &Inputs) -> (Vec<f32>, Vec<StepDown>) {
    let (encoded, steps) = case.encode_with(&[RowData::F32(weights)], inputs.stats());
    (case.decode(&encoded), steps)
}

#[test]
fn outputs_err_less_than_with_least_squares() {
    for (cols, group) in [(192, 64), (200, 0), (2304, 128), (2304, 0), (70, 16)] {
        let (weights, inputs) = (student5(12 * cols, 41), Inputs::new(2 * cols.min(500), cols));
        for bits in [2, 3, 4, 8] {
            let case = case(bits, group, cols);
            let (q, _) = quantize(case, &weights, &inputs);
            let plain = Case { method: "ls", ..case }.round_trip(&weights);
            let (error, before) = (inputs.output_error(&weights, &q), inputs.output_error(&weights, &plain));
            println!("{cols} columns, group {group}, {bits} bits: {error:.6} against {before:.6}");
            assert!(error < 0.8 * before, "{case:?}: {error} against {before}");
        }
    }
}

#[test]
fn any_split_gives_the_same_bytes() {
    for (cols, group) in [(200, 24), (2100, 128), (2100, 0)] {
        let mut weights = student5(19 * cols, 42);
        // Rows of another magnitude, one of zeros, one that is constant.
        weights[3 * cols..4 * cols].iter_mut().for_each(|w| *w *= 1e-30);
        weights[5 * cols..6 * cols].iter_mut().for_each(|w| *w *= 1e30);
        weights[7 * cols..8 * cols].fill(0.0);
        weights[8 * cols..9 * cols].fill(0.37);
        let inputs = Inputs::new(64, cols);
        for bits in [2, 5] {
            let case = case(bits, group, cols);
            let (whole, _) = case.encode_with(&[RowData::F32(&weights)], inputs.stats());
            for rows in [1, 5, 16, 17] {
                let blocks: Vec<_> = weights.chunks(rows * cols).map(RowData::F32).collect();
                assert_eq!(case.encode_with(&blocks, inputs.stats()).0, whole, "{case:?}, {rows} rows");
            }
            let decoded = case.decode(&whole);
            assert!(decoded[7 * cols..8 * cols].iter().all(|&q| q == 0.0));
            for row in [3, 5, 8] {
                let (w, q) = (&weights[row * cols..][..cols], &decoded[row * cols..][..cols]);
                assert!(relative_mse(w, q) < 0.5, "{case:?}, row {row}: {}", relative_mse(w, q));
            }
        }
    }
}

#[test]
fn every_simd_level_gives_the_same_bytes() {
    let cols = 2100;
    let (weights, inputs) = (student5(19 * cols, 43), Inputs::new(300, cols));
    let case = case(3, 64, cols);
    let encode = || case.encode_with(&[RowData::F32(&weights)], inputs.stats()).0;
    let expected = aq_kernels::with_level(aq_kernels::Level::Scalar, encode);
    for level in aq_kernels::levels() {
        assert!(aq_kernels::with_level(level, encode) == expected, "{level}");
    }
}

/// Hessians without an inverse end in a step down and in weights that can be used.
#[test]
fn hessians_without_an_inverse_are_reported() {
    let cols = 160;
    let weights = gauss(20 * cols, 44);
    let case = case(4, 32, cols);
    let nearest = Case { method: "ls", ..case }.round_trip(&weights);
    let few = Inputs::new(20, cols);
    let cases = [
        ("singular", Inputs::new(20, cols), "it is singular: 20 calibration rows for 160 columns"),
        (
            "dead",
            Inputs::new(400, cols).changed(|col, x| *x *= f32::from(u8::from(col % 8 != 0))),
            "it is singular: 20 input channels are always 0",
        ),
        ("zero", Inputs::new(400, cols).changed(|_, x| *x = 0.0), "1 of 1 blocks of its Hessian are zero"),
        (
            "poisoned",
            Inputs::new(400, cols).changed(|col, x| *x = if col == 9 { f32::NAN } else { *x }),
            "1 of 1 blocks of its Hessian hold NaN or infinite values",
        ),
        (
            "infinite",
            Inputs::new(400, cols).changed(|_, x| *x *= f32::INFINITY),
            "1 of 1 blocks of its Hessian hold NaN or infinite values",
        ),
    ];
    for (what, inputs, reason) in cases {
        let (q, steps) = quantize(case, &weights, &inputs);
        assert_eq!(steps.iter().map(|s| s.reason.as_str()).collect::<Vec<_>>(), [reason], "{what}");
        assert!(q.iter().all(|q| q.is_finite()), "{what}");
        let (error, plain) = (relative_mse(&weights, &q), relative_mse(&weights, &nearest));
        assert!(error < 6.0 * plain, "{what}: {error} {plain}");
        if matches!(what, "zero" | "poisoned" | "infinite") {
            assert!(error < 1.2 * plain, "{what} is round to nearest: {error} {plain}");
        }
    }
    assert!(
        few.output_error(&weights, &quantize(case, &weights, &few).0)
            < 0.5 * few.output_error(&weights, &nearest)
    );
}

#[test]
fn without_inputs_it_is_least_squares() {
    let cols = 160;
    let weights = gauss(3 * cols, 45);
    let case = case(4, 32, cols);
    let none = Inputs { rows: Vec::new(), cols };
    for stats in [LayerStats::default(), none.stats()] {
        let (encoded, steps) = case.encode_with(&[RowData::F32(&weights)], stats);
        assert_eq!(encoded, Case { method: "ls", ..case }.encode(&[RowData::F32(&weights)], None));
        assert_eq!((steps.len(), steps[0].to.as_str()), (1, "ls"));
    }
}

#[test]
fn inputs_of_another_length_are_refused() {
    let case = case(4, 32, 160);
    let info = case.info(320);
    let inputs = Inputs { rows: vec![1.0; 161 * 3], cols: 161 };
    let layer = LayerInputs { stats: inputs.stats(), ..LayerInputs::new(&info) };
    let refused = strategy("gptq").prepare(&layer, &case.plan()).err().expect("refused");
    assert!(matches!(refused, StrategyError::InputLength { .. }), "{refused}");
}

#[test]
fn the_slope_of_the_outputs_is_one() {
    let cols = 256;
    let (weights, inputs) = (student5(16 * cols, 46), Inputs::new(1000, cols));
    let slope = |case: Case| {
        let (q, _) = quantize(case, &weights, &inputs);
        let (mut product, mut norm) = (0.0, 0.0);
        for x in inputs.rows.chunks(cols) {
            for (w, q) in weights.chunks(cols).zip(q.chunks(cols)) {
                let dot = |v: &[f32]| v.iter().zip(x).map(|(v, x)| f64::from(v * x)).sum::<f64>();
                product += dot(w) * dot(q);
                norm += dot(w) * dot(w);
            }
        }
        product / norm
    };
    let with = slope(case(2, 64, cols));
    let without = slope(Case { gain: false, ..case(2, 64, cols) });
    assert!(
        (with - 1.0).abs() < 5e-4 && (with - 1.0).abs() < 0.3 * (without - 1.0).abs(),
        "{with} {without}"
    );
}

#[test]
fn a_warm_scratch_does_not_grow() {
    let cols = 320;
    let (weights, inputs) = (gauss(16 * cols, 47), Inputs::new(100, cols));
    let case = case(4, 64, cols);
    let info = case.info(weights.len());
    let layer = LayerInputs { stats: inputs.stats(), ..LayerInputs::new(&info) };
    let strategy = strategy("gptq");
    let quantizer = strategy.prepare(&layer, &case.plan()).expect("inputs that fit");
    let rows = Rows { data: RowData::F32(&weights), cols, first_row: 0 };
    let (mut scratch, mut first, mut second) =
        (Scratch::default(), EncodedRows::default(), EncodedRows::default());
    quantizer.quantize_rows(rows, &mut scratch, &mut first).expect("rows that fit");
    let capacities = |s: &Scratch| [s.row.capacity(), s.decoded.capacity(), s.scales.capacity()];
    let before = capacities(&scratch);
    quantizer.quantize_rows(rows, &mut scratch, &mut second).expect("rows that fit");
    assert_eq!((capacities(&scratch), second), (before, first));
}
