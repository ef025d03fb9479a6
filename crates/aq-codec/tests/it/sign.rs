//! What is pushed into the sign codec comes out of it.

use aq_codec::{
    CodecError, ReadScratch, SignRow, check, decode, encoded_bytes, part_lengths, push_sign_row, seal,
};
use aq_core::{DType, EncodedRows, Encoding, GroupSize, SignEncoding, SignLevels, SlabParts, TensorInfo};
use proptest::prelude::*;

const LEVELS: [SignLevels; 2] = [SignLevels::Binary, SignLevels::Ternary];

fn encoding(levels: SignLevels, group: u32) -> SignEncoding {
    SignEncoding { levels, group_size: GroupSize::new(group).expect("a valid size") }
}

fn info(rows: usize, cols: usize) -> TensorInfo {
    TensorInfo::new("w", vec![rows as u64, cols as u64], DType::F32).expect("a valid shape")
}

/// What the code stands for.
fn value(levels: SignLevels, code: u8) -> f32 {
    match levels {
        SignLevels::Binary => [-1.0, 1.0][usize::from(code)],
        SignLevels::Ternary => [-1.0, 0.0, 1.0][usize::from(code)],
    }
}

#[track_caller]
fn decoded(encoding: SignEncoding, rows: usize, cols: usize, parts: SlabParts<'_>) -> Vec<f32> {
    let mut out = vec![9.0; rows * cols];
    let (encoding, info) = (Encoding::Sign(encoding), info(rows, cols));
    assert_eq!(check(&encoding, &info, parts, rows as u64), Ok(()));
    decode(&encoding, &info, parts, rows as u64, 0, &mut ReadScratch::default(), &mut out)
        .expect("good parts");
    out
}

#[test]
fn every_short_row_comes_back() {
    for levels in LEVELS {
        let base = levels.bits().max_code().min(2) + 1;
        for cols in 1..=9 {
            for mut number in 0..usize::from(base).pow(cols) {
                let mut digit = || {
                    let code = number % usize::from(base);
                    number /= usize::from(base);
                    code as u8
                };
                let codes: Vec<u8> = (0..cols).map(|_| digit()).collect();
                let (mut out, encoding) = (EncodedRows::default(), encoding(levels, 0));
                push_sign_row(&encoding, SignRow { codes: &codes, scales: &[1.0], exponent: 0 }, &mut out);
                let wanted: Vec<f32> = codes.iter().map(|&code| value(levels, code)).collect();
                assert_eq!(decoded(encoding, 1, cols as usize, out.parts()), wanted);
            }
        }
    }
}

#[test]
fn bytes_are_those_of_the_document() {
    let mut out = EncodedRows::default();
    let row = SignRow { codes: &[1, 0, 0, 1, 1, 0, 0, 0, 1], scales: &[0.5], exponent: 0 };
    push_sign_row(&encoding(SignLevels::Binary, 0), row, &mut out);
    assert_eq!((&out.codes[..], &out.scales[..]), (&[0b1_1001, 1][..], &[0x00, 0x38][..]));
    out.clear();
    let row = SignRow { codes: &[2, 0, 1, 0, 0, 2], scales: &[0.5], exponent: 0 };
    push_sign_row(&encoding(SignLevels::Ternary, 0), row, &mut out);
    assert_eq!(out.codes, [2 + 9, 2]);
}

proptest! {
    #[test]
    fn rows_come_back(
        ternary: bool,
        group in prop::sample::select(vec![0u32, 16, 24, 128]),
        cols in 1usize..300,
        exponents in prop::collection::vec(prop_oneof![3 => Just(0i8), 1 => -110i8..=100], 1..4),
        seed: u32,
    ) {
        let levels = LEVELS[usize::from(ternary)];
        let encoding = encoding(levels, group);
        let (groups, size) = (encoding.group_size.groups(cols), encoding.group_size.weights(cols));
        let number = |i: usize| (seed as usize).wrapping_add(i).wrapping_mul(0x9e37_79b1) >> 7 & 0xff;
        let codes: Vec<u8> = (0..cols).map(|i| (number(i) % if ternary { 3 } else { 2 }) as u8).collect();
        let scales: Vec<f32> = (0..groups).map(|i| number(i + 999) as f32 / 16.0).collect();
        let (mut encoded, mut wanted) = (EncodedRows::default(), Vec::new());
        for &exponent in &exponents {
            push_sign_row(&encoding, SignRow { codes: &codes, scales: &scales, exponent }, &mut encoded);
            let weight = |(i, &code): (usize, &u8)| value(levels, code) * scales[i / size] * 2f32.powi(exponent.into());
            wanted.extend(codes.iter().enumerate().map(weight));
        }
        seal(&mut encoded);
        let rows = exponents.len();
        let (shape, any) = (info(rows, cols), Encoding::Sign(encoding));
        let due = part_lengths(&shape, &any, rows as u64).expect("small").limits();
        prop_assert_eq!(encoded_bytes(&shape, &any), due[0] + due[1]);
        prop_assert_eq!(encoded.bytes() - encoded.extra.len() as u64, due[0] + due[1]);
        prop_assert_eq!(&decoded(encoding, rows, cols, encoded.parts()), &wanted);
        let mut last = vec![0.0; cols];
        decode(&any, &shape, encoded.parts(), 1, rows as u64 - 1, &mut ReadScratch::default(), &mut last)?;
        prop_assert_eq!(&last[..], &wanted[wanted.len() - cols..]);
    }
}

#[test]
fn bytes_that_no_encoder_writes_are_refused() {
    let ternary = Encoding::Sign(encoding(SignLevels::Ternary, 0));
    let read = |codes: &[u8]| {
        let parts = SlabParts { codes, scales: &[0; 2], ..SlabParts::default() };
        decode(&ternary, &info(1, 10), parts, 1, 0, &mut ReadScratch::default(), &mut [0.0; 10])
    };
    assert_eq!(read(&[0, 242]), Ok(()));
    assert_eq!(read(&[0, 243]), Err(CodecError::Damaged { part: "codes" }));
    let offsets = SlabParts { codes: &[0; 2], scales: &[0; 2], offsets: &[1], ..SlabParts::default() };
    let refused = CodecError::PartLength { part: "offsets", got: 1, expected: 0 };
    assert_eq!(check(&ternary, &info(1, 10), offsets, 1), Err(refused));
}

#[test]
fn sizes_are_as_small_as_they_say() {
    let bits = |levels, group| {
        let info = info(64, 1280);
        encoded_bytes(&info, &Encoding::Sign(encoding(levels, group))) as f64 * 8.0 / info.elements() as f64
    };
    assert_eq!((bits(SignLevels::Binary, 0), bits(SignLevels::Ternary, 0)), (1.0125, 1.6125));
    assert_eq!((bits(SignLevels::Binary, 128), bits(SignLevels::Ternary, 128)), (1.125, 1.725));
}
