//! Statistics in place of the samples that they were made of.

use std::sync::atomic::AtomicBool;

use aq_engine::{Calibrated, JobOptions, Result, Silent, calibrate};

use crate::model::{Fixture, Tensor, quantize, tensors, weights, write};

const COLS: usize = 1152;

/// Samples of `buckets` times `rows` rows in steps of a quarter, so that sums of products are exact in f32.
fn samples(buckets: usize, rows: usize) -> Vec<Tensor> {
    let mut values = weights(buckets * rows * COLS, 23);
    for i in 1..values.len() {
        values[i] = ((values[i] * 8.0 + 0.6 * values[i - 1] * 4.0).round() / 4.0).clamp(-4.0, 4.0);
    }
    values.iter_mut().take(1).for_each(|first| *first = 0.25);
    let times = (0..buckets).map(|i| 900.0 - 100.0 * i as f32).collect();
    vec![
        Tensor { name: "blocks.0.fc1".into(), shape: vec![buckets, rows, COLS], values },
        Tensor { name: "timesteps".into(), shape: vec![buckets], values: times },
    ]
}

fn made(fixture: &Fixture, samples: &[Tensor]) -> Result<Calibrated> {
    write(&fixture.path("samples.safetensors"), samples);
    let (from, to) = (fixture.path("samples.safetensors"), fixture.path("stats.parquet"));
    calibrate(&from, &to, 2, true, &AtomicBool::new(false), &mut Silent)
}

/// The bytes of the model quantized with this calibration.
fn bytes(fixture: &Fixture, method: &str, calibration: &str) -> Vec<u8> {
    let options = JobOptions {
        calibration: Some(fixture.path(calibration)),
        method: Some(method.into()),
        bits: Some(3),
        act_bits: Some(8),
        act_mode: Some("groups".into()),
        force: true,
        ..fixture.options("out.parquet")
    };
    quantize(options).expect("quantizes");
    std::fs::read(fixture.path("out.parquet")).expect("written")
}

#[test]
fn statistics_that_keep_every_row_give_the_bytes_of_the_samples() {
    let fixture = Fixture::new(&tensors());
    let alone = Tensor { name: "time_weights".into(), shape: vec![4], values: vec![0.0, 0.0, 3.0, 0.0] };
    for extra in [None, Some(alone)] {
        let all: Vec<Tensor> = samples(4, 48).into_iter().chain(extra).collect();
        let told = made(&fixture, &all).expect("calibrates");
        assert_eq!(
            (told.layers[0].rows, told.layers[0].samples, told.layers[0].hessian_block),
            (192, 192, COLS)
        );
        for method in ["gptq", "entropy", "ls"] {
            let expected = bytes(&fixture, method, "samples.safetensors");
            assert!(bytes(&fixture, method, "stats.parquet") == expected, "{method}");
        }
    }
}

#[test]
fn the_hessian_is_of_more_rows_than_are_kept() {
    let fixture = Fixture::new(&tensors());
    let told = made(&fixture, &samples(2, 300)).expect("calibrates");
    assert_eq!((told.layers[0].rows, told.layers[0].samples), (600, 120));
    let options = |calibration: &str| JobOptions {
        calibration: Some(fixture.path(calibration)),
        method: Some("gptq".into()),
        force: true,
        ..fixture.options("out.parquet")
    };
    let reasons = |calibration: &str| -> Vec<String> {
        let report = quantize(options(calibration)).expect("quantizes");
        report.fallbacks.iter().map(|f| f.reason.clone()).filter(|r| r.contains("calibration rows")).collect()
    };
    // 15 of the rows that are kept are held out.
    assert_eq!(reasons("stats.parquet"), ["it is singular: 585 calibration rows for 1152 columns"]);
    assert_eq!(reasons("samples.safetensors"), ["it is singular: 525 calibration rows for 1152 columns"]);
}

#[test]
fn threads_change_no_byte() {
    let fixture = Fixture::new(&[]);
    let mut all = samples(3, 70);
    let more = |name: &str| Tensor { name: name.into(), shape: vec![3, 5, 40], values: weights(600, 3) };
    all.extend([more("a"), more("b"), more("c")]);
    write(&fixture.path("samples.safetensors"), &all);
    let run = |threads: usize, name: &str| {
        let (from, to) = (fixture.path("samples.safetensors"), fixture.path(name));
        calibrate(&from, &to, threads, false, &AtomicBool::new(false), &mut Silent).expect("calibrates");
        std::fs::read(to).expect("written")
    };
    assert!(run(1, "one.parquet") == run(3, "three.parquet"));
}

#[test]
fn malformed_samples_are_refused_by_layer_name() {
    let fixture = Fixture::new(&tensors());
    let poisoned = |value: f32| {
        let mut all = samples(2, 8);
        all[0].values[77] = value;
        all
    };
    let mut ragged = samples(2, 8);
    ragged[0].shape = vec![4, 4, COLS];
    let mut flat = samples(2, 8);
    flat[0].shape = vec![16, COLS];
    let cases = [
        (poisoned(f32::NAN), "\"blocks.0.fc1\": holds NaN or infinite values"),
        (poisoned(1e6), "\"blocks.0.fc1\": holds values too large"),
        (ragged, "\"blocks.0.fc1\": shape [4, 4, 1152] does not begin with the 2 timesteps"),
        (flat, "\"blocks.0.fc1\": shape [16, 1152] does not begin"),
        (samples(2, 0), "\"blocks.0.fc1\""),
        (samples(2, 8).into_iter().take(1).collect(), "has no tensor timesteps"),
    ];
    for (all, fact) in cases {
        let error = made(&fixture, &all).expect_err(fact);
        assert!(error.to_string().contains(fact), "{error}");
        assert_eq!(error.exit_code(), 4, "{error}");
        assert!(!fixture.path("stats.parquet").exists(), "nothing is left behind");
    }
    made(&fixture, &samples(2, 8)).expect("calibrates");
    let (from, to) = (fixture.path("stats.parquet"), fixture.path("again.parquet"));
    let twice =
        calibrate(&from, &to, 1, false, &AtomicBool::new(false), &mut Silent).expect_err("no samples");
    assert_eq!(twice.exit_code(), 3);
    let narrow = Tensor { name: "blocks.0.fc2".into(), shape: vec![1, 9, 7], values: vec![0.5; 63] };
    let times = Tensor { name: "timesteps".into(), shape: vec![1], values: vec![1.0] };
    made(&fixture, &[narrow, times]).expect("any layer has statistics");
    let calibration = Some(fixture.path("stats.parquet"));
    let error = quantize(JobOptions { calibration, ..fixture.options("out.parquet") }).expect_err("refused");
    assert!(error.to_string().contains("does not fit the 2001 inputs of blocks.0.fc2.weight"), "{error}");
}
