//! The step of each column: a power of the fourth root of two.

/// Steps of the columns of a tensor, relative to each other.
///
/// A step of index `i` is `2^(i / 4)`. Neighbouring steps are so close that the nearest one costs less than half a percent in error at
/// equal bits: the step is off by at most 2^(1/8), and the error of a column as a function of its step is flat at the best one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnSteps<'a> {
    /// Every step is 1.
    Equal,
    /// One index a column.
    Quarters(&'a [i8]),
}

const ROOTS: [f32; 4] = [1.0, 1.189_207_1, std::f32::consts::SQRT_2, 1.681_792_9];

/// `2^(index / 4)`, the same bits everywhere.
///
/// ```
/// use aq_codec::entropy::step;
/// assert_eq!((step(0), step(4), step(-8)), (1.0, 2.0, 0.25));
/// assert_eq!(step(1).to_bits(), 0x3f98_37f0);
/// ```
pub fn step(index: i8) -> f32 {
    let whole = i32::from(index).div_euclid(4);
    ROOTS[i32::from(index).rem_euclid(4) as usize] * f32::from_bits(((whole + 127) as u32) << 23)
}
