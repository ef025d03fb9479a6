//! Kernels of entropy coding.

use aq_benches::rans::{COLS, Coded, coded};
use aq_kernels::rans::{Decoder, reconstruct};
use aq_scalar as plain;

use crate::case::{BLOCK, Data, Plan, case};

/// Words to symbols and symbols to weights. The steps give weights of variance 1 about 1, 2 and 4 bits.
pub(crate) fn cases(plan: &Plan, data: &Data) {
    for (bits, step) in [(1, 2.687), (2, 1.0824), (4, 0.259)] {
        let Coded { classes, slots, states, words, symbols } = coded(&data.block, step);
        case(
            plan,
            ("rans_decode", bits, "u8"),
            BLOCK,
            (&words.repeat(plan.blocks), words.len()),
            vec![0_u8; BLOCK],
            |x, out| Decoder::new(states, x).decode(&slots, &classes, out),
            |x, out| plain::rans_decode(&mut states.clone(), x, &slots[0], out),
        );
        if bits == 2 {
            reconstruct_case(plan, &classes, &symbols);
        }
    }
}

fn reconstruct_case(plan: &Plan, classes: &[u8], symbols: &[u8]) {
    let values = [std::array::from_fn(|symbol| (symbol as f32 - 127.0) * 0.98)];
    let steps: Vec<f32> = (0..COLS).map(|j| 1.0 + j as f32 / COLS as f32).collect();
    let rows = |x: &[u8], out: &mut [f32], row: &dyn Fn(&[u8], &mut [f32])| {
        x.chunks(COLS).zip(out.chunks_mut(COLS)).for_each(|(x, out)| row(x, out));
    };
    case(
        plan,
        ("rans_reconstruct", 32, "f32"),
        BLOCK * 4,
        (&symbols.repeat(plan.blocks), BLOCK),
        vec![0.0_f32; BLOCK],
        |x, out| rows(x, out, &|x, out| reconstruct(x, classes, &values, &steps, 0.3, out)),
        |x, out| rows(x, out, &|x, out| plain::rans_reconstruct(x, &values[0], &steps, 0.3, out)),
    );
}
