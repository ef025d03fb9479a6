//! Checked numbers: how many bits a code has, how many weights share a scale.

use serde::{Deserialize, Serialize};

use crate::CoreError;

/// Bits of one stored code: 2, 3, 4, 5, 6 or 8; or 1, for the few strategies and codecs that have such codes.
///
/// ```
/// use aq_core::BitWidth;
/// let four = BitWidth::new(4)?;
/// assert_eq!(four.max_code(), 15);
/// assert!(BitWidth::new(7).is_err());
/// # Ok::<(), aq_core::CoreError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct BitWidth(u8);

impl BitWidth {
    /// One bit: a sign.
    pub const ONE: BitWidth = BitWidth(1);

    /// Every width of codes that stand for more than a sign, in rising order.
    pub const ALL: [BitWidth; 6] =
        [BitWidth(2), BitWidth(3), BitWidth(4), BitWidth(5), BitWidth(6), BitWidth(8)];

    /// [`BitWidth::ONE`] and [`BitWidth::ALL`], in rising order.
    pub fn with_one() -> impl Iterator<Item = BitWidth> {
        std::iter::once(Self::ONE).chain(Self::ALL)
    }

    /// Checks `bits`.
    ///
    /// # Errors
    /// [`CoreError::BitWidth`] when `bits` is not 1, 2, 3, 4, 5, 6 or 8.
    pub fn new(bits: u8) -> Result<Self, CoreError> {
        match bits {
            1..=6 | 8 => Ok(Self(bits)),
            _ => Err(CoreError::BitWidth(bits)),
        }
    }

    /// The number itself.
    pub fn get(self) -> u8 {
        self.0
    }

    /// The largest code, `2^bits - 1`.
    pub fn max_code(self) -> u8 {
        ((1u16 << self.0) - 1) as u8
    }

    /// Bytes that `n` codes take when packed densely: `ceil(n * bits / 8)`.
    pub fn packed_len(self, n: usize) -> usize {
        let (whole, rest) = (n / 8, n % 8);
        whole * usize::from(self.0) + (rest * usize::from(self.0)).div_ceil(8)
    }
}

impl TryFrom<u8> for BitWidth {
    type Error = CoreError;
    fn try_from(bits: u8) -> Result<Self, CoreError> {
        Self::new(bits)
    }
}

impl From<BitWidth> for u8 {
    fn from(bits: BitWidth) -> u8 {
        bits.0
    }
}

impl std::fmt::Display for BitWidth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Weights that share one scale, along the input axis: a multiple of 8 from 16 to 1024, or 0 for a whole row.
///
/// The last group of a row may be shorter.
///
/// ```
/// use aq_core::GroupSize;
/// assert_eq!(GroupSize::new(128)?.groups(300), 3);
/// assert_eq!(GroupSize::new(0)?.groups(300), 1);
/// assert!(GroupSize::new(100).is_err());
/// # Ok::<(), aq_core::CoreError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct GroupSize(u32);

impl GroupSize {
    /// One group for the whole row.
    pub const ROW: GroupSize = GroupSize(0);

    /// Checks `size`.
    ///
    /// # Errors
    /// [`CoreError::GroupSize`] when `size` is neither 0 nor a multiple of 8 from 16 to 1024.
    pub fn new(size: u32) -> Result<Self, CoreError> {
        match size {
            0 => Ok(Self(0)),
            16..=1024 if size.is_multiple_of(8) => Ok(Self(size)),
            _ => Err(CoreError::GroupSize(size)),
        }
    }

    /// The number itself; 0 means the whole row.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Weights of a full group in a row of `cols` weights; at least 1.
    pub fn weights(self, cols: usize) -> usize {
        match self.0 {
            0 => cols.max(1),
            g => g as usize,
        }
    }

    /// Groups in a row of `cols` weights, the shorter last one included.
    pub fn groups(self, cols: usize) -> usize {
        cols.div_ceil(self.weights(cols))
    }
}

impl TryFrom<u32> for GroupSize {
    type Error = CoreError;
    fn try_from(size: u32) -> Result<Self, CoreError> {
        Self::new(size)
    }
}

impl From<GroupSize> for u32 {
    fn from(size: GroupSize) -> u32 {
        size.0
    }
}

impl std::fmt::Display for GroupSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Bits per weight that a codec of variable rate aims at, side data included: 0.5 to 8, in steps of 1/10000.
///
/// ```
/// use aq_core::Rate;
/// let rate = Rate::new(2.1)?;
/// assert_eq!(rate.bits_per_weight(), 2.1);
/// assert!(Rate::new(0.4).is_err() && Rate::new(f64::NAN).is_err());
/// # Ok::<(), aq_core::CoreError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Rate(u32);

impl Rate {
    const STEPS: f64 = 10_000.0;

    /// Checks `bits_per_weight` and rounds it to the nearest step.
    ///
    /// # Errors
    /// [`CoreError::Rate`] when it is not between 0.5 and 8.
    pub fn new(bits_per_weight: f64) -> Result<Self, CoreError> {
        match bits_per_weight {
            rate if (0.5..=8.0).contains(&rate) => Ok(Self((rate * Self::STEPS).round() as u32)),
            other => Err(CoreError::Rate(other)),
        }
    }

    /// The number itself.
    pub fn bits_per_weight(self) -> f64 {
        f64::from(self.0) / Self::STEPS
    }
}

impl From<BitWidth> for Rate {
    fn from(bits: BitWidth) -> Self {
        Self(u32::from(bits.0) * Self::STEPS as u32)
    }
}

impl TryFrom<f64> for Rate {
    type Error = CoreError;
    fn try_from(bits_per_weight: f64) -> Result<Self, CoreError> {
        Self::new(bits_per_weight)
    }
}

impl From<Rate> for f64 {
    fn from(rate: Rate) -> f64 {
        rate.bits_per_weight()
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.bits_per_weight().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_and_groups_are_checked() {
        let ok: Vec<u8> = (0..=255).filter(|&b| BitWidth::new(b).is_ok()).collect();
        assert_eq!(ok, [1, 2, 3, 4, 5, 6, 8]);
        assert!(BitWidth::ALL.iter().all(|b| BitWidth::new(b.get()).is_ok()));
        for (size, good) in [(0, true), (8, false), (16, true), (20, false), (1024, true), (1032, false)] {
            assert_eq!(GroupSize::new(size).is_ok(), good, "{size}");
        }
    }

    #[test]
    fn packed_length_is_dense() {
        for bits in BitWidth::ALL {
            for n in 0..200 {
                assert_eq!(bits.packed_len(n), (n * usize::from(bits.get())).div_ceil(8));
            }
        }
    }
}
