//! One timing: a kernel at each level, its twin and a copy, in turn.

use std::hint::black_box;

use aq_benches::{time, weights};
use aq_kernels::{Level, levels, reference};
use serde_json::json;

pub(crate) const BLOCK: usize = 1 << 16;
pub(crate) const GROUP: usize = 128;
pub(crate) const GROUPS: usize = BLOCK / GROUP;
/// Seconds that a run takes at least.
const SHORTEST: f64 = 0.005;

/// What kernels read: one block, repeated.
pub(crate) struct Data {
    pub(crate) block: Vec<f32>,
    pub(crate) weights: Vec<f32>,
    pub(crate) codes: Vec<u8>,
    /// Range of the whole block on 4 bits.
    pub(crate) scale: f32,
    pub(crate) low: f32,
}

impl Data {
    pub(crate) fn new(blocks: usize) -> Self {
        let block = weights(BLOCK);
        let (low, high) = reference::min_max(&block);
        let scale = (high - low) / 15.0;
        let mut codes = vec![0; BLOCK];
        reference::quantize(&block, 1.0 / scale, low, 15, &mut codes);
        Data { weights: block.repeat(blocks), codes, block, scale, low }
    }
}

/// How often and on how much.
pub(crate) struct Plan {
    pub(crate) runs: usize,
    pub(crate) blocks: usize,
}

impl Plan {
    /// Bytes of `f32` weights out of cache.
    pub(crate) fn bytes(&self) -> usize {
        self.blocks * BLOCK * 4
    }
}

/// A plain sum of bytes in steps of 8: how fast memory can be read.
#[inline(never)]
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let add = |sum: u64, eight: &[u8; 8]| sum.wrapping_add(u64::from_ne_bytes(*eight));
    bytes.as_chunks().0.iter().fold(0, add)
}

/// Times a kernel that turns the block at each position of `input` into the block of `output` there. `unit` is how
/// many inputs make one block; `bytes` what a block reads or writes, whichever is more; `name` is kernel, bits and type.
pub(crate) fn case<A, B: Copy + PartialEq>(
    plan: &Plan,
    (name, bits, kind): (&str, u8, &str),
    bytes: usize,
    (input, unit): (&[A], usize),
    blank: Vec<B>,
    kernel: impl Fn(&[A], &mut [B]),
    twin: impl Fn(&[A], &mut [B]),
) {
    let mut want = blank.clone();
    twin(&input[..unit], &mut want);
    let print = |level: &str, place: &str, blocks: usize, seconds: Vec<f64>| {
        let (weights, bytes) = (BLOCK * blocks, bytes * blocks);
        println!(
            "{}",
            json!({"kernel": name, "bits": bits, "type": kind, "level": level, "place": place,
                   "weights": weights, "bytes": bytes, "seconds": seconds})
        );
    };
    for (place, blocks) in [("cache", 1), ("memory", plan.blocks)].into_iter().filter(|p| p.1 > 0) {
        let mut out = blank.repeat(blocks);
        let pass = |out: &mut [B]| {
            let pieces = black_box(input).chunks(unit).zip(out.chunks_mut(blank.len()));
            for (input, out) in pieces {
                kernel(input, out);
            }
        };
        let (from, mut to) = (vec![1_u8; bytes * blocks], vec![0_u8; bytes * blocks]);
        for level in levels() {
            pass_at(level, &mut out, pass);
            assert!(out.chunks(want.len()).all(|o| o == want), "{name}/{bits}: wrong answer at {level}");
        }
        // In turn, so that what else the machine does falls on all of them.
        let (mut at_levels, mut of_twin, mut of_copy, mut of_fill, mut of_sum) =
            (vec![Vec::new(); levels().len()], Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..plan.runs {
            for (level, seconds) in levels().into_iter().zip(&mut at_levels) {
                seconds.extend(time(1, SHORTEST, || pass_at(level, black_box(&mut out), pass)));
            }
            if place == "cache" {
                of_twin.extend(time(1, SHORTEST, || twin(black_box(&input[..unit]), &mut want)));
            }
            of_copy.extend(time(1, SHORTEST, || black_box(&mut to).copy_from_slice(black_box(&from))));
            if place == "memory" {
                of_fill.extend(time(1, SHORTEST, || black_box(&mut to).fill(black_box(3))));
                of_sum.extend(time(1, SHORTEST, || _ = black_box(sum(black_box(&from)))));
            }
        }
        levels()
            .iter()
            .zip(at_levels)
            .for_each(|(level, seconds)| print(level.name(), place, blocks, seconds));
        match place {
            "cache" => print("twin", place, 1, of_twin),
            _ => {
                print("memset", place, blocks, of_fill);
                print("read", place, blocks, of_sum);
            }
        }
        print("memcpy", place, blocks, of_copy);
    }
}

fn pass_at<B>(level: Level, out: &mut [B], pass: impl Fn(&mut [B])) {
    aq_kernels::with_level(level, || pass(out));
}

/// Calls `f` with each group of inputs and the piece of the output that belongs to it.
pub(crate) fn groups<A, B>(x: &[A], out: &mut [B], f: impl Fn(&[A], &mut [B])) {
    let piece = out.len() * GROUP / x.len();
    x.chunks(GROUP).zip(out.chunks_mut(piece)).for_each(|(x, out)| f(x, out));
}
