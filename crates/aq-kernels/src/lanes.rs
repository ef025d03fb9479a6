//! The fixed order of every sum: element `i` goes to lane `i % 16`, and the lanes are folded in halves.

/// Lanes of every sum, whatever the width of the machine's vectors.
pub const LANES: usize = 16;

/// Adds up lanes in a fixed tree: the upper half onto the lower half, until one is left.
#[inline(always)]
pub(crate) fn fold<T: Copy + std::ops::Add<Output = T>>(lanes: [T; LANES]) -> T {
    fold_with(lanes, |a, b| a + b)
}

/// [`fold`] with another operation in place of addition.
#[inline(always)]
pub(crate) fn fold_with<T: Copy>(lanes: [T; LANES], op: impl Fn(T, T) -> T) -> T {
    let (mut eight, mut four) = ([lanes[0]; 8], [lanes[0]; 4]);
    for i in 0..8 {
        eight[i] = op(lanes[i], lanes[i + 8]);
    }
    for i in 0..4 {
        four[i] = op(eight[i], eight[i + 4]);
    }
    op(op(four[0], four[2]), op(four[1], four[3]))
}

/// The first 16 elements, or all there are followed by `pad`.
#[inline(always)]
pub(crate) fn padded(x: &[f32], pad: f32) -> [f32; LANES] {
    let mut lanes = [pad; LANES];
    lanes[..x.len()].copy_from_slice(x);
    lanes
}

/// Rounds to the nearest integer, ties to even, for `0 <= v <= 255`: adding 1.5 * 2^23 leaves no bits for a fraction.
#[inline(always)]
pub(crate) fn round_even(v: f32) -> f32 {
    (v + MAGIC) - MAGIC
}

/// The code of a value already clamped to `0..=255`, rounded to nearest, ties to even.
#[inline(always)]
pub(crate) fn round_code(v: f32) -> u8 {
    (v + MAGIC).to_bits() as u8
}

const MAGIC: f32 = 12_582_912.0;

/// Clamps to `0..=top`; NaN gives 0.
#[inline(always)]
pub(crate) fn clamp(v: f32, top: f32) -> f32 {
    let v = if v > 0.0 { v } else { 0.0 };
    if v < top { v } else { top }
}

/// `N` times 16 elements.
#[inline(always)]
pub(crate) fn pieces<T, const N: usize>(x: &[T]) -> &[[T; LANES]; N] {
    x.as_chunks().0.try_into().expect("a chunk of that length")
}
