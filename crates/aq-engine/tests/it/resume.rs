//! A folder output that was stopped is continued to the same bytes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use aq_engine::{EngineError, Job, JobOptions, Progress, Registry};

use crate::model::{Fixture, Tensor, quantize, sums, weights};

/// Enough weights for two parts.
fn big() -> Vec<Tensor> {
    let make = |i: usize| Tensor {
        name: format!("layers.{i}.weight"),
        shape: vec![9 << 10, 4 << 10],
        values: weights(1 << 16, i as u64 + 1).repeat(9 << 6),
    };
    (0..2).map(make).collect()
}

struct StopIn<'a>(&'a AtomicBool, &'a str, u32);

impl Progress for StopIn<'_> {
    fn advance(&mut self, _: u64, tensor: &str) {
        self.2 += u32::from(tensor == self.1);
        if self.2 > 3 {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("readable").map(|e| e.expect("readable").path());
    let name = |p: &Path| p.file_name().expect("a name").to_string_lossy().into_owned();
    entries.map(|p| (name(&p), std::fs::read(&p).expect("readable"))).collect()
}

#[test]
fn a_stopped_folder_is_continued_to_the_same_bytes() {
    let fixture = Fixture::new(&big());
    let options = |name: &str| JobOptions { method: Some("minmax".into()), ..fixture.options(name) };
    let whole = quantize(options("whole/")).expect("quantizes");

    let registry = Registry::default();
    let cancel = AtomicBool::new(false);
    let job = Job::new(options("parts/"), &registry).expect("a good job");
    let stopped = aq_engine::run(&job, &registry, &cancel, &mut StopIn(&cancel, "layers.1.weight", 0));
    assert!(matches!(stopped, Err(EngineError::Interrupted)));
    assert!(!fixture.path("parts").exists());

    let resumed = quantize(JobOptions { resume: true, ..options("parts/") }).expect("continues");
    let (one, two) = (files(&fixture.path("whole")), files(&fixture.path("parts")));
    assert!(one.keys().eq(two.keys()), "{:?} {:?}", one.keys(), two.keys());
    for (name, bytes) in &one {
        assert!(two[name] == *bytes, "{name} differs");
    }
    for (a, b) in whole.tensors.iter().zip(&resumed.tensors) {
        assert_eq!((a.bytes, sums(&a.comparison)), (b.bytes, sums(&b.comparison)));
    }
}
