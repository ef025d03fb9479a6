//! After the gain every row has slope 1.

use aq_core::RowData;

use crate::support::{Case, METHODS, gauss, laplace, relative_mse, slope, student5};

#[track_caller]
fn check(weights: &[f32], cols: usize) {
    for method in METHODS {
        for (bits, group) in [2, 3, 4, 5, 6, 8].into_iter().flat_map(|b| [16, 64, 128, 0].map(|g| (b, g))) {
            let case = Case { method, bits, group, gain: true, cols };
            if !case.exists() {
                continue;
            }
            let decoded = case.round_trip(weights);
            for (row, (w, q)) in weights.chunks(cols).zip(decoded.chunks(cols)).enumerate() {
                let slope = slope(w, q);
                assert!((slope - 1.0).abs() < 1e-3, "{case:?} row {row}: {slope}");
            }
        }
    }
}

#[test]
fn slope_is_one_for_every_width_and_group() {
    check(&gauss(24 * 1152, 5), 1152);
    check(&laplace(24 * 512, 6), 512);
    check(&student5(24 * 1001, 7), 1001);
}

#[test]
fn slope_is_one_for_weights_that_are_not_centred() {
    let shifted = |by: f32, n, seed| -> Vec<f32> { gauss(n, seed).iter().map(|w| w + by).collect() };
    check(&shifted(3.0, 40 * 333, 8), 333);
    check(&shifted(-3.0, 40 * 333, 9), 333);
    check(&shifted(-100.0, 40 * 64, 10), 64);
    let skewed: Vec<f32> = laplace(40 * 256, 11).iter().map(|w| -(w * w) * 0.02).collect();
    check(&skewed, 256);
}

#[test]
fn slope_is_one_at_unusual_magnitudes() {
    for factor in [1e-30f32, 1e-6, 1e5, 1e30] {
        check(&gauss(8 * 256, 12).iter().map(|w| w * factor).collect::<Vec<_>>(), 256);
    }
}

#[test]
fn codes_do_not_change_and_errors_hardly() {
    let weights = gauss(32 * 1024, 13);
    for (method, bits) in METHODS.into_iter().flat_map(|m| [(m, 2), (m, 4)]) {
        let case = Case { method, bits, group: 128, gain: false, cols: 1024 };
        if !case.exists() {
            continue;
        }
        let with = Case { gain: true, ..case };
        let (a, b) =
            (case.encode(&[RowData::F32(&weights)], None), with.encode(&[RowData::F32(&weights)], None));
        assert_eq!(a.codes, b.codes);
        let (plain, gained) = (case.decode(&a), with.decode(&b));
        let (before, after) = (relative_mse(&weights, &plain), relative_mse(&weights, &gained));
        println!(
            "{method} {bits} bits: slope {:.4} -> 1, error {before:.5} -> {after:.5}",
            slope(&weights, &plain)
        );
        assert!(after < before * 1.2);
    }
}

#[test]
fn rows_without_a_slope_stay_finite() {
    for method in METHODS {
        let case =
            Case { method, bits: if method == "nf4" { 4 } else { 2 }, group: 16, gain: true, cols: 32 };
        assert_eq!(case.round_trip(&[0.0; 64]), [0.0; 64]);
        let mut spike = [0.0; 32];
        spike[3] = 1e30;
        let decoded = case.round_trip(&spike);
        assert!((decoded[3] / 1e30 - 1.0).abs() < 1e-3, "{method} {decoded:?}");
    }
}

/// Channels that matter little are clipped; a gain that made up for them would enlarge every output.
#[test]
fn calibrated_gains_count_importance() {
    let cols = 512;
    let weights = student5(16 * cols, 15);
    let importance: Vec<f32> = (0..cols).map(|i| if i % 8 == 0 { 100.0 } else { 1.0 }).collect();
    for method in ["ls", "codebook", "trellis", "trellis6"] {
        let group = if method.starts_with("trellis") { 0 } else { 64 };
        let case = Case { method, bits: 2, group, gain: true, cols };
        let decoded = case.decode(&case.encode(&[RowData::F32(&weights)], Some(&importance)));
        for (w, q) in weights.chunks(cols).zip(decoded.chunks(cols)) {
            let weighted = |a: &[f32], b: &[f32]| -> f64 {
                let terms = a.iter().zip(b).zip(&importance);
                terms.map(|((&a, &b), &h)| f64::from(h) * f64::from(a) * f64::from(b)).sum()
            };
            let slope = weighted(w, q) / weighted(w, w);
            assert!((slope - 1.0).abs() < 0.005, "{method}: {slope}");
        }
    }
}
