//! Times the compute part of a job: a model is planned and encoded with a number of threads, and what comes out is dropped.
//!
//! Prints one JSON object a line; `cargo xtask bench --suite parallel` reads them. `encode MODEL RUNS METHOD THREADS...`:
//! the numbers of threads take turns.

use std::sync::atomic::AtomicBool;

use aq_benches::time;
use aq_engine::{Job, JobOptions, Registry, Silent, encode_only};
use serde_json::json;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, runs, method, counts @ ..] = &arguments[..] else {
        panic!("usage: encode MODEL RUNS METHOD THREADS...")
    };
    let registry = Registry::default();
    let job = |threads: &String| {
        let options = JobOptions {
            input: model.into(),
            bits: Some(4),
            method: Some(method.clone()),
            threads: Some(threads.parse().expect("a number of threads")),
            ..JobOptions::default()
        };
        Job::new(options, &registry).expect("right options")
    };
    let jobs: Vec<Job> = counts.iter().map(job).collect();
    let mut seconds = vec![Vec::new(); jobs.len()];
    for _ in 0..runs.parse().expect("a number of runs") {
        for (job, seconds) in jobs.iter().zip(&mut seconds) {
            seconds.extend(time(1, 0.0, || encode(job, &registry)));
        }
    }
    for (threads, seconds) in counts.iter().zip(seconds) {
        println!("{}", json!({"method": method, "threads": threads, "seconds": seconds}));
    }
}

fn encode(job: &Job, registry: &Registry) {
    encode_only(job, registry, &AtomicBool::new(false), &mut Silent).expect("encoded");
}
