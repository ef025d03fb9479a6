//! What codes stand for, up to scale and offset.

use crate::lanes::round_even;

/// The values of codes, in units of the scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Grid {
    /// Whole numbers from `low` to `high`; code 0 is `low`. At most 256 of them.
    Integers {
        /// The smallest.
        low: f32,
        /// The largest.
        high: f32,
    },
    /// The table [`NONLINEAR`].
    Nonlinear,
}

impl Grid {
    /// The smallest and the largest value.
    pub fn ends(self) -> (f32, f32) {
        match self {
            Grid::Integers { low, high } => (low, high),
            Grid::Nonlinear => (NONLINEAR[0], NONLINEAR[15]),
        }
    }
}

/// The table of the types `IQ4_NL` and `IQ4_XS` of ggml.
pub const NONLINEAR: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0,
];

/// The nearest value, or its code, of a weight in units of the scale.
pub(super) trait Steps: Copy {
    fn ends(self) -> (f32, f32);
    fn value(self, t: f32) -> f32;
    fn code(self, t: f32) -> u8;
}

#[derive(Clone, Copy)]
pub(super) struct Integers {
    pub(super) low: f32,
    pub(super) high: f32,
}

impl Steps for Integers {
    #[inline(always)]
    fn ends(self) -> (f32, f32) {
        (self.low, self.high)
    }

    #[inline(always)]
    fn value(self, t: f32) -> f32 {
        let t = if t > self.low { t } else { self.low };
        round_even(if t < self.high { t } else { self.high })
    }

    #[inline(always)]
    fn code(self, t: f32) -> u8 {
        (self.value(t) - self.low) as u8
    }
}

#[derive(Clone, Copy)]
pub(super) struct Nonlinear;

impl Steps for Nonlinear {
    #[inline(always)]
    fn ends(self) -> (f32, f32) {
        (NONLINEAR[0], NONLINEAR[15])
    }

    #[inline(always)]
    fn value(self, t: f32) -> f32 {
        let mut value = NONLINEAR[0];
        for k in 0..15 {
            let (here, next) = (NONLINEAR[k], NONLINEAR[k + 1]);
            value = if t > 0.5 * (here + next) { next } else { value };
        }
        value
    }

    #[inline(always)]
    fn code(self, t: f32) -> u8 {
        (0..15).map(|k| u8::from(t > 0.5 * (NONLINEAR[k] + NONLINEAR[k + 1]))).sum()
    }
}
