//! Tables trained on a layer.

use aq_core::{LayerStats, RowData};

use crate::support::{Case, gauss, laplace, relative_mse, student5};

const COLS: usize = 1024;

fn case(bits: u8) -> Case {
    Case { method: "codebook", bits, group: 128, gain: false, cols: COLS }
}

/// The first figures are the least squared errors of one table for all weights (Lloyd and Max); scales of groups improve on them
/// by the second.
#[test]
fn a_trained_table_beats_the_one_of_lloyd_and_max() {
    check("gauss", gauss, [0.11748, 0.03455, 0.009501], [0.972, 0.917, 0.847]);
    check("laplace", laplace, [0.1762, 0.05448, 0.01537], [0.950, 0.840, 0.731]);
    check("t5", student5, [0.1846, 0.06442, 0.01987], [0.947, 0.763, 0.597]);
}

#[track_caller]
fn check(name: &str, source: fn(usize, u64) -> Vec<f32>, lloyd: [f64; 3], expected: [f64; 3]) {
    let weights = source(2048 * COLS, 1);
    for (i, bits) in [2, 3, 4].into_iter().enumerate() {
        let case = case(bits);
        let trained = case.decode(&case.encode_known(&weights, LayerStats::default()));
        let (trained, fixed) =
            (relative_mse(&weights, &trained), relative_mse(&weights, &case.round_trip(&weights)));
        println!("{name:8} {bits} bits: {trained:.5}, with the table of normal weights {fixed:.5}");
        let ratio = trained / lloyd[i];
        assert!((ratio / expected[i] - 1.0).abs() < 0.02, "{name} {bits} bits: {ratio}");
        assert!(trained <= fixed * 1.002, "{name} {bits} bits: {trained} {fixed}");
    }
}

#[test]
fn training_minds_importance() {
    let weights = laplace(256 * COLS, 2);
    let importance: Vec<f32> = (0..COLS).map(|j| if j % 8 == 0 { 100.0 } else { 1.0 }).collect();
    let error = |decoded: &[f32]| -> f64 {
        let terms = weights.iter().zip(decoded).enumerate();
        terms.map(|(i, (w, q))| f64::from(importance[i % COLS] * (w - q) * (w - q))).sum()
    };
    let case = case(2);
    let plain = case.decode(&case.encode_known(&weights, LayerStats::default()));
    let stats = LayerStats { importance: Some(&importance), ..LayerStats::default() };
    let weighted = case.decode(&case.encode_known(&weights, stats));
    assert!(error(&weighted) < 0.93 * error(&plain), "{} {}", error(&weighted), error(&plain));
}

#[test]
fn odd_layers_train_to_finite_tables() {
    let mut spike = vec![0.0; 64];
    spike[7] = 1e30;
    for weights in [vec![0.0; 64], vec![-3.0; 64], spike, gauss(64, 3).iter().map(|w| w * 1e-38).collect()] {
        for bits in [2, 3, 4] {
            let case = Case { cols: 32, group: 16, gain: true, ..case(bits) };
            let encoded = case.encode_known(&weights, LayerStats::default());
            assert!(case.decode(&encoded).iter().all(|w| w.is_finite()), "{weights:?} {bits}");
        }
    }
}

#[test]
fn a_slab_has_one_table() {
    let weights = gauss(5 * COLS, 4);
    let blocks: Vec<_> = weights.chunks(2 * COLS).map(RowData::F32).collect();
    for bits in [2, 3, 4] {
        assert_eq!(case(bits).encode(&blocks, None).offsets.len(), 2 << bits);
    }
}
