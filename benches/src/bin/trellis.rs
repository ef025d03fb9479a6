//! Errors, sizes and speed of the trellis codes.
//!
//! `trellis`: cosine and relative squared error of 1024 x 4096 weights of each distribution without gain, with all bits
//! counted; then millions of weights a second on one core, at each SIMD level, the median of 5 runs.

use std::hint::black_box;

use aq_benches::sources::Source;
use aq_benches::time;
use aq_codec::trellis::{Trellis, encode_sequence};
use aq_codec::{ReadScratch, decode, seal};
use aq_core::{
    BitWidth, DType, EncodedRows, GroupSize, LayerInputs, LayerPlan, QuantStrategy, RowData, Rows, Scratch,
    TensorInfo,
};
use aq_kernels::{levels, metric, trellis, with_level};
use aq_spatial::TrellisCoded;

const ROWS: usize = 1024;
const COLS: usize = 4096;
const BITS: [u8; 3] = [2, 3, 4];

fn main() {
    let sources = Source::ALL.map(|source| (source.name(), source.draw(ROWS * COLS, 1)));
    for strategy in [TrellisCoded::BEST, TrellisCoded::FAST] {
        for bits in BITS {
            for (name, weights) in &sources {
                errors(&strategy, bits, name, weights);
            }
        }
    }
    for (state_bits, bits) in [8, 6].into_iter().flat_map(|l| BITS.map(|b| (l, b))) {
        let trellis = Trellis::new(width(bits), state_bits).expect("there is one");
        for level in levels() {
            with_level(level, || speed(trellis, level.name(), &sources[0].1));
        }
    }
}

fn width(bits: u8) -> BitWidth {
    BitWidth::new(bits).expect("a valid width")
}

fn errors(strategy: &TrellisCoded, bits: u8, name: &str, weights: &[f32]) {
    let info = TensorInfo::new("w", vec![ROWS as u64, COLS as u64], DType::F32).expect("a valid shape");
    let plan =
        LayerPlan { gain: false, ..LayerPlan::new(strategy.id().as_str(), width(bits), GroupSize::ROW) };
    let layer = LayerInputs::new(&info);
    let mut out = EncodedRows::default();
    let (mut decoded, mut bytes) = (vec![0.0; weights.len()], 0);
    let encoding = strategy.estimate(&info, &layer.stats, &plan).encoding;
    let quantizer = strategy.prepare(&layer, &plan).expect("a layer that fits");
    let slab = aq_core::slab_rows(&info, &encoding) as usize;
    for (i, (weights, decoded)) in
        weights.chunks(slab * COLS).zip(decoded.chunks_mut(slab * COLS)).enumerate()
    {
        let rows = Rows { data: RowData::F32(weights), cols: COLS, first_row: (i * slab) as u64 };
        out.clear();
        quantizer.quantize_rows(rows, &mut Scratch::default(), &mut out).expect("rows that fit");
        seal(&mut out);
        bytes += out.bytes();
        let scratch = &mut ReadScratch::default();
        decode(&encoding, &info, out.parts(), out.row_count, 0, scratch, decoded).expect("what was encoded");
    }
    let found = metric::compare(weights, &decoded);
    let cosine = found.dot / (found.aa * found.bb).sqrt();
    let (id, per_weight) = (strategy.id(), bytes as f64 * 8.0 / weights.len() as f64);
    let mse = found.error / found.aa;
    println!(
        "{id:9} {bits} bits  {name:8}  {per_weight:.4} bits per weight  cosine {cosine:.4}  relative MSE {mse:.5}"
    );
}

fn speed(trellis: Trellis, level: &str, weights: &[f32]) {
    let weights = &weights[..1 << 17];
    let bits = trellis.bits();
    let mut states = vec![0; weights.len()];
    let mut pass = |encode: &dyn Fn(&[f32], &mut [u8])| {
        rate(weights.len(), || {
            let sequences =
                black_box(weights).chunks(trellis::SEQUENCE).zip(states.chunks_mut(trellis::SEQUENCE));
            sequences.for_each(|(weights, states)| encode(weights, states));
        })
    };
    let table = trellis.table(0);
    let once = pass(&|weights, states| {
        trellis::encode(bits, table, weights, None, states);
    });
    let searched = pass(&|weights, states| {
        encode_sequence(trellis, weights, None, states);
    });
    let (mut stream, mut back) = (vec![0; weights.len() / 8 * usize::from(bits)], vec![0.0; weights.len()]);
    let size = trellis::SEQUENCE / 8 * usize::from(bits);
    for (states, stream) in states.chunks(trellis::SEQUENCE).zip(stream.chunks_mut(size)) {
        trellis::pack(bits, states, stream);
    }
    let decoded = rate(weights.len(), || {
        for (stream, out) in black_box(&stream).chunks(size).zip(back.chunks_mut(trellis::SEQUENCE)) {
            trellis::decode(bits, table, stream, 0.03, 1.0, out);
        }
    });
    let state_bits = trellis.state_bits();
    println!(
        "L {state_bits}, {bits} bits, {level:7} encode with search {searched:6.2}  at one scale {once:6.2}  decode {decoded:7.1}  \
         million weights a second"
    );
}

/// Millions a second, the median of 5 runs.
fn rate(n: usize, f: impl FnMut()) -> f64 {
    let mut seconds = time(5, 0.05, f);
    seconds.sort_by(f64::total_cmp);
    n as f64 / 1e6 / seconds[2]
}
