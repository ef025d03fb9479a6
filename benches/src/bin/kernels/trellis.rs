//! Trellis codes: states from weights at one scale, weights from streams.

use aq_codec::trellis::Trellis;
use aq_core::BitWidth;
use aq_kernels::trellis::{SEQUENCE, decode, encode, pack};
use aq_scalar as plain;

use crate::case::{BLOCK, Data, Plan, case};

/// What the scale of about normal weights is.
const SCALE: f32 = 1.0 / 27.0;

pub(crate) fn trellis_cases(plan: &Plan, data: &Data) {
    for (bits, state_bits) in [2_u8, 3, 4].into_iter().flat_map(|b| [(b, 6), (b, 8)]) {
        let width = BitWidth::new(bits).expect("a valid width");
        let table = Trellis::new(width, state_bits).expect("there is one").table(0);
        // Encoding is bound by its arithmetic, wherever the weights lie.
        let in_cache = Plan { runs: plan.runs, blocks: 0 };
        let units: Vec<f32> = data.block.iter().map(|w| w / SCALE).collect();
        let mut states = vec![0; BLOCK];
        by_sequence(&units, &mut states, |x, out| plain::trellis_encode(bits.into(), table, x, out));
        case(
            &in_cache,
            (&format!("trellis_encode_{state_bits}"), bits, "f32"),
            BLOCK * 4,
            (&units, BLOCK),
            vec![0_u8; BLOCK],
            |x, out| by_sequence(x, out, |x, out| _ = encode(bits, table, x, None, out)),
            |_, out| by_sequence(&units, out, |x, out| plain::trellis_encode(bits.into(), table, x, out)),
        );
        let mut packed = vec![0; BLOCK / 8 * usize::from(bits)];
        by_sequence(&states, &mut packed, |states, out| pack(bits, states, out));
        let size = packed.len();
        case(
            plan,
            (&format!("trellis_decode_{state_bits}"), bits, "f32"),
            BLOCK * 4,
            (&packed.repeat(plan.blocks), size),
            vec![0.0_f32; BLOCK],
            |x, out| by_sequence(x, out, |x, out| decode(bits, table, x, SCALE, 1.0, out)),
            |x, out| by_sequence(x, out, |x, out| plain::trellis_decode(bits.into(), table, x, SCALE, out)),
        );
    }
}

/// Calls `f` with the part of each of the block's sequences.
fn by_sequence<A, B>(x: &[A], out: &mut [B], f: impl Fn(&[A], &mut [B])) {
    let count = BLOCK / SEQUENCE;
    let (from, to) = (x.len() / count, out.len() / count);
    x.chunks(from).zip(out.chunks_mut(to)).for_each(|(x, out)| f(x, out));
}
