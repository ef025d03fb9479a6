//! Products of packed matrices and the Hadamard transform against their twins.

use aq_kernels::product::{self, BlockI8, Matrix, MatrixOffsets, TOKENS, TokenI8};
use aq_kernels::{hadamard, pack, reference};
use half::f16;

use crate::tester::{Random, assert_same, at_every_level, check_all};

struct Stored {
    packed: Vec<u8>,
    scales: Vec<f16>,
    zeros: Vec<u8>,
    offsets: Vec<f16>,
}

fn stored(random: &mut Random, bits: u8, group: usize, cols: usize, rows: usize) -> Stored {
    let groups = cols.div_ceil(group) * rows;
    let bytes = pack::groups_len(bits, group, cols) * rows;
    Stored {
        packed: (0..bytes).map(|_| random.next() as u8).collect(),
        scales: (0..groups).map(|_| f16::from_f32(random.unit() + 0.01)).collect(),
        zeros: (0..groups).map(|_| random.next() as u8 >> (8 - bits)).collect(),
        offsets: (0..groups).map(|_| f16::from_f32(random.normal())).collect(),
    }
}

/// Calls `check` with matrices of all widths, usual and unusual groups, and both kinds of offset.
fn check_matrices(check: impl Fn(&Matrix<'_>, usize, &str)) {
    let mut random = Random(11);
    let shapes = [
        (128, 256),
        (128, 2048),
        (128, 4480),
        (128, 2944),
        (128, 3712),
        (256, 512),
        (32, 96),
        (64, 1152),
        (128, 200),
        (1 << 20, 384),
        (1 << 20, 77),
        (128, 1),
    ];
    for bits in [2, 4, 8] {
        for (group, cols) in shapes {
            for rows in [1, 3, 8, 13] {
                let s = stored(&mut random, bits, group, cols, rows);
                for offsets in [MatrixOffsets::Zero(&s.zeros), MatrixOffsets::Value(&s.offsets)] {
                    let matrix = Matrix { bits, group, cols, packed: &s.packed, scales: &s.scales, offsets };
                    at_every_level(|level| {
                        check(
                            &matrix,
                            rows,
                            &format!("{level}, {bits} bits, {rows} rows of {cols}, groups of {group}"),
                        );
                    });
                }
            }
        }
    }
}

#[test]
fn one_token_of_f32() {
    let mut random = Random(12);
    let x: Vec<f32> = (0..4480).map(|_| random.normal()).collect();
    check_matrices(|matrix, rows, what| {
        let [mut got, mut want] = [vec![9.0; rows], vec![7.0; rows]];
        product::matvec_f32(matrix, &x[..matrix.cols], &mut got);
        reference::matvec_f32(matrix, &x[..matrix.cols], &mut want);
        assert_same(&got, &want, what);
    });
}

#[test]
fn tokens_of_integers_alone_and_in_blocks() {
    let mut random = Random(13);
    let x: Vec<Vec<f32>> = (0..TOKENS).map(|_| (0..4480).map(|_| random.normal()).collect()).collect();
    check_matrices(|matrix, rows, what| {
        let (cols, groups) = (matrix.cols, matrix.cols.div_ceil(matrix.group));
        let mut values = vec![vec![0; cols]; TOKENS];
        let mut sums = vec![vec![0; groups]; TOKENS];
        let mut scales = [0.0; TOKENS];
        for t in 0..TOKENS {
            scales[t] = product::quantize_token(&x[t][..cols], matrix.group, &mut values[t], &mut sums[t]);
        }
        let tokens: Vec<TokenI8<'_>> =
            (0..TOKENS).map(|t| TokenI8 { values: &values[t], sums: &sums[t], scale: scales[t] }).collect();
        let (mut block, mut block_sums) =
            (vec![[[9; 4]; TOKENS]; cols.div_ceil(4)], vec![[9; TOKENS]; groups]);
        product::interleave(&tokens, &mut block, &mut block_sums);
        let mut together = vec![[9.0; TOKENS]; rows];
        let tokens_block = BlockI8 { values: &block, sums: &block_sums, scales: &scales };
        product::matmul_i8(matrix, tokens_block, &mut together);
        for t in [0, 1, 7, 15] {
            let [mut got, mut want] = [vec![9.0; rows], vec![7.0; rows]];
            product::matvec_i8(matrix, tokens[t], &mut got);
            reference::matvec_i8(matrix, tokens[t], &mut want);
            assert_same(&got, &want, what);
            let column: Vec<f32> = together.iter().map(|y| y[t]).collect();
            assert_same(&column, &want, &format!("{what}, block"));
        }
    });
}

#[test]
fn the_largest_products_overflow_nowhere() {
    let (rows, cols, group) = (5, 2944, 128);
    let groups = cols / group;
    for bits in [2, 4, 8] {
        let packed = vec![u8::MAX; pack::groups_len(bits, group, cols) * rows];
        let (scales, zeros) = (vec![f16::ONE; groups * rows], vec![0; groups * rows]);
        let offsets = MatrixOffsets::Zero(&zeros);
        let matrix = Matrix { bits, group, cols, packed: &packed, scales: &scales, offsets };
        for value in [i8::MIN, i8::MAX] {
            let (values, sums) = (vec![value; cols], vec![i32::from(value) * group as i32; groups]);
            let token = TokenI8 { values: &values, sums: &sums, scale: 1.0 };
            let want = f32::from(value) * (cols << bits) as f32 - f32::from(value) * cols as f32;
            at_every_level(|level| {
                let mut got = vec![9.0; rows];
                product::matvec_i8(&matrix, token, &mut got);
                assert_eq!(got, vec![want; rows], "{level}, {bits} bits, {value}");
                let (values, sums) = (vec![[[value; 4]; TOKENS]; cols / 4], vec![[sums[0]; TOKENS]; groups]);
                let block = BlockI8 { values: &values, sums: &sums, scales: &[1.0; TOKENS] };
                let mut got = vec![[9.0; TOKENS]; rows];
                product::matmul_i8(&matrix, block, &mut got);
                assert_eq!(got, vec![[want; TOKENS]; rows], "{level}, {bits} bits, {value}, block");
            });
        }
    }
}

#[test]
fn tokens_round_to_the_nearest_integer() {
    check_all(|x, what| {
        let mut values = vec![9; x.len()];
        let mut sums = vec![9; x.len().div_ceil(32)];
        let scale = product::quantize_token(x, 32, &mut values, &mut sums);
        let largest = x.iter().fold(0.0_f32, |a, v| a.max(v.abs()));
        assert_eq!(scale, largest / 127.0, "{what}");
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        for (&x, &v) in x.iter().zip(&values) {
            assert_eq!(v, (x * inverse).round_ties_even().clamp(-127.0, 127.0) as i8, "{what}: {x}");
        }
        assert!(
            values.chunks(32).zip(&sums).all(|(v, &s)| v.iter().map(|&v| i32::from(v)).sum::<i32>() == s)
        );
    });
}

#[test]
fn hadamard_transform() {
    check_all(|x, what| {
        for size in (0..=10).map(|k| 1 << k) {
            let x = &x[..x.len() / size * size];
            let [mut got, mut want] = [x.to_vec(), x.to_vec()];
            hadamard::transform(&mut got, size);
            reference::hadamard(&mut want, size);
            assert!(
                got.iter().zip(&want).all(|(g, w)| g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan()),
                "{what}, {size}"
            );
            hadamard::transform(&mut got, size);
            let largest = x.iter().fold(0.0_f32, |a, v| a.max(v.abs()));
            let near = |(g, x): (&f32, &f32)| (g - x).abs() <= largest * 1e-5 + 1e-37;
            assert!(largest > 1e35 || got.iter().zip(x).all(near), "{what}, {size}: not its own inverse");
        }
    });
}
