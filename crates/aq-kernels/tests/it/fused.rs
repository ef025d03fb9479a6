//! Kernels that do several steps in one pass give the bits of the steps taken one by one.

use aq_kernels::decode::{self, Grids, Offsets};
use aq_kernels::encode::{Extremes, GridsMut, Sums, encode_min_max, grid_sums, multiply_scales};
use aq_kernels::metric::Comparison;
use aq_kernels::{Weights, WeightsMut, pack, reference};
use half::{bf16, f16};

use crate::tester::{assert_same, check_all};

const WIDTHS: [u8; 6] = [2, 3, 4, 5, 6, 8];
const GROUPS: [usize; 6] = [128, 32, 64, 1, 100, 4096];

/// A few of the widths and groups, others for each length, so that all of them meet.
fn shapes(n: usize) -> impl Iterator<Item = (u8, usize)> {
    let all = WIDTHS.into_iter().flat_map(|bits| GROUPS.map(|group| (bits, group)));
    all.enumerate()
        .filter(move |(i, _)| i % 7 == n % 7 || n.is_multiple_of(128) && n > 0)
        .map(|(_, shape)| shape)
}

struct Encoded {
    scales: Vec<f32>,
    zeros: Vec<f32>,
    packed: Vec<u8>,
    extremes: Extremes,
    codes: Vec<u8>,
}

fn twin(bits: u8, group: usize, x: &[f32]) -> Encoded {
    let top = ((1u16 << bits) - 1) as u8;
    let extremes = Extremes { low: 0.0, high: 0.0, smallest_scale: f32::INFINITY, largest_scale: 0.0 };
    let mut all = Encoded { scales: vec![], zeros: vec![], packed: vec![], extremes, codes: vec![] };
    for x in x.chunks(group) {
        let (scale, zero, [low, high, fitted]) = reference::min_max_grid(x, f32::from(top));
        let mut codes = vec![0; x.len()];
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        reference::quantize(x, inverse, -(zero * scale), top, &mut codes);
        let start = all.packed.len();
        all.packed.resize(start + pack::packed_len(bits, x.len()), 0);
        reference::pack(bits, &codes, &mut all.packed[start..]);
        all.codes.extend(codes);
        all.scales.push(scale);
        all.zeros.push(zero);
        let seen = &mut all.extremes;
        (seen.low, seen.high) = (seen.low.min(low), seen.high.max(high));
        seen.largest_scale = seen.largest_scale.max(fitted);
        seen.smallest_scale = seen.smallest_scale.min(if fitted > 0.0 { fitted } else { f32::INFINITY });
    }
    all
}

#[track_caller]
fn check_encode(x: Weights<'_>, wide: &[f32], what: &str) {
    for (bits, group) in shapes(wide.len()) {
        let what = format!("{what}, {bits} bits, groups of {group}");
        let want = twin(bits, group, wide);
        let [mut scales, mut zeros] = [vec![9.0; want.scales.len()], vec![9.0; want.scales.len()]];
        let mut packed = vec![99; want.packed.len()];
        let grids = GridsMut { scales: &mut scales, zeros: &mut zeros };
        let (extremes, sums) = encode_min_max(bits, group, x, grids, &mut packed);
        assert_same(&scales, &want.scales, &what);
        assert_same(&zeros, &want.zeros, &what);
        assert_same(&packed, &want.packed, &what);
        assert_eq!(extremes, want.extremes, "{what}");
        let due = reference::grid_sums(group, wide, &want.codes, &want.scales, &want.zeros);
        assert_same_sums(sums, due, &what);
        assert_same_sums(grid_sums(group, wide, &want.codes, &want.scales, &want.zeros), due, &what);
    }
}

/// Squares of huge weights are infinite, and then sums may be NaN.
#[track_caller]
fn assert_same_sums(got: Sums, want: Sums, what: &str) {
    for (got, want) in [(got.norm, want.norm), (got.product, want.product)] {
        assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{what}: {got:?} {want:?}");
    }
}

#[test]
fn weights_that_are_not_finite_show_in_the_norm() {
    check_all(|x, what| {
        for (n, bad) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().enumerate() {
            if x.is_empty() {
                continue;
            }
            let mut x: Vec<f32> = x.iter().map(|v| v * 1e-30).collect();
            let at = (n * 37 + x.len() / 2) % x.len();
            x[at] = bad;
            let groups = x.len().div_ceil(64);
            let [mut scales, mut zeros] = [vec![0.0; groups], vec![0.0; groups]];
            let mut packed = vec![0; pack::groups_len(4, 64, x.len())];
            let grids = GridsMut { scales: &mut scales, zeros: &mut zeros };
            let (_, sums) = encode_min_max(4, 64, Weights::F32(&x), grids, &mut packed);
            assert!(!sums.norm.is_finite(), "{what}: {bad} at {at} of {}", x.len());
        }
    });
}

#[test]
fn encode() {
    check_all(|x, what| {
        check_encode(Weights::F32(x), x, what);
        let halves: Vec<f16> = x.iter().map(|&v| f16::from_f32(v)).collect();
        if halves.iter().all(|h| h.is_finite()) {
            let wide: Vec<f32> = halves.iter().map(|h| h.to_f32()).collect();
            check_encode(Weights::F16(&halves), &wide, &format!("{what}, f16"));
        }
        let brains: Vec<bf16> = x.iter().map(|v| bf16::from_bits((v.to_bits() >> 16) as u16)).collect();
        let wide: Vec<f32> = brains.iter().map(|b| b.to_f32()).collect();
        check_encode(Weights::BF16(&brains), &wide, &format!("{what}, bf16"));
    });
}

/// Packed bytes and grids to decode: scales of the groups differ, codes take all values.
fn packed_groups(bits: u8, group: usize, n: usize) -> (Vec<u8>, Vec<f32>, Vec<u8>, Vec<f32>) {
    let groups = n.div_ceil(group);
    let packed = (0..pack::groups_len(bits, group, n)).map(|i| (i * 89 + 7 * n) as u8).collect();
    let scales = (0..groups).map(|i| 0.013 + i as f32 * 0.37).collect();
    let zeros = (0..groups).map(|i| ((i * 5 + 3) % (1 << bits)) as u8).collect();
    let offsets = (0..groups).map(|i| i as f32 * 0.21 - 1.7).collect();
    (packed, scales, zeros, offsets)
}

fn decode_twin(bits: u8, group: usize, packed: &[u8], grids: Grids<'_>, n: usize) -> Vec<f32> {
    let (mut out, mut rest) = (vec![0.0; n], packed);
    for (i, out) in out.chunks_mut(group).enumerate() {
        let (bytes, after) = rest.split_at(pack::packed_len(bits, out.len()));
        let mut codes = vec![0; out.len()];
        reference::unpack(bits, bytes, &mut codes);
        match grids.offsets {
            Offsets::Zero(zeros) => reference::dequantize_zero(&codes, grids.scales[i], zeros[i], out),
            Offsets::Value(offsets) => reference::dequantize_offset(&codes, grids.scales[i], offsets[i], out),
        }
        out.iter_mut().for_each(|v| *v *= grids.factor);
        rest = after;
    }
    out
}

#[test]
fn decode_and_compare() {
    check_all(|x, what| {
        for (n, (bits, group)) in shapes(x.len()).enumerate() {
            let what = format!("{what}, {bits} bits, groups of {group}");
            let (packed, scales, zeros, offsets) = packed_groups(bits, group, x.len());
            let offsets = if n % 2 == 0 { Offsets::Zero(&zeros) } else { Offsets::Value(&offsets) };
            let grids = Grids { scales: &scales, offsets, factor: [1.0, 0.125, 65536.0][n % 3] };
            let want = decode_twin(bits, group, &packed, grids, x.len());

            let mut got = vec![9.0; x.len()];
            decode::dequantize(bits, group, &packed, grids, WeightsMut::F32(&mut got));
            assert_same(&got, &want, &what);
            let mut got = vec![f16::ONE; x.len()];
            decode::dequantize(bits, group, &packed, grids, WeightsMut::F16(&mut got));
            assert_same(&got, &want.iter().map(|&v| f16::from_f32(v)).collect::<Vec<_>>(), &what);
            let mut got = vec![bf16::ONE; x.len()];
            decode::dequantize(bits, group, &packed, grids, WeightsMut::BF16(&mut got));
            assert_same(&got, &want.iter().map(|&v| bf16::from_f32(v)).collect::<Vec<_>>(), &what);

            let got = decode::compare(bits, group, Weights::F32(x), &packed, grids);
            assert_eq!(got, Comparison { max_abs: 0.0, ..reference::compare(x, &want) }, "{what}");
            let brains: Vec<bf16> = x.iter().map(|v| bf16::from_bits((v.to_bits() >> 16) as u16)).collect();
            let wide: Vec<f32> = brains.iter().map(|b| b.to_f32()).collect();
            let got = decode::compare(bits, group, Weights::BF16(&brains), &packed, grids);
            assert_eq!(got, Comparison { max_abs: 0.0, ..reference::compare(&wide, &want) }, "{what}");
        }
    });
}

#[test]
fn scales_times_a_factor() {
    check_all(|x, what| {
        for factor in [1.0, 0.93, 1.7, 4.0] {
            let scales: Vec<f32> = x.iter().map(|v| v.abs().min(1e4)).collect();
            let exact: Vec<f32> = scales.iter().map(|v| v * factor).collect();
            let want: Vec<f32> = exact.iter().map(|&v| f16::from_f32(v).to_f32()).collect();
            let smallest = exact.iter().copied().filter(|&v| v > 0.0).fold(f32::INFINITY, f32::min);
            let largest = exact.iter().copied().fold(0.0, f32::max);
            let mut got = scales;
            assert_eq!(multiply_scales(&mut got, factor), (smallest, largest), "{what}");
            assert_same(&got, &want, what);
        }
    });
}
