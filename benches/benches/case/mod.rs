//! One benchmark: a kernel at each level, its twin and a copy of as many bytes.

use std::hint::black_box;
use std::time::Duration;

use aq_kernels::{levels, with_level};
use criterion::{Criterion, Throughput};

/// Weights of a group.
#[allow(dead_code, reason = "not every benchmark has groups")]
pub(crate) const GROUP: usize = 128;

/// Times `kernel` at each level, then `twin`, then a copy of `bytes`, after comparing what they write to `out`: all they
/// find out.
pub(crate) fn case<T: Clone + PartialEq>(
    c: &mut Criterion,
    (name, bytes): (&str, usize),
    mut out: Vec<T>,
    kernel: impl Fn(&mut [T]),
    twin: impl Fn(&mut [T]),
) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Bytes(bytes as u64)).sample_size(10);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(500));
    let mut want = out.clone();
    twin(&mut want);
    for level in levels() {
        with_level(level, || {
            kernel(&mut out);
            assert!(out == want, "{name}: wrong answer at {level}");
            group.bench_function(level.name(), |b| b.iter(|| kernel(black_box(&mut out))));
        });
    }
    group.bench_function("twin", |b| b.iter(|| twin(black_box(&mut want))));
    let (from, mut to) = (vec![1_u8; bytes], vec![0_u8; bytes]);
    group.bench_function("memcpy", |b| b.iter(|| black_box(&mut to).copy_from_slice(black_box(&from))));
    group.finish();
}
