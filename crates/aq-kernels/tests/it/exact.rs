//! Each kernel gives the bits of its twin, at every level, for all lengths and offsets.

use aq_kernels::{affine, metric, pack, reference, search};

use crate::tester::{Random, assert_same, at_every_level, check_all};

const WIDTHS: [u8; 6] = [2, 3, 4, 5, 6, 8];

fn top(bits: u8) -> u8 {
    ((1u16 << bits) - 1) as u8
}

#[test]
fn min_max() {
    check_all(|x, what| {
        let (got, want) = (affine::min_max(x), reference::min_max(x));
        assert_same(&[got.0, got.1], &[want.0, want.1], what);
    });
}

#[test]
fn min_max_skips_nan() {
    at_every_level(|_| {
        for n in 3..70 {
            let mut x = vec![f32::NAN; n];
            assert_eq!(affine::min_max(&x), (f32::INFINITY, f32::NEG_INFINITY));
            x[n / 2] = -2.0;
            x[n - 1] = 5.0;
            assert_eq!(affine::min_max(&x), (-2.0, 5.0));
        }
    });
}

#[test]
fn quantize() {
    check_all(|x, what| {
        let (low, high) = reference::min_max(x);
        for bits in WIDTHS {
            let range = (high - low) / f32::from(top(bits));
            for (inverse, offset) in [(1.0 / range, low), (2.0, -1.5), (0.0, low), (1e30, 0.0)] {
                let [mut got, mut want] = [vec![99; x.len()], vec![77; x.len()]];
                affine::quantize(x, inverse, offset, top(bits), &mut got);
                reference::quantize(x, inverse, offset, top(bits), &mut want);
                assert_same(&got, &want, &format!("{what}, {bits} bits, ({inverse}, {offset})"));
            }
        }
    });
}

#[test]
fn quantize_special_values() {
    let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-45, 0.5, 1.5, 2.5, -0.5, 14.5, 15.5, 254.5];
    at_every_level(|level| {
        for repeat in 1..5 {
            let mut codes = vec![0; 12 * repeat];
            affine::quantize(&x.repeat(repeat), 1.0, 0.0, 15, &mut codes);
            assert_eq!(codes, [0, 15, 0, 0, 0, 0, 2, 2, 0, 14, 15, 15].repeat(repeat), "{level}");
            affine::quantize(&x.repeat(repeat), 1.0, 0.0, 255, &mut codes);
            assert_eq!(codes, [0, 255, 0, 0, 0, 0, 2, 2, 0, 14, 16, 254].repeat(repeat), "{level}");
        }
    });
}

#[test]
fn dequantize() {
    let codes: Vec<u8> = (0..3100).map(|i| (i * 89 % 256) as u8).collect();
    check_all(|x, what| {
        let codes = &codes[x.len() % 17..][..x.len()];
        let [mut got, mut want] = [vec![9.0; x.len()], vec![7.0; x.len()]];
        let scale = x.first().copied().unwrap_or(0.1).abs() + 0.3;
        affine::dequantize_offset(codes, scale, -17.1, &mut got);
        reference::dequantize_offset(codes, scale, -17.1, &mut want);
        assert_same(&got, &want, what);
        for zero in [0, 7, 128, 255] {
            affine::dequantize_zero(codes, scale, zero, &mut got);
            reference::dequantize_zero(codes, scale, zero, &mut want);
            assert_same(&got, &want, what);
        }
    });
}

#[test]
fn pack_and_unpack() {
    let mut random = Random(2);
    let bytes: Vec<u8> = (0..3100).map(|_| random.next() as u8).collect();
    check_all(|x, what| {
        let n = x.len();
        for bits in WIDTHS {
            let what = format!("{what}, {bits} bits");
            let codes = &bytes[n % 17..][..n];
            let size = (n * usize::from(bits)).div_ceil(8);
            assert_eq!(pack::packed_len(bits, n), size, "{what}");
            let [mut got, mut want] = [vec![99; size], vec![77; size]];
            pack::pack(bits, codes, &mut got);
            reference::pack(bits, codes, &mut want);
            assert_same(&got, &want, &what);
            let [mut got, mut want] = [vec![99; n], vec![77; n]];
            pack::unpack(bits, &bytes[n % 16..][..size], &mut got);
            reference::unpack(bits, &bytes[n % 16..][..size], &mut want);
            assert_same(&got, &want, &what);
        }
    });
}

#[test]
fn sums() {
    check_all(|a, what| {
        let b: Vec<f32> = a.iter().rev().map(|v| v * 0.9 + 0.1).collect();
        assert_same(&[metric::dot(a, &b)], &[reference::dot(a, &b)], what);
        assert_same(&[metric::sum_squares(a)], &[reference::sum_squares(a)], what);
        assert_same(&[metric::squared_error(a, &b)], &[reference::squared_error(a, &b)], what);
        let fields = |c: metric::Comparison| [c.dot, c.aa, c.bb, c.error, c.max_abs];
        assert_same(&fields(metric::compare(a, &b)), &fields(reference::compare(a, &b)), what);
    });
}

#[test]
fn first_non_finite() {
    at_every_level(|level| {
        for n in (0..=130).chain([200, 1000]) {
            let mut x = vec![f32::MAX; n];
            assert_eq!(metric::first_non_finite(&x), None, "{level}, {n}");
            for at in (0..n).rev() {
                x[at] = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY][at % 4];
                assert_eq!(metric::first_non_finite(&x), Some(at), "{level}, {n}");
                assert_eq!(metric::first_non_finite(&x[at + 1..]), (at + 1 < n).then_some(0), "{level}, {n}");
            }
        }
    });
}

#[test]
fn ls_search() {
    let mut random = Random(3);
    let importance: Vec<f32> = (0..3100).map(|_| random.unit() * random.unit() * 100.0).collect();
    let zeros = vec![0.0; 3100];
    check_all(|x, what| {
        for bits in [2, 4, 8] {
            for h in [None, Some(&importance[..x.len()]), Some(&zeros[..x.len()])] {
                if x.len() > 40 && (x.len() % 5 != 0 && x.len() != 128 || h == Some(&zeros[..x.len()])) {
                    continue;
                }
                let got = search::ls_search(x, h, top(bits));
                let want = reference::ls_search(x, h, top(bits));
                assert_same(&[got.0, got.1], &[want.0, want.1], &format!("{what}, {bits} bits"));
            }
        }
    });
}
