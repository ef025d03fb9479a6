//! Packed codes against the weights that they stand for.

use super::{Grid, Grids, Groups, has_whole_planes};
use crate::Weights;
use crate::isa::{Isa, Kernel, run};
use crate::lanes::LANES;
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
        let whole = group.is_multiple_of(CHUNK) && self.x.len().is_multiple_of(CHUNK);
        if I::WIDE_TABLES && matches!(BITS, 2 | 4) && whole {
            return self.chunks::<BITS, I>(isa);
        }
        let mut sums = Sums::new(isa);
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
        sums.finish(isa)
    }

    /// [`Self::bits`] where there is no chunk that is not full: each weight is looked up in `f64` at once.
    #[inline(always)]
    fn chunks<const BITS: usize, I: Isa>(self, isa: I) -> Comparison {
        let Groups { group, packed, grids, .. } = self.groups;
        let mut sums = Sums::new(isa);
        let groups = self.x.chunks(group).zip(packed.chunks(packed_len(BITS as u8, group)));
        for (i, (x, packed)) in groups.enumerate() {
            let table = isa.wide(Grid::<I>::new(isa, &grids, i, BITS).table);
            let chunks = x.as_chunks::<CHUNK>().0.iter().zip(packed.chunks_exact(CHUNK / 8 * BITS));
            for (x, packed) in chunks {
                let (x, packed) = (x.as_chunks().0, &packed.as_chunks().0[..BITS]);
                sums.plane::<0, T>(isa, table, &x[..BITS], packed);
                if BITS == 4 {
                    sums.plane::<4, T>(isa, table, &x[BITS..2 * BITS], packed);
                } else {
                    sums.plane::<2, T>(isa, table, &x[BITS..2 * BITS], packed);
                    sums.plane::<4, T>(isa, table, &x[2 * BITS..3 * BITS], packed);
                    sums.plane::<6, T>(isa, table, &x[3 * BITS..], packed);
                }
            }
        }
        sums.finish(isa)
    }
}

/// The sums of a comparison on their way, 16 lanes each.
#[derive(Clone, Copy)]
struct Sums<I: Isa> {
    dot: I::D,
    aa: I::D,
    bb: I::D,
    error: I::D,
}

impl<I: Isa> Sums<I> {
    #[inline(always)]
    fn new(isa: I) -> Self {
        let zero = isa.load_wide(&[0.0; LANES]);
        Self { dot: zero, aa: zero, bb: zero, error: zero }
    }

    /// The sums are local to the loop, or else they would not stay in registers.
    #[inline(always)]
    fn add<T: Weight>(&mut self, isa: I, a: &[[T; LANES]], b: &[[f32; LANES]]) {
        let mut sums = *self;
        for (a, b) in a.iter().zip(b) {
            sums.pairs(isa, isa.wide(T::load(isa, a)), isa.wide(isa.load(b)));
        }
        *self = sums;
    }

    /// Adds weights beside those of the codes that lie in `packed` from bit `SHIFT` on.
    #[inline(always)]
    fn plane<const SHIFT: u32, T: Weight>(
        &mut self,
        isa: I,
        table: I::D,
        a: &[[T; LANES]],
        packed: &[[u8; LANES]],
    ) {
        for (a, packed) in a.iter().zip(packed) {
            self.pairs(isa, isa.wide(T::load(isa, a)), isa.look_up_wide::<SHIFT>(table, packed));
        }
    }

    /// Adds 16 pairs.
    #[inline(always)]
    fn pairs(&mut self, isa: I, a: I::D, b: I::D) {
        let d = isa.sub_wide(a, b);
        self.dot = isa.add_product(a, b, self.dot);
        self.aa = isa.add_product(a, a, self.aa);
        self.bb = isa.add_product(b, b, self.bb);
        self.error = isa.add_wide(self.error, isa.mul_wide(d, d));
    }

    #[inline(always)]
    fn finish(self, isa: I) -> Comparison {
        let (dot, aa) = (isa.fold_wide(self.dot), isa.fold_wide(self.aa));
        let (bb, error) = (isa.fold_wide(self.bb), isa.fold_wide(self.error));
        Comparison { dot, aa, bb, error, max_abs: 0.0 }
    }
}
