//! Kernels that read or write packed codes.

use aq_kernels::decode::{Grids, Offsets};
use aq_kernels::encode::{GridsMut, encode_min_max};
use aq_kernels::{Weights, WeightsMut, decode, pack, reference};
use aq_scalar as plain;
use half::bf16;

use crate::case::{BLOCK, Data, GROUP, GROUPS, Plan, case};

/// The grid of every group on `bits` bits and the packed codes, by the plain loops.
fn encode_twin(bits: u8, x: &[f32], out: &mut [u8]) -> ([f32; GROUPS], [f32; GROUPS]) {
    let (mut scales, mut zeros) = ([0.0; GROUPS], [0.0; GROUPS]);
    plain::encode(bits, GROUP, x, (&mut scales, &mut zeros), out);
    (scales, zeros)
}

/// Weights to packed codes and back in one pass each.
pub(crate) fn fused_cases(plan: &Plan, data: &Data) {
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
    let zeros = zeros.map(|z| z as u8);
    let packed = packed.repeat(plan.blocks);
    let decoded = |x: &[u8], out: WeightsMut<'_>| {
        let grids = Grids { scales: &scales, offsets: Offsets::Zero(&zeros), factor: 1.0 };
        decode::dequantize(bits, GROUP, x, grids, out);
    };
    let twin = |x: &[u8], out: &mut [f32]| plain::decode(bits, GROUP, x, &scales, &zeros, out);
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

pub(crate) fn pack_cases(plan: &Plan, data: &Data) {
    for bits in [2_u8, 3, 4, 5, 6, 8] {
        let size = pack::packed_len(bits, BLOCK);
        let block: Vec<u8> = data.codes.iter().map(|c| c & u8::MAX >> (8 - bits)).collect();
        let mut packed = vec![0; size];
        plain::pack(bits, &block, &mut packed);
        case(
            plan,
            ("pack", bits, "u8"),
            BLOCK,
            (&block.repeat(plan.blocks), BLOCK),
            vec![0_u8; size],
            |x, out| pack::pack(bits, x, out),
            |x, out| plain::pack(bits, x, out),
        );
        case(
            plan,
            ("unpack", bits, "u8"),
            BLOCK,
            (&packed.repeat(plan.blocks), size),
            vec![0_u8; BLOCK],
            |x, out| pack::unpack(bits, x, out),
            |x, out| plain::unpack(bits, x, out),
        );
    }
}
