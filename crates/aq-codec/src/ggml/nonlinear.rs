//! `IQ4_XS`: blocks of 256 weights whose codes pick values of a fixed table.
//!
//! ```text
//! d f16; high scale bits u16; low scale bits 4 bytes; codes 128 bytes
//! ```
//!
//! A scale has 6 bits and 32 is taken from it: the low four of group `j` are in byte `j / 2` (the high half for odd ones), the high two at bit
//! `2 j` of the u16. The 16 bytes of a group's codes are as those of `Q4_0`. `IQ4_NL` has the same table.

use half::f16;

use super::{GgmlBlock, half_at, pack_nibbles, unpack_nibbles};

/// What the codes of `IQ4_NL` and `IQ4_XS` stand for.
pub const NONLINEAR: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

pub(super) fn pack(block: &GgmlBlock, bytes: &mut [u8]) {
    bytes[..2].copy_from_slice(&block.d.to_le_bytes());
    let scales = block.scales.map(|scale| scale.wrapping_add(32) as u8 & 63);
    let high = (0..8).fold(0, |bits, j| bits | u16::from(scales[j] >> 4) << (2 * j));
    bytes[2..4].copy_from_slice(&high.to_le_bytes());
    for j in 0..4 {
        bytes[4 + j] = scales[2 * j] & 15 | scales[2 * j + 1] << 4;
    }
    pack_nibbles(16, &block.codes, &mut bytes[8..]);
}

pub(super) fn unpack(bytes: &[u8], block: &mut GgmlBlock) {
    (block.d, block.dmin) = (half_at(bytes, 0), f16::ZERO);
    let high = u16::from_le_bytes([bytes[2], bytes[3]]);
    for (j, scale) in block.scales[..8].iter_mut().enumerate() {
        let low = bytes[4 + j / 2] >> (4 * (j % 2)) & 15;
        *scale = (low | ((high >> (2 * j) & 3) << 4) as u8) as i8 - 32;
    }
    unpack_nibbles(16, &bytes[8..], &mut block.codes);
}
