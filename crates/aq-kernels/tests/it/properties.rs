//! What must hold for any input.

use aq_kernels::{affine, metric, pack, search};
use proptest::prelude::*;

fn widths() -> impl Strategy<Value = u8> {
    prop::sample::select(vec![2, 3, 4, 5, 6, 8])
}

fn error(x: &[f32], h: &[f32], (scale, offset): (f32, f32), top: u8) -> f64 {
    let mut codes = vec![0; x.len()];
    affine::quantize(x, if scale > 0.0 { 1.0 / scale } else { 0.0 }, offset, top, &mut codes);
    let back = codes.iter().map(|&c| f64::from(c) * f64::from(scale) + f64::from(offset));
    x.iter().zip(h).zip(back).map(|((&x, &h), b)| f64::from(h) * (f64::from(x) - b).powi(2)).sum()
}

proptest! {
    #[test]
    fn packing_loses_nothing(bits in widths(), bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        let codes: Vec<u8> = bytes.iter().map(|b| b >> (8 - bits)).collect();
        let mut packed = vec![0; pack::packed_len(bits, codes.len())];
        let mut back = vec![0; codes.len()];
        pack::pack(bits, &codes, &mut packed);
        pack::unpack(bits, &packed, &mut back);
        prop_assert_eq!(back, codes);
    }

    #[test]
    fn a_value_in_range_comes_back_within_half_a_step(
        bits in widths(), x in prop::collection::vec(-100.0_f32..100.0, 2..300),
    ) {
        let top = ((1u16 << bits) - 1) as u8;
        let (low, high) = affine::min_max(&x);
        let scale = (high - low) / f32::from(top);
        prop_assume!(scale > 1e-6);
        let mut codes = vec![0; x.len()];
        let mut back = vec![0.0; x.len()];
        affine::quantize(&x, 1.0 / scale, low, top, &mut codes);
        affine::dequantize_offset(&codes, scale, low, &mut back);
        for (x, b) in x.iter().zip(back) {
            prop_assert!((x - b).abs() <= 0.5 * scale + 4.0 * f32::EPSILON * 100.0, "{} {} {}", x, b, scale);
        }
    }

    #[test]
    fn the_search_is_never_worse_than_the_whole_range(
        bits in widths(), wide in any::<bool>(),
        xh in prop::collection::vec((-1.0_f32..1.0, 0.0_f32..10.0), 1..200),
    ) {
        let top = ((1u16 << bits) - 1) as u8;
        let x: Vec<f32> = xh.iter().map(|v| if wide { v.0.powi(5) * 1e6 } else { v.0 }).collect();
        let h: Vec<f32> = xh.iter().map(|v| v.1).collect();
        let (low, high) = affine::min_max(&x);
        let (scale, offset) = search::ls_search(&x, Some(&h), top);
        prop_assert!(scale >= 0.0 && scale.is_finite() && offset.is_finite());
        let whole = error(&x, &h, ((high - low) / f32::from(top), low), top);
        let energy: f64 = h.iter().map(|&h| f64::from(h)).sum::<f64>() * f64::from(high - low).powi(2);
        prop_assert!(error(&x, &h, (scale, offset), top) <= whole * 1.0001 + energy * 1e-12);
    }

    #[test]
    fn scaling_by_a_power_of_two_scales_the_search(
        x in prop::collection::vec(-1.0_f32..1.0, 2..200), power in -40..40,
    ) {
        let factor = 2.0_f32.powi(power);
        let scaled: Vec<f32> = x.iter().map(|x| x * factor).collect();
        let (scale, offset) = search::ls_search(&x, None, 15);
        prop_assert_eq!(search::ls_search(&scaled, None, 15), (scale * factor, offset * factor));
    }

    #[test]
    fn comparisons_stay_in_bounds(pairs in prop::collection::vec((-1e3_f32..1e3, -1e3_f32..1e3), 0..300), cut in 0..300_usize) {
        let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        let whole = metric::compare(&a, &b);
        prop_assert!((-1.0..=1.0).contains(&whole.cosine()) && whole.relative_mse() >= 0.0);
        let cut = cut.min(a.len());
        let mut merged = metric::compare(&a[..cut], &b[..cut]);
        merged.merge(&metric::compare(&a[cut..], &b[cut..]));
        prop_assert_eq!(merged.max_abs, whole.max_abs);
        prop_assert!((merged.error - whole.error).abs() <= 1e-12 * whole.error);
        prop_assert!((whole.error - (whole.aa + whole.bb - 2.0 * whole.dot)).abs() <= 1e-9 * (whole.aa + whole.bb));
    }
}
