//! Rows are independent, and their type does not matter once they are widened.

use aq_core::{
    DType, EncodedRows, GgmlType, LayerInputs, LayerStats, RowData, Rows, Scratch, StrategyError, TensorInfo,
};
use half::{bf16, f16};

use crate::support::{Case, METHODS, gauss, relative_mse, strategy, student5};

fn cases(cols: usize) -> impl Iterator<Item = Case> {
    let plans =
        METHODS.into_iter().flat_map(|m| [(m, 2, 128), (m, 3, 0), (m, 4, 40), (m, 5, 24), (m, 8, 64)]);
    let cases = plans.flat_map(move |(method, bits, group)| {
        [false, true].map(|gain| Case { method, bits, group, gain, cols })
    });
    cases.filter(Case::exists)
}

#[test]
fn any_split_gives_the_same_bytes() {
    let cols = 200;
    let weights = student5(11 * cols, 20);
    for case in cases(cols) {
        let whole = case.encode(&[RowData::F32(&weights)], None);
        for rows in [1, 2, 4, 10] {
            let blocks: Vec<_> = weights.chunks(rows * cols).map(RowData::F32).collect();
            assert_eq!(case.encode(&blocks, None), whole, "{case:?} {rows}");
        }
    }
}

#[test]
fn halves_give_the_bytes_of_the_widened_weights() {
    let cols = 333;
    let f16s: Vec<f16> = gauss(3 * cols, 21).into_iter().map(f16::from_f32).collect();
    let bf16s: Vec<bf16> = gauss(3 * cols, 22).into_iter().map(bf16::from_f32).collect();
    let widened_f16: Vec<f32> = f16s.iter().map(|w| w.to_f32()).collect();
    let widened_bf16: Vec<f32> = bf16s.iter().map(|w| w.to_f32()).collect();
    for case in cases(cols) {
        let encode = |data| case.encode(&[data], None);
        assert_eq!(encode(RowData::F16(&f16s)), encode(RowData::F32(&widened_f16)), "{case:?}");
        assert_eq!(encode(RowData::BF16(&bf16s)), encode(RowData::F32(&widened_bf16)), "{case:?}");
    }
}

#[test]
fn ragged_rows_are_complete() {
    for cols in [1, 7, 33, 1152, 4608, 3584, 1001] {
        let weights = gauss(3 * cols, 23);
        for case in cases(cols) {
            let decoded = case.round_trip(&weights);
            let bound = match case.bits {
                2 => 0.9,
                3 => 0.25,
                4 => 0.05,
                5 => 0.01,
                _ => 2e-4,
            };
            for (w, q) in weights.chunks(cols).zip(decoded.chunks(cols)) {
                assert!(relative_mse(w, q) < bound, "{case:?}: {}", relative_mse(w, q));
            }
        }
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let case = Case { method: "ls", bits: 4, group: 128, gain: false, cols: 4 };
    let (info, strategy) = (case.info(8), strategy("ls"));
    let length = |what, got, expected| StrategyError::InputLength { what, tensor: "w".into(), got, expected };

    let stats = LayerStats { importance: Some(&[1.0; 3]), ..LayerStats::default() };
    let layer = LayerInputs { stats, ..LayerInputs::new(&info) };
    assert_eq!(strategy.prepare(&layer, &case.plan()).err(), Some(length("importance", 3, 4)));

    let layer = LayerInputs::new(&info);
    let quantizer = strategy.prepare(&layer, &case.plan()).expect("inputs that fit");
    let mut out = EncodedRows::default();
    let mut quantize = |weights: &[f32], cols| {
        let rows = Rows { data: RowData::F32(weights), cols, first_row: 0 };
        quantizer.quantize_rows(rows, &mut Scratch::default(), &mut out)
    };
    assert_eq!(quantize(&[0.0; 6], 4), Err(length("the rows", 6, 4)));
    assert_eq!(quantize(&[0.0; 6], 3), Err(length("a row", 3, 4)));
    assert_eq!(out, EncodedRows::default());
}

#[test]
fn only_weights_are_supported() {
    let tensor = |shape: &[u64], dtype| TensorInfo::new("w", shape.to_vec(), dtype).expect("a valid shape");
    let plan = Case { method: "minmax", bits: 4, group: 128, gain: false, cols: 4 }.plan();
    for (info, good) in [
        (tensor(&[3, 4], DType::BF16), true),
        (tensor(&[7], DType::F8E4M3), true),
        (tensor(&[3, 256], DType::BF16), true),
        (tensor(&[3, 4], DType::I8), false),
        (tensor(&[3, 0], DType::F32), false),
        (tensor(&[1, 1 << 23], DType::F32), false),
    ] {
        for strategy in aq_spatial::strategies() {
            let in_blocks = GgmlType::ALL.iter().any(|t| t.method() == strategy.id().as_str());
            let good = good && (!in_blocks || info.cols().is_multiple_of(256));
            assert_eq!(strategy.supports(&info), good, "{info:?}, {}", strategy.id());
            let layer = LayerInputs::new(&info);
            let refused = strategy.prepare(&layer, &plan).err();
            assert_eq!(matches!(refused, Some(StrategyError::Unsupported { .. })), !good);
        }
    }
}

#[test]
fn a_warm_scratch_does_not_grow() {
    let weights = gauss(8 * 640, 24);
    for case in cases(640) {
        let info = case.info(weights.len());
        let strategy = strategy(case.method);
        let layer = LayerInputs::new(&info);
        let quantizer = strategy.prepare(&layer, &case.plan()).expect("inputs that fit");
        let (mut scratch, mut out) = (Scratch::default(), EncodedRows::default());
        let rows = Rows { data: RowData::F32(&weights), cols: 640, first_row: 0 };
        let buffers = |s: &Scratch, out: &EncodedRows| {
            let scratch = [s.row.as_ptr(), s.decoded.as_ptr(), s.scales.as_ptr(), s.offsets.as_ptr()];
            (scratch, s.codes.as_ptr(), out.codes.as_ptr(), out.offsets.as_ptr())
        };
        let mut seen = Vec::new();
        for _ in 0..3 {
            out.clear();
            quantizer.quantize_rows(rows, &mut scratch, &mut out).expect("rows that fit");
            seen.push(buffers(&scratch, &out));
        }
        assert_eq!(seen[1], seen[2], "{case:?}");
    }
}
