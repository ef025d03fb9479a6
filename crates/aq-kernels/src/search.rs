//! The scale and offset of a group that lose least.

use pulp::{Simd, WithSimd};

use crate::affine::min_max_lanes;
use crate::dispatch::run;
use crate::lanes::{LANES, clamp, fold, fold_with, padded, round_even};

/// Least-squares refits tried after the clipped ranges.
pub(crate) const REFITS: u32 = 4;
/// Ranges tried with both ends clipped alike.
const EVEN: usize = 8;
/// Weights summed up in `f32` before the sum moves on to `f64`.
pub(crate) const BLOCK: usize = 256;

/// Finds the scale and offset of one group that give a small squared error.
///
/// ```text
/// minimise  sum(importance[i] * (x[i] - (code[i] * scale + offset))^2)
///    where  code[i] = round_ties_even(clamp((x[i] - offset) / scale, 0, max_code))
/// ```
///
/// First the range of the group is shrunk towards 0 (towards its middle when it does not hold 0): both ends by 1, 0.9, ...
/// 0.3, of which the best wins and the widest wins a tie (errors are compared to 48 bits). Around the best, both ends are then moved on their own by -3,
/// -1, 1 and 3 times `0.12 / sqrt(max_code + 1)`, 16 ranges of which the best is taken if it is better still. Last, up to 4
/// times, scale and offset are fitted to the codes by least squares and the codes rounded anew; a refit is kept only when
/// the error falls, and the first one that is not kept ends the search.
///
/// Returns `(scale, offset)`; the scale is never negative. A constant group gives scale 0 and its value as the offset,
/// and so does one whose range is too small for the inverses of its scales to be finite (about `max_code * 1e-38`),
/// with its smallest value. An empty group gives `(0, 0)`. Codes are those of [`quantize`](crate::affine::quantize) with `1.0 / scale`, or with 0 for scale 0.
///
/// Importance is not negative and at most about 1e30; without any, all weights count the same.
///
/// # Panics
/// When `importance` and `x` differ in length, or `max_code` is 0.
///
/// ```
/// let x = [0.0, 1.1, 1.9, 3.0];
/// let (scale, offset) = aq_kernels::search::ls_search(&x, None, 3);
/// assert!((scale - 0.98).abs() < 1e-3 && (offset - 0.03).abs() < 1e-3);
/// assert_eq!(aq_kernels::search::ls_search(&[2.5; 4], None, 3), (0.0, 2.5));
/// ```
pub fn ls_search(x: &[f32], importance: Option<&[f32]>, max_code: u8) -> (f32, f32) {
    assert!(importance.is_none_or(|h| h.len() == x.len()), "one importance for each weight");
    assert!(max_code > 0, "a largest code of at least 1");
    let top = f32::from(max_code);
    match importance {
        None => run(Search::<false> { x, importance: &[], top }),
        Some(importance) => run(Search::<true> { x, importance, top }),
    }
}

/// A scale that a code can be computed with: its inverse is finite.
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    pub(crate) scale: f32,
    pub(crate) inverse: f32,
    pub(crate) offset: f32,
}

impl Grid {
    /// Whether codes can be computed: the scale and its inverse are positive and finite, and the offset is finite.
    #[inline(always)]
    pub(crate) fn usable(self) -> bool {
        self.scale > 0.0 && self.scale.is_finite() && self.inverse.is_finite() && self.offset.is_finite()
    }

    /// A squared error in units of the grid, in units of the weights.
    #[inline(always)]
    pub(crate) fn in_weights(self, error: f64) -> f64 {
        error * (f64::from(self.scale) * f64::from(self.scale))
    }

    /// The least-squares scale and offset for the codes that `sums` are about.
    ///
    /// With `v = (x - offset) / scale` and `v = code + d`, this is the line through `v` over the codes. When all codes
    /// are equal there is no line, and the grid is not usable.
    #[inline(always)]
    pub(crate) fn refit(self, sums: &Sums) -> Self {
        let Sums { h, k, kk, d, kd, .. } = *sums;
        let slope = (h * kd - k * d) / (h * kk - k * k);
        let shift = (d - slope * k) / h;
        let (old, offset) = (f64::from(self.scale), f64::from(self.offset));
        let scale = (old + old * slope) as f32;
        Grid { scale, inverse: 1.0 / scale, offset: (offset + old * shift) as f32 }
    }
}

/// Weighted sums over a group: of the importance `h`, the code `k` and what rounding left over, `d`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sums {
    pub(crate) h: f64,
    pub(crate) k: f64,
    pub(crate) kk: f64,
    pub(crate) d: f64,
    pub(crate) kd: f64,
    pub(crate) dd: f64,
}

/// The range of a group and how it is clipped.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    low: f64,
    high: f64,
    pivot: f64,
    top: f64,
}

/// Shares of a range that are left below and above its pivot.
#[derive(Clone, Copy)]
pub(crate) struct Clip {
    below: f64,
    above: f64,
}

impl Clip {
    /// The smallest share that is tried.
    const LEAST: f64 = 0.1;
    /// Nothing is clipped.
    const NONE: Clip = Clip { below: 1.0, above: 1.0 };

    /// Both ends by the same share: 1, 0.9, ... 0.3.
    #[inline(always)]
    pub(crate) fn even() -> [Clip; EVEN] {
        std::array::from_fn(|i| {
            let share = 1.0 - 0.1 * i as f64;
            Clip { below: share, above: share }
        })
    }

    /// The ends moved on their own, on a grid the finer the more codes there are.
    #[inline(always)]
    pub(crate) fn around(self, top: f32) -> [Clip; LANES] {
        let step = 0.12 / (f64::from(top) + 1.0).sqrt();
        let moved = |share: f64, i: usize| (share + step * (2.0 * i as f64 - 3.0)).clamp(Self::LEAST, 1.0);
        std::array::from_fn(|i| Clip { below: moved(self.below, i / 4), above: moved(self.above, i % 4) })
    }
}

impl Range {
    #[inline(always)]
    pub(crate) fn new(low: f32, high: f32, top: f32) -> Self {
        let (low, high) = (f64::from(low), f64::from(high));
        let pivot = if low <= 0.0 && 0.0 <= high { 0.0 } else { low + (high - low) * 0.5 };
        Self { low, high, pivot, top: f64::from(top) }
    }

    /// The grid over the clipped range.
    #[inline(always)]
    pub(crate) fn grid(self, clip: Clip) -> Grid {
        let low = self.pivot + (self.low - self.pivot) * clip.below;
        let high = self.pivot + (self.high - self.pivot) * clip.above;
        let scale = ((high - low) / self.top) as f32;
        Grid { scale, inverse: 1.0 / scale, offset: low as f32 }
    }

    /// Whether every clipped range gives a usable grid.
    #[inline(always)]
    pub(crate) fn usable(self) -> bool {
        let least = Clip { below: Clip::LEAST, above: Clip::LEAST };
        self.grid(Clip::NONE).usable() && self.grid(least).usable()
    }
}

/// The bits of an error that make room for the number of its clip.
const LANE: u64 = LANES as u64 - 1;

/// An error as an integer in the same order, with room for a number below 16 instead of its last bits.
#[inline(always)]
pub(crate) fn in_order(error: f64) -> u64 {
    error.to_bits() & !LANE
}

/// [`round_even`] by the instruction that vectors have for it; the bits are the same.
#[inline(always)]
fn round<S: Simd>(v: f32) -> f32 {
    if S::IS_SCALAR { round_even(v) } else { v.round_ties_even() }
}

struct Search<'a, const WEIGHTED: bool> {
    x: &'a [f32],
    importance: &'a [f32],
    top: f32,
}

impl<const WEIGHTED: bool> WithSimd for Search<'_, WEIGHTED> {
    type Output = (f32, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (f32, f32) {
        let (low, high) = min_max_lanes(self.x);
        let range = Range::new(low, high, self.top);
        if self.x.is_empty() || !range.usable() {
            return (0.0, if self.x.is_empty() { 0.0 } else { low });
        }
        let mut grid = self.best_clip::<S>(range);
        let mut sums = self.sums::<S>(grid);
        for _ in 0..REFITS {
            let next = grid.refit(&sums);
            if !next.usable() {
                break;
            }
            let next_sums = self.sums::<S>(next);
            let falls = next.in_weights(next_sums.dd) < grid.in_weights(sums.dd);
            if !falls {
                break;
            }
            (grid, sums) = (next, next_sums);
        }
        (grid.scale, grid.offset)
    }
}

impl<const WEIGHTED: bool> Search<'_, WEIGHTED> {
    /// The best of the clipped ranges.
    #[inline(always)]
    fn best_clip<S: Simd>(&self, range: Range) -> Grid {
        let (even, least) = self.best_of::<S, EVEN>(range, Clip::even());
        let (moved, error) = self.best_of::<S, LANES>(range, even.around(self.top));
        range.grid(if error < least { moved } else { even })
    }

    /// The first of the clips with the smallest error, and that error.
    #[inline(always)]
    fn best_of<S: Simd, const CLIPS: usize>(&self, range: Range, clips: [Clip; CLIPS]) -> (Clip, u64) {
        let mut grids = [range.grid(Clip::NONE); CLIPS];
        for (grid, &clip) in grids.iter_mut().zip(&clips) {
            *grid = range.grid(clip);
        }
        let errors = self.errors::<S, CLIPS>(&grids);
        let mut keys = [u64::MAX; LANES];
        for i in 0..CLIPS {
            keys[i] = in_order(grids[i].in_weights(errors[i])) | i as u64;
        }
        let least = fold_with(keys, |a, b| if b < a { b } else { a });
        (clips[least as usize % LANES], least & !LANE)
    }

    /// The squared error on each grid, in its units; as many weights at a time as fill 16 lanes.
    #[inline(always)]
    fn errors<S: Simd, const CLIPS: usize>(&self, grids: &[Grid; CLIPS]) -> [f64; CLIPS] {
        let (mut offset, mut inverse, mut total) = ([0.0; LANES], [0.0; LANES], [0.0; CLIPS]);
        for i in 0..LANES {
            (offset[i], inverse[i]) = (grids[i % CLIPS].offset, grids[i % CLIPS].inverse);
        }
        let at_once = LANES / CLIPS;
        for start in (0..self.x.len()).step_by(BLOCK) {
            let mut sum = [0.0_f32; LANES];
            let x = &self.x[start..self.x.len().min(start + BLOCK)];
            let h = if WEIGHTED { &self.importance[start..start + x.len()] } else { x };
            let (x, h) = (x.chunks_exact(at_once), h.chunks_exact(at_once));
            let (x_tail, h_tail) = (x.remainder(), h.remainder());
            for (x, h) in x.zip(h) {
                for i in 0..LANES {
                    sum[i] += self.square::<S>(x[i / CLIPS], h[i / CLIPS], offset[i], inverse[i]);
                }
            }
            for i in 0..x_tail.len() * CLIPS {
                sum[i] += self.square::<S>(x_tail[i / CLIPS], h_tail[i / CLIPS], offset[i], inverse[i]);
            }
            for i in 0..CLIPS {
                let rest = if CLIPS < LANES { sum[i + CLIPS] } else { 0.0 };
                total[i] += f64::from(sum[i] + rest);
            }
        }
        total
    }

    /// What a weight adds to the squared error. A function, since compilers do not promise to inline a closure.
    #[inline(always)]
    fn square<S: Simd>(&self, x: f32, h: f32, offset: f32, inverse: f32) -> f32 {
        let v = (x - offset) * inverse;
        let d = v - round::<S>(clamp(v, self.top));
        if WEIGHTED { d * d * h } else { d * d }
    }

    /// The sums that a refit needs, and the squared error.
    #[inline(always)]
    fn sums<S: Simd>(&self, grid: Grid) -> Sums {
        let mut total = Sums::default();
        for start in (0..self.x.len()).step_by(BLOCK) {
            let [mut hs, mut ks, mut kks, mut ds, mut kds, mut dds] = [[0.0_f32; LANES]; 6];
            self.for_lanes(start, grid.offset, |x, h| {
                for i in 0..LANES {
                    let v = (x[i] - grid.offset) * grid.inverse;
                    let k = round::<S>(clamp(v, self.top));
                    let d = v - k;
                    let (hk, hd) = if WEIGHTED { (h[i] * k, h[i] * d) } else { (k, d) };
                    hs[i] += if WEIGHTED { h[i] } else { 0.0 };
                    ks[i] += hk;
                    kks[i] += hk * k;
                    ds[i] += hd;
                    kds[i] += hd * k;
                    dds[i] += if WEIGHTED { d * d * h[i] } else { d * d };
                }
            });
            total.h += f64::from(fold(hs));
            total.k += f64::from(fold(ks));
            total.kk += f64::from(fold(kks));
            total.d += f64::from(fold(ds));
            total.kd += f64::from(fold(kds));
            total.dd += f64::from(fold(dds));
        }
        if !WEIGHTED {
            total.h = self.x.len() as f64;
        }
        total
    }

    /// Calls `step` with 16 weights of the block at `start` and their importance at a time.
    ///
    /// The last ones are filled up with weights equal to the offset, which have code 0 and no error, and importance 0.
    #[inline(always)]
    fn for_lanes(&self, start: usize, offset: f32, mut step: impl FnMut(&[f32; LANES], &[f32; LANES])) {
        let range = start..self.x.len().min(start + BLOCK);
        let h = if WEIGHTED { &self.importance[range.clone()] } else { &self.x[range.clone()] };
        let ((x, x_tail), (h, h_tail)) = (self.x[range].as_chunks::<LANES>(), h.as_chunks::<LANES>());
        for (x, h) in x.iter().zip(h) {
            step(x, h);
        }
        if !x_tail.is_empty() {
            step(&padded(x_tail, offset), &padded(h_tail, 0.0));
        }
    }
}
