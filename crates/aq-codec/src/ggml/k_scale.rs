//! Blocks of 256 weights whose groups of 16 have a signed scale and no minimum.
//!
//! ```text
//! Q3_K   third bits 32 bytes; codes 64 bytes; scales 12 bytes; d f16
//! Q6_K   low four bits 128 bytes; high two bits 64 bytes; scales 16 signed bytes; d f16
//! ```
//!
//! `Q3_K`: bit `k` of byte `l` of the third bits is that of code `32 k + l`. A scale has 6 bits and 32 is taken from it: the low four of group `j` are
//! in byte `j % 8` (the high half from group 8 on), the high two in byte `8 + j % 4`, at bit `2 (j / 4)`.
//!
//! `Q6_K`, for each half of 128 codes: byte `l` of 64 has the low bits of codes `l` and `64 + l`; byte `l` of 32 the high bits of codes
//! `l`, `32 + l`, `64 + l` and `96 + l`.

use aq_core::GgmlType;
use half::f16;

use super::{GgmlBlock, half_at, pack_nibbles, pack_pairs, unpack_nibbles, unpack_pairs};

pub(super) fn pack(kind: GgmlType, block: &GgmlBlock, bytes: &mut [u8]) {
    let at = kind.block_bytes() - 2;
    bytes[at..].copy_from_slice(&block.d.to_le_bytes());
    match kind {
        GgmlType::Q6_K => pack_q6(block, bytes),
        _ => pack_q3(block, bytes),
    }
}

pub(super) fn unpack(kind: GgmlType, bytes: &[u8], block: &mut GgmlBlock) {
    (block.d, block.dmin) = (half_at(bytes, kind.block_bytes() - 2), f16::ZERO);
    match kind {
        GgmlType::Q6_K => unpack_q6(bytes, block),
        _ => unpack_q3(bytes, block),
    }
}

fn pack_q3(block: &GgmlBlock, bytes: &mut [u8]) {
    for (l, byte) in bytes[..32].iter_mut().enumerate() {
        *byte = (0..8).fold(0, |byte, k| byte | (block.codes[32 * k + l] >> 2 & 1) << k);
    }
    pack_pairs(&block.codes, &mut bytes[32..96]);
    let scales = block.scales.map(|scale| scale.wrapping_add(32) as u8 & 63);
    for j in 0..8 {
        bytes[96 + j] = scales[j] & 15 | scales[8 + j] << 4;
    }
    for j in 0..4 {
        bytes[104 + j] = (0..4).fold(0, |byte, k| byte | scales[4 * k + j] >> 4 << (2 * k));
    }
}

fn unpack_q3(bytes: &[u8], block: &mut GgmlBlock) {
    unpack_pairs(&bytes[32..96], &mut block.codes);
    for (k, codes) in block.codes.chunks_exact_mut(32).enumerate() {
        codes.iter_mut().zip(bytes).for_each(|(code, byte)| *code |= (byte >> k & 1) << 2);
    }
    for (j, scale) in block.scales.iter_mut().enumerate() {
        let (low, high) = (bytes[96 + j % 8] >> (4 * (j / 8)) & 15, bytes[104 + j % 4] >> (2 * (j / 4)) & 3);
        *scale = (low | high << 4) as i8 - 32;
    }
}

fn pack_q6(block: &GgmlBlock, bytes: &mut [u8]) {
    let (low, rest) = bytes.split_at_mut(128);
    pack_nibbles(64, &block.codes, low);
    pack_pairs(&block.codes.map(|code| code >> 4), &mut rest[..64]);
    rest[64..80].iter_mut().zip(&block.scales).for_each(|(byte, scale)| *byte = *scale as u8);
}

fn unpack_q6(bytes: &[u8], block: &mut GgmlBlock) {
    let mut high = [0; 256];
    unpack_pairs(&bytes[128..192], &mut high);
    unpack_nibbles(64, &bytes[..128], &mut block.codes);
    block.codes.iter_mut().zip(&high).for_each(|(code, high)| *code |= high << 4);
    block.scales.iter_mut().zip(&bytes[192..208]).for_each(|(scale, byte)| *scale = *byte as i8);
}
