//! Sizes that are asked for are met with every byte of the file.

use aq_engine::JobOptions;
use aq_engine::aq_core::Decision;

use crate::model::{Fixture, quantize, tensors};

#[test]
fn sizes_are_met_from_below() {
    let fixture = Fixture::new(&tensors());
    let model = std::fs::metadata(fixture.path("model.safetensors")).expect("written").len();
    let plain = JobOptions { rate: Some(8.0), ..fixture.options("plain.parquet") };
    let largest = quantize(plain).expect("quantizes").output_bytes;
    for share in [0.35, 0.5, 0.8, 0.95] {
        let goal = (largest as f64 * share) as u64;
        let options =
            JobOptions { target_size: Some(goal.to_string()), force: true, ..fixture.options("out.parquet") };
        let report = quantize(options).expect("quantizes");
        let bytes = std::fs::metadata(fixture.path("out.parquet")).expect("written").len();
        assert_eq!(report.output_bytes, bytes);
        assert!(bytes <= goal && bytes as f64 >= 0.99 * goal as f64, "{bytes} of {goal}, model {model}");
    }
    let bits = 3.5;
    let options = JobOptions { target_bpw: Some(bits), force: true, ..fixture.options("out.parquet") };
    let reached = quantize(options).expect("quantizes").bits_per_weight();
    assert!(reached <= bits && reached > 0.99 * bits, "{reached}");
}

/// Methods of fixed widths meet a size with widths and group sizes that differ between layers.
#[test]
fn sizes_are_met_with_fixed_widths_too() {
    let fixture = Fixture::new(&tensors());
    for (method, bits) in [("minmax", 2.9), ("minmax", 5.3), ("ls", 3.6)] {
        let options = JobOptions {
            target_bpw: Some(bits),
            method: Some(method.into()),
            force: true,
            ..fixture.options("out.parquet")
        };
        let report = quantize(options).expect("quantizes");
        let reached = report.bits_per_weight();
        assert!(reached <= bits && reached > 0.99 * bits, "{method}: {reached} of {bits}");
    }
}

/// A rule that says how large a tensor is holds beside a target.
#[test]
fn rules_hold_beside_a_target() {
    let fixture = Fixture::new(&tensors());
    for method in ["entropy", "ls"] {
        let options = JobOptions {
            target_bpw: Some(3.5),
            method: Some(method.into()),
            tensor_types: vec!["conv=ls:8:64".into()],
            force: true,
            ..fixture.options("out.parquet")
        };
        let report = quantize(options).expect("quantizes");
        let conv =
            report.tensors.iter().find(|t| t.stored.info.name().contains("conv")).expect("it is there");
        let Decision::Quantize(plan) = &conv.decision else { panic!("it is kept") };
        assert_eq!((plan.method.as_str(), plan.bits.get()), ("ls", 8));
        let reached = report.bits_per_weight();
        assert!(reached <= 3.5 && reached > 0.99 * 3.5, "{method}: {reached}");
    }
}

#[test]
fn more_than_eight_bits_are_not_given_and_it_is_said() {
    let fixture = Fixture::new(&tensors());
    let options = JobOptions { target_size: Some("1GB".into()), ..fixture.options("out.parquet") };
    let report = quantize(options).expect("quantizes");
    let row = report.fallbacks.iter().find(|f| f.from == "1000000000 bytes").expect("a row about the size");
    assert_eq!(row.to, format!("{} bytes", report.output_bytes));
}

#[test]
fn sizes_that_cannot_be_met_are_refused() {
    let fixture = Fixture::new(&tensors());
    let too_small = JobOptions { target_size: Some("10kB".into()), ..fixture.options("out.parquet") };
    let error = quantize(too_small).expect_err("refused");
    assert!(error.to_string().contains("cannot be met"), "{error}");
    assert_eq!(error.exit_code(), 4);
    let raw = JobOptions {
        target_bpw: Some(4.0),
        tensor_types: vec![".=skip".into()],
        ..fixture.options("out.parquet")
    };
    let error = quantize(raw).expect_err("refused");
    assert!(error.to_string().contains("no layer has a size that is open"), "{error}");
    assert!(!fixture.path("out.parquet").exists());
}
