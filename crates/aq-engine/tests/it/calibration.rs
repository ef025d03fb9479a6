//! Calibration samples steer the search towards the channels that matter.

use aq_engine::JobOptions;

use crate::model::{Fixture, Tensor, quantize, tensors, weights, write};

const COLS: usize = 1152;

/// Inputs of `layer`, `[2, 8, 1152]`, ten times larger in every fourth channel.
fn samples(layer: &str, cols: usize) -> Tensor {
    let mut values = weights(2 * 8 * cols, 99);
    values.iter_mut().step_by(4).for_each(|v| *v *= 10.0);
    Tensor { name: layer.into(), shape: vec![2, 8, cols], values }
}

/// Squared error of the weight of fc1 in the channels that the samples stress.
fn stressed_error(fixture: &Fixture, name: &str) -> f64 {
    let back = fixture.path(&format!("{name}.safetensors"));
    aq_engine::dequantize(&fixture.path(name), &back, aq_engine::aq_core::DType::F32, true, &false.into())
        .expect("dequantizes");
    let source = aq_engine::inspect(&back).expect("opens");
    let index = source.tensors().iter().position(|t| t.info.name() == "blocks.0.fc1.weight").expect("there");
    let mut bytes = vec![0; 3000 * COLS * 4];
    source.read_bytes(index, 0, &mut bytes).expect("reads");
    let decoded = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
    let errors =
        tensors()[0].values.iter().zip(decoded).map(|(w, q)| f64::from(w - q).powi(2)).collect::<Vec<_>>();
    errors.iter().step_by(4).sum()
}

#[test]
fn important_channels_lose_less() {
    let fixture = Fixture::new(&tensors());
    write(&fixture.path("calib.safetensors"), &[samples("blocks.0.fc1", COLS)]);
    let options = |name: &str| JobOptions {
        bits: Some(2),
        gain: Some(false),
        method: Some("ls".into()),
        ..fixture.options(name)
    };
    quantize(options("plain.parquet")).expect("quantizes");
    let calibration = Some(fixture.path("calib.safetensors"));
    quantize(JobOptions { calibration, ..options("steered.parquet") }).expect("quantizes");
    let (plain, steered) =
        (stressed_error(&fixture, "plain.parquet"), stressed_error(&fixture, "steered.parquet"));
    assert!(steered < 0.95 * plain, "{steered} {plain}");
}

#[test]
fn samples_of_another_width_are_refused() {
    let fixture = Fixture::new(&tensors());
    write(&fixture.path("calib.safetensors"), &[samples("blocks.0.fc1", COLS - 1)]);
    let calibration = Some(fixture.path("calib.safetensors"));
    let error = quantize(JobOptions { calibration, ..fixture.options("out.parquet") }).expect_err("refused");
    assert!(error.to_string().contains("does not fit the 1152 inputs"), "{error}");
    assert_eq!(error.exit_code(), 4);
}
