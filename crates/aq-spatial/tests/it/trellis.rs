//! Trellis-coded rows: the figures they were built for, and what holds for any weights.

use aq_core::{LayerInputs, LayerStats, RowData, Scratch};
use aq_kernels::{levels, with_level};
use half::{bf16, f16};
use proptest::prelude::*;

use crate::support::{Case, gauss, laplace, relative_mse, slope, strategy, student5};

const TRELLISES: [&str; 2] = ["trellis", "trellis6"];

fn case(method: &'static str, bits: u8, cols: usize) -> Case {
    Case { method, bits, group: 0, gain: false, cols }
}

fn cases(cols: usize) -> impl Iterator<Item = Case> {
    TRELLISES.into_iter().flat_map(move |m| [2, 3, 4].map(|bits| case(m, bits, cols)))
}

type Source = fn(usize, u64) -> Vec<f32>;

/// Errors of normal, Laplace and Student-t weights, as `cargo run --release -p aq-benches --bin trellis` prints them.
#[test]
fn errors_are_the_documented_ones() {
    let sources: [(Source, [[f64; 3]; 2]); 3] = [
        (gauss, [[0.0793, 0.0228, 0.0067], [0.0846, 0.0248, 0.0076]]),
        (laplace, [[0.0772, 0.0228, 0.0072], [0.0876, 0.0267, 0.0098]]),
        (student5, [[0.0795, 0.0232, 0.0072], [0.0898, 0.0267, 0.0090]]),
    ];
    for (source, figures) in sources {
        let weights = source(64 * 4096, 41);
        for (method, figures) in TRELLISES.into_iter().zip(figures) {
            for (bits, figure) in [2, 3, 4].into_iter().zip(figures) {
                let case = case(method, bits, 4096);
                let error = relative_mse(&weights, &case.round_trip(&weights));
                assert!((error / figure - 1.0).abs() < 0.06, "{case:?}: {error}, not {figure}");
            }
        }
    }
}

#[test]
fn two_bits_take_2_0625_bits_and_a_byte_a_slab() {
    let weights = gauss(256 * 4096, 42);
    for case in cases(4096) {
        let mut encoded = case.encode(&[RowData::F32(&weights)], None);
        aq_codec::seal(&mut encoded);
        let codes = weights.len() as u64 / 8 * u64::from(case.bits);
        assert_eq!(encoded.bytes(), codes + 256 * 16 * 2 + 1, "{case:?}");
        let info = case.info(weights.len());
        let estimate = strategy(case.method).estimate(&info, &LayerStats::default(), &case.plan());
        assert_eq!(estimate.bytes, encoded.bytes(), "{case:?}");
        let error = relative_mse(&weights, &case.decode(&encoded));
        assert!((0.9..1.1).contains(&(error / estimate.relative_mse)), "{case:?}: {error}");
    }
}

#[test]
fn bytes_depend_on_neither_splits_nor_types_nor_levels() {
    let cols = 1152;
    let halves: Vec<f16> = student5(5 * cols, 43).into_iter().map(f16::from_f32).collect();
    let brains: Vec<bf16> = halves.iter().map(|h| bf16::from_f32(h.to_f32())).collect();
    let wide: Vec<f32> = halves.iter().map(|h| h.to_f32()).collect();
    let wide_brains: Vec<f32> = brains.iter().map(|b| b.to_f32()).collect();
    let importance: Vec<f32> = (0..cols).map(|j| (j % 7) as f32).collect();
    for case in cases(cols).map(|case| Case { gain: true, ..case }) {
        let whole = case.encode(&[RowData::F32(&wide)], Some(&importance));
        for rows in [1, 2, 4] {
            let blocks: Vec<_> = wide.chunks(rows * cols).map(RowData::F32).collect();
            assert_eq!(case.encode(&blocks, Some(&importance)), whole, "{case:?} {rows}");
        }
        for level in levels() {
            let at_level = with_level(level, || case.encode(&[RowData::F32(&wide)], Some(&importance)));
            assert_eq!(at_level, whole, "{case:?} {level}");
        }
        assert_eq!(case.encode(&[RowData::F16(&halves)], Some(&importance)), whole, "{case:?}");
        let of_brains = case.encode(&[RowData::BF16(&brains)], None);
        assert_eq!(of_brains, case.encode(&[RowData::F32(&wide_brains)], None), "{case:?}");
    }
}

#[test]
fn rows_of_any_length_are_complete() {
    for cols in [1, 2, 3, 7, 9, 27, 255, 256, 257, 300, 1152, 3584] {
        let weights = gauss(4 * cols, 44);
        for case in cases(cols) {
            let error = relative_mse(&weights, &case.round_trip(&weights));
            let bound = [0.14, 0.05, 0.02][usize::from(case.bits) - 2];
            assert!(error < if cols < 27 { 0.3 } else { bound }, "{case:?}: {error}");
        }
    }
}

#[test]
fn slopes_are_one_with_gain() {
    for (weights, cols) in
        [(gauss(8 * 1152, 45), 1152), (laplace(8 * 333, 46), 333), (student5(8 * 64, 47), 64)]
    {
        for factor in [1.0f32, 1e-30, 1e30] {
            let weights: Vec<f32> = weights.iter().map(|w| w * factor).collect();
            for case in cases(cols).map(|case| Case { gain: true, ..case }) {
                let decoded = case.round_trip(&weights);
                for (w, q) in weights.chunks(cols).zip(decoded.chunks(cols)) {
                    let slope = slope(w, q);
                    assert!((slope - 1.0).abs() < 1e-3, "{case:?} {factor}: {slope}");
                }
                let plain = Case { gain: false, ..case };
                let [with, without] = [case, plain].map(|c| c.encode(&[RowData::F32(&weights)], None));
                assert_eq!(with.codes, without.codes, "{case:?}");
            }
        }
    }
}

#[test]
fn magnitude_does_not_change_the_error() {
    let weights: Vec<f32> = gauss(2 * 512, 48).iter().map(|w| w.clamp(-3.9, 3.9)).collect();
    for case in cases(512) {
        let usual = relative_mse(&weights, &case.round_trip(&weights));
        for exponent in [-126, -100, -30, -14, 9, 20, 60, 124] {
            let scaled: Vec<f32> = weights.iter().map(|w| w * 2f32.powi(exponent)).collect();
            let decoded = case.round_trip(&scaled);
            let back: Vec<f32> =
                decoded.iter().map(|&w| (f64::from(w) * 2f64.powi(-exponent)) as f32).collect();
            let error = relative_mse(&weights, &back);
            assert!((error / usual - 1.0).abs() < 0.02, "{case:?} 2^{exponent}: {error} {usual}");
        }
    }
}

#[test]
fn zeros_and_the_largest_weights_are_held() {
    let mut largest: Vec<f32> = (0..300).map(|i| f32::MAX * ((i % 9) as f32 / 4.0 - 1.0)).collect();
    largest[299] = -f32::MAX;
    for case in cases(300).flat_map(|case| [case, Case { gain: true, ..case }]) {
        assert!(case.round_trip(&[0.0; 600]).iter().all(|&w| w == 0.0), "{case:?}");
        let decoded = case.round_trip(&largest);
        assert!(decoded.iter().all(|w| w.is_finite()), "{case:?}");
        let quarter = |x: &[f32]| -> Vec<f32> { x.iter().map(|w| w / 4.0).collect() };
        let error = relative_mse(&quarter(&largest), &quarter(&decoded));
        assert!(error < 0.2, "{case:?} {error}");
    }
}

#[test]
fn an_outlier_is_held_and_leaves_the_other_sequences_alone() {
    let usual = gauss(768, 49);
    let mut weights = usual.clone();
    weights[300] = 1e4;
    for case in cases(768) {
        let (before, after) = (case.round_trip(&usual), case.round_trip(&weights));
        assert!((after[300] / 1e4 - 1.0).abs() < 0.15, "{case:?} {}", after[300]);
        assert_eq!((&before[..256], &before[512..]), (&after[..256], &after[512..]), "{case:?}");
    }
}

#[test]
fn importance_moves_the_error_away_from_important_columns() {
    let weights = gauss(16 * 1024, 50);
    let importance: Vec<f32> = (0..1024).map(|j| if j % 8 == 0 { 1e30 } else { 1e28 }).collect();
    for case in cases(1024) {
        let error = |decoded: &[f32]| -> f64 {
            let terms = weights.iter().zip(decoded).enumerate();
            terms.map(|(i, (w, q))| f64::from(importance[i % 1024]) * f64::from(w - q).powi(2)).sum()
        };
        let encode = |h: &[f32]| case.encode(&[RowData::F32(&weights)], Some(h));
        let plain = case.round_trip(&weights);
        let weighted = case.decode(&encode(&importance));
        assert!(error(&weighted) < 0.8 * error(&plain), "{case:?} {} {}", error(&weighted), error(&plain));
        // No importance at all is the same as equal importance, and a weight of none is still not left to chance.
        assert_eq!(encode(&[0.0; 1024]), case.encode(&[RowData::F32(&weights)], None), "{case:?}");
        let half: Vec<f32> = (0..1024).map(|j| if j % 2 == 0 { 1.0 } else { 0.0 }).collect();
        let error = relative_mse(&weights, &case.decode(&encode(&half)));
        assert!(error < 0.6, "{case:?}: {error}");
    }
}

#[test]
fn more_than_four_bits_step_down_to_ls() {
    let weights = gauss(2 * 256, 51);
    for (method, bits) in TRELLISES.into_iter().flat_map(|m| [5, 6, 8].map(|b| (m, b))) {
        let (case, ls) = (case(method, bits, 256), case("ls", bits, 256));
        let (info, strategy) = (case.info(512), strategy(method));
        let quantizer = strategy.prepare(&LayerInputs::new(&info), &case.plan()).expect("inputs that fit");
        let [step] = quantizer.step_downs() else { panic!("one step down") };
        assert_eq!((&*step.from, &*step.to), (method, "ls"));
        assert_eq!(case.encode(&[RowData::F32(&weights)], None), ls.encode(&[RowData::F32(&weights)], None));
    }
}

#[test]
fn a_warm_scratch_does_not_grow() {
    let weights = gauss(8 * 640, 52);
    for case in cases(640) {
        let info = case.info(weights.len());
        let strategy = strategy(case.method);
        let quantizer = strategy.prepare(&LayerInputs::new(&info), &case.plan()).expect("inputs that fit");
        let (mut scratch, mut out) = (Scratch::default(), aq_core::EncodedRows::default());
        let rows = aq_core::Rows { data: RowData::F32(&weights), cols: 640, first_row: 0 };
        let mut seen = Vec::new();
        for _ in 0..3 {
            out.clear();
            quantizer.quantize_rows(rows, &mut scratch, &mut out).expect("rows that fit");
            let own = scratch.own::<Vec<aq_codec::trellis::Fit>>().as_ptr();
            seen.push((own, scratch.codes.as_ptr(), scratch.decoded.as_ptr(), out.codes.as_ptr()));
        }
        assert_eq!(seen[1], seen[2], "{case:?}");
    }
}

fn any_finite() -> impl Strategy<Value = f32> {
    use proptest::num::f32::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO
}

proptest! {
    #[test]
    fn whatever_is_finite_stays_finite(
        weights in prop::collection::vec(any_finite(), 1..600),
        method in prop::sample::select(TRELLISES.to_vec()),
        bits in 2u8..=4,
        gain: bool,
        importance in prop::option::of(prop::collection::vec(0f32..1e6, 600)),
    ) {
        let case = Case { gain, ..case(method, bits, weights.len()) };
        let importance = importance.as_deref().map(|h| &h[..weights.len()]);
        let encoded = case.encode(&[RowData::F32(&weights)], importance);
        let decoded = case.decode(&encoded);
        prop_assert!(decoded.iter().all(|w| w.is_finite()), "{:?}", decoded);
    }
}
