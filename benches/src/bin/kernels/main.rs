//! Times each kernel at each SIMD level, in cache and out of it, beside its plain twin and a copy of as many bytes.
//!
//! Prints one JSON object a line; `cargo xtask bench --suite simd` reads them. `kernels [RUNS] [MIB] [CASES]`: runs of each
//! timing (5), mebibytes of `f32` weights out of cache (256), and the cases to time: `affine`, `fused`, `search`, `compare`,
//! `half`, `pack`, `trellis`, `entropy` and `product`, with commas between them (all). Every answer is compared with the
//! twin's first.
//!
//! Work is cut into blocks of 65536 weights. One block stays in cache; out of cache the blocks lie one after another.
//! The twin runs in cache only: it is limited by its arithmetic. It is a loop of `aq-scalar`, which is compiled without
//! vectors; half precision and the search have the code of `aq_kernels::reference`.

mod case;
mod codes;
mod entropy;
mod product;
mod trellis;

use aq_kernels::metric::Comparison;
use aq_kernels::{Level, affine, float16, levels, metric, reference, search};
use aq_scalar as plain;
use half::{bf16, f16};

use crate::case::{BLOCK, Data, GROUPS, Plan, case, groups};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, usual| arguments.get(at).map_or(usual, |a| a.parse().expect("a number"));
    let plan = Plan { runs: number(0, 5), blocks: (number(1, 256) << 20) / (BLOCK * 4) };
    assert!(plan.runs > 0 && plan.blocks > 0, "at least one run and one mebibyte");
    assert_eq!(levels()[0], Level::Scalar);
    let wanted = |name: &str| arguments.get(2).is_none_or(|list| list.split(',').any(|case| case == name));
    let data = Data::new(plan.blocks);
    for (name, cases) in CASES {
        if wanted(name) {
            cases(&plan, &data);
        }
    }
}

type Cases = fn(&Plan, &Data);

const CASES: [(&str, Cases); 9] = [
    ("affine", affine_cases),
    ("fused", codes::fused_cases),
    ("search", search_cases),
    ("compare", compare_cases),
    ("half", half_cases),
    ("pack", codes::pack_cases),
    ("trellis", trellis::trellis_cases),
    ("entropy", entropy::cases),
    ("product", |plan, _| product::product_cases(plan)),
];

fn affine_cases(plan: &Plan, data: &Data) {
    case(
        plan,
        ("min_max", 32, "f32"),
        BLOCK * 4,
        (&data.weights, BLOCK),
        vec![(0.0, 0.0)],
        |x, out| out[0] = affine::min_max(x),
        |x, out| out[0] = plain::min_max(x),
    );
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
            |x, out| groups(x, out, |x, out| plain::quantize(x, inverse, low, top, out)),
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
        |x, out| groups(x, out, |x, out| plain::dequantize_offset(x, scale, low, out)),
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
        |x, out| {
            let [dot, aa, bb, error, max_abs] = plain::compare(&x[..BLOCK], &x[BLOCK..]);
            out[0] = Comparison { dot, aa, bb, error, max_abs };
        },
    );
    case(
        plan,
        ("squared_error", 32, "f32"),
        BLOCK * 8,
        (&pair.repeat(plan.blocks), BLOCK * 2),
        vec![0.0],
        |x, out| out[0] = metric::squared_error(&x[..BLOCK], &x[BLOCK..]),
        |x, out| out[0] = plain::squared_error(&x[..BLOCK], &x[BLOCK..]),
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
