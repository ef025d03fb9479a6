//! What is encoded by the entropy codec comes back, takes about its entropy, and always in the same bytes.

use aq_codec::CodecError;
use aq_codec::entropy::{
    Centroids, DecodeScratch, EncodeScratch, check_parts, decode_rows, encode_slab, estimated_bytes,
};
use aq_core::EncodedRows;
use proptest::prelude::*;

use crate::entropy_case::{Case, Random};

/// Decodes all rows at once, each row alone, and a few runs.
fn check_rows(case: &Case, encoded: &EncodedRows, want: &[f32]) {
    let (rows, cols) = (case.rows(), case.cols);
    assert_eq!(check_parts(encoded.parts(), cols, rows as u64), Ok(()));
    let mut scratch = DecodeScratch::default();
    let step = (rows / 7).max(1);
    let runs = [(0, rows), (rows / 2, rows - rows / 2), (rows / 3, rows / 3)];
    for (first, count) in runs.into_iter().chain((0..rows).step_by(step).map(|i| (i, 1))) {
        let mut out = vec![f32::NAN; count * cols];
        decode_rows(encoded.parts(), cols, rows as u64, first, count, &mut scratch, &mut out)
            .expect("whole parts");
        let want = &want[first * cols..][..count * cols];
        let wrong = out.iter().zip(want).position(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(
            wrong,
            None,
            "rows {first}, {count}: {:?} {:?}",
            wrong.map(|i| out[i]),
            wrong.map(|i| want[i])
        );
    }
}

fn codes() -> impl Strategy<Value = i32> {
    prop_oneof![8 => -3i32..4, 2 => -200i32..200, 1 => any::<i32>()]
}

fn cases() -> impl Strategy<Value = Case> {
    (0usize..70, 0usize..40, any::<bool>(), any::<bool>()).prop_flat_map(|(cols, rows, steps, wide)| {
        let steps = prop::collection::vec(if steps { i8::MIN..=i8::MAX } else { 0..=3 }, cols);
        let levels = prop::collection::vec(if wide { -2000i16..=2000 } else { -9..=9 }, rows);
        (prop::collection::vec(codes(), rows * cols), steps, 5u8..=12, levels).prop_map(
            move |(codes, steps, fineness, levels)| Case {
                codes,
                cols,
                steps: Some(steps),
                fineness,
                levels,
            },
        )
    })
}

proptest! {
    #[test]
    fn any_codes_come_back(case in cases(), deltas in prop::array::uniform3(any::<i8>())) {
        check_rows(&case, &case.encode(Centroids::Same(deltas)), &case.weights(deltas));
    }
}

#[test]
fn codes_of_every_kind_come_back() {
    let never = u64::MAX;
    let cases = [
        Case::normal(1, 5000, 1.0, 0.0, never, 1),
        Case::normal(5000, 1, 2.0, 0.0, 900, 2),
        Case::normal(300, 27, 0.2, 0.0, never, 3),
        Case::normal(700, 300, 0.7, 3.0, 5000, 4),
        Case::normal(700, 300, 40.0, 2.0, 5000, 5),
        Case::normal(3, 200_000, 0.1, 0.0, never, 6),
        Case::normal(40, 4000, 1000.0, 0.0, 100, 7),
        Case::normal(2000, 100, 0.0, 0.0, never, 8),
        Case::new(200, 900, None, vec![1000; 200 * 900]),
        Case::new(2, 3, Some(vec![5, 5, 5]), vec![i32::MIN, i32::MAX, 0, -1, 1, i32::MIN]),
        Case::new(4, 0, None, vec![]),
        Case::new(0, 4, Some(vec![0, 1, 2, 3]), vec![]),
    ];
    for case in cases {
        check_rows(&case, &case.encode(Centroids::Same([10, -3, 1])), &case.weights([10, -3, 1]));
    }
}

#[test]
fn scratch_buffers_leave_no_trace() {
    let cases = [
        Case::normal(700, 300, 2.0, 3.0, 500, 1),
        Case::normal(40, 70, 300.0, 0.0, 50, 2),
        Case::normal(3, 9, 1.0, 0.0, u64::MAX, 3),
    ];
    let (mut scratch, mut decoding) = (EncodeScratch::default(), DecodeScratch::default());
    for case in cases.iter().chain(cases.iter().rev()) {
        let mut out = EncodedRows::default();
        estimated_bytes(case.slab(), case.scales(), &mut scratch);
        encode_slab(case.slab(), case.scales(), Centroids::Same([0; 3]), &mut scratch, &mut out);
        assert_eq!(out, case.encode(Centroids::Same([0; 3])));
        let mut weights = vec![0.0; case.codes.len()];
        decode_rows(out.parts(), case.cols, case.rows() as u64, 0, case.rows(), &mut decoding, &mut weights)
            .expect("whole parts");
        assert_eq!(weights, case.weights([0; 3]));
    }
}

#[test]
fn bytes_are_close_to_the_entropy() {
    // Bits, rows, cols, how far above the entropy in thousandths.
    for (spread, rows, cols, most) in [
        (0.92, 128, 128, 20),
        (0.92, 384, 128, 10),
        (0.6, 1024, 1024, 5),
        (0.92, 1024, 1024, 4),
        (3.8, 1024, 1024, 4),
        (62.0, 1024, 1024, 4),
    ] {
        let case = Case::normal(rows, cols, spread, 0.0, u64::MAX, 7);
        let encoded = case.encode(Centroids::Same([0; 3]));
        let bits = 8.0 * (encoded.codes.len() + encoded.offsets.len()) as f64;
        let excess = bits / case.entropy() - 1.0;
        assert!(excess * 1000.0 < f64::from(most), "{spread}, {rows} x {cols}: {excess}");
    }
}

#[test]
fn unlike_columns_cost_their_own_entropy() {
    let mixed = Case::normal(512, 256, 0.4, 4.0, u64::MAX, 3);
    let own: f64 = (0..256)
        .map(|j| {
            Case::new(512, 1, None, mixed.codes.iter().skip(j).step_by(256).copied().collect()).entropy()
        })
        .sum();
    let with_steps = mixed.encode(Centroids::Same([0; 3])).codes.len() as f64 * 8.0;
    let without =
        Case { steps: None, ..mixed.clone() }.encode(Centroids::Same([0; 3])).codes.len() as f64 * 8.0;
    assert!(
        own > mixed.entropy() * 0.7 && with_steps < own * 1.02 && without < own * 1.02,
        "{own} {with_steps} {without}"
    );
}

#[test]
fn the_estimate_is_close() {
    for (rows, cols, spread, growth, rare) in [
        (128, 128, 0.9, 0.0, u64::MAX),
        (96, 512, 0.5, 3.0, u64::MAX),
        (1024, 700, 1.5, 0.0, 2000),
        (300, 800, 80.0, 2.0, u64::MAX),
        (64, 27, 0.01, 0.0, u64::MAX),
    ] {
        let case = Case::normal(rows, cols, spread, growth, rare, 11);
        let estimate = estimated_bytes(case.slab(), case.scales(), &mut EncodeScratch::default()) as f64;
        let bytes = case.encode(Centroids::Same([1; 3])).bytes() as f64;
        assert!((estimate - bytes).abs() < 12.0 + bytes * 0.002, "{rows} x {cols}: {estimate} {bytes}");
    }
}

#[test]
fn centroids_lower_the_error() {
    let (rows, cols) = (64, 200);
    let mut random = Random(5);
    let case = Case::new(rows, cols, None, vec![0; rows * cols]);
    let weights: Vec<f32> = (0..rows * cols).map(|i| random.normal() as f32 * case.scale(i / cols)).collect();
    let codes = weights.iter().enumerate().map(|(i, w)| (w / case.scale(i / cols)).round() as i32).collect();
    let case = Case { codes, ..case };
    let error = |centroids| {
        let encoded = case.encode(centroids);
        let mut out = vec![0.0; weights.len()];
        let mut scratch = DecodeScratch::default();
        decode_rows(encoded.parts(), cols, rows as u64, 0, rows, &mut scratch, &mut out)
            .expect("whole parts");
        weights.iter().zip(&out).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
    };
    let best = error(Centroids::Nearest(&weights));
    assert!(best < 0.97 * error(Centroids::Same([0; 3])));
    for other in [[20, 30, 40], [40, 20, 30], [30, 50, 60]] {
        assert!(best <= error(Centroids::Same(other)) * 1.0001);
    }
}

/// FNV-1a, 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn the_bytes_never_change() {
    let tiny = Case::new(2, 3, Some(vec![0, 4, -4]), vec![0, -1, 2, 0, 0, 700]);
    let EncodedRows { codes, scales, offsets, extra, .. } = tiny.encode(Centroids::Same([64, 0, 0]));
    assert_eq!(codes, [60, 4, 206, 124, 240, 2, 0, 12]);
    let expected =
        [2, 0, 0, 0, 164, 112, 189, 62, 236, 255, 4, 193, 1, 44, 16, 251, 192, 168, 32, 0, 48, 111, 0];
    assert_eq!(scales, expected);
    assert_eq!(
        offsets,
        [
            148, 63, 72, 64, 5, 82, 3, 27, 32, 51, 176, 41, 109, 0, 172, 187, 16, 8, 0, 32, 224, 3, 86, 160,
            245, 255, 255, 255, 255, 31, 88, 40, 0
        ]
    );
    assert_eq!(extra, []);
    let cases = [
        Case::normal(96, 130, 0.9, 2.0, 3000, 1),
        Case::normal(600, 400, 1.2, 3.0, 5000, 2),
        Case::normal(100, 70, 90.0, 0.0, u64::MAX, 3),
    ];
    let hashes = cases.map(|case| {
        let EncodedRows { codes, scales, offsets, .. } = case.encode(Centroids::Same([5, 6, 7]));
        [hash(&codes), hash(&scales), hash(&offsets)]
    });
    let expected = [
        [7319012426169837796, 13844702545483767969, 7669798828803858508],
        [4922233099885444765, 14090648480073141990, 14597544798373507585],
        [5674166570770274603, 3156649557283577051, 6385099293272350879],
    ];
    assert_eq!(hashes, expected);
}

#[test]
fn errors_name_the_fact() {
    let case = Case::normal(40, 50, 1.0, 0.0, u64::MAX, 1);
    let encoded = case.encode(Centroids::Same([0; 3]));
    let parts = encoded.parts();
    assert_eq!(check_parts(parts, 50, 41), Err(CodecError::Damaged { part: "scales" }));
    let mut scratch = DecodeScratch::default();
    let mut decode =
        |first, count, out: &mut [f32]| decode_rows(parts, 50, 40, first, count, &mut scratch, out);
    assert_eq!(decode(0, 2, &mut [0.0; 99]), Err(CodecError::OutputLength { got: 99, expected: 100 }));
    assert_eq!(decode(39, 2, &mut [0.0; 100]), Err(CodecError::TooLarge { first: 39, count: 2 }));
    let damaged = CodecError::Damaged { part: "offsets" };
    assert_eq!(damaged.to_string(), "offsets are damaged: they do not decode to the rows they should hold");
    let cut = aq_core::SlabParts { offsets: &parts.offsets[..3], ..parts };
    assert_eq!(check_parts(cut, 50, 40), Err(damaged));
}
