//! A job that fails says why and leaves nothing behind.

use std::sync::atomic::{AtomicBool, Ordering};

use aq_engine::{EngineError, Job, JobOptions, Progress, Registry};

use crate::model::{Fixture, quantize, tensors};

#[test]
fn a_weight_that_is_not_finite_is_named() {
    for value in [f32::NAN, f32::INFINITY] {
        let mut model = tensors();
        model[3].values[650 * 2001 + 7] = value;
        let fixture = Fixture::new(&model);
        let jobs = [
            ("out.parquet", "minmax"),
            ("out.arrow", "ls"),
            ("out", "hqq"),
            ("a.parquet", "entropy"),
            ("b.parquet", "codebook"),
            ("c.parquet", "ternary"),
        ];
        for (name, method) in jobs {
            let options = JobOptions { method: Some(method.into()), ..fixture.options(name) };
            let error = quantize(options).expect_err("refused");
            let text = error.to_string();
            assert!(text.contains("blocks.0.fc2.weight") && text.contains("row 650, column 7"), "{text}");
            assert_eq!(error.exit_code(), 4);
            let left = fixture.names().into_iter().filter(|n| !n.ends_with("partial")).collect::<Vec<_>>();
            assert_eq!(left, ["model.safetensors"]);
        }
    }
}

#[test]
fn a_kept_tensor_that_is_not_finite_is_a_warning() {
    struct Heard(Vec<String>);
    impl Progress for Heard {
        fn warn(&mut self, message: &str) {
            self.0.push(message.into());
        }
    }
    let mut model = tensors();
    model[1].values[0] = f32::NEG_INFINITY;
    let fixture = Fixture::new(&model);
    let registry = Registry::default();
    let job = Job::new(fixture.options("out.parquet"), &registry).expect("a good job");
    let mut heard = Heard(Vec::new());
    aq_engine::run(&job, &registry, &AtomicBool::new(false), &mut heard).expect("quantizes");
    assert!(heard.0.iter().any(|m| m.contains("blocks.0.fc1.bias")), "{:?}", heard.0);
}

#[test]
fn an_interrupted_job_leaves_the_earlier_result() {
    struct StopAt<'a>(&'a AtomicBool);
    impl Progress for StopAt<'_> {
        fn advance(&mut self, _: u64, tensor: &str) {
            self.0.store(tensor.contains("conv"), Ordering::Relaxed);
        }
    }
    let fixture = Fixture::new(&tensors());
    std::fs::write(fixture.path("out.parquet"), "earlier").expect("written");
    let registry = Registry::default();
    let options = JobOptions { force: true, ..fixture.options("out.parquet") };
    let job = Job::new(options, &registry).expect("a good job");
    let cancel = AtomicBool::new(false);
    let result = aq_engine::run(&job, &registry, &cancel, &mut StopAt(&cancel));
    assert!(matches!(result, Err(EngineError::Interrupted)), "{result:?}");
    assert_eq!(std::fs::read(fixture.path("out.parquet")).expect("there"), b"earlier");
    assert_eq!(fixture.names(), ["model.safetensors", "out.parquet"]);
}

#[test]
fn options_that_make_no_sense_are_refused_before_any_work() {
    let fixture = Fixture::new(&tensors());
    let base = || fixture.options("out.parquet");
    let cases = [
        (JobOptions { bits: Some(7), ..base() }, 4, "bit width 7"),
        (JobOptions { group_size: Some(100), ..base() }, 4, "group size 100"),
        (JobOptions { method: Some("magic".into()), ..base() }, 4, "minmax, ls"),
        (JobOptions { profile: Some("pocket".into()), ..base() }, 4, "edge, local or cloud"),
        (JobOptions { memory_limit: Some("much".into()), ..base() }, 4, "much"),
        (JobOptions { memory_limit: Some("1MiB".into()), ..base() }, 6, "too small"),
        (JobOptions { threads: Some(0), ..base() }, 4, "threads"),
        (JobOptions { resume: true, ..base() }, 2, "folder"),
        (JobOptions { components: vec!["unet".into()], ..base() }, 2, "pipeline"),
        (JobOptions { input: fixture.path("no.safetensors"), ..base() }, 3, "no.safetensors"),
    ];
    for (options, code, word) in cases {
        let error = quantize(options).expect_err(word);
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(error.exit_code(), code, "{error}");
        assert_eq!(fixture.names(), ["model.safetensors"]);
    }
}

#[test]
fn a_quantized_model_is_not_quantized_again_by_accident() {
    let fixture = Fixture::new(&tensors());
    quantize(fixture.options("once.parquet")).expect("quantizes");
    let again = || JobOptions { input: fixture.path("once.parquet"), ..fixture.options("twice.parquet") };
    let error = quantize(again()).expect_err("refused");
    assert!(error.to_string().contains("--allow-requantize"), "{error}");
    let report =
        quantize(JobOptions { allow_requantize: Some(true), bits: Some(8), ..again() }).expect("allowed");
    assert!(report.global().relative_mse() < 1e-4, "8 bits of what 4 bits left");
}
