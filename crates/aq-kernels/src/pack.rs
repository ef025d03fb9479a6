//! Codes of 2, 3, 4, 5, 6 or 8 bits to dense bytes and back.
//!
//! # The order of the bits
//!
//! A *run* is what one call gets: the codes of one group, or the zero points of one row. It is cut into chunks of 128
//! codes, of which the last may be shorter, and the chunks are stored one after another.
//!
//! In a chunk of `n` codes, the first `m = n - n % 8` codes are stored as planes. A width is split into planes of 4, 2
//! and 1 bits, from its low bits up:
//!
//! ```text
//! 2 = [2]   3 = [2, 1]   4 = [4]   5 = [4, 1]   6 = [4, 2]   8 = [8]
//! ```
//!
//! A plane of `p` bits takes `s = m * p / 8` bytes, and its byte `j` holds, from its low bits up, the plane's bits of
//! the codes `j`, `j + s`, `j + 2 s`, and so on: `8 / p` codes a byte. So 128 codes of 4 bits are 64 bytes, with code
//! `j` in the low and code `j + 64` in the high half of byte `j`; no shuffle is needed to make or to read them.
//!
//! The remaining `n % 8` codes follow as a plain stream of bits, the first code in the lowest bits of the first byte.
//! It takes `ceil(n % 8 * bits / 8)` bytes; the unused high bits of its last byte are 0.
//!
//! All in all a run of `n` codes takes `ceil(n * bits / 8)` bytes: [`packed_len`].

use pulp::{Simd, WithSimd};

use crate::dispatch::run;

/// Codes of a full chunk.
pub(crate) const CHUNK: usize = 128;

/// The bytes that a run of `n` codes takes: `ceil(n * bits / 8)`.
///
/// ```
/// assert_eq!(aq_kernels::pack::packed_len(3, 128), 48);
/// assert_eq!(aq_kernels::pack::packed_len(5, 3), 2);
/// ```
pub fn packed_len(bits: u8, n: usize) -> usize {
    let bits = usize::from(bits);
    n / 8 * bits + (n % 8 * bits).div_ceil(8)
}

/// The bytes of `n` codes in groups of `group`, each packed on its own.
///
/// ```
/// assert_eq!(aq_kernels::pack::groups_len(4, 128, 130), 65);
/// ```
pub fn groups_len(bits: u8, group: usize, n: usize) -> usize {
    n / group * packed_len(bits, group) + packed_len(bits, n % group)
}

/// Packs a run of codes in the order of this module. Bits of a code above its width are ignored.
///
/// # Panics
/// When `bits` is not 2, 3, 4, 5, 6 or 8, or `out` does not have [`packed_len`] bytes.
///
/// ```
/// let mut bytes = [0; 4];
/// aq_kernels::pack::pack(4, &[1, 2, 3, 4, 5, 6, 7, 8], &mut bytes);
/// assert_eq!(bytes, [0x51, 0x62, 0x73, 0x84]);
/// ```
pub fn pack(bits: u8, codes: &[u8], out: &mut [u8]) {
    assert_eq!(out.len(), packed_len(bits, codes.len()), "bytes of {} codes of {bits} bits", codes.len());
    run(Pack { bits, codes, out });
}

/// Unpacks a run of codes: the inverse of [`pack`].
///
/// # Panics
/// When `bits` is not 2, 3, 4, 5, 6 or 8, or `packed` does not have [`packed_len`] bytes.
///
/// ```
/// let mut codes = [0; 8];
/// aq_kernels::pack::unpack(4, &[0x51, 0x62, 0x73, 0x84], &mut codes);
/// assert_eq!(codes, [1, 2, 3, 4, 5, 6, 7, 8]);
/// ```
pub fn unpack(bits: u8, packed: &[u8], codes: &mut [u8]) {
    assert_eq!(packed.len(), packed_len(bits, codes.len()), "bytes of {} codes of {bits} bits", codes.len());
    run(Unpack { bits, packed, codes });
}

struct Pack<'a> {
    bits: u8,
    codes: &'a [u8],
    out: &'a mut [u8],
}

impl WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        match self.bits {
            2 => pack_run::<2>(self.codes, self.out),
            3 => pack_run::<3>(self.codes, self.out),
            4 => pack_run::<4>(self.codes, self.out),
            5 => pack_run::<5>(self.codes, self.out),
            6 => pack_run::<6>(self.codes, self.out),
            8 => self.out.copy_from_slice(self.codes),
            bits => no_such_width(bits),
        }
    }
}

struct Unpack<'a> {
    bits: u8,
    packed: &'a [u8],
    codes: &'a mut [u8],
}

impl WithSimd for Unpack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        match self.bits {
            2 => unpack_run::<2>(self.packed, self.codes),
            3 => unpack_run::<3>(self.packed, self.codes),
            4 => unpack_run::<4>(self.packed, self.codes),
            5 => unpack_run::<5>(self.packed, self.codes),
            6 => unpack_run::<6>(self.packed, self.codes),
            8 => self.codes.copy_from_slice(self.packed),
            bits => no_such_width(bits),
        }
    }
}

/// Panics at a width that there is not.
pub(crate) fn check_width(bits: u8) {
    if !matches!(bits, 2..=6 | 8) {
        no_such_width(bits);
    }
}

#[cold]
fn no_such_width(bits: u8) -> ! {
    panic!("codes have 2, 3, 4, 5, 6 or 8 bits, not {bits}")
}

/// The body of [`pack`], for kernels that need it on their way.
#[inline(always)]
pub(crate) fn pack_lanes<const BITS: usize>(codes: &[u8], out: &mut [u8]) {
    if BITS == 8 { out.copy_from_slice(codes) } else { pack_run::<BITS>(codes, out) }
}

/// The body of [`unpack`], for kernels that need it on their way.
#[inline(always)]
pub(crate) fn unpack_lanes<const BITS: usize>(packed: &[u8], codes: &mut [u8]) {
    if BITS == 8 { codes.copy_from_slice(packed) } else { unpack_run::<BITS>(packed, codes) }
}

#[inline(always)]
fn pack_run<const BITS: usize>(codes: &[u8], out: &mut [u8]) {
    for (codes, out) in codes.chunks(CHUNK).zip(out.chunks_mut(CHUNK / 8 * BITS)) {
        let (planes, rest) = codes.split_at(codes.len() & !7);
        let (out, out_rest) = out.split_at_mut(planes.len() / 8 * BITS);
        // A constant eighth lets the compiler lay out whole vectors for the usual lengths.
        match planes.len() / 8 {
            16 => pack_planes::<BITS>(16, planes, out),
            8 => pack_planes::<BITS>(8, planes, out),
            4 => pack_planes::<BITS>(4, planes, out),
            eighth => pack_planes::<BITS>(eighth, planes, out),
        }
        let word =
            rest.iter().rev().fold(0, |word, &code| word << BITS | u64::from(code) & ((1 << BITS) - 1));
        out_rest.iter_mut().zip(word.to_le_bytes()).for_each(|(out, byte)| *out = byte);
    }
}

#[inline(always)]
fn unpack_run<const BITS: usize>(packed: &[u8], codes: &mut [u8]) {
    for (packed, codes) in packed.chunks(CHUNK / 8 * BITS).zip(codes.chunks_mut(CHUNK)) {
        let whole = codes.len() & !7;
        let (planes, rest) = codes.split_at_mut(whole);
        let (packed, packed_rest) = packed.split_at(whole / 8 * BITS);
        match whole / 8 {
            16 => unpack_planes::<BITS>(16, packed, planes),
            8 => unpack_planes::<BITS>(8, packed, planes),
            4 => unpack_planes::<BITS>(4, packed, planes),
            eighth => unpack_planes::<BITS>(eighth, packed, planes),
        }
        let word = packed_rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        for (i, code) in rest.iter_mut().enumerate() {
            *code = (word >> (i * BITS)) as u8 & ((1 << BITS) - 1);
        }
    }
}

/// Packs eight pieces of `eighth` codes.
///
/// Every stride is a whole number of pieces: byte piece `q` of a plane of `p` bits is made of the code pieces
/// `q`, `q + p`, `q + 2 p`, ... The planes of a width up to 6 are the ones in its binary form: 5 = 4 + 1.
#[inline(always)]
fn pack_planes<const BITS: usize>(eighth: usize, codes: &[u8], out: &mut [u8]) {
    let (four, out) = out.split_at_mut(eighth * (BITS & 4));
    let (two, one) = out.split_at_mut(eighth * (BITS & 2));
    if BITS & 4 != 0 {
        pack_plane::<4>(eighth, codes, 0, four);
    }
    if BITS & 2 != 0 {
        pack_plane::<2>(eighth, codes, BITS & 4, two);
    }
    if BITS & 1 != 0 {
        pack_plane::<1>(eighth, codes, BITS & 6, one);
    }
}

/// Packs the `P` bits of each code from bit `first` on.
#[inline(always)]
fn pack_plane<const P: usize>(eighth: usize, codes: &[u8], first: usize, out: &mut [u8]) {
    let stride = eighth * P;
    let (codes, out) = (&codes[..8 * eighth], &mut out[..stride]);
    for j in 0..stride {
        let mut byte = 0;
        for k in 0..8 / P {
            byte |= ((codes[j + k * stride] >> first) & ((1 << P) - 1)) << (k * P);
        }
        out[j] = byte;
    }
}

/// Unpacks eight pieces of `eighth` codes: the inverse of [`pack_planes`].
#[inline(always)]
fn unpack_planes<const BITS: usize>(eighth: usize, packed: &[u8], codes: &mut [u8]) {
    let (four, packed) = packed.split_at(eighth * (BITS & 4));
    let (two, one) = packed.split_at(eighth * (BITS & 2));
    for piece in 0..8 {
        let codes = &mut codes[piece * eighth..][..eighth];
        if BITS & 4 != 0 {
            unpack_piece::<4>(eighth, four, piece, 0, codes);
        }
        if BITS & 2 != 0 {
            unpack_piece::<2>(eighth, two, piece, BITS & 4, codes);
        }
        if BITS & 1 != 0 {
            unpack_piece::<1>(eighth, one, piece, BITS & 6, codes);
        }
    }
}

/// Sets the bits of a piece of codes from bit `first` on; at 0 it clears the others.
#[inline(always)]
fn unpack_piece<const P: usize>(eighth: usize, plane: &[u8], piece: usize, first: usize, codes: &mut [u8]) {
    let bytes = &plane[piece % P * eighth..][..eighth];
    for i in 0..eighth {
        let bits = ((bytes[i] >> (piece / P * P)) & ((1 << P) - 1)) << first;
        codes[i] = if first == 0 { bits } else { codes[i] | bits };
    }
}
