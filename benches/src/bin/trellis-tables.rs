//! Trains the tables of the `trellis` codec and prints them as they lie in `crates/aq-codec/src/trellis/tables.json`.
//!
//! Samples of normal, Laplace and Student-t (5 degrees of freedom) distributions, as many of each, are cut into sequences and
//! brought to a root mean square of 1. The codec has two tables and a rule which sequence takes which; each is trained
//! on its share by the Lloyd iteration: encode with the table, then set each value to the mean of the weights that took
//! it. A table starts as the quantiles of the samples in random order. Of several such starts the best result is kept.
//!
//! Seeds are fixed. `trellis-tables SEQUENCES ROUNDS STARTS` (default 2048 30 4) trains on so many sequences of each kind. The
//! relative squared error of each result goes to stderr.

use aq_benches::sources::Source;
use aq_codec::trellis::{UNITS, table_for};
use aq_kernels::metric::sum_squares;
use aq_kernels::trellis::{SEQUENCE, encode};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse().expect("a number"));
    let mut next = |default: usize| arguments.next().unwrap_or(default);
    let plan = Plan { sequences: next(2048), rounds: next(30), starts: next(4) };
    let mut tables: Vec<i8> = Vec::new();
    for (values, bits) in [64, 256].into_iter().flat_map(|v| [(v, 2), (v, 3), (v, 4)]) {
        for which in 0..2 {
            let samples = samples(plan.sequences, which);
            tables.extend(best_table(&plan, values, bits, which, &samples));
        }
    }
    print_json(&tables);
}

struct Plan {
    sequences: usize,
    rounds: usize,
    starts: usize,
}

/// The sequences that take table `which`, in its units.
fn samples(count: usize, which: usize) -> Vec<f32> {
    let mut samples = Vec::new();
    for (source, seed) in Source::ALL.into_iter().zip(100..) {
        for x in source.draw(count * SEQUENCE, seed).chunks(SEQUENCE).filter(|x| table_for(x) == which) {
            let rms = (sum_squares(x) / SEQUENCE as f64).sqrt() as f32;
            samples.extend(x.iter().map(|x| x / rms * UNITS[which]));
        }
    }
    samples
}

fn best_table(plan: &Plan, values: usize, bits: u8, which: usize, samples: &[f32]) -> Vec<i8> {
    let trained = (0..plan.starts as u64).map(|seed| {
        let mut table = start(values, samples, seed);
        for _ in 0..plan.rounds {
            table = improve(bits, &table, samples);
        }
        (error(bits, &table, samples), table)
    });
    let (error, table) = trained.min_by(|a, b| a.0.total_cmp(&b.0)).expect("at least one start");
    eprintln!("{values} values, {bits} bits, table {which}: {} weights, {error:.5}", samples.len());
    table
}

/// Quantiles in random order.
fn start(values: usize, samples: &[f32], seed: u64) -> Vec<i8> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f32::total_cmp);
    let mut table: Vec<i8> =
        (0..values).map(|i| rounded(sorted[(2 * i + 1) * sorted.len() / (2 * values)])).collect();
    table.shuffle(&mut StdRng::seed_from_u64(seed));
    table
}

/// One round: each value becomes the mean of the weights that took it.
fn improve(bits: u8, table: &[i8], samples: &[f32]) -> Vec<i8> {
    let (mut sums, mut counts) = (vec![0.0_f64; table.len()], vec![0_u32; table.len()]);
    let mut states = [0; SEQUENCE];
    for x in samples.chunks(SEQUENCE) {
        encode(bits, table, x, None, &mut states);
        for (&x, &state) in x.iter().zip(&states) {
            sums[usize::from(state)] += f64::from(x);
            counts[usize::from(state)] += 1;
        }
    }
    let mean =
        |i: usize| if counts[i] == 0 { table[i] } else { rounded((sums[i] / f64::from(counts[i])) as f32) };
    (0..table.len()).map(mean).collect()
}

fn error(bits: u8, table: &[i8], samples: &[f32]) -> f64 {
    let mut states = [0; SEQUENCE];
    let errors = samples.chunks(SEQUENCE).map(|x| f64::from(encode(bits, table, x, None, &mut states)));
    errors.sum::<f64>() / samples.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>()
}

fn rounded(x: f32) -> i8 {
    x.round_ties_even().clamp(-127.0, 127.0) as i8
}

fn print_json(values: &[i8]) {
    let lines: Vec<String> =
        values.chunks(24).map(|line| line.iter().map(i8::to_string).collect::<Vec<_>>().join(", ")).collect();
    println!("[\n{}\n]", lines.join(",\n"));
}
