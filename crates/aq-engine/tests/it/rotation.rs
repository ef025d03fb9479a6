//! Rotation of the input axis, from the option to the decoded weights.

use std::sync::atomic::AtomicBool;

use aq_engine::JobOptions;

use crate::model::{Fixture, Tensor, quantize, sums, tensors, weights, write};

fn rotated(fixture: &Fixture, name: &str) -> JobOptions {
    let options = fixture.options(name);
    JobOptions { rotation: Some(true), method: Some("ls".into()), bits: Some(4), force: true, ..options }
}

#[test]
fn the_file_says_what_was_rotated_and_decodes_to_the_weights() {
    let fixture = Fixture::new(&tensors());
    for name in ["out.parquet", "out.arrow", "out/"] {
        let report = quantize(rotated(&fixture, name)).expect("quantizes");
        let json = report.json();
        let rows: Vec<_> = json["tensors"].as_array().expect("tensors").iter().collect();
        let row = |name: &str| *rows.iter().find(|t| t["name"] == name).expect(name);
        assert_eq!(
            (&row("blocks.0.fc1.weight")["rotation"], &row("blocks.0.fc1.weight")["codec"]),
            (&128.into(), &"affine+transform".into())
        );
        // 37 * 9 columns and 2001 columns have no blocks.
        assert_eq!(
            (&row("blocks.0.conv.weight")["rotation"], &row("blocks.0.conv.weight")["codec"]),
            (&serde_json::Value::Null, &"affine".into())
        );
        let steps: Vec<_> = report.fallbacks.iter().filter_map(|f| f.tensor.as_deref()).collect();
        assert_eq!(steps, ["blocks.0.conv.weight", "blocks.0.fc2.weight"]);

        let (model, output) = (fixture.path("model.safetensors"), fixture.path(name));
        let compared = aq_engine::compare(&model, &output, None, &AtomicBool::new(false)).expect("compares");
        for tensor in report.quantized() {
            let name = tensor.stored.info.name();
            let other = compared.tensors.iter().find(|t| t.stored.info.name() == name).expect(name);
            assert_eq!(sums(&tensor.comparison), sums(&other.comparison), "{name}");
            assert!(other.comparison.relative_mse() < 0.02, "{name}");
        }
        let file = aq_engine::inspect(&output).expect("opens");
        for (i, tensor) in report.tensors.iter().enumerate() {
            assert_eq!(tensor.bytes, file.stored_bytes(i), "{}", tensor.stored.info.name());
        }
        aq_engine::verify(&output, &AtomicBool::new(false)).expect("is whole");
    }
    let copy = fixture.path("copy.arrow");
    aq_engine::convert(
        &fixture.path("out.parquet"),
        &copy,
        &aq_engine::ConvertOptions { force: true, ..Default::default() },
        &AtomicBool::new(false),
    )
    .expect("converts");
    assert_eq!(
        std::fs::read(&copy).expect("written").len(),
        std::fs::read(fixture.path("out.arrow")).expect("written").len()
    );
    let same = aq_engine::compare(&fixture.path("out.parquet"), &copy, None, &AtomicBool::new(false))
        .expect("compares");
    assert_eq!(same.global().0.error, 0.0);
}

#[test]
fn a_low_rank_part_is_stored_once_and_read_back() {
    let fixture = Fixture::new(&tensors());
    let options = |name: &str, threads| {
        let low_rank = Some("4".into());
        JobOptions { low_rank, threads: Some(threads), bits: Some(2), ..rotated(&fixture, name) }
    };
    let report = quantize(options("out.parquet", 1)).expect("quantizes");
    quantize(options("more.parquet", 3)).expect("quantizes");
    let bytes = |name: &str| std::fs::read(fixture.path(name)).expect("written");
    assert!(bytes("out.parquet") == bytes("more.parquet"));
    let (model, output) = (fixture.path("model.safetensors"), fixture.path("out.parquet"));
    let compared = aq_engine::compare(&model, &output, None, &AtomicBool::new(false)).expect("compares");
    let file = aq_engine::inspect(&output).expect("opens");
    for (i, tensor) in report.tensors.iter().enumerate().filter(|(_, t)| t.is_quantized()) {
        let name = tensor.stored.info.name();
        let other = compared.tensors.iter().find(|t| t.stored.info.name() == name).expect(name);
        assert_eq!(tensor.comparison, other.comparison, "{name}");
        assert_eq!(
            (tensor.stored.codec(), tensor.bytes),
            ("affine+transform", file.stored_bytes(i)),
            "{name}"
        );
    }
}

#[test]
fn the_seed_decides_the_signs() {
    let fixture = Fixture::new(&tensors());
    let bytes = |seed| {
        quantize(JobOptions { seed: Some(seed), ..rotated(&fixture, "out.parquet") }).expect("quantizes");
        std::fs::read(fixture.path("out.parquet")).expect("written")
    };
    let (one, two) = (bytes(1), bytes(2));
    assert!(one == bytes(1) && one != two);
}

#[test]
fn calibrated_layers_are_measured_on_their_own_inputs() {
    let fixture = Fixture::new(&tensors());
    let samples =
        Tensor { name: "blocks.0.fc1".into(), shape: vec![2, 64, 1152], values: weights(2 * 64 * 1152, 9) };
    write(&fixture.path("calib.safetensors"), &[samples]);
    let calibration = Some(fixture.path("calib.safetensors"));
    let options = JobOptions { calibration, ..rotated(&fixture, "out.parquet") };
    let report = quantize(options).expect("quantizes");
    let fc1 = report.quantized().next().expect("fc1");
    let error = fc1.output_error().expect("measured on held-out rows");
    // Inputs without a pattern: outputs are as far off as weights are.
    assert!((error / fc1.comparison.relative_mse() - 1.0).abs() < 0.1, "{error}");
}
