//! Tensors that miss a bound get more bits, and the report says so.

use std::sync::atomic::{AtomicBool, Ordering};

use aq_engine::aq_core::Decision;
use aq_engine::{EngineError, Fallback, Job, JobOptions, Progress, Registry, Report, TensorReport};

use crate::model::{Fixture, Tensor, quantize, sums, tensors, weights, write};

fn minmax(fixture: &Fixture, name: &str, bits: u8) -> JobOptions {
    JobOptions { bits: Some(bits), method: Some("minmax".into()), ..fixture.options(name) }
}

fn bits(tensor: &TensorReport) -> Option<u8> {
    match &tensor.decision {
        Decision::Quantize(layer) => Some(layer.bits.get()),
        Decision::Keep { .. } => None,
    }
}

/// Rows about a tensor: from, to and reason.
fn rows<'a>(report: &'a Report, tensor: &TensorReport) -> Vec<(&'a str, &'a str, &'a str)> {
    let name = Some(tensor.stored.info.name());
    let row = |f: &'a Fallback| (f.from.as_str(), f.to.as_str(), f.reason.as_str());
    report.fallbacks.iter().filter(|f| f.tensor.as_deref() == name).map(row).collect()
}

#[test]
fn every_tensor_gets_the_first_width_that_meets_the_bound() {
    let fixture = Fixture::new(&tensors());
    let plain: Vec<Report> = [2, 4, 8]
        .map(|bits| quantize(minmax(&fixture, &format!("{bits}.parquet"), bits)).expect("quantizes"))
        .into();
    let mut widths = std::collections::BTreeSet::new();
    for bound in [0.5, 0.88, 0.99, 0.9999, 1.0] {
        let options =
            JobOptions { min_cosine: Some(bound), ..minmax(&fixture, &format!("{bound}.parquet"), 2) };
        let report = quantize(options).expect("quantizes");
        for (i, tensor) in
            report.tensors.iter().enumerate().filter(|(i, _)| plain[0].tensors[*i].is_quantized())
        {
            let missed: Vec<&TensorReport> =
                plain.iter().map(|r| &r.tensors[i]).take_while(|t| t.comparison.cosine() < bound).collect();
            let expected = plain.get(missed.len()).map(|r| &r.tensors[i]);
            assert_eq!(bits(tensor), expected.and_then(bits));
            widths.insert(bits(tensor));
            let steps: Vec<(String, String, String)> = missed
                .iter()
                .zip(["2 bits", "4 bits", "8 bits"])
                .zip(["4 bits", "8 bits", "kept"])
                .map(|((t, from), to)| {
                    let reason = format!("cosine {:.4} is below {bound}", t.comparison.cosine());
                    (from.into(), to.into(), reason)
                })
                .collect();
            let said: Vec<_> =
                rows(&report, tensor).iter().map(|r| (r.0.into(), r.1.into(), r.2.into())).collect();
            assert_eq!(said, steps);
            match expected {
                Some(e) => {
                    assert_eq!((tensor.bytes, sums(&tensor.comparison)), (e.bytes, sums(&e.comparison)))
                }
                None => assert_eq!(tensor.bytes, tensor.stored.info.bytes()),
            }
        }
        aq_engine::verify(&fixture.path(&format!("{bound}.parquet")), &false.into()).expect("sound");
    }
    assert_eq!(
        widths.into_iter().collect::<Vec<_>>(),
        [None, Some(2), Some(4), Some(8)],
        "every step was taken"
    );
}

#[test]
fn the_chain_goes_on_from_other_widths_and_rates() {
    let fixture = Fixture::new(&tensors());
    let steps = |options: JobOptions| {
        let options = JobOptions { max_error: Some(1e-7), force: true, ..options };
        let report = quantize(options).expect("quantizes");
        let tensor =
            report.tensors.iter().find(|t| t.stored.info.name().ends_with("fc1.weight")).expect("there");
        assert!(!tensor.is_quantized());
        let steps: Vec<String> = rows(&report, tensor).iter().map(|r| r.0.to_string()).collect();
        assert!(rows(&report, tensor).iter().all(|r| r.2.starts_with("relative MSE")));
        steps
    };
    assert_eq!(steps(minmax(&fixture, "out.parquet", 3)), ["3 bits", "4 bits", "8 bits"]);
    assert_eq!(steps(minmax(&fixture, "out.parquet", 5)), ["5 bits", "8 bits"]);
    let rate = JobOptions { rate: Some(2.5), ..fixture.options("out.parquet") };
    assert_eq!(steps(rate), ["2.5 bits", "4 bits", "8 bits"]);
    let nf4 = JobOptions { bits: Some(4), method: Some("nf4".into()), ..fixture.options("out.parquet") };
    assert_eq!(steps(nf4), ["nf4, 4 bits", "8 bits"]);
}

#[test]
fn fail_fast_stops_at_the_first_miss_and_leaves_nothing() {
    let fixture = Fixture::new(&tensors());
    for name in ["out.parquet", "out.arrow", "out/"] {
        let options =
            JobOptions { min_cosine: Some(0.99), fail_fast: Some(true), ..minmax(&fixture, name, 2) };
        let error = quantize(options).expect_err("a miss");
        assert!(matches!(error, EngineError::Quality(_)));
        assert_eq!(error.exit_code(), 5);
        let text = error.to_string();
        assert!(text.contains("\"blocks.0.fc1.weight\": cosine 0.") && text.contains("below 0.99"), "{text}");
        assert_eq!(fixture.names(), ["model.safetensors"]);
    }
    let met =
        JobOptions { min_cosine: Some(0.5), fail_fast: Some(true), ..minmax(&fixture, "out.parquet", 2) };
    assert!(quantize(met).expect("no tensor misses").fallbacks.is_empty());
}

#[test]
fn the_bytes_do_not_depend_on_threads_or_memory() {
    let fixture = Fixture::new(&tensors());
    let gated = |name: &str| JobOptions { min_cosine: Some(0.9999), ..minmax(&fixture, name, 2) };
    quantize(JobOptions { threads: Some(1), ..gated("a.parquet") }).expect("quantizes");
    let tight = JobOptions { threads: Some(4), memory_limit: Some("48MiB".into()), ..gated("b.parquet") };
    quantize(JobOptions { block_size: Some("64KiB".into()), ..tight }).expect("quantizes");
    let read = |name| std::fs::read(fixture.path(name)).expect("written");
    assert!(read("a.parquet") == read("b.parquet"));
}

#[test]
fn errors_of_outputs_count_where_there_is_a_calibration() {
    let fixture = Fixture::new(&tensors());
    let samples =
        Tensor { name: "blocks.0.fc1".into(), shape: vec![4, 32, 1152], values: weights(4 * 32 * 1152, 99) };
    write(&fixture.path("calib.safetensors"), &[samples]);
    let options = |name: &str| JobOptions {
        calibration: Some(fixture.path("calib.safetensors")),
        max_error: Some(0.05),
        ..minmax(&fixture, name, 2)
    };
    let report = quantize(options("out.parquet")).expect("quantizes");
    let reason = |end: &str| {
        let is = |f: &&Fallback| f.tensor.as_deref().is_some_and(|t| t.ends_with(end));
        report.fallbacks.iter().find(is).map(|f| f.reason.clone()).expect("a row")
    };
    assert!(reason("fc1.weight").starts_with("output error"), "{}", reason("fc1.weight"));
    assert!(reason("fc2.weight").starts_with("relative MSE"), "{}", reason("fc2.weight"));
    assert!(report.quantized().all(|t| t.output_error().unwrap_or(t.comparison.relative_mse()) <= 0.05));
}

#[test]
fn a_target_gives_way_to_the_gate_and_it_is_said() {
    let fixture = Fixture::new(&tensors());
    let options =
        JobOptions { target_bpw: Some(2.5), min_cosine: Some(0.995), ..fixture.options("out.parquet") };
    let report = quantize(options).expect("quantizes");
    let row = report.fallbacks.iter().find(|f| f.tensor.is_none()).expect("a row about the size");
    assert_eq!(row.to, format!("{} bytes", report.output_bytes));
    assert!(row.reason.contains("quality gate"), "{}", row.reason);
}

/// Stops when a tensor is worked on for the third time: in the final pass of a job whose first two passes met it.
struct StopInThird<'a>(&'a AtomicBool, u32);

impl Progress for StopInThird<'_> {
    fn start(&mut self, _: u64, _: usize) {
        self.1 += 1;
    }

    fn advance(&mut self, _: u64, tensor: &str) {
        if self.1 == 3 && tensor.ends_with("fc2.weight") {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_folder_that_was_stopped_in_its_last_pass_is_continued_to_the_same_bytes() {
    let fixture = Fixture::new(&tensors());
    let options = |name: &str| JobOptions { min_cosine: Some(0.98), ..minmax(&fixture, name, 2) };
    quantize(options("whole/")).expect("quantizes");
    let (registry, cancel) = (Registry::default(), AtomicBool::new(false));
    let job = Job::new(options("parts/"), &registry).expect("a good job");
    let stopped = aq_engine::run(&job, &registry, &cancel, &mut StopInThird(&cancel, 0));
    assert!(matches!(stopped, Err(EngineError::Interrupted)));
    assert!(!fixture.path("parts").exists());
    let report = quantize(JobOptions { resume: true, ..options("parts/") }).expect("continues");
    assert!(!report.fallbacks.is_empty());
    for file in ["manifest.json", "part-00000.parquet"] {
        let read = |folder: &str| std::fs::read(fixture.path(folder).join(file)).expect("written");
        assert!(read("whole") == read("parts"), "{file}");
    }
}
