//! Kernels that do several steps in one pass, products and the Hadamard transform, at each SIMD level.
//!
//! Every case compares its answer with the twin's before it is timed. The twin is the plain code of `reference.rs`
//! called for one group at a time. Compilers may turn parts of it into vectors of the baseline.

use std::hint::black_box;
use std::time::Duration;

use aq_kernels::decode::{self, Grids, Offsets};
use aq_kernels::encode::{GridsMut, encode_min_max};
use aq_kernels::product::{Matrix, MatrixOffsets, TokenI8, matvec_f32, matvec_i8, quantize_token};
use aq_kernels::{Weights, WeightsMut, hadamard, levels, pack, reference, with_level};
use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use half::f16;

const WEIGHTS: usize = 1 << 14;
const GROUP: usize = 128;

/// Times `kernel` at each level, then `twin`, then a copy of `bytes`; both write all they find out to `out`.
fn case<T: Clone + PartialEq>(
    c: &mut Criterion,
    (name, bytes): (&str, usize),
    mut out: Vec<T>,
    kernel: impl Fn(&mut [T]),
    twin: impl Fn(&mut [T]),
) {
    let mut group: BenchmarkGroup<'_, WallTime> = c.benchmark_group(name);
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
    group.bench_function("memcpy", |b| b.iter(|| to.copy_from_slice(black_box(&from))));
    group.finish();
}

fn twin_encode(bits: u8, x: &[f32], packed: &mut [u8]) {
    let top = ((1_u16 << bits) - 1) as u8;
    for (x, packed) in x.chunks(GROUP).zip(packed.chunks_mut(pack::packed_len(bits, GROUP))) {
        let (scale, zero, _) = reference::min_max_grid(black_box(x), f32::from(top));
        let mut codes = [0; GROUP];
        reference::quantize(x, 1.0 / scale, -(zero * scale), top, &mut codes);
        reference::pack(bits, &codes, packed);
    }
}

fn fused_cases(c: &mut Criterion) {
    let x = aq_benches::weights(WEIGHTS);
    for bits in [2, 3, 4, 5, 6, 8] {
        let packed = vec![0; pack::packed_len(bits, WEIGHTS)];
        let encode = |packed: &mut [u8]| {
            let (mut scales, mut zeros) = ([0.0; WEIGHTS / GROUP], [0.0; WEIGHTS / GROUP]);
            let grids = GridsMut { scales: &mut scales, zeros: &mut zeros };
            encode_min_max(bits, GROUP, Weights::F32(&x), grids, packed);
        };
        let name = format!("encode_min_max/{bits}");
        case(c, (&name, WEIGHTS * 4), packed.clone(), encode, |packed| twin_encode(bits, &x, packed));

        let mut packed = packed;
        encode(&mut packed);
        let (scales, zeros) = ([0.25; WEIGHTS / GROUP], [2; WEIGHTS / GROUP]);
        let grids = Grids { scales: &scales, offsets: Offsets::Zero(&zeros), factor: 1.0 };
        let twin = |out: &mut [f32]| {
            let pieces = packed.chunks(pack::packed_len(bits, GROUP));
            for (packed, out) in pieces.zip(out.chunks_mut(GROUP)) {
                let mut codes = [0; GROUP];
                reference::unpack(bits, black_box(packed), &mut codes);
                reference::dequantize_zero(&codes, 0.25, 2, out);
            }
        };
        let kernel = |out: &mut [f32]| decode::dequantize(bits, GROUP, &packed, grids, WeightsMut::F32(out));
        case(c, (&format!("dequantize/{bits}"), WEIGHTS * 4), vec![0.0; WEIGHTS], kernel, twin);

        let kernel = |out: &mut [_]| out[0] = decode::compare(bits, GROUP, Weights::F32(&x), &packed, grids);
        let both = |out: &mut [_]| {
            let mut decoded = vec![0.0; WEIGHTS];
            twin(&mut decoded);
            out[0] = reference::compare(&x, &decoded);
        };
        case(c, (&format!("compare_packed/{bits}"), WEIGHTS * 4), vec![Default::default()], kernel, both);
    }
}

fn product_cases(c: &mut Criterion) {
    let (rows, cols) = (256, 4096);
    let x = aq_benches::weights(cols);
    let (mut values, mut sums) = (vec![0; cols], vec![0; cols / GROUP]);
    let scale = quantize_token(&x, GROUP, &mut values, &mut sums);
    let token = TokenI8 { values: &values, sums: &sums, scale };
    let scales = vec![f16::from_f32(0.01); rows * cols / GROUP];
    let zeros = vec![3; rows * cols / GROUP];
    for bits in [2, 4, 8] {
        let packed: Vec<u8> =
            (0..pack::packed_len(bits, cols) * rows).map(|i| ((i * 89) >> 3) as u8).collect();
        let offsets = MatrixOffsets::Zero(&zeros);
        let matrix = Matrix { bits, group: GROUP, cols, packed: &packed, scales: &scales, offsets };
        let bytes = packed.len();
        let (kernel, twin) = (
            |y: &mut [f32]| matvec_i8(&matrix, token, y),
            |y: &mut [f32]| reference::matvec_i8(&matrix, token, y),
        );
        case(c, (&format!("matvec_i8/{bits}"), bytes), vec![0.0; rows], kernel, twin);
        let (kernel, twin) = (
            |y: &mut [f32]| matvec_f32(&matrix, &x, y),
            |y: &mut [f32]| reference::matvec_f32(&matrix, &x, y),
        );
        case(c, (&format!("matvec_f32/{bits}"), bytes), vec![0.0; rows], kernel, twin);
    }
}

fn hadamard_cases(c: &mut Criterion) {
    let x = aq_benches::weights(WEIGHTS);
    for size in [64, 256, 1024] {
        let with = |out: &mut [f32], transform: fn(&mut [f32], usize)| {
            out.copy_from_slice(&x);
            transform(out, size);
        };
        let name = format!("hadamard/{size}");
        case(
            c,
            (&name, WEIGHTS * 4),
            x.clone(),
            |out| with(out, hadamard::transform),
            |out| with(out, reference::hadamard),
        );
    }
}

criterion_group!(benches, fused_cases, product_cases, hadamard_cases);
criterion_main!(benches);
