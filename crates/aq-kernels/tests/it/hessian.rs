//! Gram matrices and factors of inverses against their twins, and against what defines them.

use aq_kernels::cholesky::{NotPositive, factor, inverse_factor};
use aq_kernels::{gram, reference};

use crate::tester::{Random, assert_same, at_every_level};

fn normal(random: &mut Random, n: usize) -> Vec<f32> {
    (0..n).map(|_| random.normal()).collect()
}

/// A Gram matrix of more rows than columns.
fn positive(n: usize, seed: u64) -> Vec<f64> {
    let x = normal(&mut Random(seed), (n + 10) * n);
    let mut h = vec![0.0; n * n];
    gram::add_rows(&x, n, 1.0, n, &mut h);
    h
}

#[test]
fn gram_matrices() {
    let mut random = Random(21);
    for (rows, cols, block) in [
        (1, 1, 1),
        (3, 7, 3),
        (70, 40, 16),
        (129, 33, 33),
        (64, 50, 50),
        (5, 100, 48),
        (2, 20, 64),
        (0, 4, 2),
    ] {
        let x = normal(&mut random, rows * cols);
        for weight in [1.0, 0.3] {
            let mut want = vec![0.5; gram::block_diagonal_len(cols, block)];
            let start = want.clone();
            reference::gram_add_rows(&x, cols, weight, block, &mut want);
            at_every_level(|level| {
                let mut got = start.clone();
                gram::add_rows(&x, cols, weight, block, &mut got);
                assert_same(&got, &want, &format!("{level}, {rows} rows of {cols}, blocks of {block}"));
                let mut parts = start.clone();
                for part in x.chunks(cols * 7) {
                    gram::add_rows(part, cols, weight, block, &mut parts);
                }
                assert_same(&parts, &want, &format!("{level}, in parts"));
            });
        }
    }
}

#[test]
fn factors_of_inverses() {
    for n in [1, 2, 15, 16, 17, 63, 64, 65, 80, 130, 200] {
        let h = positive(n, n as u64);
        let want = reference::inverse_factor(&h, n).expect("positive definite");
        at_every_level(|level| {
            let (mut room, mut got) = (h.clone(), vec![f64::NAN; n * n]);
            inverse_factor(&mut room, n, &mut got).expect("positive definite");
            assert_same(&got, &want, &format!("{level}, {n} columns"));
        });
    }
}

/// `L^T L` is the matrix, and `L` has the same bits on every level.
#[test]
fn factors_give_their_matrix_back() {
    let n = 150;
    let h = positive(n, 6);
    let mut l = h.clone();
    factor(&mut l, n).expect("positive definite");
    let lower =
        |m: &[f64]| -> Vec<f64> { m.chunks(n).enumerate().flat_map(|(i, row)| row[..=i].to_vec()).collect() };
    at_every_level(|level| {
        let mut room = h.clone();
        factor(&mut room, n).expect("positive definite");
        assert_same(&lower(&room), &lower(&l), &format!("{level}"));
    });
    for (i, j) in [(0, 0), (149, 0), (70, 31), (149, 149)] {
        let product: f64 = (i.max(j)..n).map(|k| l[k * n + i] * l[k * n + j]).sum();
        assert!((product - h[i * n + j]).abs() < 1e-9 * h[i * n + i], "{i} {j}: {product} {}", h[i * n + j]);
    }
}

/// `U H U^T` is the identity when `H^-1 = U^T U`.
#[test]
fn a_factor_inverts_its_matrix() {
    let n = 150;
    let h = positive(n, 5);
    let (mut room, mut u) = (h.clone(), vec![0.0; n * n]);
    inverse_factor(&mut room, n, &mut u).expect("positive definite");
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for i in 0..n {
        assert!(u[i * n..i * n + i].iter().all(|&v| v == 0.0), "upper triangular");
        let product: Vec<f64> = h.chunks(n).map(|row| dot(row, &u[i * n..][..n])).collect();
        for j in 0..n {
            let want = f64::from(u8::from(i == j));
            assert!((dot(&product, &u[j * n..][..n]) - want).abs() < 1e-9, "{i}, {j}");
        }
    }
}

#[test]
fn what_is_not_positive_definite_is_refused() {
    let n = 90;
    for level in aq_kernels::levels() {
        let refused = |change: &dyn Fn(&mut [f64])| {
            let (mut h, mut u) = (positive(n, 6), vec![0.0; n * n]);
            change(&mut h);
            aq_kernels::with_level(level, || inverse_factor(&mut h, n, &mut u)).expect_err("refused")
        };
        assert_eq!(refused(&|h| h.fill(0.0)), NotPositive { column: n - 1 });
        assert_eq!(refused(&|h| h[70 * n + 70] = -1.0), NotPositive { column: 70 });
        assert_eq!(refused(&|h| h[70 * n + 70] = f64::NAN), NotPositive { column: 70 });
        assert_eq!(refused(&|h| h[80 * n + 3] = f64::NAN), NotPositive { column: 3 });
        assert_eq!(refused(&|h| h[80 * n + 3] = f64::INFINITY), NotPositive { column: 3 });
        assert_eq!(refused(&|h| h.fill(1.0)).column, n - 2);
    }
}
