//! Times each kernel at each SIMD level, in cache and out of it, beside its plain twin and a copy of as many bytes.
//!
//! Prints one JSON object a line; `cargo xtask bench --suite simd` reads them. `kernels [RUNS] [MIB]`: runs of each
//! timing (5) and mebibytes of `f32` weights out of cache (256). Every answer is compared with the twin's first.
//!
//! Work is cut into blocks of 65536 weights. One block stays in cache; out of cache the blocks lie one after another.
//! The twin runs in cache only: it is limited by its arithmetic.

use std::hint::black_box;

use aq_benches::{time, weights};
use aq_kernels::decode::{Grids, Offsets};
use aq_kernels::encode::{GridsMut, encode_min_max};
use aq_kernels::metric::Comparison;
use aq_kernels::{
    Level, Weights, WeightsMut, affine, decode, float16, levels, metric, pack, reference, search,
};
use half::{bf16, f16};
use serde_json::json;

const BLOCK: usize = 1 << 16;
const GROUP: usize = 128;
const GROUPS: usize = BLOCK / GROUP;
/// Seconds that a run takes at least.
const SHORTEST: f64 = 0.005;

/// What kernels read: one block, repeated.
struct Data {
    block: Vec<f32>,
    weights: Vec<f32>,
    codes: Vec<u8>,
    /// Range of the whole block on 4 bits.
    scale: f32,
    low: f32,
}

impl Data {
    fn new(blocks: usize) -> Self {
        let block = weights(BLOCK);
        let (low, high) = reference::min_max(&block);
        let scale = (high - low) / 15.0;
        let mut codes = vec![0; BLOCK];
        reference::quantize(&block, 1.0 / scale, low, 15, &mut codes);
        Data { weights: block.repeat(blocks), codes, block, scale, low }
    }
}

/// How often and on how much.
struct Plan {
    runs: usize,
    blocks: usize,
}

/// Times a kernel that turns the block at each position of `input` into the block of `output` there. `unit` is how
/// many inputs make one block; `bytes` what a block reads or writes, whichever is more; `name` is kernel, bits and type.
fn case<A, B: Copy + PartialEq>(
    plan: &Plan,
    (name, bits, kind): (&str, u8, &str),
    bytes: usize,
    (input, unit): (&[A], usize),
    blank: Vec<B>,
    kernel: impl Fn(&[A], &mut [B]),
    twin: impl Fn(&[A], &mut [B]),
) {
    let mut want = blank.clone();
    twin(&input[..unit], &mut want);
    let print = |level: &str, place: &str, blocks: usize, seconds: Vec<f64>| {
        let (weights, bytes) = (BLOCK * blocks, bytes * blocks);
        println!(
            "{}",
            json!({"kernel": name, "bits": bits, "type": kind, "level": level, "place": place,
                   "weights": weights, "bytes": bytes, "seconds": seconds})
        );
    };
    for (place, blocks) in [("cache", 1), ("memory", plan.blocks)] {
        let mut out = blank.repeat(blocks);
        let pass = |out: &mut [B]| {
            let pieces = black_box(input).chunks(unit).zip(out.chunks_mut(blank.len()));
            for (input, out) in pieces {
                kernel(input, out);
            }
        };
        let (from, mut to) = (vec![1_u8; bytes * blocks], vec![0_u8; bytes * blocks]);
        for level in levels() {
            pass_at(level, &mut out, pass);
            assert!(out.chunks(want.len()).all(|o| o == want), "{name}/{bits}: wrong answer at {level}");
        }
        // In turn, so that what else the machine does falls on all of them.
        let (mut at_levels, mut of_twin, mut of_copy) =
            (vec![Vec::new(); levels().len()], Vec::new(), Vec::new());
        for _ in 0..plan.runs {
            for (level, seconds) in levels().into_iter().zip(&mut at_levels) {
                seconds.extend(time(1, SHORTEST, || pass_at(level, black_box(&mut out), pass)));
            }
            if place == "cache" {
                of_twin.extend(time(1, SHORTEST, || twin(black_box(&input[..unit]), &mut want)));
            }
            of_copy.extend(time(1, SHORTEST, || black_box(&mut to).copy_from_slice(black_box(&from))));
        }
        levels()
            .iter()
            .zip(at_levels)
            .for_each(|(level, seconds)| print(level.name(), place, blocks, seconds));
        if place == "cache" {
            print("twin", place, 1, of_twin);
        }
        print("memcpy", place, blocks, of_copy);
    }
}

fn pass_at<B>(level: Level, out: &mut [B], pass: impl Fn(&mut [B])) {
    aq_kernels::with_level(level, || pass(out));
}

/// Calls `f` with each group of inputs and the piece of the output that belongs to it.
fn groups<A, B>(x: &[A], out: &mut [B], f: impl Fn(&[A], &mut [B])) {
    let piece = out.len() * GROUP / x.len();
    x.chunks(GROUP).zip(out.chunks_mut(piece)).for_each(|(x, out)| f(x, out));
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse().expect("a number"));
    let (runs, mebibytes) = (arguments.next().unwrap_or(5), arguments.next().unwrap_or(256));
    let plan = Plan { runs, blocks: (mebibytes << 20) / (BLOCK * 4) };
    assert!(runs > 0 && plan.blocks > 0, "at least one run and one mebibyte");
    assert_eq!(levels()[0], Level::Scalar);
    let data = Data::new(plan.blocks);
    affine_cases(&plan, &data);
    fused_cases(&plan, &data);
    search_cases(&plan, &data);
    compare_cases(&plan, &data);
    half_cases(&plan, &data);
    pack_cases(&plan, &data);
}

fn affine_cases(plan: &Plan, data: &Data) {
    let &Data { scale, low, .. } = data;
    for bits in [2_u8, 4, 8] {
        let top = u8::MAX >> (8 - bits);
        let inverse = f32::from(top) / (scale * 15.0);
        case(
            plan,
            ("quantize", bits, "f32"),
            BLOCK * 4,
            (&data.weights, BLOCK),
            vec![0_u8; BLOCK],
            |x, out| groups(x, out, |x, out| affine::quantize(x, inverse, low, top, out)),
            |x, out| groups(x, out, |x, out| reference::quantize(x, inverse, low, top, out)),
        );
    }
    let codes = data.codes.repeat(plan.blocks);
    case(
        plan,
        ("dequantize", 4, "f32"),
        BLOCK * 4,
        (&codes, BLOCK),
        vec![0.0_f32; BLOCK],
        |x, out| groups(x, out, |x, out| affine::dequantize_offset(x, scale, low, out)),
        |x, out| groups(x, out, |x, out| reference::dequantize_offset(x, scale, low, out)),
    );
}

/// The grid of every group on `bits` bits and the packed codes, by the plain twins.
fn encode_twin(bits: u8, x: &[f32], out: &mut [u8]) -> (Vec<f32>, Vec<f32>) {
    let top = u8::MAX >> (8 - bits);
    let (mut scales, mut zeros, mut codes) = (Vec::new(), Vec::new(), vec![0; GROUP]);
    for (x, out) in x.chunks(GROUP).zip(out.chunks_mut(pack::packed_len(bits, GROUP))) {
        let (scale, zero, _) = reference::min_max_grid(x, f32::from(top));
        reference::quantize(x, 1.0 / scale, -zero * scale, top, &mut codes);
        reference::pack(bits, &codes, out);
        scales.push(scale);
        zeros.push(zero);
    }
    (scales, zeros)
}

/// Weights to packed codes and back in one pass each. The twin packs bit by bit.
fn fused_cases(plan: &Plan, data: &Data) {
    let narrow: Vec<bf16> = data.block.iter().map(|&w| bf16::from_f32(w)).collect();
    let narrow = narrow.repeat(plan.blocks);
    let widened = |x: &[bf16]| x.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
    for bits in [2_u8, 4, 8] {
        let size = pack::groups_len(bits, GROUP, BLOCK);
        let encode = |x: Weights<'_>, out: &mut [u8]| {
            let (mut scales, mut zeros) = ([0.0; GROUPS], [0.0; GROUPS]);
            encode_min_max(bits, GROUP, x, GridsMut { scales: &mut scales, zeros: &mut zeros }, out);
        };
        case(
            plan,
            ("encode", bits, "f32"),
            BLOCK * 4,
            (&data.weights, BLOCK),
            vec![0; size],
            |x, out| encode(Weights::F32(x), out),
            |x, out| _ = encode_twin(bits, x, out),
        );
        case(
            plan,
            ("encode", bits, "bf16"),
            BLOCK * 2,
            (&narrow, BLOCK),
            vec![0; size],
            |x, out| encode(Weights::BF16(x), out),
            |x, out| _ = encode_twin(bits, &widened(x), out),
        );
        decode_cases(plan, bits, &data.block);
    }
}

fn decode_cases(plan: &Plan, bits: u8, block: &[f32]) {
    let size = pack::groups_len(bits, GROUP, BLOCK);
    let mut packed = vec![0; size];
    let (scales, zeros) = encode_twin(bits, block, &mut packed);
    let zeros: Vec<u8> = zeros.into_iter().map(|z| z as u8).collect();
    let packed = packed.repeat(plan.blocks);
    let decoded = |x: &[u8], out: WeightsMut<'_>| {
        let grids = Grids { scales: &scales, offsets: Offsets::Zero(&zeros), factor: 1.0 };
        decode::dequantize(bits, GROUP, x, grids, out);
    };
    let twin = |x: &[u8], out: &mut [f32]| {
        let mut codes = [0; GROUP];
        let pieces = x.chunks(size / GROUPS).zip(out.chunks_mut(GROUP));
        for ((x, out), (&scale, &zero)) in pieces.zip(scales.iter().zip(&zeros)) {
            reference::unpack(bits, x, &mut codes);
            reference::dequantize_zero(&codes, scale, zero, out);
        }
    };
    case(
        plan,
        ("decode", bits, "f32"),
        BLOCK * 4,
        (&packed, size),
        vec![0.0_f32; BLOCK],
        |x, out| decoded(x, WeightsMut::F32(out)),
        twin,
    );
    case(
        plan,
        ("decode", bits, "bf16"),
        BLOCK * 2,
        (&packed, size),
        vec![bf16::ZERO; BLOCK],
        |x, out| decoded(x, WeightsMut::BF16(out)),
        |x, out| {
            let mut wide = vec![0.0; BLOCK];
            twin(x, &mut wide);
            reference::narrow_bf16(&wide, out);
        },
    );
}

fn search_cases(plan: &Plan, data: &Data) {
    for bits in [2_u8, 4, 8] {
        let top = u8::MAX >> (8 - bits);
        case(
            plan,
            ("ls_search", bits, "f32"),
            BLOCK * 4,
            (&data.weights, BLOCK),
            vec![(0.0, 0.0); GROUPS],
            |x, out| groups(x, out, |x, out| out[0] = search::ls_search(x, None, top)),
            |x, out| groups(x, out, |x, out| out[0] = reference::ls_search(x, None, top)),
        );
    }
}

fn compare_cases(plan: &Plan, data: &Data) {
    let shifted: Vec<f32> = data.block.iter().map(|w| w * 0.9 + 0.1).collect();
    let pair: Vec<f32> = [&data.block[..], &shifted[..]].concat();
    case(
        plan,
        ("compare", 32, "f32"),
        BLOCK * 8,
        (&pair.repeat(plan.blocks), BLOCK * 2),
        vec![Comparison::default()],
        |x, out| out[0] = metric::compare(&x[..BLOCK], &x[BLOCK..]),
        |x, out| out[0] = reference::compare(&x[..BLOCK], &x[BLOCK..]),
    );
}

fn half_cases(plan: &Plan, data: &Data) {
    let halves: Vec<f16> = data.block.iter().map(|&w| f16::from_f32(w)).collect();
    let narrow: Vec<bf16> = data.block.iter().map(|&w| bf16::from_f32(w)).collect();
    let (halves, narrow) = (halves.repeat(plan.blocks), narrow.repeat(plan.blocks));
    let wide = || vec![0.0_f32; BLOCK];
    let (input, bytes) = ((&data.weights[..], BLOCK), BLOCK * 4);
    case(
        plan,
        ("widen", 16, "f16"),
        bytes,
        (&halves, BLOCK),
        wide(),
        float16::widen_f16,
        reference::widen_f16,
    );
    case(
        plan,
        ("widen", 16, "bf16"),
        bytes,
        (&narrow, BLOCK),
        wide(),
        float16::widen_bf16,
        reference::widen_bf16,
    );
    case(
        plan,
        ("narrow", 16, "f16"),
        bytes,
        input,
        vec![f16::ZERO; BLOCK],
        float16::narrow_f16,
        reference::narrow_f16,
    );
    case(
        plan,
        ("narrow", 16, "bf16"),
        bytes,
        input,
        vec![bf16::ZERO; BLOCK],
        float16::narrow_bf16,
        reference::narrow_bf16,
    );
}

fn pack_cases(plan: &Plan, data: &Data) {
    for bits in [2_u8, 3, 4, 5, 6, 8] {
        let size = pack::packed_len(bits, BLOCK);
        let block: Vec<u8> = data.codes.iter().map(|c| c & u8::MAX >> (8 - bits)).collect();
        let mut packed = vec![0; size];
        reference::pack(bits, &block, &mut packed);
        case(
            plan,
            ("pack", bits, "u8"),
            BLOCK,
            (&block.repeat(plan.blocks), BLOCK),
            vec![0_u8; size],
            |x, out| pack::pack(bits, x, out),
            |x, out| reference::pack(bits, x, out),
        );
        case(
            plan,
            ("unpack", bits, "u8"),
            BLOCK,
            (&packed.repeat(plan.blocks), size),
            vec![0_u8; BLOCK],
            |x, out| pack::unpack(bits, x, out),
            |x, out| reference::unpack(bits, x, out),
        );
    }
}
