//! The grid that inputs are rounded to.

/// A range of inputs that holds 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// At most 0.
    pub low: f32,
    /// At least 0.
    pub high: f32,
}

impl Range {
    /// Nothing but 0.
    pub const ZERO: Self = Self { low: 0.0, high: 0.0 };

    /// The range of `values` and 0.
    ///
    /// ```
    /// use aq_timeaware::Range;
    /// assert_eq!(Range::of(&[0.5, 2.0]), Range { low: 0.0, high: 2.0 });
    /// ```
    pub fn of(values: &[f32]) -> Self {
        let (mut low, mut high) = ([0f32; 16], [0f32; 16]);
        let (blocks, rest) = values.as_chunks::<16>();
        for block in blocks {
            for i in 0..16 {
                low[i] = if block[i] < low[i] { block[i] } else { low[i] };
                high[i] = if block[i] > high[i] { block[i] } else { high[i] };
            }
        }
        let fold = |start: f32, lanes: [f32; 16], pick: fn(f32, f32) -> f32| {
            lanes.iter().chain(rest).copied().fold(start, pick)
        };
        Self { low: fold(0.0, low, f32::min), high: fold(0.0, high, f32::max) }
    }

    /// The range of both.
    pub fn union(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    /// Both ends times `ratio`.
    pub fn clipped(self, ratio: f32) -> Self {
        Self { low: self.low * ratio, high: self.high * ratio }
    }

    /// Its length in `f32`; infinite where that is too large a number.
    pub fn width(self) -> f32 {
        self.high - self.low
    }
}

/// A uniform grid over a range, with 0 on it:
///
/// ```text
/// scale = (high - low) / (2^bits - 1)            zero = clamp(round(-low / scale), 0, 2^bits - 1)
/// code  = clamp(round(x / scale) + zero, 0, 2^bits - 1)            x ~= (code - zero) * scale
/// ```
///
/// every operation in `f32`, rounding half to even. A range of length 0 makes every value 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantizer {
    scale: f32,
    /// `-zero`.
    lowest: f32,
    /// `2^bits - 1 - zero`.
    highest: f32,
}

/// Added to a number of at most 2^22 it leaves no bits for a fraction: the sum is rounded half to even.
const ROUND: f32 = 12_582_912.0;

impl Quantizer {
    /// The grid of `2^bits` values over `range`, whose length is finite.
    ///
    /// ```
    /// use aq_timeaware::{Quantizer, Range};
    /// let grid = Quantizer::new(Range { low: -1.0, high: 2.0 }, 2);
    /// assert_eq!([-9.0, -0.4, 0.5, 1.6, 7.0].map(|x| grid.apply(x)), [-1.0, 0.0, 0.0, 2.0, 2.0]);
    /// ```
    pub fn new(range: Range, bits: u8) -> Self {
        let levels = ((1u32 << bits) - 1) as f32;
        let scale = range.width() / levels;
        let zero = if scale > 0.0 { (-range.low / scale).round_ties_even().clamp(0.0, levels) } else { 0.0 };
        Self { scale, lowest: -zero, highest: levels - zero }
    }

    /// The difference of neighbouring values.
    pub fn scale(self) -> f32 {
        self.scale
    }

    /// The smallest and the largest value of the grid, in units of the scale.
    pub fn ends(self) -> (f32, f32) {
        (self.lowest, self.highest)
    }

    /// The value that stands for `x`.
    #[inline]
    pub fn apply(self, x: f32) -> f32 {
        if self.scale > 0.0 { self.round(x) } else { 0.0 }
    }

    /// `apply` for a scale above 0. Clamping first gives the same, as both ends are whole numbers.
    #[inline(always)]
    fn round(self, x: f32) -> f32 {
        let steps = x / self.scale;
        let steps = if steps < self.lowest { self.lowest } else { steps };
        let steps = if steps > self.highest { self.highest } else { steps };
        ((steps + ROUND) - ROUND) * self.scale
    }

    /// `sum(weight * (x - apply(x))^2)` over the columns of a row. Terms in `f32`, summed in 16 lanes by column, then in `f64`.
    pub fn error(self, row: &[f32], weights: &[f32]) -> f64 {
        if self.scale > 0.0 {
            weighted_squares(row, weights, |x| x - self.round(x))
        } else {
            weighted_squares(row, weights, |x| x)
        }
    }
}

/// `sum(weight * of(x)^2)`, as [`Quantizer::error`] sums.
#[inline(always)]
pub(crate) fn weighted_squares(row: &[f32], weights: &[f32], of: impl Fn(f32) -> f32) -> f64 {
    let term = |x: f32, w: f32| {
        let e = of(x);
        w * (e * e)
    };
    let (blocks, rest) = row.as_chunks::<16>();
    let (weight_blocks, weight_rest) = weights.as_chunks::<16>();
    let mut lanes = [0f32; 16];
    for (x, w) in blocks.iter().zip(weight_blocks) {
        for i in 0..16 {
            lanes[i] += term(x[i], w[i]);
        }
    }
    let tail = rest.iter().zip(weight_rest).map(|(&x, &w)| f64::from(term(x, w)));
    lanes.iter().map(|&sum| f64::from(sum)).chain(tail).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The formula as it is written.
    fn written(x: f32, low: f32, high: f32, bits: u8) -> f32 {
        let levels = ((1u32 << bits) - 1) as f32;
        let scale = (high - low) / levels;
        if scale == 0.0 {
            return 0.0;
        }
        let zero = (-low / scale).round_ties_even().clamp(0.0, levels);
        let code = ((x / scale).round_ties_even() + zero).clamp(0.0, levels);
        (code - zero) * scale
    }

    proptest! {
        #[test]
        fn the_grid_is_the_formula(low in -9f32..0.0, high in 0f32..9.0, bits in 2u8..9, x in -20f32..20.0) {
            let grid = Quantizer::new(Range { low, high }, bits);
            prop_assert_eq!(grid.apply(x), written(x, low, high, bits));
            prop_assert_eq!(grid.apply(0.0), 0.0);
        }

        #[test]
        fn errors_are_sums(row in proptest::collection::vec(-3f32..3.0, 1..70), bits in 2u8..9) {
            let grid = Quantizer::new(Range::of(&row).clipped(0.8), bits);
            let weights: Vec<f32> = (0..row.len()).map(|i| 0.5 + i as f32).collect();
            let terms = row.iter().zip(&weights).map(|(&x, &w)| f64::from(w) * f64::from(x - grid.apply(x)).powi(2));
            let sum: f64 = terms.sum();
            prop_assert!((grid.error(&row, &weights) - sum).abs() <= 1e-5 * sum + 1e-12);
        }
    }

    #[test]
    fn ranges_hold_zero() {
        let values: Vec<f32> = (0..37).map(|i| i as f32 - 5.0).collect();
        assert_eq!(Range::of(&values), Range { low: -5.0, high: 31.0 });
        assert_eq!(Range::of(&values[7..]), Range { low: 0.0, high: 31.0 });
        assert_eq!(Quantizer::new(Range::ZERO, 8).apply(3.0), 0.0);
    }
}
