//! Any finite weights work.

use aq_core::RowData;
use half::f16;
use proptest::prelude::*;

use crate::support::{Case, METHODS, gauss, relative_mse};

#[test]
fn magnitude_does_not_change_the_error() {
    let weights: Vec<f32> = gauss(4 * 512, 30).iter().map(|w| w.clamp(-3.9, 3.9)).collect();
    for (method, bits) in METHODS.into_iter().flat_map(|m| [(m, 2), (m, 4), (m, 8)]) {
        for (group, gain) in [(64, false), (64, true), (0, false), (0, true)] {
            let case = Case { method, bits, group, gain, cols: 512 };
            // What hqq takes for a large error depends on the magnitude.
            if !case.exists() || method == "hqq" {
                continue;
            }
            let usual = relative_mse(&weights, &case.round_trip(&weights));
            for exponent in [-126, -100, -30, -14, 9, 20, 60, 124] {
                let scaled: Vec<f32> = weights.iter().map(|w| w * 2f32.powi(exponent)).collect();
                let decoded = case.round_trip(&scaled);
                let back: Vec<f32> =
                    decoded.iter().map(|&w| (f64::from(w) * 2f64.powi(-exponent)) as f32).collect();
                let error = relative_mse(&weights, &back);
                assert!((error / usual - 1.0).abs() < 0.02, "{case:?} 2^{exponent}: {error} {usual}");
            }
        }
    }
}

#[test]
fn the_largest_weights_stay_finite() {
    for (method, bits) in METHODS.into_iter().flat_map(|m| [2, 3, 4, 5, 6, 8].map(|b| (m, b))) {
        for gain in [false, true] {
            let case = Case { method, bits, group: 16, gain, cols: 33 };
            if !case.exists() {
                continue;
            }
            let mut weights: Vec<f32> = (0..33).map(|i| f32::MAX * ((i % 9) as f32 / 4.0 - 1.0)).collect();
            weights[32] = -f32::MAX;
            let decoded = case.round_trip(&weights);
            assert!(decoded.iter().all(|w| w.is_finite()), "{case:?} {decoded:?}");
            let halved: Vec<f32> = weights.iter().map(|w| w / 4.0).collect();
            let quarter: Vec<f32> = decoded.iter().map(|w| w / 4.0).collect();
            let error = relative_mse(&halved, &quarter);
            assert!(error < if bits == 2 { 0.2 } else { 0.05 }, "{case:?} {error}");
        }
    }
}

#[test]
fn constant_groups_are_the_nearest_half() {
    for constant in [1.0f32, -0.1234, 3.3e-3, 1e4, 0.0, 6.2e-5] {
        for (bits, group) in [(2, 16), (4, 0), (8, 128)] {
            let case = Case { method: "ls", bits, group, gain: false, cols: 40 };
            let nearest = f16::from_f32(constant).to_f32();
            assert_eq!(case.round_trip(&[constant; 40]), [nearest; 40], "{case:?}");
        }
    }
}

#[test]
fn two_bits_use_four_levels() {
    for (low, high) in [(-1.0f32, 1.0), (-0.7, 0.7), (-0.1, 0.1), (-1.0, 2.0), (0.0, 1.0), (-5.0, 1.0)] {
        let weights: Vec<f32> = (0..64).map(|i| low + (high - low) * i as f32 / 63.0).collect();
        for method in ["minmax", "ls", "hqq"] {
            let case = Case { method, bits: 2, group: 0, gain: false, cols: 64 };
            let mut levels = case.round_trip(&weights);
            levels.dedup();
            assert_eq!(levels.len(), 4, "{method} {low} {high} {levels:?}");
        }
    }
}

#[test]
fn narrow_groups_far_from_zero_keep_their_shape() {
    let weights: Vec<f32> = gauss(16 * 128, 31).iter().map(|w| 1.0 + w * 1e-4).collect();
    for (bits, bound) in [(2, 0.5), (4, 0.1), (8, 0.01)] {
        let case = Case { method: "ls", bits, group: 128, gain: false, cols: 128 };
        let decoded = case.round_trip(&weights);
        let centred = |x: &[f32]| -> Vec<f32> { x.iter().map(|w| w - 1.0).collect() };
        let error = relative_mse(&centred(&weights), &centred(&decoded));
        println!("narrow groups, {bits} bits: {error:.4}");
        assert!(error < bound, "{bits}: {error}");
    }
}

#[test]
fn small_groups_beside_huge_ones_do_no_harm() {
    let usual = gauss(64, 32);
    for (method, shift) in METHODS.into_iter().flat_map(|m| [10, 20, 26, 40, 60, 100].map(|s| (m, s))) {
        let mut weights: Vec<f32> = usual.iter().map(|w| w * 2f32.powi(-shift / 2)).collect();
        weights.extend(usual.iter().map(|w| w * 2f32.powi(shift - shift / 2)));
        let case = Case { method, bits: 4, group: 64, gain: true, cols: 128 };
        let decoded = case.round_trip(&weights);
        let small = relative_mse(&weights[..64], &decoded[..64]);
        let large = relative_mse(&weights[64..], &decoded[64..]);
        assert!(
            large < 0.02 && (small < 0.02 || shift > 24 && small <= 1.0),
            "{case:?} {shift}: {small} {large}"
        );
    }
}

fn any_finite() -> impl Strategy<Value = f32> {
    use proptest::num::f32::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO
}

proptest! {
    #[test]
    fn whatever_is_finite_stays_finite(
        weights in prop::collection::vec(any_finite(), 1..80),
        same_magnitude: bool,
        bits in prop::sample::select(vec![2u8, 3, 4, 5, 6, 8]),
        group in prop::sample::select(vec![0u32, 16, 24]),
        gain: bool,
        importance in prop::option::of(prop::collection::vec(0f32..1e6, 80)),
    ) {
        let one = f32::from_bits(weights[0].to_bits() & 0x7f80_0000).max(f32::MIN_POSITIVE);
        let mantissa = |w: &f32| f32::from_bits(w.to_bits() & 0x807f_ffff | 0x3f00_0000);
        let weights: Vec<f32> =
            if same_magnitude { weights.iter().map(|w| mantissa(w) * one).collect() } else { weights };
        for method in METHODS {
            let case = Case { method, bits, group, gain, cols: weights.len() };
            if !case.exists() {
                continue;
            }
            let importance = importance.as_deref().map(|h| &h[..weights.len()]);
            let encoded = case.encode(&[RowData::F32(&weights)], importance);
            prop_assert_eq!(encoded.row_count, 1);
            let decoded = case.decode(&encoded);
            prop_assert!(decoded.iter().all(|w| w.is_finite()), "{:?}", decoded);
        }
    }
}
