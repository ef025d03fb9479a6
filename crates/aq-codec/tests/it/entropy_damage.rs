//! Damaged parts of the entropy codec decode to something or are refused; never a panic, never more memory than asked for.

use aq_codec::entropy::{Centroids, DecodeScratch, check_parts, decode_rows, most_bytes};
use aq_core::{EncodedRows, SlabParts};
use proptest::prelude::*;

use crate::entropy_case::{Case, Random};

fn cases() -> Vec<Case> {
    vec![
        Case::normal(20, 40, 1.0, 0.0, u64::MAX, 1),
        Case::normal(90, 33, 0.7, 5.0, 60, 2),
        Case::normal(300, 256, 1.0, 2.0, 900, 3),
        Case::normal(30, 70, 500.0, 1.0, 20, 4),
        Case::normal(500, 400, 0.2, 0.0, u64::MAX, 5),
    ]
}

/// The part `scales` of that many rows of scale 1, their levels in two bytes.
fn plain_scales(rows: usize) -> Vec<u8> {
    let mut scales = (rows as u32).to_le_bytes().to_vec();
    scales.extend(1f32.to_le_bytes());
    scales.extend([0, 0, 128]);
    scales.resize(scales.len() + 2 * rows, 0);
    scales
}

/// Decodes all rows, and a few in the middle, if the parts allow it. What `check_parts` refuses is refused here too.
fn try_all(case: &Case, parts: SlabParts<'_>) {
    let (rows, mut scratch) = (case.rows(), DecodeScratch::default());
    let checked = check_parts(parts, case.cols, rows as u64);
    for (first, count) in [(0, rows), (rows / 2, 3)] {
        let mut out = vec![0.0; count * case.cols];
        let done = decode_rows(parts, case.cols, rows as u64, first, count, &mut scratch, &mut out);
        assert!(checked.is_ok() || done.is_err(), "{checked:?}");
    }
}

#[test]
fn every_byte_may_be_wrong() {
    for (n, case) in cases().into_iter().enumerate() {
        let whole = case.encode(Centroids::Same([9, 5, 3]));
        let mut random = Random(n as u64);
        let places = (0..whole.offsets.len().min(120)).map(|i| (false, i));
        let places = places.chain((0..60).map(|_| (true, random.next() as usize % whole.codes.len())));
        for at in 0..whole.scales.len() {
            for flip in [1, 0x80, 0xff] {
                let mut encoded = whole.clone();
                encoded.scales[at] ^= flip;
                let mut out = vec![0.0; 3 * case.cols];
                let rows = case.rows() as u64;
                let (parts, mut scratch) = (encoded.parts(), DecodeScratch::default());
                let checked = check_parts(parts, case.cols, rows);
                let done = decode_rows(parts, case.cols, rows, 1, 3, &mut scratch, &mut out);
                assert!(checked.is_ok() || done.is_err() || at < 4, "{checked:?}");
            }
        }
        for (in_codes, at) in places.chain((0..40).map(|i| (true, i))) {
            for flip in [1, 0x80, 0xff] {
                let mut encoded = whole.clone();
                *(if in_codes { &mut encoded.codes[at] } else { &mut encoded.offsets[at] }) ^= flip;
                try_all(&case, encoded.parts());
            }
        }
    }
}

#[test]
fn every_part_may_end_early_or_late() {
    for case in cases() {
        let whole = case.encode(Centroids::Same([9, 5, 3]));
        let EncodedRows { codes, offsets, .. } = &whole;
        for cut in (0..offsets.len()).chain([offsets.len() + 1]) {
            let mut offsets = offsets.clone();
            offsets.resize(cut, 0);
            let parts = SlabParts { offsets: &offsets, ..whole.parts() };
            assert!(check_parts(parts, case.cols, case.rows() as u64).is_err());
            try_all(&case, parts);
        }
        for cut in [0, 1, 2, codes.len() / 2, codes.len() - 1, codes.len() + 1, codes.len() + 2] {
            let mut codes = codes.clone();
            codes.resize(cut, 0);
            let parts = SlabParts { codes: &codes, ..whole.parts() };
            assert!(check_parts(parts, case.cols, case.rows() as u64).is_err());
            try_all(&case, parts);
        }
        for (cols, rows) in
            [(case.cols + 1, case.rows()), (case.cols, case.rows() * 9), (1 << 40, case.rows())]
        {
            let scales = plain_scales(rows);
            let parts = SlabParts { scales: &scales, ..whole.parts() };
            let _ = check_parts(parts, cols, rows as u64);
            let mut out = vec![0.0; if cols < 1 << 20 { cols } else { 0 }];
            let _ = decode_rows(parts, cols, 1, 0, 1, &mut DecodeScratch::default(), &mut out);
        }
    }
}

#[test]
fn words_that_no_encoder_wrote_are_noticed() {
    // All weights are interleaved with a tail, so the states end at what they began with, or the words are wrong.
    let case = Case::normal(500, 400, 1.0, 0.0, u64::MAX, 6);
    let whole = case.encode(Centroids::Same([0; 3]));
    let mut scratch = DecodeScratch::default();
    let mut out = vec![0.0; case.codes.len()];
    let mut noticed = 0;
    for at in (200..whole.codes.len()).step_by(whole.codes.len() / 20) {
        let mut encoded = whole.clone();
        encoded.codes[at] ^= 4;
        let done = decode_rows(
            encoded.parts(),
            case.cols,
            case.rows() as u64,
            0,
            case.rows(),
            &mut scratch,
            &mut out,
        );
        noticed += usize::from(done.is_err());
    }
    assert!(noticed > 10, "{noticed} of 20");
}

proptest! {
    #[test]
    fn any_header_is_read_or_refused(
        offsets in prop::collection::vec(any::<u8>(), 0..200),
        codes in prop::collection::vec(any::<u8>(), 0..400),
        cols in 1usize..300,
        rows in 1usize..20,
    ) {
        let scales = plain_scales(rows);
        let parts = SlabParts { codes: &codes, scales: &scales, offsets: &offsets, ..SlabParts::default() };
        let _ = check_parts(parts, cols, rows as u64);
        let _ = decode_rows(parts, cols, rows as u64, 0, rows, &mut DecodeScratch::default(), &mut vec![0.0; rows * cols]);
    }

    #[test]
    fn limits_hold_for_any_codes(codes in prop::collection::vec(any::<i32>(), 1..300), cols in 1usize..40, wide: bool) {
        let codes: Vec<i32> = codes.into_iter().map(|c| if wide { c } else { c >> (c & 31) }).collect();
        let rows = codes.len() / cols;
        let steps = (0..cols).map(|j| (j * j % 250) as u8 as i8).collect();
        let case = Case::new(rows, cols, Some(steps), codes[..rows * cols].to_vec());
        let encoded = case.encode(Centroids::Same([1; 3]));
        let lengths = [&encoded.codes, &encoded.scales, &encoded.offsets, &encoded.extra].map(|p| p.len() as u64);
        let most = most_bytes(cols, rows as u64).expect("small");
        prop_assert!(lengths.iter().zip(most).all(|(got, most)| *got <= most), "{lengths:?} {most:?}");
    }
}
