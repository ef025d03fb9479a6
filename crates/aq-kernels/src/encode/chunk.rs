//! Rounds and packs the weights of one group whose grid is known, and sums them up on the way.

use super::sums::{ChunkSums, RowSums};
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::pack::{CHUNK, pack_lanes};
use crate::weights::{Weight, load_padded};

/// What it takes to turn weights into codes.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    /// The value of code 0.
    pub(super) low: f32,
    pub(super) inverse: f32,
    pub(super) top: f32,
    pub(super) scale: f32,
    pub(super) zero: f32,
}

/// Rounds and packs one group.
#[inline(always)]
pub(super) fn encode_group<const BITS: usize, I: Isa, T: Weight>(
    isa: I,
    x: &[T],
    grid: Grid,
    out: &mut [u8],
    sums: &mut RowSums<I>,
) {
    let rounding = Rounding::new(isa, grid);
    for (x, out) in x.chunks(CHUNK).zip(out.chunks_mut(CHUNK / 8 * BITS)) {
        let mut chunk = ChunkSums::new(isa, grid.zero);
        match x.len() {
            // Constants, so that the usual lengths have no loops left.
            128 if matches!(BITS, 2 | 4 | 8) => rounding.planes::<BITS, T>(isa, 128, x, out, &mut chunk),
            64 if matches!(BITS, 2 | 4 | 8) => rounding.planes::<BITS, T>(isa, 64, x, out, &mut chunk),
            _ => {
                let mut codes = [0; CHUNK];
                rounding.bytes(isa, x, &mut codes, &mut chunk);
                pack_lanes::<BITS>(&codes[..x.len()], out);
            }
        }
        sums.add(isa, chunk, grid.scale);
    }
}

/// A grid in all lanes.
struct Rounding<I: Isa> {
    low: I::F,
    inverse: I::F,
    top: I::F,
}

/// Packing of full chunks happens in lanes of 32 bits, before they are narrowed: half or a quarter of the narrowing.
impl<I: Isa> Rounding<I> {
    #[inline(always)]
    fn new(isa: I, grid: Grid) -> Self {
        Self { low: isa.splat(grid.low), inverse: isa.splat(grid.inverse), top: isa.splat(grid.top) }
    }

    #[inline(always)]
    fn round(&self, isa: I, v: I::F) -> I::I {
        let v = isa.mul(isa.sub(v, self.low), self.inverse);
        isa.round(isa.min(isa.max(v, isa.splat(0.0)), self.top))
    }

    /// The `n` weights of a chunk of 2, 4 or 8 bits, whose bytes are one plane of whole vectors.
    #[inline(always)]
    fn planes<const BITS: usize, T: Weight>(
        &self,
        isa: I,
        n: usize,
        x: &[T],
        out: &mut [u8],
        sums: &mut ChunkSums<I>,
    ) {
        let stride = n / LANES * BITS / 8;
        let mut codes = [isa.round(isa.splat(0.0)); CHUNK / LANES];
        for (x, code) in x.as_chunks().0[..n / LANES].iter().zip(&mut codes) {
            *code = self.code(isa, T::load(isa, x), sums);
        }
        for (i, out) in out.as_chunks_mut().0[..stride].iter_mut().enumerate() {
            let byte = match BITS {
                2 => {
                    let low = isa.or(codes[i], isa.shl::<2>(codes[i + stride]));
                    let high = isa.or(codes[i + 2 * stride], isa.shl::<2>(codes[i + 3 * stride]));
                    isa.or(low, isa.shl::<4>(high))
                }
                4 => isa.or(codes[i], isa.shl::<4>(codes[i + stride])),
                _ => codes[i],
            };
            isa.narrow(byte, out);
        }
    }

    /// The codes of 16 weights, which are added to the sums.
    #[inline(always)]
    fn code(&self, isa: I, v: I::F, sums: &mut ChunkSums<I>) -> I::I {
        let code = self.round(isa, v);
        sums.add(isa, v, code);
        code
    }

    /// A chunk of any length, one code a byte.
    #[inline(always)]
    fn bytes<T: Weight>(&self, isa: I, x: &[T], codes: &mut [u8; CHUNK], sums: &mut ChunkSums<I>) {
        let (body, tail) = x.as_chunks();
        let codes = codes.as_chunks_mut().0;
        for (x, codes) in body.iter().zip(codes.iter_mut()) {
            isa.narrow(self.code(isa, T::load(isa, x), sums), codes);
        }
        if !tail.is_empty() {
            isa.narrow(self.code(isa, load_padded(isa, tail), sums), &mut codes[body.len()]);
        }
    }
}
