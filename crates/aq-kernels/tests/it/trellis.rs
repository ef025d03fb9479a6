//! Trellis-coded quantization against its twins, and what a path through a trellis must be.

use aq_kernels::pack::packed_len;
use aq_kernels::{reference, trellis};

use crate::tester::{Random, assert_same, at_every_level, check_all, kinds};

/// Every trellis: bits and a table of about normal values.
fn trellises() -> impl Iterator<Item = (u8, Vec<i8>)> {
    [64, 256].into_iter().flat_map(|values| {
        let mut random = Random(values);
        let table: Vec<i8> = (0..values).map(|_| (random.normal() * 30.0) as i8).collect();
        [2, 3, 4].map(|bits| (bits, table.clone()))
    })
}

/// Lengths that fill a sequence, that end in a part of a byte, and that are shorter than a state.
const LENGTHS: [usize; 17] = [0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 27, 31, 33, 64, 65, 200, 256];

fn importance(n: usize) -> Vec<f32> {
    let mut random = Random(5);
    (0..n).map(|_| random.unit() * random.unit() * 4.0).collect()
}

/// Whether each state goes on with the bits of the one before.
fn is_path(bits: u8, values: usize, states: &[u8]) -> bool {
    let next = states.iter().skip(1).chain(states.first());
    states.iter().zip(next).all(|(&s, &next)| usize::from(s >> bits) == usize::from(next) % (values >> bits))
}

#[test]
fn states_and_errors_are_those_of_the_twin() {
    for (bits, table) in trellises() {
        for (kind, x) in kinds() {
            for (n, length) in LENGTHS.into_iter().enumerate() {
                let x: Vec<f32> = x[n * 7..][..length].iter().map(|x| x * 25.0).collect();
                let h = importance(length);
                let h = (n % 2 == 0).then_some(&h[..]);
                let mut want = vec![0; length];
                let error = reference::trellis_encode(bits, &table, &x, h, &mut want);
                at_every_level(|level| {
                    let what = format!("{level}, {kind}, {bits} bits, {} values, {length}", table.len());
                    let mut got = vec![9; length];
                    let found = trellis::encode(bits, &table, &x, h, &mut got);
                    assert_same(&got, &want, &what);
                    assert_same(&[found], &[error], &what);
                    assert!(is_path(bits, table.len(), &got), "{what}: {got:?}");
                });
            }
        }
    }
}

#[test]
fn states_with_feedback_are_those_of_the_twin() {
    let mut random = Random(10);
    let (stride, matrix) = (260, (0..256 * 260).map(|_| random.normal() * 0.1).collect::<Vec<_>>());
    for (bits, table) in trellises() {
        for length in LENGTHS.into_iter().chain([17, 32, 48, 49, 255]) {
            let x: Vec<f32> = (0..length).map(|_| random.normal() * 25.0).collect();
            let h = importance(length);
            let feedback = trellis::Feedback { importance: &h, matrix: &matrix, stride };
            let (mut moved, mut want) = (x.clone(), vec![0; length]);
            reference::trellis_encode_with_feedback(bits, &table, &mut moved, feedback, &mut want);
            at_every_level(|level| {
                let what = format!("{level}, {bits} bits, {} values, {length}", table.len());
                let (mut x, mut got) = (x.clone(), vec![9; length]);
                trellis::encode_with_feedback(bits, &table, &mut x, feedback, &mut got);
                assert_same(&got, &want, &what);
                assert_same(&x, &moved, &what);
                assert!(is_path(bits, table.len(), &got), "{what}: {got:?}");
            });
        }
    }
}

/// Codes that move have the same bits on every level, and the error falls.
#[test]
fn descent_is_that_of_the_twin() {
    let mut random = Random(11);
    let (mut all_before, mut all_after) = (0.0, 0.0);
    for (bits, table) in trellises() {
        for n in [3, 8, 9, 33, 250, 256] {
            let stride = 256;
            // Inputs with much in common.
            let inputs: Vec<Vec<f32>> =
                (0..24).map(|_| (0..n).map(|_| 1.0 + random.normal()).collect()).collect();
            let entry = |i: usize, j: usize| inputs.iter().map(|x| x[i.min(j)] * x[i.max(j)]).sum::<f32>();
            let mut hessian = vec![0.0; n * stride];
            (0..n).for_each(|i| (0..n).for_each(|j| hessian[i * stride + j] = entry(i, j)));
            let scale = 0.01;
            let x: Vec<f32> = (0..n).map(|_| random.normal() * 25.0).collect();
            let mut states = vec![0; n];
            trellis::encode(bits, &table, &x, None, &mut states);
            let errors = |states: &[u8]| -> Vec<f32> {
                x.iter().zip(states).map(|(x, &s)| (x - f32::from(table[usize::from(s)])) * scale).collect()
            };
            let quadratic = |e: &[f32]| -> f64 {
                let dot = |x: &Vec<f32>| x.iter().zip(e).map(|(x, e)| f64::from(x * e)).sum::<f64>();
                inputs.iter().map(|x| dot(x).powi(2)).sum()
            };
            let descent =
                trellis::Descent { bits, table: &table, scale, hessian: &hessian, stride, passes: 2 };
            let start = errors(&states);
            let mut want = states.clone();
            let moved = reference::trellis_descend(descent, &start, &mut want);
            at_every_level(|level| {
                let what = format!("{level}, {bits} bits, {} values, {n}", table.len());
                let mut got = states.clone();
                assert_eq!(trellis::descend(descent, &start, &mut got), moved, "{what}");
                assert_same(&got, &want, &what);
                assert!(is_path(bits, table.len(), &got), "{what}: {got:?}");
            });
            if n >= 33 {
                let (before, after) = (quadratic(&start), quadratic(&errors(&want)));
                assert!(after <= before, "{bits} bits, {n}: {after} {before}");
                (all_before, all_after) = (all_before + before, all_after + after);
            }
        }
    }
    assert!(all_after < 0.8 * all_before, "{all_after} {all_before}");
}

#[test]
fn an_error_is_that_of_the_states() {
    let mut random = Random(6);
    for (bits, table) in trellises() {
        for length in LENGTHS {
            let x: Vec<f32> = (0..length).map(|_| random.normal() * 25.0).collect();
            let h = importance(length);
            let mut states = vec![0; length];
            let error = f64::from(trellis::encode(bits, &table, &x, Some(&h), &mut states));
            let terms = x.iter().zip(&h).zip(&states);
            let sum: f64 = terms
                .map(|((&x, &h), &s)| {
                    f64::from(h) * (f64::from(x) - f64::from(table[usize::from(s)])).powi(2)
                })
                .sum();
            assert!((error - sum).abs() <= sum * 1e-5, "{bits} bits, {length}: {error} {sum}");
        }
    }
}

/// Every stream that there is, so that none is better than what is found.
#[test]
fn short_sequences_are_encoded_as_well_as_they_can_be() {
    let mut random = Random(7);
    for (bits, table) in trellises() {
        for length in 1..=4 {
            let x: Vec<f32> = (0..length).map(|_| random.normal() * 25.0).collect();
            let mut states = vec![0; length];
            let error = trellis::encode(bits, &table, &x, None, &mut states);
            let all = (0..1_u32 << (length * usize::from(bits))).map(|stream| {
                let mut weights = vec![0.0; length];
                let stream = &stream.to_le_bytes()[..packed_len(bits, length)];
                trellis::decode(bits, &table, stream, 1.0, 1.0, &mut weights);
                x.iter().zip(weights).map(|(x, w)| (x - w) * (x - w)).sum::<f32>()
            });
            let best = all.fold(f32::INFINITY, f32::min);
            assert!(error <= best * 1.0001, "{bits} bits, {} values, {length}: {error} {best}", table.len());
        }
    }
}

/// The path with the seam fixed first is hardly worse than the best over all seams.
#[test]
fn the_seam_costs_next_to_nothing() {
    let mut random = Random(8);
    let table: Vec<i8> = (0..64).map(|_| (random.normal() * 30.0) as i8).collect();
    let (mut error, mut free) = (0.0, 0.0);
    for _ in 0..200 {
        let x: Vec<f32> = (0..256).map(|_| random.normal() * 25.0).collect();
        let (mut states, mut twice) = (vec![0; 256], vec![0; 256]);
        error += f64::from(trellis::encode(2, &table, &x, None, &mut states));
        // Turned by half a sequence, the seam lies elsewhere: two estimates of the same best path.
        let turned: Vec<f32> = (0..256).map(|i| x[(i + 128) % 256]).collect();
        free += f64::from(trellis::encode(2, &table, &turned, None, &mut twice).min(trellis::encode(
            2,
            &table,
            &x,
            None,
            &mut states,
        )));
    }
    assert!(error <= free * 1.002, "{error} {free}");
}

#[test]
fn streams_are_those_of_the_twin() {
    let mut random = Random(9);
    for (bits, table) in trellises() {
        for length in 0..=trellis::SEQUENCE {
            let states: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            let [mut got, mut want] = [vec![9; packed_len(bits, length)], vec![7; packed_len(bits, length)]];
            trellis::pack(bits, &states, &mut got);
            reference::trellis_pack(bits, &states, &mut want);
            assert_same(&got, &want, &format!("{bits} bits, {length}"));

            let stream: Vec<u8> = got.iter().map(|_| random.next() as u8).collect();
            for (scale, factor) in [(0.037, 1.0), (-1.5, 0.125), (6e4, 1e30), (f32::INFINITY, 0.0)] {
                let mut want = vec![7.0; length];
                reference::trellis_decode(bits, &table, &stream, scale, factor, &mut want);
                at_every_level(|level| {
                    let mut got = vec![9.0; length];
                    trellis::decode(bits, &table, &stream, scale, factor, &mut got);
                    let same = got
                        .iter()
                        .zip(&want)
                        .all(|(g, w)| g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan());
                    assert!(same, "{level}, {bits} bits, {length}, {scale}");
                });
            }
        }
    }
}

#[test]
fn what_is_encoded_decodes_to_the_values_of_its_states() {
    check_all(|x, what| {
        let x = &x[..x.len().min(trellis::SEQUENCE)];
        for (bits, table) in trellises().skip(x.len() % 6).take(1) {
            let (mut states, mut stream) = (vec![0; x.len()], vec![0; packed_len(bits, x.len())]);
            trellis::encode(bits, &table, x, None, &mut states);
            trellis::pack(bits, &states, &mut stream);
            let mut weights = vec![9.0; x.len()];
            trellis::decode(bits, &table, &stream, 1.0, 1.0, &mut weights);
            let values: Vec<f32> = states.iter().map(|&s| f32::from(table[usize::from(s)])).collect();
            assert_same(&weights, &values, what);
        }
    });
}
