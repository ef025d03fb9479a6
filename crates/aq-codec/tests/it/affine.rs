//! What is pushed into the affine codec comes out of it.

use aq_codec::{
    AffineRow, ReadScratch, check_parts, decode_rows, encoded_bytes, power_of_two, push_row, row_bytes, seal,
};
use aq_core::{AffineEncoding, BitWidth, DType, EncodedRows, Encoding, GroupSize, OffsetKind, TensorInfo};
use half::f16;
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Case {
    encoding: AffineEncoding,
    cols: usize,
    rows: usize,
    /// Numbers that codes, scales and offsets are drawn from.
    seed: u64,
    exponents: Vec<i8>,
}

fn encodings() -> impl Strategy<Value = AffineEncoding> {
    let bits = prop::sample::select(BitWidth::ALL.to_vec());
    let group_size = prop::sample::select(vec![0u32, 16, 24, 64, 128, 1024]);
    let offset = prop::sample::select(vec![OffsetKind::ZeroPoint, OffsetKind::F16]);
    (bits, group_size, offset).prop_map(|(bits, group, offset)| AffineEncoding {
        bits,
        group_size: GroupSize::new(group).expect("a valid size"),
        offset,
    })
}

fn cases() -> impl Strategy<Value = Case> {
    let exponents = prop::collection::vec(prop_oneof![3 => Just(0i8), 1 => -126i8..=112], 5);
    (encodings(), 1usize..600, 1usize..5, any::<u64>(), exponents)
        .prop_map(|(encoding, cols, rows, seed, exponents)| Case { encoding, cols, rows, seed, exponents })
}

/// A small generator, so that a case is a few numbers.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    *state >> 33
}

struct PlainRow {
    codes: Vec<u8>,
    scales: Vec<f32>,
    offsets: Vec<f32>,
    exponent: i8,
}

fn plain_rows(case: &Case) -> Vec<PlainRow> {
    let mut state = case.seed;
    let levels = u64::from(case.encoding.bits.max_code()) + 1;
    let groups = case.encoding.group_size.groups(case.cols);
    let half = |state: &mut u64| f16::from_f32(next(state) as f32 / 2e9 - 0.5).to_f32();
    let rows = (0..case.rows).map(|i| PlainRow {
        codes: (0..case.cols).map(|_| (next(&mut state) % levels) as u8).collect(),
        scales: (0..groups).map(|_| half(&mut state)).collect(),
        offsets: (0..groups)
            .map(|_| match case.encoding.offset {
                OffsetKind::ZeroPoint => (next(&mut state) % levels) as f32,
                OffsetKind::F16 => half(&mut state),
            })
            .collect(),
        exponent: case.exponents[i],
    });
    rows.collect()
}

fn encode(case: &Case, rows: &[PlainRow]) -> EncodedRows {
    let mut out = EncodedRows::default();
    for row in rows {
        let PlainRow { codes, scales, offsets, exponent } = row;
        push_row(&case.encoding, AffineRow { codes, scales, offsets, exponent: *exponent }, &mut out);
    }
    out
}

fn expected(case: &Case, row: &PlainRow) -> Vec<f32> {
    let group = case.encoding.group_size.weights(case.cols);
    let weight = |(i, &code): (usize, &u8)| {
        let (scale, offset) = (row.scales[i / group], row.offsets[i / group]);
        let value = match case.encoding.offset {
            OffsetKind::ZeroPoint => (f32::from(code) - offset) * scale,
            OffsetKind::F16 => f32::from(code) * scale + offset,
        };
        value * power_of_two(row.exponent)
    };
    row.codes.iter().enumerate().map(weight).collect()
}

proptest! {
    #[test]
    fn rows_come_back_together_and_one_by_one(case in cases()) {
        let rows = plain_rows(&case);
        let mut encoded = encode(&case, &rows);
        let wanted: Vec<f32> = rows.iter().flat_map(|row| expected(&case, row)).collect();
        let (mut scratch, mut out) = (ReadScratch::default(), vec![f32::NAN; wanted.len()]);
        for _ in 0..2 {
            prop_assert_eq!(check_parts(&case.encoding, case.cols, encoded.parts(), case.rows as u64), Ok(()));
            decode_rows(&case.encoding, case.cols, encoded.parts(), 0, case.rows, &mut scratch, &mut out)?;
            prop_assert_eq!(&out, &wanted);
            for i in (0..case.rows).rev() {
                let one = &mut out[..case.cols];
                decode_rows(&case.encoding, case.cols, encoded.parts(), i, 1, &mut scratch, one)?;
                prop_assert_eq!(&*one, &wanted[i * case.cols..][..case.cols]);
            }
            seal(&mut encoded);
        }
    }

    #[test]
    fn sizes_are_exact(case in cases()) {
        let mut encoded = encode(&case, &plain_rows(&case));
        encoded.extra.iter_mut().for_each(|e| *e = 0);
        seal(&mut encoded);
        let info = TensorInfo::new("w", vec![case.rows as u64, case.cols as u64], DType::F32)?;
        prop_assert_eq!(encoded_bytes(&info, &Encoding::Affine(case.encoding)), encoded.bytes());
        let row = row_bytes(&case.encoding, case.cols);
        prop_assert_eq!(row.total() * case.rows, encoded.bytes() as usize);
    }

    #[test]
    fn a_part_of_another_length_is_refused(case in cases(), part in 0usize..4, longer: bool) {
        let mut encoded = encode(&case, &plain_rows(&case));
        encoded.extra[0] = 1;
        let bytes = match part {
            0 => &mut encoded.codes,
            1 => &mut encoded.scales,
            2 => &mut encoded.offsets,
            _ => &mut encoded.extra,
        };
        if longer { bytes.push(0) } else { bytes.pop(); }
        let only_exponent_dropped = part == 3 && encoded.extra.is_empty();
        let checked = check_parts(&case.encoding, case.cols, encoded.parts(), case.rows as u64);
        prop_assert_eq!(checked.is_ok(), only_exponent_dropped);
        let mut out = vec![0.0; case.rows * case.cols];
        let decoded =
            decode_rows(&case.encoding, case.cols, encoded.parts(), 0, case.rows, &mut ReadScratch::default(), &mut out);
        prop_assert_eq!(decoded.is_ok(), longer || only_exponent_dropped);
    }
}

#[test]
fn seal_keeps_exponents_that_matter() {
    let mut rows = EncodedRows { extra: vec![0, 0], ..EncodedRows::default() };
    seal(&mut rows);
    assert!(rows.extra.is_empty());
    rows.extra = vec![0, 0xff];
    seal(&mut rows);
    assert_eq!(rows.extra, [0, 0xff]);
}

#[test]
fn powers_of_two_are_exact() {
    for e in i8::MIN..=i8::MAX {
        assert_eq!(f64::from(power_of_two(e)), 2f64.powi(e.into()), "{e}");
    }
}
