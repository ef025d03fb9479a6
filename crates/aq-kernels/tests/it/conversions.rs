//! Half precision and bfloat16: every value there is, and every neighbourhood of a rounding boundary.

use aq_kernels::{float16, reference};
use half::{bf16, f16};

use crate::tester::{assert_same, at_every_level, check_all};

#[test]
fn every_16_bit_value_widens_and_narrows_back() {
    at_every_level(|level| {
        let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let brains: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
        let [mut got, mut want] = [vec![0.0; 65536], vec![1.0; 65536]];
        let (mut half, mut brain) = (vec![f16::ONE; 65536], vec![bf16::ONE; 65536]);

        float16::widen_f16(&halves, &mut got);
        reference::widen_f16(&halves, &mut want);
        assert_same(&got, &want, &format!("{level}, f16"));
        float16::narrow_f16(&got, &mut half);
        let quiet = |v: &f16| f16::from_bits(v.to_bits() | if v.is_nan() { 0x200 } else { 0 });
        assert_same(&half, &halves.iter().map(quiet).collect::<Vec<_>>(), &format!("{level}, f16 and back"));

        float16::widen_bf16(&brains, &mut got);
        reference::widen_bf16(&brains, &mut want);
        assert_same(&got, &want, &format!("{level}, bf16"));
        float16::narrow_bf16(&got, &mut brain);
        let quiet = |v: &bf16| bf16::from_bits(v.to_bits() | if v.is_nan() { 0x40 } else { 0 });
        assert_same(
            &brain,
            &brains.iter().map(quiet).collect::<Vec<_>>(),
            &format!("{level}, bf16 and back"),
        );
    });
}

#[test]
fn every_upper_half_of_an_f32_narrows_like_the_half_crate() {
    // The lower bits decide only above, on or below a tie: these patterns are all the cases.
    let lower = [0, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x2000, 0x3000, 0x7fff, 0x8000, 0x8001, 0xffff];
    at_every_level(|level| {
        for lower in lower {
            let x: Vec<f32> = (0..=0xffff_u32).map(|upper| f32::from_bits(upper << 16 | lower)).collect();
            check_narrow(&x, &format!("{level}, lower bits {lower:#x}"));
        }
    });
}

#[test]
fn all_lengths() {
    check_all(|x, what| {
        check_narrow(x, what);
        let bits = |v: &f32| (v.to_bits() >> 13) as u16;
        let halves: Vec<f16> = x.iter().map(|v| f16::from_bits(bits(v))).collect();
        let brains: Vec<bf16> = x.iter().map(|v| bf16::from_bits(bits(v))).collect();
        let [mut got, mut want] = [vec![0.0; x.len()], vec![1.0; x.len()]];
        float16::widen_f16(&halves, &mut got);
        reference::widen_f16(&halves, &mut want);
        assert_same(&got, &want, what);
        float16::widen_bf16(&brains, &mut got);
        reference::widen_bf16(&brains, &mut want);
        assert_same(&got, &want, what);
    });
}

#[track_caller]
fn check_narrow(x: &[f32], what: &str) {
    let [mut got, mut want] = [vec![f16::ONE; x.len()], vec![f16::ZERO; x.len()]];
    float16::narrow_f16(x, &mut got);
    reference::narrow_f16(x, &mut want);
    assert_same(&got, &want, what);
    let [mut got, mut want] = [vec![bf16::ONE; x.len()], vec![bf16::ZERO; x.len()]];
    float16::narrow_bf16(x, &mut got);
    reference::narrow_bf16(x, &mut want);
    assert_same(&got, &want, what);
}
