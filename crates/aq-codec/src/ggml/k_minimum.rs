//! Blocks of 256 weights whose groups have a scale and a minimum.
//!
//! ```text
//! Q2_K   16 bytes, one for each group of 16: scale (low 4 bits) and minimum; codes 64 bytes; d f16; dmin f16
//! Q4_K   d f16; dmin f16; scales and minima 12 bytes; codes 128 bytes
//! Q5_K   d f16; dmin f16; scales and minima 12 bytes; fifth bits 32 bytes; codes 128 bytes
//! ```
//!
//! Scales and minima of `Q4_K` and `Q5_K` have 6 bits, one pair for each group of 32. Of groups 0 to 3 they are the low bits of bytes 0 to 3 and 4 to 7;
//! of group `4 + j` the low four bits are in byte `8 + j`, the scale's below the minimum's, and the high two on top of bytes `j` and `4 + j`.
//! Byte `32 n + l` of the codes has codes `64 n + l` and `64 n + 32 + l`; bit `k` of byte `l` of the fifth bits is that of code `32 k + l`.

use aq_core::GgmlType;

use super::{GgmlBlock, half_at, pack_nibbles, pack_pairs, unpack_nibbles, unpack_pairs};

pub(super) fn pack(kind: GgmlType, block: &GgmlBlock, bytes: &mut [u8]) {
    if kind == GgmlType::Q2_K {
        for (byte, (scale, min)) in bytes.iter_mut().zip(block.scales.iter().zip(&block.mins)) {
            *byte = *scale as u8 & 15 | min << 4;
        }
        pack_pairs(&block.codes, &mut bytes[16..80]);
        put_halves(block, &mut bytes[80..]);
        return;
    }
    put_halves(block, bytes);
    pack_sixes(block, &mut bytes[4..16]);
    if kind == GgmlType::Q5_K {
        for (l, byte) in bytes[16..48].iter_mut().enumerate() {
            *byte = (0..8).fold(0, |byte, k| byte | (block.codes[32 * k + l] >> 4 & 1) << k);
        }
    }
    pack_nibbles(32, &block.codes, &mut bytes[kind.block_bytes() - 128..]);
}

pub(super) fn unpack(kind: GgmlType, bytes: &[u8], block: &mut GgmlBlock) {
    if kind == GgmlType::Q2_K {
        for (byte, (scale, min)) in bytes.iter().zip(block.scales.iter_mut().zip(&mut block.mins)) {
            (*scale, *min) = ((byte & 15) as i8, byte >> 4);
        }
        unpack_pairs(&bytes[16..80], &mut block.codes);
        (block.d, block.dmin) = (half_at(bytes, 80), half_at(bytes, 82));
        return;
    }
    (block.d, block.dmin) = (half_at(bytes, 0), half_at(bytes, 2));
    unpack_sixes(&bytes[4..16], block);
    unpack_nibbles(32, &bytes[kind.block_bytes() - 128..], &mut block.codes);
    if kind == GgmlType::Q5_K {
        for (k, codes) in block.codes.chunks_exact_mut(32).enumerate() {
            codes.iter_mut().zip(&bytes[16..48]).for_each(|(code, byte)| *code |= (byte >> k & 1) << 4);
        }
    }
}

fn put_halves(block: &GgmlBlock, bytes: &mut [u8]) {
    bytes[..2].copy_from_slice(&block.d.to_le_bytes());
    bytes[2..4].copy_from_slice(&block.dmin.to_le_bytes());
}

fn pack_sixes(block: &GgmlBlock, bytes: &mut [u8]) {
    let scales = block.scales.map(|scale| scale as u8 & 63);
    for j in 0..4 {
        bytes[j] = scales[j] | scales[4 + j] >> 4 << 6;
        bytes[4 + j] = block.mins[j] & 63 | block.mins[4 + j] >> 4 << 6;
        bytes[8 + j] = scales[4 + j] & 15 | block.mins[4 + j] << 4;
    }
}

fn unpack_sixes(bytes: &[u8], block: &mut GgmlBlock) {
    for j in 0..4 {
        block.scales[j] = (bytes[j] & 63) as i8;
        block.mins[j] = bytes[4 + j] & 63;
        block.scales[4 + j] = (bytes[8 + j] & 15 | bytes[j] >> 6 << 4) as i8;
        block.mins[4 + j] = bytes[8 + j] >> 4 | bytes[4 + j] >> 6 << 4;
    }
}
