//! Timesteps that count more than others in Hessians and importances.

use aq_engine::JobOptions;

use crate::model::{Fixture, Tensor, quantize, tensors, weights, write};

const COLS: usize = 1152;
const ROWS: usize = 64;

/// Four buckets of rows that go together in other ways.
fn samples() -> Tensor {
    let mut values = weights(4 * ROWS * COLS, 17);
    for i in 1..values.len() {
        values[i] += (0.2 + 0.2 * (i / (ROWS * COLS)) as f32) * values[i - 1];
    }
    Tensor { name: "blocks.0.fc1".into(), shape: vec![4, ROWS, COLS], values }
}

fn vector(name: &str, values: &[f32]) -> Tensor {
    Tensor { name: name.into(), shape: vec![values.len()], values: values.into() }
}

/// The bytes of the model quantized with these samples.
fn bytes(fixture: &Fixture, method: &str, samples: &[Tensor]) -> Vec<u8> {
    write(&fixture.path("samples.safetensors"), samples);
    let options = JobOptions {
        calibration: Some(fixture.path("samples.safetensors")),
        method: Some(method.into()),
        bits: Some(3),
        force: true,
        ..fixture.options("out.parquet")
    };
    quantize(options).expect("quantizes");
    std::fs::read(fixture.path("out.parquet")).expect("written")
}

#[test]
fn a_time_that_counts_alone_is_calibrated_on_alone() {
    let fixture = Fixture::new(&tensors());
    let all = samples();
    for method in ["gptq", "ls"] {
        let plain = bytes(&fixture, method, &[samples()]);
        for bucket in [0, 2] {
            let mut counts = [0.0; 4];
            counts[bucket] = 0.7;
            let weighted = bytes(&fixture, method, &[samples(), vector("time_weights", &counts)]);
            let values = all.values[bucket * ROWS * COLS..][..ROWS * COLS].to_vec();
            let alone = Tensor { name: all.name.clone(), shape: vec![1, ROWS, COLS], values };
            assert!(weighted == bytes(&fixture, method, &[alone]), "{method}, bucket {bucket}");
            assert!(weighted != plain, "{method}, bucket {bucket}");
        }
    }
}

#[test]
fn equal_weights_change_no_byte() {
    let fixture = Fixture::new(&tensors());
    for method in ["gptq", "entropy", "ls"] {
        let weighted = bytes(&fixture, method, &[samples(), vector("time_weights", &[0.1; 4])]);
        assert!(weighted == bytes(&fixture, method, &[samples()]), "{method}");
    }
}

#[test]
fn what_is_said_of_time_must_fit() {
    let fixture = Fixture::new(&tensors());
    for (extra, fact) in [
        (vector("time_weights", &[1.0; 3]), "blocks.0.fc1"),
        (vector("time_weights", &[1.0, -1.0, 1.0, 1.0]), "time_weights"),
        (vector("time_weights", &[0.0; 4]), "time_weights"),
        (vector("timesteps", &[1.0, 2.0, f32::NAN, 4.0]), "timesteps"),
        (vector("timesteps", &[1.0; 5]), "does not begin with the 5 timesteps"),
    ] {
        write(&fixture.path("samples.safetensors"), &[samples(), extra]);
        let calibration = Some(fixture.path("samples.safetensors"));
        let error = quantize(JobOptions { calibration, ..fixture.options("out.parquet") }).expect_err(fact);
        assert!(error.to_string().contains(fact), "{error}");
        assert_eq!(error.exit_code(), 4);
    }
}
