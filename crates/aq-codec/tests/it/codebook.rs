//! What is pushed into the codebook codec comes out of it.

use aq_codec::{
    CodebookRow, CodecError, ReadScratch, check, decode, encoded_bytes, part_lengths, push_codebook_row, seal,
};
use aq_core::{BitWidth, CodebookEncoding, DType, EncodedRows, Encoding, GroupSize, SlabParts, TensorInfo};
use proptest::prelude::*;

fn encoding(bits: u8, group: u32) -> CodebookEncoding {
    let group_size = GroupSize::new(group).expect("a valid size");
    CodebookEncoding { bits: BitWidth::new(bits).expect("a valid width"), group_size }
}

fn info(rows: usize, cols: usize) -> TensorInfo {
    TensorInfo::new("w", vec![rows as u64, cols as u64], DType::F32).expect("a valid shape")
}

proptest! {
    #[test]
    fn rows_come_back(
        bits in 2u8..=4,
        group in prop::sample::select(vec![0u32, 16, 24, 128]),
        cols in 1usize..300,
        exponents in prop::collection::vec(prop_oneof![3 => Just(0i8), 1 => -126i8..=100], 1..4),
        seed: u32,
    ) {
        let encoding = encoding(bits, group);
        let (groups, size) = (encoding.group_size.groups(cols), encoding.group_size.weights(cols));
        let table: Vec<f32> = (0..1i32 << bits).map(|i| (i - 5) as f32 * 0.375).collect();
        let number = |i: usize| (seed as usize).wrapping_add(i).wrapping_mul(0x9e37_79b1) >> 7 & 0xff;
        let codes: Vec<u8> = (0..cols).map(|i| number(i) as u8 & encoding.bits.max_code()).collect();
        let scales: Vec<f32> = (0..groups).map(|i| number(i + 999) as f32 / 16.0).collect();
        let (mut encoded, mut wanted) = (EncodedRows::default(), Vec::new());
        for &exponent in &exponents {
            let row = CodebookRow { codes: &codes, scales: &scales, exponent };
            push_codebook_row(&encoding, &table, row, &mut encoded);
            let value = |(i, &code): (usize, &u8)| table[usize::from(code)] * scales[i / size] * 2f32.powi(exponent.into());
            wanted.extend(codes.iter().enumerate().map(value));
        }
        seal(&mut encoded);
        let (info, rows) = (info(exponents.len(), cols), exponents.len() as u64);
        let encoding = Encoding::Codebook(encoding);
        let due = part_lengths(&info, &encoding, rows).expect("small").limits();
        prop_assert_eq!(encoded_bytes(&info, &encoding), due[0] + due[1] + due[2]);
        prop_assert_eq!(encoded.bytes() - encoded.extra.len() as u64, due[0] + due[1] + due[2]);
        prop_assert_eq!(check(&encoding, &info, encoded.parts(), rows), Ok(()));
        let mut out = vec![0.0; wanted.len()];
        decode(&encoding, &info, encoded.parts(), rows, 0, &mut ReadScratch::default(), &mut out)?;
        prop_assert_eq!(&out, &wanted);
        let last = &mut out[..cols];
        decode(&encoding, &info, encoded.parts(), 1, rows - 1, &mut ReadScratch::default(), last)?;
        prop_assert_eq!(&*last, &wanted[wanted.len() - cols..]);
    }
}

#[test]
fn a_table_of_another_length_is_refused() {
    let encoding = Encoding::Codebook(encoding(3, 16));
    let parts =
        SlabParts { codes: &[0; 12], scales: &[0; 4], offsets: &[0; 14], extra: &[], ..SlabParts::default() };
    let refused = CodecError::PartLength { part: "offsets", got: 14, expected: 16 };
    assert_eq!(check(&encoding, &info(1, 32), parts, 1), Err(refused.clone()));
    let mut out = [0.0; 32];
    let decoded = decode(&encoding, &info(1, 32), parts, 1, 0, &mut ReadScratch::default(), &mut out);
    assert_eq!(decoded, Err(refused));
}

#[test]
fn every_slab_counts_its_table() {
    let info = info(3000, 1024);
    let bytes = encoded_bytes(&info, &Encoding::Codebook(encoding(4, 128)));
    assert_eq!(bytes, 3000 * (512 + 16) + 3 * 32);
}
