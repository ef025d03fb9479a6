//! Sums over weights and their codes, from which the gain of a row follows.

use crate::isa::{Isa, Kernel, run};
use crate::lanes::{LANES, padded};
use crate::pack::CHUNK;

/// Sums over weights `x` and what they are decoded to, `q = scale * k` with `k = code - zero`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sums {
    /// `sum(x^2)`.
    pub norm: f64,
    /// `sum(x * q)`.
    pub product: f64,
}

/// The sums of a run of groups with zero points, one code a byte.
///
/// Within 128 weights of a group, `x^2` and `x * k` are rounded to `f32` and added in 16 lanes of `f32`. Those lanes, the latter
/// ones times the scale of the group, are added in 16 lanes of `f64`, which are folded at the end.
///
/// # Panics
/// When there is not one code a weight, or not one scale and one zero point a group.
///
/// ```
/// use aq_kernels::encode::{Sums, grid_sums};
/// let sums = grid_sums(2, &[-1.0, 0.5, 3.0], &[0, 3, 1], &[0.5, 3.0], &[2.0, 0.0]);
/// assert_eq!(sums, Sums { norm: 10.25, product: 1.0 + 0.25 + 9.0 });
/// ```
pub fn grid_sums(group: usize, x: &[f32], codes: &[u8], scales: &[f32], zeros: &[f32]) -> Sums {
    let groups = x.len().div_ceil(group);
    assert_eq!(codes.len(), x.len(), "one code for each weight");
    assert_eq!((scales.len(), zeros.len()), (groups, groups), "one scale and one zero point a group");
    run(GridSums { group, x, codes, scales, zeros })
}

struct GridSums<'a> {
    group: usize,
    x: &'a [f32],
    codes: &'a [u8],
    scales: &'a [f32],
    zeros: &'a [f32],
}

impl Kernel for GridSums<'_> {
    type Output = Sums;

    #[inline(always)]
    fn call<I: Isa>(self, isa: I) -> Sums {
        let mut sums = RowSums::new(isa);
        let groups = self.x.chunks(self.group).zip(self.codes.chunks(self.group));
        for ((x, codes), (&scale, &zero)) in groups.zip(self.scales.iter().zip(self.zeros)) {
            for (x, codes) in x.chunks(CHUNK).zip(codes.chunks(CHUNK)) {
                let mut chunk = ChunkSums::new(isa, zero);
                for (x, codes) in x.chunks(LANES).zip(codes.chunks(LANES)) {
                    let mut lanes = [0; LANES];
                    lanes[..codes.len()].copy_from_slice(codes);
                    chunk.add(isa, isa.load(&padded(x, 0.0)), isa.widen(&lanes));
                }
                sums.add(isa, chunk, scale);
            }
        }
        sums.finish(isa)
    }
}

/// The sums of at most 128 weights of a group on their way.
pub(super) struct ChunkSums<I: Isa> {
    zero: I::F,
    norm: I::F,
    product: I::F,
}

impl<I: Isa> ChunkSums<I> {
    #[inline(always)]
    pub(super) fn new(isa: I, zero: f32) -> Self {
        Self { zero: isa.splat(zero), norm: isa.splat(0.0), product: isa.splat(0.0) }
    }

    /// Adds 16 weights; those that are 0 add nothing.
    #[inline(always)]
    pub(super) fn add(&mut self, isa: I, x: I::F, codes: I::I) {
        let k = isa.sub(isa.float(codes), self.zero);
        self.norm = isa.add(self.norm, isa.mul(x, x));
        self.product = isa.add(self.product, isa.mul(x, k));
    }
}

/// The sums of a run of groups on their way.
pub(super) struct RowSums<I: Isa> {
    norm: I::D,
    product: I::D,
}

impl<I: Isa> RowSums<I> {
    #[inline(always)]
    pub(super) fn new(isa: I) -> Self {
        let zero = isa.load_wide(&[0.0; LANES]);
        Self { norm: zero, product: zero }
    }

    /// Adds weights of a group of scale `scale`.
    #[inline(always)]
    pub(super) fn add(&mut self, isa: I, chunk: ChunkSums<I>, scale: f32) {
        self.norm = isa.add_wide(self.norm, isa.wide(chunk.norm));
        let scale = isa.wide(isa.splat(scale));
        self.product = isa.add_product(isa.wide(chunk.product), scale, self.product);
    }

    #[inline(always)]
    pub(super) fn finish(self, isa: I) -> Sums {
        Sums { norm: isa.fold_wide(self.norm), product: isa.fold_wide(self.product) }
    }
}
