//! Streams of codes: written from states, read through a window.

use pulp::{Simd, WithSimd};

use super::SEQUENCE;
use crate::dispatch::run;
use crate::pack::packed_len;

/// Bytes of the longest stream, and as many as a window may reach beyond it.
const ROOM: usize = SEQUENCE / 2 + 8;

/// Writes the codes of a sequence, which are the low `bits` of its states. The rest of the last byte is 0.
///
/// # Panics
/// When `bits` is more than 8, or `out` is not `ceil(n * bits / 8)` bytes.
///
/// # Examples
/// ```
/// let mut stream = [0; 2];
/// aq_kernels::trellis::pack(3, &[5, 1, 2, 7], &mut stream);
/// assert_eq!(stream, [0b10_001_101, 0b1110]);
/// ```
pub fn pack(bits: u8, states: &[u8], out: &mut [u8]) {
    assert!(bits <= 8 && out.len() == packed_len(bits, states.len()), "a stream as long as its codes");
    for (states, out) in states.chunks(8).zip(out.chunks_mut(usize::from(bits))) {
        let mut word = 0;
        for (i, &state) in states.iter().enumerate() {
            word |= (u64::from(state) & ((1 << bits) - 1)) << (i * usize::from(bits));
        }
        out.copy_from_slice(&word.to_le_bytes()[..out.len()]);
    }
}

/// Reads the weights of a sequence: `(table[state] * scale) * factor`, each product rounded to `f32`.
///
/// Any bytes are a stream; bits after its end are not looked at.
///
/// # Panics
/// When `bits` is not 2, 3 or 4, `table` has neither 64 nor 256 values, `out` has more than [`SEQUENCE`] weights, or `stream`
/// is not `ceil(n * bits / 8)` bytes.
///
/// # Examples
/// ```
/// use aq_kernels::trellis::decode;
/// let table: Vec<i8> = (0..64).collect();
/// let mut weights = [0.0; 2];
/// decode(4, &table, &[0x21], 0.5, 1.0, &mut weights);
/// assert_eq!(weights, [f32::from(0b10_0001_u8) * 0.5, f32::from(0b01_0010_u8) * 0.5]);
/// ```
pub fn decode(bits: u8, table: &[i8], stream: &[u8], scale: f32, factor: f32, out: &mut [f32]) {
    assert!(
        out.len() <= SEQUENCE && stream.len() == packed_len(bits, out.len()),
        "a stream as long as its codes"
    );
    match (table.len(), bits) {
        (64, 2) => run(Decode::<64, 2> { table, stream, scale, factor, out }),
        (64, 3) => run(Decode::<64, 3> { table, stream, scale, factor, out }),
        (64, 4) => run(Decode::<64, 4> { table, stream, scale, factor, out }),
        (256, 2) => run(Decode::<256, 2> { table, stream, scale, factor, out }),
        (256, 3) => run(Decode::<256, 3> { table, stream, scale, factor, out }),
        (256, 4) => run(Decode::<256, 4> { table, stream, scale, factor, out }),
        (values, bits) => panic!("no trellis of {values} values and {bits} bits"),
    }
}

struct Decode<'a, const STATES: usize, const BITS: usize> {
    table: &'a [i8],
    stream: &'a [u8],
    scale: f32,
    factor: f32,
    out: &'a mut [f32],
}

impl<const STATES: usize, const BITS: usize> WithSimd for Decode<'_, STATES, BITS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Decode { table, stream, scale, factor, out } = self;
        let mut values = [0.0; STATES];
        for (value, &t) in values.iter_mut().zip(table) {
            *value = f32::from(t) * scale * factor;
        }
        let closed = closed::<STATES>(stream, out.len() * BITS);
        let (whole, rest) = out.as_chunks_mut::<8>();
        for (i, out) in whole.iter_mut().enumerate() {
            *out = Self::eight(&closed, &values, i);
        }
        let last = Self::eight(&closed, &values, whole.len());
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

impl<const STATES: usize, const BITS: usize> Decode<'_, STATES, BITS> {
    /// The weights of eight codes, which take `BITS` bytes.
    #[inline(always)]
    fn eight(closed: &[u8; ROOM + 8], values: &[f32; STATES], i: usize) -> [f32; 8] {
        let mut word = [0; 8];
        word.copy_from_slice(&closed[i * BITS..][..8]);
        let word = u64::from_le_bytes(word);
        std::array::from_fn(|l| values[(word >> (l * BITS)) as usize % STATES])
    }
}

/// The stream of `bits` bits followed by its first bits.
#[inline(always)]
fn closed<const STATES: usize>(stream: &[u8], bits: usize) -> [u8; ROOM + 8] {
    let mut closed = [0; ROOM + 8];
    closed[..stream.len()].copy_from_slice(stream);
    if bits.is_multiple_of(8) && bits > 0 {
        closed[stream.len()] = closed[0];
        return closed;
    }
    for i in 0..STATES.ilog2() as usize {
        let bit = closed.get(i / 8).map_or(0, |byte| byte >> (i % 8) & 1);
        let (byte, at) = ((bits + i) / 8, (bits + i) % 8);
        closed[byte] = closed[byte] & !(1 << at) | bit << at;
    }
    closed
}
