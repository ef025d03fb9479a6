//! Prints what the `entropy` codec costs above the entropy of its codes, and how fast it is at each SIMD level.
//!
//!     cargo run --release -p aq-codec --example entropy

use std::time::Instant;

use aq_codec::entropy::{
    Centroids, ColumnSteps, DecodeScratch, EncodeScratch, RowScales, SlabCodes, decode_rows, encode_slab,
    estimated_bytes,
};
use aq_core::EncodedRows;
use aq_kernels::{levels, with_level};

fn main() {
    println!("| weights | shape | bits | entropy of the codes | all but scales | above | words | header |");
    println!("|---|---|---|---|---|---|---|---|");
    for (name, draw) in [("normal", normal as fn(&mut u64) -> f64), ("t5", student)] {
        for (rows, cols) in [(128, 128), (384, 128), (1024, 4096)] {
            for bits in [1.5, 2.0, 4.0, 8.0] {
                let weights = weights(draw, rows * cols);
                let codes = codes_of(&weights, bits);
                print_size(name, &codes, cols, bits);
            }
        }
    }
    println!("\n| shape | bits | work | level | Mweights/s |\n|---|---|---|---|---|");
    for (rows, cols) in [(384, 128), (256, 4096)] {
        for bits in [1.0, 2.0, 4.0, 8.0] {
            let codes = codes_of(&weights(normal, rows * cols), bits);
            print_speed(&codes, cols, bits);
        }
    }
}

/// The entropy of the codes in bits a code.
fn entropy(codes: &[i32]) -> f64 {
    let mut sorted = codes.to_vec();
    sorted.sort_unstable();
    let n = codes.len() as f64;
    sorted.chunk_by(|a, b| a == b).map(|c| c.len() as f64 / n).map(|p| -p * p.log2()).sum()
}

/// Rounds to the step that leads to this entropy.
fn codes_of(weights: &[f64], bits: f64) -> Vec<i32> {
    let at = |step: f64| weights.iter().map(|w| (w / step).round() as i32).collect::<Vec<_>>();
    let (mut low, mut high) = (1e-4, 100.0);
    for _ in 0..30 {
        let middle = f64::sqrt(low * high);
        *(if entropy(&at(middle)) > bits { &mut low } else { &mut high }) = middle;
    }
    at(high)
}

fn print_size(name: &str, codes: &[i32], cols: usize, bits: f64) {
    let encoded = encode(codes, cols, &mut EncodeScratch::default());
    let (own, rows) = (entropy(codes) * codes.len() as f64 / 8.0, codes.len() / cols);
    let taken = encoded.codes.len() + encoded.offsets.len();
    println!(
        "| {name} | {rows} x {cols} | {bits} | {own:.0} B | {taken} B | {:.2} % | {:+.2} % | {} B |",
        100.0 * (taken as f64 / own - 1.0),
        100.0 * (encoded.codes.len() as f64 / own - 1.0),
        encoded.offsets.len()
    );
}

fn encode(codes: &[i32], cols: usize, scratch: &mut EncodeScratch) -> EncodedRows {
    let rows = codes.len() / cols;
    let slab = SlabCodes { codes, cols, steps: ColumnSteps::Equal };
    let scales = RowScales { unit: 1.0, fineness: 0, levels: &vec![0; rows] };
    let mut out = EncodedRows::default();
    encode_slab(slab, scales, Centroids::Same([20, 10, 5]), scratch, &mut out);
    out
}

fn print_speed(codes: &[i32], cols: usize, bits: f64) {
    let mut scratch = EncodeScratch::default();
    let encoded = encode(codes, cols, &mut scratch);
    let rows = codes.len() / cols;
    let slab = SlabCodes { codes, cols, steps: ColumnSteps::Equal };
    let scales = RowScales { unit: 1.0, fineness: 0, levels: &vec![0; rows] };
    let estimated = rate(codes.len(), || _ = estimated_bytes(slab, scales, &mut scratch));
    println!("| {rows} x {cols} | {bits} | estimate | any | {estimated:.0} |");
    let encoding = rate(codes.len(), || _ = encode(codes, cols, &mut scratch));
    println!("| {rows} x {cols} | {bits} | encode | any | {encoding:.0} |");
    let (mut scratch, mut out) = (DecodeScratch::default(), vec![0.0; codes.len()]);
    for level in levels() {
        let mut decode = || {
            let parts = encoded.parts();
            decode_rows(parts, cols, rows as u64, 0, rows, &mut scratch, &mut out).expect("what was encoded");
        };
        let decoding = with_level(level, || rate(codes.len(), &mut decode));
        println!("| {rows} x {cols} | {bits} | decode | {level} | {decoding:.0} |");
    }
}

/// Millions a second: the median of seven runs.
fn rate(count: usize, mut work: impl FnMut()) -> f64 {
    work();
    let mut seconds: Vec<f64> = (0..7)
        .map(|_| {
            let start = Instant::now();
            (0..4).for_each(|_| work());
            start.elapsed().as_secs_f64() / 4.0
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    count as f64 / seconds[3] / 1e6
}

fn weights(draw: fn(&mut u64) -> f64, count: usize) -> Vec<f64> {
    let mut state = 1;
    (0..count).map(|_| draw(&mut state)).collect()
}

fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    ((*state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

/// Box and Muller's method.
fn normal(state: &mut u64) -> f64 {
    (-2.0 * uniform(state).ln()).sqrt() * (std::f64::consts::TAU * uniform(state)).cos()
}

/// Student's t with 5 degrees of freedom.
fn student(state: &mut u64) -> f64 {
    let squares: f64 = (0..5).map(|_| normal(state).powi(2)).sum();
    normal(state) / (squares / 5.0).sqrt()
}
