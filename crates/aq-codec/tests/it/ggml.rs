//! What is pushed into a block of ggml comes out of it.

use aq_codec::ggml::{GgmlBlock, bias, decode_block, has_minimum, push_block};
use aq_codec::{CodecError, ReadScratch, check, decode, encoded_bytes, part_lengths};
use aq_core::{DType, EncodedRows, Encoding, GgmlType, SlabParts, TensorInfo};
use half::f16;
use proptest::prelude::*;

/// Numbers of any size made into what a type has a place for.
fn block(kind: GgmlType, d: i16, dmin: i16, numbers: &[u8]) -> GgmlBlock {
    let half = |x: i16| f16::from_f32(f32::from(x) / 256.0);
    let groups = kind.block_weights() / kind.group_weights();
    let codes: [u8; 256] = std::array::from_fn(|i| match i < kind.block_weights() {
        true => numbers[i % numbers.len()].wrapping_mul(i as u8 | 1) & kind.bits().max_code(),
        false => 0,
    });
    let mut block = GgmlBlock { d: half(d), codes, ..GgmlBlock::default() };
    if has_minimum(kind) {
        block.dmin = half(dmin);
    }
    if groups == 1 {
        return block;
    }
    for (g, (scale, min)) in block.scales.iter_mut().zip(&mut block.mins).enumerate().take(groups) {
        let number = numbers[g % numbers.len()].wrapping_add(g as u8);
        *scale = match kind {
            GgmlType::Q2_K => (number & 15) as i8,
            GgmlType::Q4_K | GgmlType::Q5_K => (number & 63) as i8,
            GgmlType::Q6_K => number as i8,
            _ => (number & 63) as i8 - 32,
        };
        if has_minimum(kind) {
            *min = number.rotate_left(3) & if kind == GgmlType::Q2_K { 15 } else { 63 };
        }
    }
    block
}

proptest! {
    #[test]
    fn blocks_come_back(
        at in 0..GgmlType::ALL.len(),
        d: i16,
        dmin: i16,
        numbers in prop::collection::vec(any::<u8>(), 1..300),
        blocks in 1usize..4,
    ) {
        let kind = GgmlType::ALL[at];
        let (mut encoded, mut wanted) = (EncodedRows::default(), vec![0.0; blocks * kind.block_weights()]);
        for (i, out) in wanted.chunks_mut(kind.block_weights()).enumerate() {
            let block = block(kind, d, dmin, &numbers[i % numbers.len()..]);
            push_block(kind, &block, &mut encoded);
            decode_block(kind, &block, out);
        }
        let info = TensorInfo::new("w", vec![1, wanted.len() as u64], DType::F32)?;
        let encoding = Encoding::Ggml(kind);
        prop_assert_eq!(encoded.codes.len(), blocks * kind.block_bytes());
        prop_assert_eq!(encoded_bytes(&info, &encoding), encoded.bytes());
        prop_assert_eq!(check(&encoding, &info, encoded.parts(), 1), Ok(()));
        let mut out = vec![0.0; wanted.len()];
        decode(&encoding, &info, encoded.parts(), 1, 0, &mut ReadScratch::default(), &mut out)?;
        prop_assert_eq!(out, wanted);
    }

    #[test]
    fn any_bytes_decode(at in 0..GgmlType::ALL.len(), bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        let encoding = Encoding::Ggml(GgmlType::ALL[at]);
        let info = TensorInfo::new("w", vec![1, 256], DType::F32)?;
        let parts = SlabParts { codes: &bytes, ..SlabParts::default() };
        let due = part_lengths(&info, &encoding, 1).expect("whole blocks").limits()[0];
        let done = decode(&encoding, &info, parts, 1, 0, &mut ReadScratch::default(), &mut [0.0; 256]);
        prop_assert_eq!(done.is_ok(), bytes.len() as u64 >= due);
        prop_assert_eq!(check(&encoding, &info, parts, 1).is_ok(), bytes.len() as u64 == due);
    }
}

/// The formulas of ggml, written out for one weight of each kind of block.
#[test]
fn weights_are_those_of_the_formulas() {
    let mut weights = [0.0; 256];
    for kind in GgmlType::ALL {
        let block = block(kind, 300, -77, &[0xa7, 0x35, 0x5b, 0xe2]);
        let out = &mut weights[..kind.block_weights()];
        decode_block(kind, &block, out);
        let (d, dmin) = (block.d.to_f32(), block.dmin.to_f32());
        for (i, &w) in out.iter().enumerate() {
            let g = i / kind.group_weights();
            let code = f32::from(block.codes[i]) - f32::from(bias(kind));
            let expected = match kind {
                GgmlType::IQ4_NL | GgmlType::IQ4_XS => continue,
                _ => d * f32::from(block.scales[g]) * code - dmin * f32::from(block.mins[g]),
            };
            assert!((w - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{kind} {i}: {w} {expected}");
        }
    }
}

#[test]
fn rows_that_are_no_whole_blocks_are_refused() {
    let info = TensorInfo::new("w", vec![2, 100], DType::F32).expect("a shape");
    let encoding = Encoding::Ggml(GgmlType::Q4_0);
    assert_eq!(part_lengths(&info, &encoding, 2), None);
    let done =
        decode(&encoding, &info, SlabParts::default(), 2, 0, &mut ReadScratch::default(), &mut [0.0; 200]);
    assert!(matches!(done, Err(CodecError::TooLarge { .. })));
}
