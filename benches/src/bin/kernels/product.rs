//! Products of packed weights with activations, over so many matrices that no cache serves them.

use std::hint::black_box;

use aq_benches::{time, weights};
use aq_kernels::product::{
    BlockI8, Matrix, MatrixOffsets, TOKENS, TokenI8, interleave, matmul_i8, matvec_f32, matvec_i8,
    quantize_token,
};
use aq_kernels::{Level, levels, pack, reference, with_level};
use half::f16;
use serde_json::json;

use crate::case::{GROUP, Plan, sum};

const ROWS: usize = 4096;
const COLS: usize = 11008;
const GROUPS: usize = COLS / GROUP;
/// Tokens of a batch.
const BATCH: usize = 32;

/// Matrices of one width in memory, one after the other.
struct Matrices {
    bits: u8,
    packed: Vec<u8>,
    scales: Vec<f16>,
    zeros: Vec<u8>,
}

impl Matrices {
    /// About so many bytes of codes; one matrix at least.
    fn new(bits: u8, bytes: usize) -> Self {
        let one = pack::packed_len(bits, COLS) * ROWS;
        let count = bytes.div_ceil(one).max(1);
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let packed = (0..one * count).map(|_| random() as u8).collect();
        let groups = ROWS * GROUPS * count;
        let scales = (0..groups).map(|_| f16::from_f32(random() as f32 / (1_u64 << 40) as f32)).collect();
        let zeros = (0..groups).map(|_| random() as u8 & u8::MAX >> (8 - bits)).collect();
        Self { bits, packed, scales, zeros }
    }

    fn iter(&self) -> impl Iterator<Item = Matrix<'_>> {
        let pieces = self.packed.chunks(pack::packed_len(self.bits, COLS) * ROWS);
        let grids = self.scales.chunks(ROWS * GROUPS).zip(self.zeros.chunks(ROWS * GROUPS));
        pieces.zip(grids).map(|(packed, (scales, zeros))| Matrix {
            bits: self.bits,
            group: GROUP,
            cols: COLS,
            packed,
            scales,
            offsets: MatrixOffsets::Zero(zeros),
        })
    }

    /// What a product reads of all of them.
    fn bytes(&self) -> usize {
        self.packed.len() + self.scales.len() * 2 + self.zeros.len()
    }

    fn weights(&self) -> usize {
        self.scales.len() * GROUP
    }
}

/// A token as floats and as integers.
struct Token {
    x: Vec<f32>,
    values: Vec<i8>,
    sums: Vec<i32>,
    scale: f32,
}

impl Token {
    fn new() -> Self {
        let (x, mut values, mut sums) = (weights(COLS), vec![0; COLS], vec![0; GROUPS]);
        let scale = quantize_token(&x, GROUP, &mut values, &mut sums);
        Self { x, values, sums, scale }
    }

    fn integers(&self) -> TokenI8<'_> {
        TokenI8 { values: &self.values, sums: &self.sums, scale: self.scale }
    }
}

/// One token and a batch.
pub(crate) fn product_cases(plan: &Plan) {
    let token = Token::new();
    for bits in [2_u8, 4, 8] {
        let matrices = Matrices::new(bits, plan.bytes());
        let mut want = vec![0.0; ROWS];
        reference::matvec_i8(&matrices.iter().next().expect("one"), token.integers(), &mut want);
        let one = |y: &mut [f32], matrix: &Matrix<'_>| matvec_i8(matrix, token.integers(), y);
        timed(plan, ("matvec_i8", "i8"), &matrices, &want, one);
        if bits == 4 {
            let mut float = vec![0.0; ROWS];
            reference::matvec_f32(&matrices.iter().next().expect("one"), &token.x, &mut float);
            let one = |y: &mut [f32], matrix: &Matrix<'_>| matvec_f32(matrix, &token.x, y);
            timed(plan, ("matvec_f32", "f32"), &matrices, &float, one);
            batch_case(plan, &matrices, &token, &want);
        }
    }
}

/// A product at each level beside a plain sum of the same bytes.
fn timed(
    plan: &Plan,
    (name, kind): (&str, &str),
    matrices: &Matrices,
    want: &[f32],
    product: impl Fn(&mut [f32], &Matrix<'_>),
) {
    let mut y = vec![0.0; ROWS];
    let (mut at_levels, mut of_sum) = (vec![Vec::new(); levels().len()], Vec::new());
    for _ in 0..plan.runs {
        for (level, seconds) in levels().into_iter().zip(&mut at_levels) {
            with_level(level, || {
                product(&mut y, &matrices.iter().next().expect("one"));
                assert!(y == want, "{name}/{}: wrong answer at {level}", matrices.bits);
                let pass = || matrices.iter().for_each(|matrix| product(black_box(&mut y), &matrix));
                seconds.extend(time(1, 0.0, pass));
            });
        }
        of_sum.extend(time(1, 0.0, || _ = black_box(sum(black_box(&matrices.packed)))));
    }
    let print = |level: &str, bytes: usize, seconds: &[f64]| {
        println!(
            "{}",
            json!({"kernel": name, "bits": matrices.bits, "type": kind, "level": level, "place": "memory",
                   "weights": matrices.weights(), "bytes": bytes, "seconds": seconds})
        );
    };
    levels().iter().zip(&at_levels).for_each(|(level, s)| print(level.name(), matrices.bytes(), s));
    print("read", matrices.packed.len(), &of_sum);
}

/// 32 equal tokens; counted in operations: a product and a sum for each weight and token.
fn batch_case(plan: &Plan, matrices: &Matrices, token: &Token, want: &[f32]) {
    let (mut values, mut sums) = (vec![[[0; 4]; TOKENS]; COLS / 4], vec![[0; TOKENS]; GROUPS]);
    interleave(&[token.integers(); TOKENS], &mut values, &mut sums);
    let block = BlockI8 { values: &values, sums: &sums, scales: &[token.scale; TOKENS] };
    let mut y = vec![[0.0; TOKENS]; ROWS];
    let matrix = matrices.iter().next().expect("one");
    for level in levels().into_iter().filter(|&l| l > Level::Scalar) {
        let mut pass = || (0..BATCH / TOKENS).for_each(|_| matmul_i8(&matrix, block, black_box(&mut y)));
        let seconds = with_level(level, || time(plan.runs, 0.0, &mut pass));
        assert!(y.iter().zip(want).all(|(y, w)| y == &[*w; TOKENS]), "matmul_i8: wrong answer at {level}");
        let operations = 2 * ROWS * COLS * BATCH;
        println!(
            "{}",
            json!({"kernel": "matmul_i8", "bits": matrices.bits, "type": "i8", "level": level.name(),
                   "place": "batch of 32", "weights": ROWS * COLS, "bytes": operations, "unit": "GFLOP/s",
                   "seconds": seconds})
        );
    }
}
