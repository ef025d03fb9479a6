//! Signs with and without 0.

use aq_core::RowData;

use crate::support::{Case, gauss, laplace, relative_mse, slope, student5};

const COLS: usize = 1280;
const METHODS: [(&str, u8); 2] = [("binary", 1), ("ternary", 2)];

fn case((method, bits): (&'static str, u8), group: u32) -> Case {
    Case { method, bits, group, gain: false, cols: COLS }
}

/// The errors of known distributions are those of the best two and three levels: for normal weights `1 - 2 / pi` and .1902 (Max, 1960). Groups
/// have scales of their own and so a little less.
#[test]
fn accuracy_of_signs() {
    for (name, source, expected) in [
        ("gauss", gauss as fn(usize, u64) -> Vec<f32>, [0.3634, 0.1902]),
        ("laplace", laplace, [0.5, 0.2642]),
        ("t5", student5, [0.4597, 0.2743]),
    ] {
        let weights = source(512 * COLS, 1);
        for (method, expected) in METHODS.into_iter().zip(expected) {
            for (group, least) in [(0, 0.96), (128, 0.9), (64, 0.85)] {
                let case = case(method, group);
                let encoded = case.encode(&[RowData::F32(&weights)], None);
                let bits = (encoded.codes.len() + encoded.scales.len()) as f64 * 8.0 / weights.len() as f64;
                let error = relative_mse(&weights, &case.decode(&encoded));
                println!(
                    "{:8} {name:8} group {group:3}: {bits:.4} bits per weight, error {error:.4}",
                    method.0
                );
                let ratio = error / expected;
                assert!((least..1.01).contains(&ratio), "{method:?} {name} {group}: {ratio}");
            }
        }
    }
}

#[test]
fn the_gain_restores_the_slope() {
    let weights = student5(64 * COLS, 2);
    for (method, group) in METHODS.into_iter().flat_map(|m| [(m, 0), (m, 64)]) {
        let case = Case { gain: true, ..case(method, group) };
        let decoded = case.round_trip(&weights);
        for (w, q) in weights.chunks(COLS).zip(decoded.chunks(COLS)) {
            assert!((slope(w, q) - 1.0).abs() < 1e-3, "{method:?} {group}: {}", slope(w, q));
        }
    }
}

#[test]
fn importance_lowers_the_error_that_counts() {
    let weights = laplace(64 * COLS, 3);
    let importance: Vec<f32> = (0..COLS).map(|j| if j % 4 == 0 { 100.0 } else { 0.0 }).collect();
    let sized: Vec<f32> =
        weights.iter().enumerate().map(|(i, w)| if i % 4 == 0 { 3.0 * w } else { *w }).collect();
    let error = |decoded: &[f32]| -> f64 {
        let terms = sized.iter().zip(decoded).enumerate();
        terms.map(|(i, (w, q))| f64::from(importance[i % COLS] * (w - q) * (w - q))).sum()
    };
    for method in METHODS {
        let case = case(method, 128);
        let plain = error(&case.round_trip(&sized));
        let weighted = error(&case.decode(&case.encode(&[RowData::F32(&sized)], Some(&importance))));
        assert!(weighted < 0.9 * plain, "{method:?}: {weighted} {plain}");
    }
    let nothing = vec![0.0; COLS];
    let case = case(METHODS[0], 128);
    assert_eq!(case.decode(&case.encode(&[RowData::F32(&sized)], Some(&nothing))), case.round_trip(&sized));
}

#[test]
fn rows_are_on_their_own() {
    let weights = gauss(9 * COLS, 4);
    for method in METHODS {
        let case = Case { gain: true, ..case(method, 72) };
        let blocks: Vec<_> = weights.chunks(2 * COLS).map(RowData::F32).collect();
        assert_eq!(case.encode(&blocks, None), case.encode(&[RowData::F32(&weights)], None));
    }
}

#[test]
fn odd_rows_stay_finite() {
    let mut spike = vec![0.0; 64];
    spike[7] = 1e30;
    let tiny = gauss(64, 5).iter().map(|w| w * 1e-38).collect();
    let cases = [vec![0.0; 64], vec![-0.0; 64], vec![f32::MAX; 64], vec![-3.0; 64], spike, tiny];
    for (weights, method) in cases.iter().flat_map(|w| METHODS.map(|m| (w, m))) {
        for (group, gain) in [(16, true), (0, false), (0, true)] {
            let case = Case { cols: 32, gain, ..case(method, group) };
            let decoded = case.round_trip(weights);
            assert!(decoded.iter().all(|w| w.is_finite()), "{weights:?} {method:?}");
            // One magnitude needs no more than a sign.
            if weights.iter().all(|w| *w == weights[0]) {
                let error = if weights[0] == 0.0 {
                    decoded.iter().map(|w| f64::from(*w)).sum()
                } else {
                    relative_mse(weights, &decoded)
                };
                assert!(error < 1e-5, "{weights:?} {method:?}: {error}");
            }
        }
    }
}
