//! Kernels that do several steps in one pass, products and the Hadamard transform, at each SIMD level.
//!
//! Every case compares its answer with the twin's before it is timed. The twins of packed weights are the loops of
//! `aq-scalar`, which are compiled without vectors; the others are the plain code of `aq_kernels::reference`.
//! `cargo bench -p aq-benches --bench fused -- 'encode'` runs one case.

mod case;

use aq_kernels::decode::{self, Grids, Offsets};
use aq_kernels::encode::{GridsMut, encode_min_max};
use aq_kernels::metric::Comparison;
use aq_kernels::product::{
    self, BlockI8, Matrix, MatrixOffsets, TOKENS, TokenI8, matmul_i8, matvec_f32, matvec_i8, quantize_token,
};
use aq_kernels::{Weights, WeightsMut, hadamard, pack, reference};
use aq_scalar as plain;
use criterion::{Criterion, criterion_group, criterion_main};
use half::{bf16, f16};

use case::{GROUP, case};

const WEIGHTS: usize = 1 << 14;
const GROUPS: usize = WEIGHTS / GROUP;

fn encode_cases(c: &mut Criterion) {
    let x = aq_benches::weights(WEIGHTS);
    let halves: Vec<f16> = x.iter().map(|&w| f16::from_f32(w)).collect();
    let narrow: Vec<bf16> = x.iter().map(|&w| bf16::from_f32(w)).collect();
    let of_halves: Vec<f32> = halves.iter().map(|w| w.to_f32()).collect();
    let of_narrow: Vec<f32> = narrow.iter().map(|w| w.to_f32()).collect();
    for bits in [2, 3, 4, 5, 6, 8] {
        for (kind, size, weights, wide) in [
            ("f32", 4, Weights::F32(&x), &x),
            ("f16", 2, Weights::F16(&halves), &of_halves),
            ("bf16", 2, Weights::BF16(&narrow), &of_narrow),
        ] {
            let kernel = |packed: &mut [u8]| {
                let (mut scales, mut zeros) = ([0.0; GROUPS], [0.0; GROUPS]);
                let grids = GridsMut { scales: &mut scales, zeros: &mut zeros };
                encode_min_max(bits, GROUP, weights, grids, packed);
            };
            let twin = |packed: &mut [u8]| {
                let (mut scales, mut zeros) = ([0.0; GROUPS], [0.0; GROUPS]);
                plain::encode(bits, GROUP, wide, (&mut scales, &mut zeros), packed);
            };
            let packed = vec![0; pack::groups_len(bits, GROUP, WEIGHTS)];
            case(c, (&format!("encode_min_max/{bits}/{kind}"), WEIGHTS * size), packed, kernel, twin);
        }
    }
}

fn decode_cases(c: &mut Criterion) {
    let x = aq_benches::weights(WEIGHTS);
    for bits in [2, 3, 4, 5, 6, 8] {
        let (mut scales, mut zeros) = ([0.0; GROUPS], [0.0; GROUPS]);
        let mut packed = vec![0; pack::groups_len(bits, GROUP, WEIGHTS)];
        plain::encode(bits, GROUP, &x, (&mut scales, &mut zeros), &mut packed);
        let zeros = zeros.map(|z| z as u8);
        let grids = Grids { scales: &scales, offsets: Offsets::Zero(&zeros), factor: 1.0 };
        let to = |out: WeightsMut<'_>| decode::dequantize(bits, GROUP, &packed, grids, out);
        let twin = |out: &mut [f32]| plain::decode(bits, GROUP, &packed, &scales, &zeros, out);
        let wide = || {
            let mut out = vec![0.0; WEIGHTS];
            twin(&mut out);
            out
        };
        let name = |kind| format!("dequantize/{bits}/{kind}");
        let blank = vec![0.0; WEIGHTS];
        case(c, (&name("f32"), WEIGHTS * 4), blank, |out| to(WeightsMut::F32(out)), twin);
        let twin = |out: &mut [f16]| reference::narrow_f16(&wide(), out);
        let blank = vec![f16::ZERO; WEIGHTS];
        case(c, (&name("f16"), WEIGHTS * 2), blank, |out| to(WeightsMut::F16(out)), twin);
        let twin = |out: &mut [bf16]| reference::narrow_bf16(&wide(), out);
        let blank = vec![bf16::ZERO; WEIGHTS];
        case(c, (&name("bf16"), WEIGHTS * 2), blank, |out| to(WeightsMut::BF16(out)), twin);

        let kernel = |out: &mut [_]| out[0] = decode::compare(bits, GROUP, Weights::F32(&x), &packed, grids);
        let both = |out: &mut [_]| {
            let [dot, aa, bb, error, _] = plain::compare(&x, &wide());
            out[0] = Comparison { dot, aa, bb, error, max_abs: 0.0 };
        };
        let blank = vec![Comparison::default()];
        case(c, (&format!("compare_packed/{bits}"), WEIGHTS * 4), blank, kernel, both);
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

        let (mut values, mut sums) = (vec![[[0; 4]; TOKENS]; cols / 4], vec![[0; TOKENS]; cols / GROUP]);
        product::interleave(&[token; TOKENS], &mut values, &mut sums);
        let block = BlockI8 { values: &values, sums: &sums, scales: &[scale; TOKENS] };
        let twin = |y: &mut [[f32; TOKENS]]| {
            for t in 0..TOKENS {
                let mut one = [0.0; 256];
                reference::matvec_i8(&matrix, token, &mut one);
                y.iter_mut().zip(one).for_each(|(y, v)| y[t] = v);
            }
        };
        let kernel = |y: &mut [_]| matmul_i8(&matrix, block, y);
        case(c, (&format!("matmul_i8/{bits}"), bytes), vec![[0.0; TOKENS]; rows], kernel, twin);
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

criterion_group!(benches, encode_cases, decode_cases, product_cases, hadamard_cases);
criterion_main!(benches);
