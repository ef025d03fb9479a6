//! Weights to packed codes in one pass: range, grid, rounding and packing of a group while it is in the first cache.

mod chunk;
mod grids;
mod scales;
mod sums;

use crate::Weights;
use crate::isa::{Isa, Kernel, run};
use crate::lanes::LANES;
use crate::pack::{check_width, packed_len};
use crate::weights::{Weight, load_padded};

use chunk::{Grid, encode_group};
use grids::Grids;
pub use scales::multiply_scales;
use sums::RowSums;
pub use sums::{Sums, grid_sums};

/// Where the grids of a run of groups go: one element a group in each.
#[derive(Debug)]
pub struct GridsMut<'a> {
    /// Scales, each a number that half precision holds.
    pub scales: &'a mut [f32],
    /// Zero points, integers in the range of the codes.
    pub zeros: &'a mut [f32],
}

/// What [`encode_min_max`] learned about a run of groups on its way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extremes {
    /// The smallest weight, at most 0.
    pub low: f32,
    /// The largest weight, at least 0.
    pub high: f32,
    /// The smallest scale above 0 before it was rounded to half precision; infinite when there is none.
    pub smallest_scale: f32,
    /// The largest scale before it was rounded to half precision.
    pub largest_scale: f32,
}

/// Quantizes a run of groups on their whole range, 0 included, and packs the codes of each group on its own.
///
/// ```text
/// low = min(0, smallest)   high = max(0, largest)   fitted = (high - low) / top
/// scale    = f16(fitted), at most 65504
/// zero     = clamp(round_ties_even(-low / scale), 0, top)
/// codes[i] = round_ties_even(clamp((x[i] + zero * scale) * (1 / scale), 0, top))
/// ```
///
/// When `round_ties_even((low + fitted * top) / scale + zero)` is below `top`, the largest code would stay unused: then
/// the next smaller f16 is the scale, unless that is 0. A scale that rounds to 0 gives zero point and codes 0. Each
/// operation is rounded to `f32`, none is fused. Weights that are not finite give codes 0 or a range that is not finite, and
/// always sums that are not.
///
/// The sums are those of [`grid_sums`]. The last group may be shorter. Codes are packed as [`crate::pack`] says, [`packed_len`] bytes a group.
///
/// # Panics
/// When `bits` is not 2, 3, 4, 5, 6 or 8, when `group` is 0, or when a length does not fit.
///
/// ```
/// use aq_kernels::{Weights, encode::{GridsMut, encode_min_max}};
/// let (mut scales, mut zeros, mut packed) = ([0.0; 2], [0.0; 2], [0; 4]);
/// let grids = GridsMut { scales: &mut scales, zeros: &mut zeros };
/// let x = [-1.0, 0.0, 2.0, 6.5, 0.0, 15.0, 1.0];
/// let (_, sums) = encode_min_max(4, 4, Weights::F32(&x), grids, &mut packed);
/// assert_eq!((scales, zeros), ([0.5, 1.0], [2.0, 0.0]));
/// assert_eq!(packed, [0x20, 0xf6, 0xf0, 0x01]);
/// assert_eq!(sums.product, 1.0 + 4.0 + 6.5 * 6.5 + 225.0 + 1.0);
/// ```
pub fn encode_min_max(
    bits: u8,
    group: usize,
    x: Weights<'_>,
    grids: GridsMut<'_>,
    packed: &mut [u8],
) -> (Extremes, Sums) {
    check_width(bits);
    let groups = x.len().div_ceil(group);
    assert_eq!(
        (grids.scales.len(), grids.zeros.len()),
        (groups, groups),
        "one scale and one zero point a group"
    );
    assert_eq!(packed.len(), crate::pack::groups_len(bits, group, x.len()), "bytes of the packed groups");
    match x {
        Weights::F32(x) => run(EncodeMinMax { bits, group, x, grids, packed }),
        Weights::F16(x) => run(EncodeMinMax { bits, group, x, grids, packed }),
        Weights::BF16(x) => run(EncodeMinMax { bits, group, x, grids, packed }),
    }
}

struct EncodeMinMax<'a, T> {
    bits: u8,
    group: usize,
    x: &'a [T],
    grids: GridsMut<'a>,
    packed: &'a mut [u8],
}

impl<T: Weight> Kernel for EncodeMinMax<'_, T> {
    type Output = (Extremes, Sums);

    #[inline(always)]
    fn call<I: Isa>(self, isa: I) -> (Extremes, Sums) {
        match self.bits {
            2 => self.encode::<2, I>(isa),
            3 => self.encode::<3, I>(isa),
            4 => self.encode::<4, I>(isa),
            5 => self.encode::<5, I>(isa),
            6 => self.encode::<6, I>(isa),
            _ => self.encode::<8, I>(isa),
        }
    }
}

/// Bytes of 16 groups up to which the 16 after them are asked for: longer ones would not be in the first cache any more when their turn comes, and
/// cost a tenth of the speed (4096 weights of `f32` on Zen 3).
const AHEAD: usize = 32 << 10;

impl<T: Weight> EncodeMinMax<'_, T> {
    /// Works on 16 groups at a time, so that finding their grids takes 16 lanes too. Each group that is rounded asks for one of the
    /// next 16: the memory works meanwhile.
    #[inline(always)]
    fn encode<const BITS: usize, I: Isa>(self, isa: I) -> (Extremes, Sums) {
        let Self { group, x, grids, packed, .. } = self;
        let top = ((1 << BITS) - 1) as f32;
        let piece = packed_len(BITS as u8, group);
        let batches = x.chunks(LANES * group);
        let following = batches.clone().skip(1).chain([&[][..]]);
        let batches = batches.zip(following).zip(packed.chunks_mut(LANES * piece));
        let stored = grids.scales.chunks_mut(LANES).zip(grids.zeros.chunks_mut(LANES));
        let mut sums = RowSums::new(isa);
        let mut extremes =
            Extremes { low: 0.0, high: 0.0, smallest_scale: f32::INFINITY, largest_scale: 0.0 };
        for (((x, following), packed), (scales, zeros)) in batches.zip(stored) {
            let (mut low, mut high) = ([0.0; LANES], [0.0; LANES]);
            for ((x, low), high) in x.chunks(group).zip(&mut low).zip(&mut high) {
                (*low, *high) = range(isa, x);
            }
            let grids = Grids::new(&low, &high, top);
            extremes.include(isa, &low, &high, &grids.fitted);
            scales.copy_from_slice(&grids.scale[..scales.len()]);
            zeros.copy_from_slice(&grids.zero[..zeros.len()]);
            for (i, (x, out)) in x.chunks(group).zip(packed.chunks_mut(piece)).enumerate() {
                let grid = Grid {
                    low: grids.low[i],
                    inverse: grids.inverse[i],
                    top,
                    scale: grids.scale[i],
                    zero: grids.zero[i],
                };
                let next = (i * group).min(following.len());
                if LANES * group <= AHEAD / size_of::<T>() {
                    isa.prefetch(&following[next..following.len().min(next + group)]);
                }
                encode_group::<BITS, I, T>(isa, x, grid, out, &mut sums);
            }
        }
        (extremes, sums.finish(isa))
    }
}

impl Extremes {
    #[inline(always)]
    fn include<I: Isa>(&mut self, isa: I, low: &[f32; LANES], high: &[f32; LANES], fitted: &[f32; LANES]) {
        let mut positive = *fitted;
        for scale in &mut positive {
            *scale = if *scale > 0.0 { *scale } else { f32::INFINITY };
        }
        self.low = self.low.min(isa.smallest(isa.load(low)));
        self.high = self.high.max(isa.largest(isa.load(high)));
        self.smallest_scale = self.smallest_scale.min(isa.smallest(isa.load(&positive)));
        self.largest_scale = self.largest_scale.max(isa.largest(isa.load(fitted)));
    }
}

/// The range of a group, 0 included, without negative zeros.
#[inline(always)]
fn range<I: Isa, T: Weight>(isa: I, x: &[T]) -> (f32, f32) {
    let zero = isa.splat(0.0);
    let (mut low, mut high) = (zero, zero);
    let (body, tail) = x.as_chunks::<LANES>();
    for chunk in body {
        let v = T::load(isa, chunk);
        (low, high) = (isa.min(v, low), isa.max(v, high));
    }
    if !tail.is_empty() {
        let v = load_padded(isa, tail);
        (low, high) = (isa.min(v, low), isa.max(v, high));
    }
    (isa.smallest(low) + 0.0, isa.largest(high) + 0.0)
}
