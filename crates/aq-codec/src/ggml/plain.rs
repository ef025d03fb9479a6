//! Blocks of 32 weights.
//!
//! ```text
//! Q4_0, IQ4_NL   d f16, codes 16 bytes
//! Q4_1           d f16, m f16, codes 16 bytes               m = -dmin
//! Q5_0           d f16, fifth bits u32, codes 16 bytes
//! Q5_1           d f16, m f16, fifth bits u32, codes 16 bytes
//! Q8_0           d f16, codes 32 signed bytes
//! ```
//!
//! Byte `l` of 16 has codes `l` (low bits) and `16 + l`; bit `i` of the fifth bits is that of code `i`.

use aq_core::GgmlType;
use half::f16;

use super::{GgmlBlock, half_at, has_minimum, pack_nibbles, unpack_nibbles};

pub(super) fn pack(kind: GgmlType, block: &GgmlBlock, bytes: &mut [u8]) {
    bytes[..2].copy_from_slice(&block.d.to_le_bytes());
    let codes = &block.codes[..32];
    if kind == GgmlType::Q8_0 {
        bytes[2..].iter_mut().zip(codes).for_each(|(byte, code)| *byte = code ^ 0x80);
        return;
    }
    if has_minimum(kind) {
        bytes[2..4].copy_from_slice(&(-block.dmin).to_le_bytes());
    }
    let (head, nibbles) = bytes.split_at_mut(kind.block_bytes() - 16);
    if has_fifth_bit(kind) {
        let fifth = codes.iter().enumerate().fold(0, |bits, (i, code)| bits | u32::from(code >> 4 & 1) << i);
        let at = head.len() - 4;
        head[at..].copy_from_slice(&fifth.to_le_bytes());
    }
    pack_nibbles(16, codes, nibbles);
}

pub(super) fn unpack(kind: GgmlType, bytes: &[u8], block: &mut GgmlBlock) {
    block.d = half_at(bytes, 0);
    block.dmin = if has_minimum(kind) { -half_at(bytes, 2) } else { f16::ZERO };
    (block.scales[0], block.mins[0]) = (1, 1);
    let codes = &mut block.codes[..32];
    if kind == GgmlType::Q8_0 {
        codes.iter_mut().zip(&bytes[2..]).for_each(|(code, byte)| *code = byte ^ 0x80);
        return;
    }
    let (head, nibbles) = bytes.split_at(kind.block_bytes() - 16);
    unpack_nibbles(16, nibbles, codes);
    if let (true, Some(&fifth)) = (has_fifth_bit(kind), head.last_chunk::<4>()) {
        let fifth = u32::from_le_bytes(fifth);
        codes.iter_mut().enumerate().for_each(|(i, code)| *code |= ((fifth >> i & 1) << 4) as u8);
    }
}

fn has_fifth_bit(kind: GgmlType) -> bool {
    matches!(kind, GgmlType::Q5_0 | GgmlType::Q5_1)
}
