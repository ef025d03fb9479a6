//! Entropy coding at each SIMD level: the kernels beside the loops of `aq-scalar`, which are compiled without vectors, and the
//! whole codec beside its slowest level.
//!
//! `cargo bench -p aq-benches --bench entropy -- 'rans_decode'` runs one case.

mod case;

use std::hint::black_box;

use aq_benches::rans::{COLS, Coded, coded};
use aq_codec::entropy::{
    Centroids, ColumnSteps, DecodeScratch, EncodeScratch, RowScales, SlabCodes, decode_rows, encode_slab,
};
use aq_core::EncodedRows;
use aq_kernels::rans::{Decoder, reconstruct};
use aq_kernels::{levels, with_level};
use aq_scalar as plain;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use case::case;

const WEIGHTS: usize = 1 << 16;
/// Bits and the step that gives weights of variance 1 about as many.
const STEPS: [(u8, f32); 4] = [(1, 2.687), (2, 1.0824), (4, 0.259), (8, 0.0161)];

fn kernel_cases(c: &mut Criterion) {
    let x = aq_benches::weights(WEIGHTS);
    let steps: Vec<f32> = (0..COLS).map(|j| 1.0 + j as f32 / COLS as f32).collect();
    for (bits, step) in &STEPS[..3] {
        let Coded { classes, slots, states, words, symbols } = coded(&x, *step);
        case(
            c,
            (&format!("rans_decode/{bits}"), WEIGHTS),
            vec![0_u8; WEIGHTS],
            |out| Decoder::new(states, &words).decode(&slots, &classes, out),
            |out| plain::rans_decode(&mut states.clone(), &words, &slots[0], out),
        );
        let values = [std::array::from_fn(|symbol| (symbol as f32 - 127.0) * 0.98)];
        case(
            c,
            (&format!("rans_reconstruct/{bits}"), COLS * 4),
            vec![0.0_f32; COLS],
            |out| reconstruct(&symbols[..COLS], &classes, &values, &steps, 0.3, out),
            |out| plain::rans_reconstruct(&symbols, &values[0], &steps, 0.3, out),
        );
    }
}

fn codec_cases(c: &mut Criterion) {
    let x = aq_benches::weights(WEIGHTS * 4);
    let rows = x.len() / COLS;
    let (levels_of_rows, mut scratch) = (vec![0; rows], EncodeScratch::default());
    for (bits, step) in STEPS {
        let codes: Vec<i32> = x.iter().map(|w| (w / step).round() as i32).collect();
        let slab = SlabCodes { codes: &codes, cols: COLS, steps: ColumnSteps::Equal };
        let scales = RowScales { unit: step, fineness: 0, levels: &levels_of_rows };
        let mut encode = |out: &mut EncodedRows| {
            out.clear();
            encode_slab(slab, scales, Centroids::Same([0; 3]), &mut scratch, out);
        };
        let mut encoded = EncodedRows::default();
        encode(&mut encoded);
        let mut group = c.benchmark_group(format!("entropy/{bits}"));
        group.throughput(Throughput::Elements(x.len() as u64)).sample_size(10);
        let mut again = EncodedRows::default();
        group.bench_function("encode", |b| b.iter(|| encode(black_box(&mut again))));
        let (mut scratch, mut out) = (DecodeScratch::default(), vec![0.0; x.len()]);
        for level in levels() {
            let mut decode = || {
                let parts = black_box(encoded.parts());
                decode_rows(parts, COLS, rows as u64, 0, rows, &mut scratch, &mut out)
                    .expect("what was encoded");
            };
            with_level(level, || group.bench_function(format!("decode/{level}"), |b| b.iter(&mut decode)));
        }
        group.finish();
    }
}

criterion_group!(benches, kernel_cases, codec_cases);
criterion_main!(benches);
