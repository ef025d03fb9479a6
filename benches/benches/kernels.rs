//! Each kernel at each SIMD level, beside its plain twin and a copy of the bytes it reads.
//!
//! `cargo bench -p aq-benches --bench kernels -- 'quantize'` runs one case. Every case compares its answer with the
//! twin's before it is timed. 65536 weights a call and in groups of 128, so all of it stays in the cache. Twins are the
//! loops of `aq-scalar`, which are compiled without vectors; half precision and the search have the plain code of
//! `aq_kernels::reference`.

mod case;

use aq_kernels::metric::Comparison;
use aq_kernels::{affine, float16, metric, pack, reference, search};
use aq_scalar as plain;
use criterion::{Criterion, criterion_group, criterion_main};
use half::{bf16, f16};

use case::{GROUP, case};

const WEIGHTS: usize = 1 << 16;

struct Data {
    weights: Vec<f32>,
    others: Vec<f32>,
    codes: Vec<u8>,
}

impl Data {
    fn new() -> Self {
        let weights = aq_benches::weights(WEIGHTS);
        let mut codes = vec![0; WEIGHTS];
        affine::quantize(&weights, 2.5, -3.0, 15, &mut codes);
        let others = weights.iter().map(|w| w * 0.9 + 0.1).collect();
        Data { weights, others, codes }
    }
}

/// Calls `f` with each group of 128 inputs and the piece of the output that belongs to it.
fn groups<A, B>(x: &[A], out: &mut [B], f: impl Fn(&[A], &mut [B])) {
    let piece = out.len() * GROUP / x.len();
    x.chunks(GROUP).zip(out.chunks_mut(piece)).for_each(|(x, out)| f(x, out));
}

fn affine_cases(c: &mut Criterion) {
    let Data { weights, codes, .. } = &Data::new();
    for bits in [2, 3, 4, 5, 6, 8] {
        let (top, inverse) = (u8::MAX >> (8 - bits), f32::from(u8::MAX >> (8 - bits)) / 6.0);
        case(
            c,
            (&format!("quantize/{bits}"), WEIGHTS * 4),
            vec![0; WEIGHTS],
            |out| groups(weights, out, |x, out| affine::quantize(x, inverse, -3.0, top, out)),
            |out| groups(weights, out, |x, out| plain::quantize(x, inverse, -3.0, top, out)),
        );
    }
    case(
        c,
        ("dequantize_offset", WEIGHTS * 4),
        vec![0.0; WEIGHTS],
        |out| groups(codes, out, |x, out| affine::dequantize_offset(x, 0.4, -3.0, out)),
        |out| groups(codes, out, |x, out| plain::dequantize_offset(x, 0.4, -3.0, out)),
    );
    case(
        c,
        ("dequantize_zero", WEIGHTS * 4),
        vec![0.0; WEIGHTS],
        |out| groups(codes, out, |x, out| affine::dequantize_zero(x, 0.4, 7, out)),
        |out| groups(codes, out, |x, out| plain::dequantize_zero(x, 0.4, 7.0, out)),
    );
    case(
        c,
        ("min_max", WEIGHTS * 4),
        vec![(0.0, 0.0)],
        |out| out[0] = affine::min_max(weights),
        |out| out[0] = plain::min_max(weights),
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
            |out| groups(codes, out, |x, out| plain::pack(bits, x, out)),
        );
        let packed = &codes[..size];
        let piece = pack::packed_len(bits, GROUP);
        let each = |out: &mut [u8], unpack: fn(u8, &[u8], &mut [u8])| {
            packed.chunks(piece).zip(out.chunks_mut(GROUP)).for_each(|(p, out)| unpack(bits, p, out));
        };
        case(
            c,
            (&format!("unpack/{bits}"), WEIGHTS),
            vec![0; WEIGHTS],
            |out| each(out, pack::unpack),
            |out| each(out, plain::unpack),
        );
    }
}

fn metric_cases(c: &mut Criterion) {
    let Data { weights, others, .. } = &Data::new();
    case(
        c,
        ("compare", WEIGHTS * 8),
        vec![Comparison::default()],
        |out| out[0] = metric::compare(weights, others),
        |out| {
            let [dot, aa, bb, error, max_abs] = plain::compare(weights, others);
            out[0] = Comparison { dot, aa, bb, error, max_abs };
        },
    );
    case(
        c,
        ("dot", WEIGHTS * 8),
        vec![0.0],
        |out| out[0] = metric::dot(weights, others),
        |out| out[0] = plain::dot(weights, others),
    );
    case(
        c,
        ("squared_error", WEIGHTS * 8),
        vec![0.0],
        |out| out[0] = metric::squared_error(weights, others),
        |out| out[0] = plain::squared_error(weights, others),
    );
    case(
        c,
        ("first_non_finite", WEIGHTS * 4),
        vec![Some(0)],
        |out| out[0] = metric::first_non_finite(weights),
        |out| out[0] = reference::first_non_finite(weights),
    );
}

fn half_cases(c: &mut Criterion) {
    let weights = &aq_benches::weights(WEIGHTS);
    let halves: &Vec<f16> = &weights.iter().map(|&w| f16::from_f32(w)).collect();
    let narrow: &Vec<bf16> = &weights.iter().map(|&w| bf16::from_f32(w)).collect();
    let bytes = WEIGHTS * 4;
    case(
        c,
        ("widen_f16", bytes),
        vec![0.0; WEIGHTS],
        |out| float16::widen_f16(halves, out),
        |out| reference::widen_f16(halves, out),
    );
    case(
        c,
        ("widen_bf16", bytes),
        vec![0.0; WEIGHTS],
        |out| float16::widen_bf16(narrow, out),
        |out| reference::widen_bf16(narrow, out),
    );
    case(
        c,
        ("narrow_f16", bytes),
        vec![f16::ZERO; WEIGHTS],
        |out| float16::narrow_f16(weights, out),
        |out| reference::narrow_f16(weights, out),
    );
    case(
        c,
        ("narrow_bf16", bytes),
        vec![bf16::ZERO; WEIGHTS],
        |out| float16::narrow_bf16(weights, out),
        |out| reference::narrow_bf16(weights, out),
    );
}

criterion_group!(benches, affine_cases, pack_cases, metric_cases, half_cases);
criterion_main!(benches);
