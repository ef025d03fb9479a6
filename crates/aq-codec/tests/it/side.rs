//! Side data: what is written is read, what is malformed is refused, and decoding undoes it.

use aq_codec::{
    CodebookRow, CodecError, LowRank, ReadScratch, Rotation, Side, check, decode, push_codebook_row,
    side_limit,
};
use aq_core::{BitWidth, CodebookEncoding, DType, EncodedRows, Encoding, GroupSize, SlabParts, TensorInfo};
use half::f16;
use proptest::prelude::*;

fn info(rows: u64, cols: u64) -> TensorInfo {
    TensorInfo::new("w", vec![rows, cols], DType::F32).expect("a valid shape")
}

fn halves(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
}

fn encoding() -> CodebookEncoding {
    CodebookEncoding { bits: BitWidth::ALL[0], group_size: GroupSize::ROW }
}

/// Rows of `cols` codes that count up.
fn rows(count: usize, cols: usize) -> EncodedRows {
    let mut out = EncodedRows::default();
    for row in 0..count {
        let codes: Vec<u8> = (0..cols).map(|i| ((i + row) % 4) as u8).collect();
        let row = CodebookRow { codes: &codes, scales: &[0.5 + row as f32], exponent: 0 };
        push_codebook_row(&encoding(), &[-1.5, -0.5, 0.5, 1.5], row, &mut out);
    }
    out
}

fn weights(
    count: usize,
    cols: usize,
    side: &[u8],
    row_start: u64,
    total: u64,
) -> Result<Vec<f32>, CodecError> {
    let (rows, mut out) = (rows(count, cols), vec![0.0; count * cols]);
    let parts = SlabParts { side, row_start, ..rows.parts() };
    let info = info(total, cols as u64);
    let scratch = &mut ReadScratch::default();
    decode(&Encoding::Codebook(encoding()), &info, parts, count as u64, 0, scratch, &mut out)?;
    Ok(out)
}

#[test]
fn every_section_comes_back_and_is_undone_in_order() {
    let (cols, rank, smoothing) = (32, 2, halves(&(1..=32).map(|i| i as f32 / 8.0).collect::<Vec<_>>()));
    let scales: Vec<u8> = [0.25f32, -0.125].iter().flat_map(|v| v.to_le_bytes()).collect();
    let left: Vec<u8> = (0..6 * rank).map(|i| (i as i8 - 5) as u8).collect();
    let right: Vec<u8> = (0..rank * cols).map(|i| (i as i8 * 3 - 100) as u8).collect();
    let side = Side {
        rotation: Rotation::with_block(16, cols, 77),
        smoothing: Some(&smoothing),
        low_rank: Some(LowRank { scales: &scales, left: &left, right: &right }),
    };
    let bytes = side.bytes();
    assert_eq!(Side::parse(&bytes, &info(6, 32)), Ok(side));
    assert!(bytes.len() as u64 <= side_limit(&info(6, 32)));

    // Rows 4 and 5 of the tensor.
    let plain = weights(2, cols, &[], 4, 6).expect("no side data");
    let got = weights(2, cols, &bytes, 4, 6).expect("good side data");
    let mut signs = Vec::new();
    side.rotation.expect("a rotation").signs(cols, &mut signs);
    assert!(signs.contains(&1.0) && signs.contains(&-1.0));
    for (i, (plain, got)) in plain.chunks(cols).zip(got.chunks(cols)).enumerate() {
        let signed = |b: u8| f64::from(b as i8);
        let product = |j: usize| {
            (signed(left[(4 + i) * 2]) * signed(right[j])) * 0.25
                - (signed(left[(4 + i) * 2 + 1]) * signed(right[cols + j])) * 0.125
        };
        let sum: Vec<f64> = (0..cols).map(|j| f64::from(plain[j]) + product(j)).collect();
        for j in 0..cols {
            let block = j / 16 * 16;
            let hadamard = |k: usize| if (j & 15 & k).count_ones().is_multiple_of(2) { 0.25 } else { -0.25 };
            let turned: f64 = (0..16).map(|k| sum[block + k] * hadamard(k)).sum();
            let want = turned * f64::from(signs[j]) * 8.0 / (j + 1) as f64;
            assert!(
                (f64::from(got[j]) - want).abs() < 1e-4 * want.abs().max(1.0),
                "{i} {j}: {} {want}",
                got[j]
            );
        }
    }
}

#[test]
fn signs_are_the_documented_bits() {
    // The first two outputs of splitmix64 started at 0.
    let words = [0xe220_a839_7b1d_cdaf_u64, 0x6e78_9e6a_a1b9_65f4];
    let mut signs = Vec::new();
    Rotation::new(128, 0).expect("whole blocks").signs(128, &mut signs);
    for (j, sign) in signs.iter().enumerate() {
        let minus = words[j / 64] >> (j % 64) & 1 == 1;
        assert_eq!(*sign, if minus { -1.0 } else { 1.0 }, "column {j}");
    }
}

#[test]
fn malformed_sections_are_refused() {
    let refused = |bytes: &[u8], cols| Side::parse(bytes, &info(4, cols)).expect_err("refused").to_string();
    let rotation = |block: u32| {
        let mut bytes = vec![1, 12, 0, 0, 0];
        bytes.extend(block.to_le_bytes());
        bytes.extend([0; 8]);
        bytes
    };
    for block in [0, 4, 12, 64, 2048, u32::MAX] {
        assert_eq!(refused(&rotation(block), 32), "side data: the rotation does not fit", "{block}");
    }
    assert!(Side::parse(&rotation(32), &info(4, 32)).is_ok());
    let regular = |block: u32| [&[1, 4, 0, 0, 0], block.to_le_bytes().as_slice()].concat();
    assert_eq!(refused(&regular(32), 64), "side data: the rotation does not fit", "no power of 4");
    let bytes = regular(16);
    let parsed = Side::parse(&bytes, &info(4, 32)).expect("whole blocks of a power of 4");
    assert_eq!((parsed.rotation, parsed.bytes()), (Rotation::regular(16, 32), bytes.clone()));
    assert_eq!(refused(&rotation(32)[..16], 32), "side data: a section is cut off");
    assert_eq!(refused(&[1, 0, 0], 32), "side data: a section is cut off");
    assert_eq!(refused(&[9, 0, 0, 0, 0], 32), "side data: a section has an unknown tag");
    assert_eq!(refused(&[rotation(32), rotation(32)].concat(), 32), "side data: sections are out of order");
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let section = [vec![2, 4, 0, 0, 0], halves(&[1.0, bad])].concat();
        assert_eq!(refused(&section, 2), "side data: the smoothing does not fit", "{bad}");
    }
    assert_eq!(refused(&[3, 2, 0, 0, 0, 0, 0], 2), "side data: the low-rank part does not fit");
    assert_eq!(refused(&[3, 4, 0, 0, 0, 0xff, 0xff, 0, 0], 2), "side data: the low-rank part does not fit");
}

#[test]
fn a_kept_tensor_has_no_side_data() {
    let side = Side { rotation: Rotation::new(32, 0), ..Side::default() }.bytes();
    let parts = SlabParts { codes: &[0; 256], side: &side, ..SlabParts::default() };
    let none = Err(CodecError::Side("a raw tensor has none"));
    assert_eq!(check(&Encoding::Raw, &info(2, 32), parts, 64), none);
    let scratch = &mut ReadScratch::default();
    assert_eq!(decode(&Encoding::Raw, &info(2, 32), parts, 64, 0, scratch, &mut [0.0; 64]), none);
}

#[test]
fn rows_outside_of_the_tensor_are_refused() {
    let side = Side { rotation: Rotation::new(32, 0), ..Side::default() }.bytes();
    assert!(weights(2, 32, &side, 4, 6).is_ok());
    for start in [5, u64::MAX] {
        assert_eq!(weights(2, 32, &side, start, 6), Err(CodecError::TooLarge { first: 0, count: 2 }));
    }
}

proptest! {
    #[test]
    fn any_side_data_decodes_or_is_refused(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        good in prop::collection::vec((1u8..=3, 0usize..40), 0..4),
        start in prop_oneof![0u64..10, any::<u64>()],
    ) {
        // Often something that begins as side data should.
        let mut at = 0;
        for (tag, length) in good {
            if at + 5 <= bytes.len() {
                bytes[at] = tag;
                bytes[at + 1..at + 5].copy_from_slice(&(length as u32).to_le_bytes());
                at += 5 + length;
            }
        }
        let _ = weights(2, 16, &bytes, start, 9);
    }

    #[test]
    fn rotating_back_gives_the_rows(cols in prop::sample::select(vec![8usize, 24, 64, 1152, 2048]), seed: u64) {
        let rotation = Rotation::new(cols, seed).expect("whole blocks");
        let mut signs = Vec::new();
        rotation.signs(cols, &mut signs);
        let rows: Vec<f32> = (0..2 * cols).map(|i| ((i * 7919) % 1009) as f32 / 1009.0 - 0.5).collect();
        let mut turned = rows.clone();
        rotation.forward(&signs, &mut turned);
        let norm = |x: &[f32]| x.iter().map(|&x| f64::from(x * x)).sum::<f64>();
        prop_assert!((norm(&turned) / norm(&rows) - 1.0).abs() < 1e-5);
        rotation.backward(&signs, &mut turned);
        prop_assert!(rows.iter().zip(&turned).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
