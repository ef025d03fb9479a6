//! Packed codes against the weights that they stand for.

use super::{Grid, Grids, Groups, has_whole_planes};
use crate::Weights;
use crate::isa::{Isa, Kernel, run};
use crate::lanes::{LANES, fold};
use crate::metric::Comparison;
use crate::pack::{CHUNK, packed_len};
use crate::weights::{Weight, load_padded};

/// Weights that are decoded before they are compared, so that the sums stay in registers for so long.
const BLOCK: usize = 512;

/// Compares the packed form of a run of groups with the weights it was made of.
///
/// The sums are what [`crate::metric::compare`] says of the weights and of what [`dequantize`](super::dequantize) makes of the codes,
/// to the last bit, without writing that down. `max_abs` is not looked for and stays 0.
///
/// # Panics
/// As [`dequantize`](super::dequantize).
///
/// ```
/// use aq_kernels::{Weights, decode::{Grids, Offsets, compare}};
/// let grids = Grids { scales: &[0.5], offsets: Offsets::Zero(&[2]), factor: 1.0 };
/// let c = compare(4, 4, Weights::F32(&[-1.0, 0.0, 2.0, 7.0]), &[0x20, 0xf6], grids);
/// assert_eq!((c.dot, c.error), (50.5, 0.25));
/// ```
pub fn compare(bits: u8, group: usize, x: Weights<'_>, packed: &[u8], grids: Grids<'_>) -> Comparison {
    let groups = Groups::new(bits, group, packed, grids, x.len());
    match x {
        Weights::F32(x) => run(Compare { groups, x }),
        Weights::F16(x) => run(Compare { groups, x }),
        Weights::BF16(x) => run(Compare { groups, x }),
    }
}

struct Compare<'a, T> {
    groups: Groups<'a>,
    x: &'a [T],
}

impl<T: Weight> Kernel for Compare<'_, T> {
    type Output = Comparison;

    #[inline(always)]
    fn call<I: Isa>(self, isa: I) -> Comparison {
        match self.groups.bits {
            2 => self.bits::<2, I>(isa),
            3 => self.bits::<3, I>(isa),
            4 => self.bits::<4, I>(isa),
            5 => self.bits::<5, I>(isa),
            6 => self.bits::<6, I>(isa),
            _ => self.bits::<8, I>(isa),
        }
    }
}

impl<T: Weight> Compare<'_, T> {
    #[inline(always)]
    fn bits<const BITS: usize, I: Isa>(self, isa: I) -> Comparison {
        let Groups { group, packed, grids, .. } = self.groups;
        let mut sums = Sums::default();
        // `filled` weights are decoded but not compared, room for one more chunk lies behind a full block.
        let (mut decoded, mut filled) = ([0.0; BLOCK + CHUNK], 0);
        let (mut x, mut left) = (self.x, self.x.len());
        for (i, packed) in packed.chunks(packed_len(BITS as u8, group)).enumerate() {
            let grid = Grid::<I>::new(isa, &grids, i, BITS);
            let mut in_group = group.min(left);
            left -= in_group;
            for packed in packed.chunks(CHUNK / 8 * BITS) {
                let n = in_group.min(CHUNK);
                in_group -= n;
                let room = &mut decoded[filled..][..CHUNK];
                if has_whole_planes(BITS, n) {
                    grid.chunk::<BITS, f32>(isa, packed, n, room);
                } else if let Some(room) = room.as_mut_array() {
                    grid.part::<BITS, f32>(isa, packed, n, room);
                }
                filled += n;
                if filled >= BLOCK {
                    let (block, rest) = x.split_at(BLOCK);
                    sums.add(isa, block.as_chunks().0, decoded[..BLOCK].as_chunks().0);
                    decoded.copy_within(BLOCK.., 0);
                    (x, filled) = (rest, filled - BLOCK);
                }
            }
        }
        // What lies behind the last weight becomes zeros, which add nothing.
        decoded[filled..].fill(0.0);
        let (body, tail) = x.as_chunks();
        let (near, far) = decoded.as_chunks().0.split_at(body.len());
        sums.add(isa, body, near);
        if !tail.is_empty() {
            let mut last = [T::ZERO; LANES];
            T::store(isa, load_padded(isa, tail), &mut last);
            sums.add(isa, &[last], &far[..1]);
        }
        sums.finish()
    }
}

/// The sums of a comparison on their way, 16 lanes each.
#[derive(Default)]
struct Sums {
    dot: [f64; LANES],
    aa: [f64; LANES],
    bb: [f64; LANES],
    error: [f64; LANES],
}

impl Sums {
    /// The sums are local to the loop, or else they would not stay in registers.
    #[inline(always)]
    fn add<I: Isa, T: Weight>(&mut self, isa: I, a: &[[T; LANES]], b: &[[f32; LANES]]) {
        let Self { mut dot, mut aa, mut bb, mut error } = *self;
        for (a, b) in a.iter().zip(b) {
            let mut wide = [0.0; LANES];
            isa.store(T::load(isa, a), &mut wide);
            for i in 0..LANES {
                let (a, b) = (f64::from(wide[i]), f64::from(b[i]));
                dot[i] = add_product::<I>(a, b, dot[i]);
                aa[i] = add_product::<I>(a, a, aa[i]);
                bb[i] = add_product::<I>(b, b, bb[i]);
                let d = a - b;
                error[i] += d * d;
            }
        }
        *self = Self { dot, aa, bb, error };
    }

    #[inline(always)]
    fn finish(self) -> Comparison {
        let Self { dot, aa, bb, error } = self;
        Comparison { dot: fold(dot), aa: fold(aa), bb: fold(bb), error: fold(error), max_abs: 0.0 }
    }
}

/// `a * b + sum`. The product of two widened f32 is exact, so rounding it on the way or not gives the same bits.
#[inline(always)]
fn add_product<I: Isa>(a: f64, b: f64, sum: f64) -> f64 {
    if I::FUSED { a.mul_add(b, sum) } else { a * b + sum }
}
