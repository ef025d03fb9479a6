//! Errors on weights of known distributions, against figures measured with other code.

use aq_core::{LayerStats, RowData};

use crate::support::{Case, METHODS, gauss, laplace, relative_mse, strategy, student5};

const ROWS: usize = 512;
const COLS: usize = 4096;

fn case(method: &'static str, bits: u8) -> Case {
    Case { method, bits, group: 128, gain: false, cols: COLS }
}

#[track_caller]
fn check(name: &str, source: impl Fn(usize, u64) -> Vec<f32>, method: &'static str, expected: &[(u8, f64)]) {
    let weights = source(ROWS * COLS, 1);
    for &(bits, reference) in expected {
        let measured = relative_mse(&weights, &case(method, bits).round_trip(&weights));
        let least = if method == "ls" { 0.95 } else { 0.97 };
        println!("{name:8} {method:7} {bits} bits: {measured:.5} (reference {reference})");
        let ratio = measured / reference;
        assert!(ratio < 1.03 && ratio > least, "{name} {method} {bits}: {measured}");
    }
}

#[test]
fn minmax_has_the_errors_of_round_to_nearest() {
    check("gauss", gauss, "minmax", &[(2, 0.252), (3, 0.0463), (4, 0.0101)]);
    check("laplace", laplace, "minmax", &[(2, 0.321), (4, 0.0169)]);
    check("t5", student5, "minmax", &[(2, 0.359), (4, 0.0180)]);
}

/// The references are a least-squares refit from every clip ratio; moving both ends of the range on their own may do better.
#[test]
fn ls_has_the_errors_of_clip_search_and_least_squares() {
    check("gauss", gauss, "ls", &[(2, 0.1105), (3, 0.0317), (4, 0.0083)]);
    check("laplace", laplace, "ls", &[(2, 0.168), (4, 0.0141)]);
    check("t5", student5, "ls", &[(2, 0.171), (4, 0.0148)]);
}

/// What it does depends on the magnitude of the weights; the references are for weights of variance 1.
#[test]
fn hqq_has_the_errors_of_its_program() {
    let unit = |weights: Vec<f32>, variance: f32| -> Vec<f32> {
        weights.iter().map(|w| w / variance.sqrt()).collect()
    };
    check("gauss", gauss, "hqq", &[(2, 0.240), (3, 0.0426), (4, 0.0094)]);
    check("laplace", |n, seed| unit(laplace(n, seed), 2.0), "hqq", &[(2, 0.357), (4, 0.0158)]);
    check("t5", |n, seed| unit(student5(n, seed), 5.0 / 3.0), "hqq", &[(2, 0.390), (4, 0.0167)]);
}

#[test]
fn nf4_has_the_errors_of_its_table() {
    check("gauss", gauss, "nf4", &[(4, 0.0091)]);
    check("laplace", laplace, "nf4", &[(4, 0.0129)]);
    check("t5", student5, "nf4", &[(4, 0.0139)]);
}

#[test]
fn a_further_bit_divides_the_error_by_about_four() {
    let weights = gauss(64 * COLS, 2);
    for method in ["minmax", "ls", "hqq"] {
        let mse = |bits| relative_mse(&weights, &case(method, bits).round_trip(&weights));
        for (bits, lower, ratio) in [(5u8, 4u8, 3.5..4.6), (6, 5, 3.5..4.4), (8, 6, 12.0..17.6)] {
            let measured = mse(lower) / mse(bits);
            println!("{method} {bits} bits: {:.3e}, {measured:.2} times less than {lower}", mse(bits));
            assert!(ratio.contains(&measured), "{method} {bits}: {measured}");
        }
    }
}

#[test]
fn estimates_agree_with_what_is_measured() {
    let weights = gauss(64 * COLS, 3);
    for method in METHODS {
        for bits in [2, 3, 4, 5, 6, 8] {
            let case = case(method, bits);
            if !case.exists() {
                continue;
            }
            let mut encoded = case.encode(&[RowData::F32(&weights)], None);
            aq_codec::seal(&mut encoded);
            let info = case.info(weights.len());
            let estimate = strategy(method).estimate(&info, &LayerStats::default(), &case.plan());
            assert_eq!(estimate.bytes, encoded.bytes(), "{method} {bits}");
            let measured = relative_mse(&weights, &case.decode(&encoded));
            let ratio = measured / estimate.relative_mse;
            assert!((0.75..1.25).contains(&ratio), "{method} {bits}: {ratio}");
        }
    }
}

#[test]
fn importance_moves_the_error_away_from_important_columns() {
    let weights = gauss(64 * 1024, 4);
    let importance: Vec<f32> = (0..1024).map(|j| if j % 8 == 0 { 100.0 } else { 1.0 }).collect();
    let case = Case { cols: 1024, ..case("ls", 2) };
    let error = |decoded: &[f32]| -> f64 {
        let terms = weights.iter().zip(decoded).enumerate();
        terms.map(|(i, (w, q))| f64::from(importance[i % 1024] * (w - q) * (w - q))).sum()
    };
    let plain = case.round_trip(&weights);
    let weighted = case.decode(&case.encode(&[RowData::F32(&weights)], Some(&importance)));
    assert!(error(&weighted) < 0.9 * error(&plain), "{} {}", error(&weighted), error(&plain));
    assert!(relative_mse(&weights, &weighted) > relative_mse(&weights, &plain));
    let none = case.decode(&case.encode(&[RowData::F32(&weights)], Some(&[0.0; 1024])));
    assert!(none.iter().all(|w| w.is_finite()));
}
