//! Trellis codes at each SIMD level.
//!
//! Every case compares its answer with the twin's before it is timed. The twins are the loops of `aq-scalar`, which are
//! compiled without vectors. `cargo bench -p aq-benches --bench trellis -- 'encode'` runs one case.

mod case;

use aq_codec::trellis::Trellis;
use aq_core::BitWidth;
use aq_kernels::trellis::{SEQUENCE, decode, encode, pack};
use aq_scalar as plain;
use criterion::{Criterion, criterion_group, criterion_main};

use case::case;

fn trellis_cases(c: &mut Criterion) {
    let x: Vec<f32> = aq_benches::weights(SEQUENCE).iter().map(|w| w * 27.0).collect();
    for (bits, state_bits) in [2_u8, 3, 4].into_iter().flat_map(|b| [(b, 6), (b, 8)]) {
        let width = BitWidth::new(bits).expect("a valid width");
        let table = Trellis::new(width, state_bits).expect("there is one").table(0);
        case(
            c,
            (&format!("trellis_encode_{state_bits}/{bits}"), SEQUENCE * 4),
            vec![0; SEQUENCE],
            |out| _ = encode(bits, table, &x, None, out),
            |out| plain::trellis_encode(bits.into(), table, &x, out),
        );
        let (mut states, mut stream) = (vec![0; SEQUENCE], vec![0; SEQUENCE / 8 * usize::from(bits)]);
        encode(bits, table, &x, None, &mut states);
        pack(bits, &states, &mut stream);
        case(
            c,
            (&format!("trellis_decode_{state_bits}/{bits}"), SEQUENCE * 4),
            vec![0.0; SEQUENCE],
            |out| decode(bits, table, &stream, 0.037, 1.0, out),
            |out| plain::trellis_decode(bits.into(), table, &stream, 0.037, out),
        );
    }
}

criterion_group!(benches, trellis_cases);
criterion_main!(benches);
