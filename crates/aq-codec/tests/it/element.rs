//! Elements become numbers and numbers elements.

use aq_codec::{CodecError, bytes_to_f32, f32_to_bytes};
use aq_core::DType;
use half::{bf16, f16};
use proptest::prelude::*;

fn read(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / dtype.size()];
    bytes_to_f32(dtype, bytes, &mut out).expect("whole elements");
    out
}

fn write(dtype: DType, values: &[f32]) -> Vec<u8> {
    let mut out = vec![0; values.len() * dtype.size()];
    f32_to_bytes(dtype, values, &mut out).expect("a float type");
    out
}

#[test]
fn every_type_reads_its_numbers() {
    let cases: [(DType, Vec<u8>, f32); 14] = [
        (DType::F64, (-0.1f64).to_le_bytes().into(), -0.1),
        (DType::F32, 1.5e30f32.to_le_bytes().into(), 1.5e30),
        (DType::F16, f16::from_f32(0.375).to_le_bytes().into(), 0.375),
        (DType::BF16, bf16::from_f32(-3e38).to_le_bytes().into(), bf16::from_f32(-3e38).to_f32()),
        (DType::F8E4M3, vec![0xb8], -1.0),
        (DType::F8E5M2, vec![0x3c], 1.0),
        (DType::F8E8M0, vec![128], 2.0),
        (DType::I64, (-(1i64 << 40)).to_le_bytes().into(), -(2f32.powi(40))),
        (DType::U64, u64::MAX.to_le_bytes().into(), 2f32.powi(64)),
        (DType::I32, (-7i32).to_le_bytes().into(), -7.0),
        (DType::U32, u32::MAX.to_le_bytes().into(), 2f32.powi(32)),
        (DType::U16, 65535u16.to_le_bytes().into(), 65535.0),
        (DType::I8, vec![0x80], -128.0),
        (DType::Bool, vec![1], 1.0),
    ];
    for (dtype, bytes, value) in cases {
        let mut shifted = vec![0xaa];
        shifted.extend(&bytes);
        assert_eq!(read(dtype, &bytes), [value], "{dtype}");
        assert_eq!(read(dtype, &shifted[1..]), [value], "{dtype} unaligned");
    }
}

#[test]
fn wrong_lengths_and_types_are_refused() {
    let uneven = CodecError::PartLength { part: "elements", got: 3, expected: 4 };
    assert_eq!(bytes_to_f32(DType::F16, &[0; 3], &mut [0.0; 1]), Err(uneven));
    let output = CodecError::OutputLength { got: 3, expected: 2 };
    assert_eq!(bytes_to_f32(DType::F16, &[0; 4], &mut [0.0; 3]), Err(output));
    let complex = CodecError::ElementType(DType::C64);
    assert_eq!(complex.to_string(), "elements of type C64 have no conversion");
    assert_eq!(bytes_to_f32(DType::C64, &[0; 8], &mut [0.0]), Err(complex));
    assert_eq!(f32_to_bytes(DType::I8, &[0.0], &mut [0]), Err(CodecError::ElementType(DType::I8)));
    let short = CodecError::PartLength { part: "elements", got: 3, expected: 4 };
    assert_eq!(f32_to_bytes(DType::F32, &[0.0], &mut [0; 3]), Err(short));
}

#[test]
fn every_half_comes_back() {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for dtype in [DType::F16, DType::BF16] {
        let numbers = read(dtype, &all);
        let back = write(dtype, &numbers);
        for (i, value) in numbers.iter().enumerate() {
            assert!(value.is_nan() || back[i * 2..][..2] == all[i * 2..][..2], "{dtype} {i:#x}");
        }
    }
}

#[test]
fn narrowing_rounds_half_to_even() {
    let step = 2f32.powi(-10);
    let up = 1.0 + step;
    let got = read(DType::F16, &write(DType::F16, &[1.0 + step / 2.0, up + step / 2.0, 65520.0, -1e9]));
    assert_eq!(got, [1.0, 1.0 + 2.0 * step, f32::INFINITY, f32::NEG_INFINITY]);
    let step = 2f32.powi(-7);
    let got = read(DType::BF16, &write(DType::BF16, &[1.0 + step / 2.0, 1.0 + step * 1.5]));
    assert_eq!(got, [1.0, 1.0 + 2.0 * step]);
}

proptest! {
    #[test]
    fn f32_comes_back_bit_for_bit(values in prop::collection::vec(any::<f32>(), 0..1500)) {
        let back = read(DType::F32, &write(DType::F32, &values));
        prop_assert!(values.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}
