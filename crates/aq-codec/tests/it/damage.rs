//! Damaged input gives errors that say what is wrong, and no panic.

use aq_codec::{CodecError, ReadScratch, check, decode, encoded_bytes};
use aq_core::{
    AffineEncoding, BitWidth, CodebookEncoding, DType, Encoding, GroupSize, OffsetKind, SignEncoding,
    SignLevels, SlabParts, TensorInfo, TrellisEncoding,
};
use proptest::prelude::*;

fn affine(bits: usize, group: u32, offset: OffsetKind) -> Encoding {
    let group_size = GroupSize::new(group).expect("a valid size");
    Encoding::Affine(AffineEncoding { bits: BitWidth::ALL[bits], group_size, offset })
}

fn trellis(bits: usize) -> Encoding {
    Encoding::Trellis(TrellisEncoding { bits: BitWidth::ALL[bits] })
}

fn codebook(bits: usize, group: u32) -> Encoding {
    let group_size = GroupSize::new(group).expect("a valid size");
    Encoding::Codebook(CodebookEncoding { bits: BitWidth::ALL[bits], group_size })
}

fn sign(bits: usize, group: u32) -> Encoding {
    let levels = if bits == 0 { SignLevels::Binary } else { SignLevels::Ternary };
    Encoding::Sign(SignEncoding { levels, group_size: GroupSize::new(group).expect("a valid size") })
}

fn tensor(shape: &[u64], dtype: DType) -> TensorInfo {
    TensorInfo::new("w", shape.to_vec(), dtype).expect("a valid shape")
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(
        bits in 0usize..6,
        group in prop::sample::select(vec![0u32, 16, 128]),
        zero_point: bool,
        codec in 0usize..6,
        shape in prop::collection::vec(prop_oneof![0u64..70, Just(1u64 << 20)], 0..3),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        cuts in prop::array::uniform3(0usize..400),
        rows in prop_oneof![0u64..5, any::<u64>()],
        first in prop_oneof![0u64..5, any::<u64>()],
    ) {
        let offset = if zero_point { OffsetKind::ZeroPoint } else { OffsetKind::F16 };
        let (codebook, sign) = (codebook(bits % 3, group), sign(bits % 2, group));
        let encoding =
            [affine(bits, group, offset), Encoding::Raw, Encoding::Entropy, trellis(bits), codebook, sign][codec];
        let info = tensor(&shape, DType::BF16);
        let cut = |i: usize| &bytes[..cuts[i].min(bytes.len())];
        let parts = SlabParts { codes: &bytes, scales: cut(0), offsets: cut(1), extra: cut(2), ..SlabParts::default() };
        let _ = check(&encoding, &info, parts, rows);
        let values = rows.saturating_mul(encoding.cols(&info)).min(1 << 12) as usize;
        let _ = decode(&encoding, &info, parts, rows, first, &mut ReadScratch::default(), &mut vec![0.0; values]);
    }
}

#[test]
fn errors_name_the_fact() {
    let encoding = affine(2, 16, OffsetKind::F16);
    let info = tensor(&[2, 32], DType::F32);
    let parts =
        SlabParts { codes: &[0; 32], scales: &[0; 8], offsets: &[0; 7], extra: &[], ..SlabParts::default() };
    let short = CodecError::PartLength { part: "offsets", got: 7, expected: 8 };
    assert_eq!(check(&encoding, &info, parts, 2), Err(short.clone()));
    assert_eq!(short.to_string(), "offsets have 7 bytes, expected 8");
    let too_large = check(&encoding, &info, parts, u64::MAX).expect_err("no file holds so many rows");
    assert_eq!(too_large, CodecError::TooLarge { first: 0, count: u64::MAX });
    assert!(too_large.to_string().contains("more than memory can hold"));

    let mut out = [0.0; 31];
    let parts = SlabParts { offsets: &[0; 8], ..parts };
    let output = decode(&encoding, &info, parts, 1, 1, &mut ReadScratch::default(), &mut out)
        .expect_err("31 is not 32");
    assert_eq!(output, CodecError::OutputLength { got: 31, expected: 32 });
    assert_eq!(output.to_string(), "the output holds 31 values, expected 32");
}

#[test]
fn raw_slabs_have_codes_only() {
    let info = tensor(&[3], DType::F16);
    let parts = SlabParts { codes: &[0; 6], ..SlabParts::default() };
    assert_eq!(check(&Encoding::Raw, &info, parts, 3), Ok(()));
    let extra = SlabParts { extra: &[1], ..parts };
    let refused = CodecError::PartLength { part: "extra", got: 1, expected: 0 };
    assert_eq!(check(&Encoding::Raw, &info, extra, 3), Err(refused));
    assert_eq!(encoded_bytes(&info, &Encoding::Raw), 6);
}

#[test]
fn sizes_of_absurd_tensors_saturate() {
    let info = tensor(&[1 << 62, 1], DType::U8);
    assert_eq!(encoded_bytes(&info, &affine(5, 0, OffsetKind::F16)), u64::MAX);
    let empty = tensor(&[4, 0], DType::F32);
    let encoding = affine(0, 128, OffsetKind::ZeroPoint);
    assert_eq!(encoded_bytes(&empty, &encoding), 0);
    assert_eq!(
        decode(&encoding, &empty, SlabParts::default(), 4, 0, &mut ReadScratch::default(), &mut []),
        Ok(())
    );
}
