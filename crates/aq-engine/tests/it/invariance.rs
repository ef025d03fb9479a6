//! The bytes of the output depend on the model and the settings, and on nothing else.

use std::sync::atomic::AtomicBool;

use aq_engine::JobOptions;

use crate::model::{Fixture, Tensor, quantize, sums, tensors, weights, write};

/// Inputs of the layer `name` with `cols` columns, more alike the closer they are.
fn samples(name: &str, cols: usize) -> Tensor {
    let mut values = weights(100 * cols, cols as u64);
    for i in 1..values.len() {
        values[i] += 0.7 * values[i - 1];
    }
    Tensor { name: name.into(), shape: vec![1, 100, cols], values }
}

#[test]
fn resources_never_change_a_byte() {
    let fixture = Fixture::new(&tensors());
    // One layer has a Hessian of one block, none of the others has inputs.
    write(&fixture.path("samples.safetensors"), &[samples("blocks.0.fc1", 1152)]);
    let cases = [
        ("minmax", 3, false),
        ("ls", 2, true),
        ("gptq", 3, false),
        ("gptq", 2, true),
        ("entropy", 2, false),
        ("entropy", 3, true),
        ("trellis6", 2, true),
        ("codebook", 3, false),
        ("codebook", 2, true),
        ("hqq", 2, false),
        ("binary", 1, false),
        ("ternary", 2, true),
    ];
    for (method, bits, rotation) in cases {
        let base = |name: &str| JobOptions {
            method: Some(method.into()),
            calibration: Some(fixture.path("samples.safetensors")),
            rotation: Some(rotation),
            bits: Some(bits),
            threads: Some(1),
            force: true,
            ..fixture.options(name)
        };
        quantize(base("a.parquet")).expect("quantizes");
        let expected = std::fs::read(fixture.path("a.parquet")).expect("written");
        let cases = [
            JobOptions { threads: Some(2), ..base("b.parquet") },
            JobOptions { threads: Some(5), block_size: Some("64KiB".into()), ..base("b.parquet") },
            JobOptions { block_size: Some("16MiB".into()), streaming: Some(true), ..base("b.parquet") },
            JobOptions { memory_limit: Some("160MiB".into()), threads: Some(2), ..base("b.parquet") },
        ];
        for case in cases {
            let what = format!("{case:?}");
            quantize(case).expect("quantizes");
            assert!(std::fs::read(fixture.path("b.parquet")).expect("written") == expected, "{what}");
        }
    }
}

#[test]
fn the_report_counts_what_the_file_holds() {
    let fixture = Fixture::new(&tensors());
    let options = JobOptions { bits: Some(4), group_size: Some(128), ..fixture.options("out.parquet") };
    let report = quantize(options).expect("quantizes");
    assert_eq!(report.output_bytes, std::fs::metadata(fixture.path("out.parquet")).expect("written").len());
    let json = report.json();
    let fc1 = &json["tensors"][0];
    assert_eq!(fc1["bits_per_weight"], 4.25, "4 bits and two f16 for each 128 of 9 * 128 weights");
    assert_eq!(json["tensors"][1]["kept_reason"], "rank 1");
    assert_eq!(json["quantized"]["tensors"], 3);
    let slope = fc1["slope"].as_f64().expect("measured");
    assert!((slope - 1.0).abs() < 1e-3, "{slope}");
}

#[test]
fn the_report_says_what_a_comparison_of_the_file_says() {
    let fixture = Fixture::new(&tensors());
    for (method, bits, gain) in [
        ("minmax", 4, true),
        ("minmax", 8, true),
        ("minmax", 4, false),
        ("ls", 2, true),
        ("entropy", 2, true),
        ("codebook", 4, true),
        ("trellis", 3, true),
        ("binary", 1, true),
        ("ternary", 2, false),
    ] {
        let options = JobOptions {
            method: Some(method.into()),
            bits: Some(bits),
            gain: Some(gain),
            force: true,
            ..fixture.options("out.parquet")
        };
        let report = quantize(options).expect("quantizes");
        let (model, output) = (fixture.path("model.safetensors"), fixture.path("out.parquet"));
        let compared =
            aq_engine::compare(&model, &output, None, &AtomicBool::new(false)).expect("both can be read");
        for tensor in report.quantized() {
            let name = tensor.stored.info.name();
            let other = compared.tensors.iter().find(|t| t.stored.info.name() == name).expect(name);
            assert_eq!(sums(&tensor.comparison), sums(&other.comparison), "{method}, {bits} bits: {name}");
        }
    }
}

#[test]
fn rules_decide_before_skip_lists() {
    let fixture = Fixture::new(&tensors());
    let options = JobOptions {
        tensor_types: vec!["fc1=skip".into(), "fc2=minmax:8:0".into(), r"\.weight$=:3:64".into()],
        ..fixture.options("out.arrow")
    };
    let json = quantize(options).expect("quantizes").json();
    let by_name = |name: &str| {
        let all = json["tensors"].as_array().expect("tensors").clone();
        all.into_iter().find(|t| t["name"] == name).expect(name)
    };
    assert_eq!(by_name("blocks.0.fc1.weight")["kept_reason"], "rule");
    let fc2 = by_name("blocks.0.fc2.weight");
    assert_eq!((&fc2["method"], &fc2["bits"], &fc2["group_size"]), (&"minmax".into(), &8.into(), &0.into()));
    let conv = by_name("blocks.0.conv.weight");
    assert_eq!((&conv["method"], &conv["bits"]), (&"ls".into(), &3.into()), "with groups, as asked for");
}

#[test]
fn what_is_best_depends_on_what_is_asked_for() {
    let fixture = Fixture::new(&tensors());
    write(&fixture.path("samples.safetensors"), &[samples("blocks.0.fc1", 1152)]);
    let calibration = || Some(fixture.path("samples.safetensors"));
    let base = || JobOptions { force: true, bits: Some(4), ..fixture.options("out.parquet") };
    for (options, method) in [
        (base(), "entropy"),
        (JobOptions { bits: Some(8), ..base() }, "ls"),
        (JobOptions { group_size: Some(64), ..base() }, "ls"),
        (JobOptions { calibration: calibration(), bits: Some(8), ..base() }, "entropy"),
        (JobOptions { calibration: calibration(), group_size: Some(64), ..base() }, "gptq"),
        (JobOptions { rate: Some(3.1), group_size: Some(64), ..base() }, "entropy"),
    ] {
        let json = quantize(options).expect("quantizes").json();
        assert_eq!(json["tensors"][0]["method"], method);
    }
}
