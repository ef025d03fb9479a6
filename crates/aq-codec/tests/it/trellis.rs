//! The layout of the `trellis` codec, and its tables.

use aq_codec::trellis::{Fit, Sequences, Trellis, encode_sequence, push_row, table_for};
use aq_codec::{CodecError, ReadScratch, check, decode, seal};
use aq_core::{BitWidth, DType, EncodedRows, Encoding, SlabParts, TensorInfo, TrellisEncoding};
use half::f16;
use proptest::prelude::*;

fn trellis(bits: u8, state_bits: u8) -> Trellis {
    Trellis::new(width(bits), state_bits).expect("there is one")
}

fn width(bits: u8) -> BitWidth {
    BitWidth::new(bits).expect("a valid width")
}

fn encoding(bits: u8) -> Encoding {
    Encoding::Trellis(TrellisEncoding { bits: width(bits) })
}

fn tensor(rows: u64, cols: u64) -> TensorInfo {
    TensorInfo::new("w", vec![rows, cols], DType::F32).expect("a valid shape")
}

/// The circular stream that the low bits of states make, read as `docs/format.md` says.
fn states_of(bits: usize, state_bits: usize, codes: &[u8]) -> Vec<u8> {
    let bit = |i: usize| codes[i / bits % codes.len()] >> (i % bits) & 1;
    let state = |i: usize| (0..state_bits).map(|l| bit(i * bits + l) << l).sum();
    (0..codes.len()).map(state).collect()
}

fn decoded(bits: u8, info: &TensorInfo, parts: SlabParts<'_>, first: u64, rows: u64) -> Vec<f32> {
    let mut out = vec![9.0; (info.cols() * rows) as usize];
    decode(&encoding(bits), info, parts, rows, first, &mut ReadScratch::default(), &mut out)
        .expect("rows that fit");
    out
}

#[test]
fn a_row_is_laid_out_as_documented() {
    let states = states_of(3, 8, &[5, 1, 2, 7, 0]);
    let fits = [Fit { table: 1, scale: 0.5 }];
    let mut out = EncodedRows::default();
    push_row(trellis(3, 8), Sequences { states: &states, fits: &fits, exponent: -1 }, &mut out);
    assert_eq!(out.codes, [0b10_001_101, 0b0000_1110]);
    assert_eq!(out.scales, f16::from_f32(-0.5).to_le_bytes());
    assert_eq!((&out.offsets[..], &out.extra[..]), (&[8][..], &[255][..]));
    let table = trellis(3, 8).table(1);
    let want: Vec<f32> = states.iter().map(|&s| f32::from(table[usize::from(s)]) * 0.25).collect();
    assert_eq!(decoded(3, &tensor(1, 5), out.parts(), 0, 1), want);
}

proptest! {
    #[test]
    fn rows_come_back(
        cols in 1usize..700,
        bits in 2u8..=4,
        state_bits in prop::sample::select(vec![6u8, 8]),
        codes in prop::collection::vec(any::<u8>(), 2100),
        exponents in prop::array::uniform3(-3i8..3),
        tables in any::<u8>(),
    ) {
        let code = trellis(bits, state_bits);
        let (mut out, mut want) = (EncodedRows::default(), Vec::new());
        for (row, exponent) in exponents.into_iter().enumerate() {
            let codes: Vec<u8> = codes[row * cols..][..cols].iter().map(|c| c & u8::MAX >> (8 - bits)).collect();
            let (mut states, mut fits) = (Vec::new(), Vec::new());
            for (i, codes) in codes.chunks(256).enumerate() {
                let fit = Fit { table: usize::from(tables >> (row + i) & 1), scale: 0.25 + i as f32 };
                let here = states_of(usize::from(bits), usize::from(state_bits), codes);
                let value = |&s: &u8| f32::from(code.table(fit.table)[usize::from(s)]);
                want.extend(here.iter().map(|s| value(s) * fit.scale * 2f32.powi(exponent.into())));
                states.extend(here);
                fits.push(fit);
            }
            push_row(code, Sequences { states: &states, fits: &fits, exponent }, &mut out);
        }
        let (info, encoding) = (tensor(3, cols as u64), encoding(bits));
        prop_assert_eq!(check(&encoding, &info, out.parts(), 3), Ok(()));
        prop_assert_eq!(&decoded(bits, &info, out.parts(), 0, 3), &want);
        prop_assert_eq!(&decoded(bits, &info, out.parts(), 2, 1)[..], &want[2 * cols..]);
        seal(&mut out);
        prop_assert_eq!(out.extra.is_empty(), exponents == [0; 3]);
    }
}

#[test]
fn tables_are_distinct_and_wide() {
    let all: Vec<&[i8]> = [6, 8]
        .into_iter()
        .flat_map(|l| [2, 3, 4].into_iter().flat_map(move |b| [0, 1].map(|i| trellis(b, l).table(i))))
        .collect();
    for (i, table) in all.iter().enumerate() {
        assert_eq!(table.len(), if i < 6 { 64 } else { 256 });
        assert!(all[..i].iter().all(|other| other != table));
        let (low, high) = (table.iter().min().unwrap(), table.iter().max().unwrap());
        assert!(*low < -45 && *high > 45 && *low > i8::MIN, "{i}: {low}..{high}");
        let mean = table.iter().map(|&v| f64::from(v)).sum::<f64>() / table.len() as f64;
        assert!(mean.abs() < 5.0, "{i}: {mean}");
    }
}

#[test]
fn sequences_choose_their_table_and_scale() {
    let flat: Vec<f32> = (0..256).map(|i| (i * 37 % 256) as f32 - 127.5).collect();
    let heavy: Vec<f32> = flat.iter().map(|w| w.powi(5)).collect();
    assert_eq!((table_for(&flat), table_for(&heavy)), (0, 1));
    for (code, weights) in [2, 3, 4]
        .into_iter()
        .flat_map(|b| [6, 8].map(|l| trellis(b, l)))
        .zip([&flat, &heavy].into_iter().cycle())
    {
        let mut states = vec![9; 256];
        let fit = encode_sequence(code, weights, None, &mut states);
        assert_eq!(fit.table, table_for(weights));
        // The scale is the best one for the states.
        let values: Vec<f64> =
            states.iter().map(|&s| f64::from(code.table(fit.table)[usize::from(s)])).collect();
        let product: f64 = weights.iter().zip(&values).map(|(&w, v)| f64::from(w) * v).sum();
        let best = product / values.iter().map(|v| v * v).sum::<f64>();
        assert!((f64::from(fit.scale) / best - 1.0).abs() < 1e-6, "{} {best}", fit.scale);
        let mut other = vec![9; 256];
        let tiny: Vec<f32> = weights.iter().map(|w| w * 2f32.powi(-40)).collect();
        assert_eq!(encode_sequence(code, &tiny, None, &mut other).scale, fit.scale * 2f32.powi(-40));
        assert_eq!(states, other);
    }
    let mut states = [9; 3];
    assert_eq!(encode_sequence(trellis(2, 8), &[0.0; 3], None, &mut states).scale, 0.0);
    assert_eq!(states, [0; 3]);
}

#[test]
fn what_is_no_trellis_is_refused() {
    let info = tensor(2, 300);
    let parts = SlabParts { codes: &[0; 150], scales: &[0; 8], offsets: &[8], ..SlabParts::default() };
    assert_eq!(check(&encoding(2), &info, parts, 2), Ok(()));
    let faults: [(SlabParts<'_>, CodecError); 5] = [
        (SlabParts { offsets: &[7], ..parts }, CodecError::Damaged { part: "offsets" }),
        (
            SlabParts { offsets: &[], ..parts },
            CodecError::PartLength { part: "offsets", got: 0, expected: 1 },
        ),
        (
            SlabParts { codes: &[0; 149], ..parts },
            CodecError::PartLength { part: "codes", got: 149, expected: 150 },
        ),
        (
            SlabParts { scales: &[0; 9], ..parts },
            CodecError::PartLength { part: "scales", got: 9, expected: 8 },
        ),
        (SlabParts { extra: &[0], ..parts }, CodecError::PartLength { part: "extra", got: 1, expected: 2 }),
    ];
    for (parts, fault) in faults {
        assert_eq!(check(&encoding(2), &info, parts, 2), Err(fault));
    }
    assert!(check(&encoding(5), &info, parts, 2).is_err());
    let mut out = [0.0; 300];
    let mut decode =
        |parts, first| decode(&encoding(2), &info, parts, 1, first, &mut ReadScratch::default(), &mut out);
    assert_eq!(decode(SlabParts { offsets: &[9], ..parts }, 0), Err(CodecError::Damaged { part: "offsets" }));
    assert!(decode(parts, 2).is_err());
    assert!(decode(parts, u64::MAX).is_err());
}
