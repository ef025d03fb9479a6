//! Each kernel at each SIMD level, beside its plain twin and a copy of the bytes it reads.
//!
//! `cargo bench -p aq-benches -- 'quantize'` runs one case. Every case compares its answer with the twin's before it is
//! timed. Throughput counts weights, 65536 a call and in groups of 128, so all of it stays in the cache.

use std::hint::black_box;
use std::time::Duration;

use aq_kernels::{affine, float16, levels, metric, pack, reference, search, with_level};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use half::f16;

const WEIGHTS: usize = 1 << 16;
const GROUP: usize = 128;

struct Data {
    weights: Vec<f32>,
    others: Vec<f32>,
    codes: Vec<u8>,
    halves: Vec<f16>,
}

impl Data {
    /// Sums of 12 uniform numbers: about normal, and the same on every machine.
    fn new() -> Self {
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let weights: Vec<f32> = (0..WEIGHTS).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect();
        let mut codes = vec![0; WEIGHTS];
        affine::quantize(&weights, 2.5, -3.0, 15, &mut codes);
        let others = weights.iter().map(|w| w * 0.9 + 0.1).collect();
        let halves = weights.iter().map(|&w| f16::from_f32(w)).collect();
        Data { weights, others, codes, halves }
    }
}

/// Times one kernel; both forms write all they find out to the slice they are given. `read` is what they read, in bytes.
fn case<T: Clone + PartialEq>(
    c: &mut Criterion,
    (name, read): (&str, usize),
    mut out: Vec<T>,
    kernel: impl Fn(&mut [T]),
    twin: impl Fn(&mut [T]),
) {
    let mut want = out.clone();
    twin(&mut want);
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(WEIGHTS as u64));
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    for level in levels() {
        with_level(level, || {
            kernel(&mut out);
            assert!(out == want, "{name}: wrong answer at {level}");
            group.bench_function(level.name(), |b| b.iter(|| kernel(black_box(&mut out))));
        });
    }
    group.bench_function("twin", |b| b.iter(|| twin(black_box(&mut want))));
    let (from, mut to) = (vec![1_u8; read], vec![0; read]);
    group.bench_function("memcpy", |b| b.iter(|| to.copy_from_slice(black_box(&from))));
    group.finish();
}

/// Calls `f` with each group of 128 inputs and the piece of the output that belongs to it.
fn groups<A, B>(x: &[A], out: &mut [B], f: impl Fn(&[A], &mut [B])) {
    let piece = out.len() * GROUP / x.len();
    x.chunks(GROUP).zip(out.chunks_mut(piece)).for_each(|(x, out)| f(x, out));
}

fn affine_cases(c: &mut Criterion) {
    let Data { weights, codes, .. } = &Data::new();
    case(
        c,
        ("quantize", WEIGHTS * 4),
        vec![0; WEIGHTS],
        |out| groups(weights, out, |x, out| affine::quantize(x, 2.5, -3.0, 15, out)),
        |out| groups(weights, out, |x, out| reference::quantize(x, 2.5, -3.0, 15, out)),
    );
    case(
        c,
        ("dequantize_offset", WEIGHTS),
        vec![0.0; WEIGHTS],
        |out| groups(codes, out, |x, out| affine::dequantize_offset(x, 0.4, -3.0, out)),
        |out| groups(codes, out, |x, out| reference::dequantize_offset(x, 0.4, -3.0, out)),
    );
    for bits in [2, 4, 8] {
        let top = ((1_u16 << bits) - 1) as u8;
        case(
            c,
            (&format!("ls_search/{bits}"), WEIGHTS * 4),
            vec![(0.0, 0.0); WEIGHTS / GROUP],
            |out| groups(weights, out, |x, out| out[0] = search::ls_search(x, None, top)),
            |out| groups(weights, out, |x, out| out[0] = reference::ls_search(x, None, top)),
        );
    }
}

fn pack_cases(c: &mut Criterion) {
    let Data { codes, .. } = &Data::new();
    for bits in [2, 3, 4, 5, 6, 8] {
        let size = pack::packed_len(bits, WEIGHTS);
        case(
            c,
            (&format!("pack/{bits}"), WEIGHTS),
            vec![0; size],
            |out| groups(codes, out, |x, out| pack::pack(bits, x, out)),
            |out| groups(codes, out, |x, out| reference::pack(bits, x, out)),
        );
        let packed = &codes[..size];
        let piece = pack::packed_len(bits, GROUP);
        let each = |out: &mut [u8], unpack: fn(u8, &[u8], &mut [u8])| {
            packed.chunks(piece).zip(out.chunks_mut(GROUP)).for_each(|(p, out)| unpack(bits, p, out));
        };
        case(
            c,
            (&format!("unpack/{bits}"), size),
            vec![0; WEIGHTS],
            |out| each(out, pack::unpack),
            |out| each(out, reference::unpack),
        );
    }
}

fn metric_cases(c: &mut Criterion) {
    let Data { weights, others, halves, .. } = &Data::new();
    case(
        c,
        ("compare", WEIGHTS * 8),
        vec![metric::Comparison::default()],
        |out| out[0] = metric::compare(weights, others),
        |out| out[0] = reference::compare(weights, others),
    );
    case(
        c,
        ("first_non_finite", WEIGHTS * 4),
        vec![Some(0)],
        |out| out[0] = metric::first_non_finite(weights),
        |out| out[0] = reference::first_non_finite(weights),
    );
    case(
        c,
        ("widen_f16", WEIGHTS * 2),
        vec![0.0; WEIGHTS],
        |out| float16::widen_f16(halves, out),
        |out| reference::widen_f16(halves, out),
    );
    case(
        c,
        ("narrow_f16", WEIGHTS * 4),
        vec![f16::ZERO; WEIGHTS],
        |out| float16::narrow_f16(weights, out),
        |out| reference::narrow_f16(weights, out),
    );
}

criterion_group! {
    name = benches;
    config = Criterion::default();
    targets = affine_cases, pack_cases, metric_cases
}
criterion_main!(benches);
