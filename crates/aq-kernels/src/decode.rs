//! Packed codes to weights in one pass, and their comparison with the weights they stand for.

use crate::WeightsMut;
use crate::isa::{Isa, Kernel, run};
use crate::lanes::LANES;
use crate::pack::{CHUNK, check_width, groups_len, packed_len, unpack_lanes};
use crate::weights::Weight;

mod compare;

pub use compare::compare;

/// The grids of a run of groups: one element a group in each slice.
#[derive(Debug, Clone, Copy)]
pub struct Grids<'a> {
    /// The steps between values.
    pub scales: &'a [f32],
    /// What code 0 stands for.
    pub offsets: Offsets<'a>,
    /// A factor of all weights, a power of two.
    pub factor: f32,
}

/// What code 0 stands for in each group.
#[derive(Debug, Clone, Copy)]
pub enum Offsets<'a> {
    /// The code that stands for 0: `(code - zero) * scale`.
    Zero(&'a [u8]),
    /// The value of code 0: `code * scale + offset`.
    Value(&'a [f32]),
}

impl Offsets<'_> {
    fn len(&self) -> usize {
        match self {
            Offsets::Zero(zeros) => zeros.len(),
            Offsets::Value(offsets) => offsets.len(),
        }
    }
}

/// Unpacks and dequantizes a run of groups, each packed on its own.
///
/// ```text
/// out[i] = ((code - zero) * scale) * factor      or      (code * scale + offset) * factor
/// ```
///
/// Each operation is rounded to `f32`, none is fused; a narrower type is rounded to nearest, ties to even, at the end.
///
/// # Panics
/// When `bits` is not 2, 3, 4, 5, 6 or 8, when `group` is 0, or when a length does not fit.
///
/// ```
/// use aq_kernels::{WeightsMut, decode::{Grids, Offsets, dequantize}};
/// let grids = Grids { scales: &[0.5, 1.0], offsets: Offsets::Zero(&[2, 0]), factor: 1.0 };
/// let mut out = [0.0; 7];
/// dequantize(4, 4, &[0x20, 0xf6, 0xf0, 0x01], grids, WeightsMut::F32(&mut out));
/// assert_eq!(out, [-1.0, 0.0, 2.0, 6.5, 0.0, 15.0, 1.0]);
/// ```
pub fn dequantize(bits: u8, group: usize, packed: &[u8], grids: Grids<'_>, out: WeightsMut<'_>) {
    let run_of_groups = Groups::new(bits, group, packed, grids, out.len());
    match out {
        WeightsMut::F32(out) => run(Dequantize { groups: run_of_groups, out }),
        WeightsMut::F16(out) => run(Dequantize { groups: run_of_groups, out }),
        WeightsMut::BF16(out) => run(Dequantize { groups: run_of_groups, out }),
    }
}

/// Packed codes and their grids, of lengths that fit.
#[derive(Clone, Copy)]
struct Groups<'a> {
    bits: u8,
    group: usize,
    packed: &'a [u8],
    grids: Grids<'a>,
}

impl<'a> Groups<'a> {
    fn new(bits: u8, group: usize, packed: &'a [u8], grids: Grids<'a>, n: usize) -> Self {
        check_width(bits);
        let groups = n.div_ceil(group);
        assert_eq!(
            (grids.scales.len(), grids.offsets.len()),
            (groups, groups),
            "one scale and one offset a group"
        );
        assert_eq!(packed.len(), groups_len(bits, group, n), "bytes of the packed groups");
        Self { bits, group, packed, grids }
    }
}

struct Dequantize<'a, T> {
    groups: Groups<'a>,
    out: &'a mut [T],
}

impl<T: Weight> Kernel for Dequantize<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call<I: Isa>(self, isa: I) {
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

impl<T: Weight> Dequantize<'_, T> {
    #[inline(always)]
    fn bits<const BITS: usize, I: Isa>(self, isa: I) {
        let Groups { group, packed, grids, .. } = self.groups;
        let pieces = packed.chunks(packed_len(BITS as u8, group));
        for (i, (out, packed)) in self.out.chunks_mut(group).zip(pieces).enumerate() {
            let grid = Grid::<I>::new(isa, &grids, i, BITS);
            for (out, packed) in out.chunks_mut(CHUNK).zip(packed.chunks(CHUNK / 8 * BITS)) {
                if has_whole_planes(BITS, out.len()) {
                    grid.chunk::<BITS, T>(isa, packed, out.len(), out);
                } else {
                    let mut chunk = [T::ZERO; CHUNK];
                    grid.part::<BITS, T>(isa, packed, out.len(), &mut chunk);
                    out.copy_from_slice(&chunk[..out.len()]);
                }
            }
        }
    }
}

/// Whether the bytes of a chunk of `n` codes are one plane that is cut into vectors without a rest.
#[inline(always)]
fn has_whole_planes(bits: usize, n: usize) -> bool {
    matches!(bits, 2 | 4 | 8) && n.is_multiple_of(8 / bits * LANES)
}

/// The grid of a group in all lanes.
#[derive(Clone, Copy)]
pub(crate) struct Grid<I: Isa> {
    scale: I::F,
    /// Subtracted before the product: the zero point.
    before: I::F,
    /// Added after the product: the value of code 0.
    after: I::F,
    factor: I::F,
    /// The weights of the codes 0 to 15, or four times those of 0 to 3.
    table: I::F,
}

impl<I: Isa> Grid<I> {
    #[inline(always)]
    fn new(isa: I, grids: &Grids<'_>, i: usize, bits: usize) -> Self {
        let (before, after) = match grids.offsets {
            Offsets::Zero(zeros) => (f32::from(zeros[i]), -0.0),
            Offsets::Value(offsets) => (0.0, offsets[i]),
        };
        Self::of(isa, grids.scales[i], before, after, grids.factor, bits)
    }

    /// The grid of `((code - before) * scale + after) * factor`.
    #[inline(always)]
    pub(crate) fn of(isa: I, scale: f32, before: f32, after: f32, factor: f32, bits: usize) -> Self {
        let mut codes = [0.0; LANES];
        for (code, value) in codes.iter_mut().enumerate() {
            *value = (code & ((1 << bits) - 1)) as f32;
        }
        let (scale, before, after) = (isa.splat(scale), isa.splat(before), isa.splat(after));
        let mut grid = Self { scale, before, after, factor: isa.splat(factor), table: scale };
        if I::TABLES && bits <= 4 {
            grid.table = grid.weight(isa, isa.load(&codes));
        }
        grid
    }

    /// Adding -0 changes nothing, nor does taking away 0 from what is not negative.
    #[inline(always)]
    fn weight(&self, isa: I, code: I::F) -> I::F {
        isa.mul(isa.add(isa.mul(isa.sub(code, self.before), self.scale), self.after), self.factor)
    }

    /// The weights of the low `BITS` bits of each lane.
    #[inline(always)]
    pub(crate) fn low<const BITS: usize>(&self, isa: I, lanes: I::I) -> I::F {
        if I::TABLES && matches!(BITS, 2 | 4) {
            isa.look_up(self.table, lanes)
        } else {
            self.weight(isa, isa.float(isa.and(lanes, (1 << BITS) - 1)))
        }
    }

    /// The `n` weights of a chunk, with the constant that the usual lengths are.
    #[inline(always)]
    fn chunk<const BITS: usize, T: Weight>(&self, isa: I, packed: &[u8], n: usize, out: &mut [T]) {
        match n {
            128 => self.planes::<BITS, T>(isa, packed, 128, out),
            64 => self.planes::<BITS, T>(isa, packed, 64, out),
            n => self.planes::<BITS, T>(isa, packed, n, out),
        }
    }

    /// The `n` weights of a chunk whose planes are [whole vectors](has_whole_planes).
    #[inline(always)]
    fn planes<const BITS: usize, T: Weight>(&self, isa: I, packed: &[u8], n: usize, out: &mut [T]) {
        if I::WORDS && T::HALF && matches!(BITS, 2 | 4) && (n * BITS / 8).is_multiple_of(32) {
            return self.words::<BITS, T>(isa, packed, n, out);
        }
        let stride = n / LANES * BITS / 8;
        let packed = &packed.as_chunks().0[..stride];
        let out = &mut out.as_chunks_mut().0[..8 / BITS * stride];
        for i in 0..stride {
            let v = isa.widen(&packed[i]);
            T::store(isa, self.low::<BITS>(isa, v), &mut out[i]);
            if BITS == 4 {
                T::store(isa, self.low::<BITS>(isa, isa.shr::<4>(v)), &mut out[i + stride]);
            }
            if BITS == 2 {
                T::store(isa, self.low::<BITS>(isa, isa.shr::<2>(v)), &mut out[i + stride]);
                T::store(isa, self.low::<BITS>(isa, isa.shr::<4>(v)), &mut out[i + 2 * stride]);
                T::store(isa, self.low::<BITS>(isa, isa.shr::<6>(v)), &mut out[i + 3 * stride]);
            }
        }
    }

    /// [`Self::planes`] for weights of 16 bits: they are rounded once for each code, not for each weight.
    #[inline(always)]
    fn words<const BITS: usize, T: Weight>(&self, isa: I, packed: &[u8], n: usize, out: &mut [T]) {
        let mut weights = [T::ZERO; LANES];
        T::store(isa, self.table, &mut weights);
        let mut table = [T::ZERO; 32];
        for half in table.as_chunks_mut().0 {
            *half = weights;
        }
        let vectors = n * BITS / 8 / 32;
        let packed = &packed.as_chunks::<32>().0[..vectors];
        let out = &mut out.as_chunks_mut::<32>().0[..8 / BITS * vectors];
        for (i, bytes) in packed.iter().enumerate() {
            T::look_up::<0, I>(isa, &table, bytes, &mut out[i]);
            if BITS == 4 {
                T::look_up::<4, I>(isa, &table, bytes, &mut out[i + vectors]);
            }
            if BITS == 2 {
                T::look_up::<2, I>(isa, &table, bytes, &mut out[i + vectors]);
                T::look_up::<4, I>(isa, &table, bytes, &mut out[i + 2 * vectors]);
                T::look_up::<6, I>(isa, &table, bytes, &mut out[i + 3 * vectors]);
            }
        }
    }

    /// The first `n` weights of a chunk; what follows them is overwritten with anything.
    #[inline(always)]
    pub(crate) fn part<const BITS: usize, T: Weight>(
        &self,
        isa: I,
        packed: &[u8],
        n: usize,
        out: &mut [T; CHUNK],
    ) {
        let mut codes = [0; CHUNK];
        unpack_lanes::<BITS>(packed, &mut codes[..n]);
        for (codes, out) in codes.as_chunks().0[..n.div_ceil(LANES)].iter().zip(out.as_chunks_mut().0) {
            T::store(isa, self.weight(isa, isa.float(isa.widen(codes))), out);
        }
    }
}
