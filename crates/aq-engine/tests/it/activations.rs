//! How the inputs of layers are quantized: what is stored, reported and kept on the way through other formats.

use aq_engine::aq_timeaware::{Activations, Mode};
use aq_engine::{Job, JobOptions, Registry, Report, SmoothingPlan};

use crate::model::{Fixture, Tensor, quantize, tensors, weights, write};

const COLS: usize = 1152;

/// Inputs of the layer `name`, `[buckets, 16, cols]`, twice as large from bucket to bucket.
fn growing(name: &str, cols: usize, buckets: usize) -> Tensor {
    let mut values = weights(buckets * 16 * cols, 5);
    let grow = |(i, bucket): (usize, &mut [f32])| bucket.iter_mut().for_each(|v| *v *= (1u32 << i) as f32);
    values.chunks_mut(16 * cols).enumerate().for_each(grow);
    Tensor { name: name.into(), shape: vec![buckets, 16, cols], values }
}

/// The model with samples of one of its layers; times fall from bucket to bucket.
fn calibrated() -> Fixture {
    let fixture = Fixture::new(&tensors());
    let times =
        Tensor { name: "timesteps".into(), shape: vec![5], values: vec![900.0, 700.0, 500.0, 300.0, 100.0] };
    write(&fixture.path("samples.safetensors"), &[growing("blocks.0.fc1", COLS, 5), times]);
    fixture
}

fn options(fixture: &Fixture, mode: &str) -> JobOptions {
    JobOptions {
        calibration: Some(fixture.path("samples.safetensors")),
        method: Some("minmax".into()),
        act_bits: Some(8),
        act_mode: Some(mode.into()),
        force: true,
        ..fixture.options("out.parquet")
    }
}

fn stored(fixture: &Fixture, name: &str) -> Option<Activations> {
    let source = aq_engine::inspect(&fixture.path(name)).expect("opens");
    aq_engine::activations(&*source).expect("is well-formed")
}

fn row(report: &Report, tensor: &str) -> serde_json::Value {
    let json = report.json();
    let all = json["tensors"].as_array().expect("tensors");
    all.iter().find(|t| t["name"] == tensor).expect(tensor)["activations"].clone()
}

#[test]
fn groups_follow_time_and_not_the_order_of_buckets() {
    let fixture = calibrated();
    let report = quantize(options(&fixture, "groups")).expect("quantizes");
    let all = stored(&fixture, "out.parquet").expect("stored");
    let plan = &all.layers["blocks.0.fc1"];
    assert_eq!((all.time.as_str(), plan.mode, plan.bits), ("t", Mode::Groups, 8));
    assert_eq!(plan.boundaries, [200.0, 400.0, 600.0, 800.0]);
    assert!(
        plan.high.is_sorted_by(|a, b| a > b),
        "the bucket of t = 100 comes last and is largest: {:?}",
        plan.high
    );
    let row = row(&report, "blocks.0.fc1.weight");
    assert_eq!((&row["groups"], &row["mode"]), (&5.into(), &"groups".into()));
    let error = |mode: &str| row["error"][mode].as_f64().expect("measured");
    assert!(error("groups") <= error("uniform") && error("uniform") < error("static"), "{row}");
    assert!(error("token") < error("groups"), "rows of one bucket differ in range: {row}");
    assert!(report.activation_errors().is_some());
}

#[test]
fn narrow_inputs_are_smoothed_unless_told_otherwise() {
    let fixture = calibrated();
    let narrow = || JobOptions { act_bits: Some(4), ..options(&fixture, "token") };
    let cases = [
        (narrow(), SmoothingPlan::Auto),
        (
            JobOptions { format: Some("diffusers".into()), output: Some(fixture.path("out")), ..narrow() },
            SmoothingPlan::Auto,
        ),
        (JobOptions { smoothing: Some("off".into()), ..narrow() }, SmoothingPlan::Off),
        (JobOptions { calibration: None, ..narrow() }, SmoothingPlan::Off),
        (JobOptions { output: Some(fixture.path("out.safetensors")), ..narrow() }, SmoothingPlan::Off),
        (options(&fixture, "token"), SmoothingPlan::Off),
    ];
    for (options, expected) in cases {
        let told = format!("{options:?}");
        assert_eq!(
            Job::new(options, &Registry::default()).expect("a good job").smoothing,
            expected,
            "{told}"
        );
    }
}

#[test]
fn layers_without_samples_and_other_modes_are_told() {
    let fixture = calibrated();
    let report = quantize(options(&fixture, "groups")).expect("quantizes");
    let other = row(&report, "blocks.0.fc2.weight");
    assert_eq!((&other["mode"], &other["error"]), (&"token".into(), &serde_json::Value::Null));
    assert!(other["reason"].as_str().expect("a reason").contains("no calibration samples"));
    assert!(row(&report, "blocks.0.fc1.bias").is_null(), "only layers that are quantized have inputs");

    let one = JobOptions { time_aware: Some(false), ..options(&fixture, "groups") };
    quantize(one).expect("quantizes");
    let plan = stored(&fixture, "out.parquet").expect("stored").layers["blocks.0.fc1"].clone();
    assert_eq!((plan.mode, plan.low.len()), (Mode::Static, 1));

    let token = JobOptions { act_group_size: Some(128), calibration: None, ..options(&fixture, "auto") };
    quantize(token).expect("quantizes");
    let all = stored(&fixture, "out.parquet").expect("stored");
    assert_eq!(all.layers.len(), 3);
    assert!(all.layers.values().all(|p| p.mode == Mode::Token && p.group_size == 128 && p.low.is_empty()));

    let off = JobOptions { act_bits: None, time_groups: Some(10), ..options(&fixture, "groups") };
    let report = quantize(off).expect("quantizes");
    assert_eq!(stored(&fixture, "out.parquet"), None);
    let told: Vec<&str> = report.fallbacks.iter().map(|f| f.from.as_str()).collect();
    assert_eq!(told, ["act_mode", "num_time_groups"]);
}

#[test]
fn every_format_and_a_conversion_keep_them() {
    let fixture = calibrated();
    quantize(options(&fixture, "groups")).expect("quantizes");
    let expected = stored(&fixture, "out.parquet");
    for name in ["out.arrow", "folder"] {
        quantize(JobOptions { output: Some(fixture.path(name)), ..options(&fixture, "groups") })
            .expect("quantizes");
        assert_eq!(stored(&fixture, name), expected, "{name}");
    }
    let cancel = false.into();
    aq_engine::convert(
        &fixture.path("out.parquet"),
        &fixture.path("back.arrow"),
        &aq_engine::ConvertOptions::default(),
        &cancel,
    )
    .expect("converts");
    assert_eq!(stored(&fixture, "back.arrow"), expected);
    aq_engine::verify(&fixture.path("back.arrow"), &cancel).expect("is whole");
}

#[test]
fn threads_change_nothing_and_rotation_does() {
    let fixture = calibrated();
    let made = |options: JobOptions| {
        quantize(options).expect("quantizes");
        stored(&fixture, "out.parquet").expect("stored").layers["blocks.0.fc1"].clone()
    };
    let one = made(JobOptions { threads: Some(1), ..options(&fixture, "groups") });
    let three = made(JobOptions {
        threads: Some(3),
        block_size: Some("64KiB".into()),
        ..options(&fixture, "groups")
    });
    assert_eq!(one, three);
    let rotated = made(JobOptions { rotation: Some(true), ..options(&fixture, "groups") });
    assert_ne!(one.high, rotated.high, "ranges are those of what the codes are multiplied with");
}
