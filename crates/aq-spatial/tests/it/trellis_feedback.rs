//! Trellis-coded rows with calibration inputs.

use aq_core::{LayerStats, RowData, StepDown};

use crate::support::{Case, Inputs, gauss, relative_mse, student5};

const TRELLISES: [&str; 2] = ["trellis", "trellis6"];

fn case(method: &'static str, bits: u8, cols: usize) -> Case {
    Case { method, bits, group: 0, gain: true, cols }
}

fn quantize(case: Case, weights: &[f32], inputs: &Inputs) -> (Vec<f32>, Vec<StepDown>) {
    let (encoded, steps) = case.encode_with(&[RowData::F32(weights)], inputs.stats());
    (case.decode(&encoded), steps)
}

/// Mean squares of the input channels.
fn importance(inputs: &Inputs) -> Vec<f32> {
    let mut sums = vec![0.0; inputs.cols];
    for row in inputs.rows.chunks(inputs.cols) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * x);
    }
    sums
}

/// Within a sequence, over sequences, and over blocks of the Hessian.
#[test]
fn outputs_err_less_than_with_importance_alone() {
    for cols in [192, 600, 2304] {
        let (weights, inputs) = (student5(12 * cols, 61), Inputs::new(2 * cols.min(500), cols));
        let importance = importance(&inputs);
        for (method, bits) in TRELLISES.into_iter().flat_map(|m| [2, 3, 4].map(|bits| (m, bits))) {
            let case = case(method, bits, cols);
            let plain = case.decode(&case.encode(&[RowData::F32(&weights)], Some(&importance)));
            let (q, _) = quantize(case, &weights, &inputs);
            let (error, before) = (inputs.output_error(&weights, &q), inputs.output_error(&weights, &plain));
            println!("{cols} columns, {method}, {bits} bits: {error:.6} against {before:.6}");
            assert!(error < 0.6 * before, "{case:?}: {error} against {before}");
        }
    }
}

#[test]
fn any_split_and_level_gives_the_same_bytes() {
    for cols in [7, 300, 2100] {
        let mut weights = student5(19 * cols, 62);
        // Rows of another magnitude, one of zeros, one that is constant.
        weights[3 * cols..4 * cols].iter_mut().for_each(|w| *w *= 1e-30);
        weights[5 * cols..6 * cols].iter_mut().for_each(|w| *w *= 1e30);
        weights[7 * cols..8 * cols].fill(0.0);
        weights[8 * cols..9 * cols].fill(0.37);
        let inputs = Inputs::new(64, cols);
        for case in TRELLISES.map(|method| case(method, 2, cols)) {
            let encode = || case.encode_with(&[RowData::F32(&weights)], inputs.stats()).0;
            let whole = encode();
            for rows in [1, 5, 17] {
                let blocks: Vec<_> = weights.chunks(rows * cols).map(RowData::F32).collect();
                assert_eq!(case.encode_with(&blocks, inputs.stats()).0, whole, "{case:?}, {rows} rows");
            }
            for level in aq_kernels::levels() {
                assert!(aq_kernels::with_level(level, encode) == whole, "{case:?}, {level}");
            }
            let decoded = case.decode(&whole);
            assert!(decoded[7 * cols..8 * cols].iter().all(|&q| q == 0.0));
            for row in [3, 5, 8].into_iter().filter(|_| cols > 7) {
                // 64 inputs leave most directions free, so weights err much.
                let (w, q) = (&weights[row * cols..][..cols], &decoded[row * cols..][..cols]);
                assert!(relative_mse(w, q) < 1.0, "{case:?}, row {row}: {}", relative_mse(w, q));
            }
        }
    }
}

/// Hessians without an inverse end in a step down and in weights that can be used.
#[test]
fn hessians_without_an_inverse_are_reported() {
    let cols = 300;
    let weights = gauss(20 * cols, 63);
    let case = case("trellis", 4, cols);
    let nearest = case.round_trip(&weights);
    let cases = [
        (Inputs::new(20, cols), "it is singular: 20 calibration rows for 300 columns"),
        (Inputs::new(400, cols).changed(|_, x| *x = 0.0), "1 of 1 blocks of its Hessian are zero"),
        (
            Inputs::new(400, cols).changed(|col, x| *x = if col == 9 { f32::NAN } else { *x }),
            "1 of 1 blocks of its Hessian hold NaN or infinite values",
        ),
    ];
    for (inputs, reason) in cases {
        let (q, steps) = quantize(case, &weights, &inputs);
        assert_eq!(steps.iter().map(|s| s.reason.as_str()).collect::<Vec<_>>(), [reason]);
        let (error, plain) = (relative_mse(&weights, &q), relative_mse(&weights, &nearest));
        assert!(
            error < if reason.contains("singular") { 8.0 } else { 1.2 } * plain,
            "{reason}: {error} {plain}"
        );
    }
}

#[test]
fn without_rows_it_is_the_plain_trellis() {
    let (cols, none) = (300, Inputs { rows: Vec::new(), cols: 300 });
    let weights = gauss(3 * cols, 64);
    let case = case("trellis", 3, cols);
    let (encoded, steps) = case.encode_with(&[RowData::F32(&weights)], none.stats());
    assert_eq!(encoded, case.encode(&[RowData::F32(&weights)], None));
    assert_eq!(steps[0].reason, "the layer has no calibration inputs");
    assert!(case.encode_with(&[RowData::F32(&weights)], LayerStats::default()).1.is_empty());
}

#[test]
fn rows_wider_than_the_blocks_of_a_hessian_use_its_diagonal() {
    let cols = 131_072;
    let (weights, inputs) = (gauss(cols, 65), Inputs::new(1, cols));
    let (q, steps) = quantize(case("trellis6", 2, cols), &weights, &inputs);
    assert!(steps[0].reason.starts_with("its Hessian has blocks of 128 columns"), "{steps:?}");
    assert!(relative_mse(&weights, &q) < 0.1);
}

/// The slope of the outputs is 1 with gain, and less without.
#[test]
fn gain_is_that_of_the_outputs() {
    let cols = 520;
    let (weights, inputs) = (student5(8 * cols, 66), Inputs::new(1200, cols));
    let slope = |q: &[f32]| {
        let (mut product, mut norm) = (0.0, 0.0);
        for (w, q) in weights.chunks(cols).zip(q.chunks(cols)) {
            for x in inputs.rows.chunks(cols) {
                let dot = |v: &[f32]| v.iter().zip(x).map(|(v, x)| f64::from(v * x)).sum::<f64>();
                (product, norm) = (product + dot(w) * dot(q), norm + dot(w) * dot(w));
            }
        }
        product / norm
    };
    let case = case("trellis", 2, cols);
    let with = slope(&quantize(case, &weights, &inputs).0);
    let without = slope(&quantize(Case { gain: false, ..case }, &weights, &inputs).0);
    assert!(
        (with - 1.0).abs() < 5e-4 && (without - 1.0).abs() > 2.0 * (with - 1.0).abs(),
        "{with} {without}"
    );
}
