//! Half-quadratic quantization: a zero point that makes few errors large rather than all of them small.

use aq_core::{
    Estimate, LayerInputs, LayerPlan, LayerStats, OffsetKind, QuantStrategy, RowQuantizer, StrategyError,
    StrategyId, TensorInfo,
};
use aq_kernels::affine::min_max;

use crate::grid::Grid;
use crate::grouped::{self, Grouped};
use crate::row::{Group, Method};

/// Half-quadratic quantization, id `hqq`: the scale spans the range of a group, the zero point makes `sum |w - q|^0.7` small.
///
/// ```text
/// scale = (largest - smallest) / max_code     zero = -smallest / scale     beta = 10
/// 20 times, or until the zero point stays:
///     code = clamp(round_ties_even(w / scale + zero), 0, max_code)     q = (code - zero) * scale
///     e    = sign(w - q) * max(|w - q| - |w - q|^-0.3 / beta, 0)
///     zero = mean(code - (w - e) / scale)                              beta = beta * 1.01
/// offset = -zero * scale, stored as f16
/// ```
///
/// The source is Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models", 2023, and its program, with its
/// constants. As there, errors are in units of the weights, so the result depends on their magnitude: errors below about 0.15 count
/// as likely ones, and weights of the usual size have no others. The program also stops when the mean of `|w - q|` over the whole layer rises.
/// Importance is not used. `ls` has a smaller error at the same size; this one is for comparison.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hqq;

const GROUPED: Grouped =
    Grouped { id: "hqq", offset: OffsetKind::F16, relative_mse: [0.240, 0.0426, 0.0094] };

const ROUNDS: usize = 20;
const BETA: f32 = 10.0;
const BETA_STEP: f32 = 1.01;
/// Below this every round takes an error for 0: `x^1.3 <= 1 / (10 * 1.01^20)`.
const SMALL: f32 = 0.145;

impl QuantStrategy for Hqq {
    fn id(&self) -> StrategyId {
        StrategyId::new(GROUPED.id)
    }

    fn supports(&self, layer: &TensorInfo) -> bool {
        grouped::supports(layer)
    }

    fn estimate(&self, layer: &TensorInfo, _: &LayerStats<'_>, plan: &LayerPlan) -> Estimate {
        GROUPED.estimate(layer, plan)
    }

    fn prepare<'a>(
        &'a self,
        layer: &LayerInputs<'a>,
        plan: &LayerPlan,
    ) -> Result<Box<dyn RowQuantizer + 'a>, StrategyError> {
        GROUPED.prepare(self, layer, plan)
    }
}

impl Method for Hqq {
    fn fit(&self, group: &Group<'_>) -> Grid {
        let (low, high) = min_max(group.weights);
        let top = f32::from(group.kind.max_code);
        let scale = (high - low) / top;
        let inverse = 1.0 / scale;
        if !(scale > 0.0 && inverse.is_finite()) {
            return Grid { scale: 0.0, offset: low };
        }
        Grid { scale, offset: -settled_zero(group.weights, scale, inverse, -low * inverse, top) * scale }
    }

    fn settle(&self, group: &Group<'_>, fitted: Grid, _: &mut [u8], _: &mut [f32]) -> Grid {
        group.kind.rounded(fitted)
    }
}

/// The zero point after the last round.
fn settled_zero(weights: &[f32], scale: f32, inverse: f32, start: f32, top: f32) -> f32 {
    let (mut zero, mut beta) = (start, BETA);
    for _ in 0..ROUNDS {
        let mut sum = 0f64;
        for &w in weights {
            let code = (w * inverse + zero).clamp(0.0, top).round_ties_even();
            let error = w - (code - zero) * scale;
            sum += f64::from(code - (w - shrink(error, beta)) * inverse);
        }
        let next = (sum / weights.len() as f64) as f32;
        if next == zero {
            break;
        }
        (zero, beta) = (next, beta * BETA_STEP);
    }
    zero
}

/// What is left of an error when the likely part of it is taken away.
fn shrink(x: f32, beta: f32) -> f32 {
    let size = x.abs();
    if size < SMALL {
        return 0.0;
    }
    (size - power(size) / beta).max(0.0).copysign(x)
}

/// `2^(-0.3 n)`.
const POWERS: [f64; 10] = [
    1.0,
    0.812_252_396_356_235_6,
    0.659_753_955_386_447_1,
    0.535_886_731_268_146_6,
    0.435_275_281_648_062_06,
    0.353_553_390_593_273_8,
    0.287_174_588_749_258_8,
    0.233_258_247_884_201_9,
    0.189_464_570_813_799_8,
    0.153_893_051_668_114_6,
];

/// Chebyshev fit of `(t + 1.5)^-0.3` for `t` from -0.5 to 0.5, within 1.4e-7.
const SERIES: [f64; 8] = [
    0.885_467_393_228_982_4,
    -0.177_093_359_875_302_67,
    0.076_753_225_636_438_37,
    -0.039_233_237_360_081_77,
    0.021_323_255_406_673_92,
    -0.012_194_795_569_667_74,
    0.008_811_954_332_651_61,
    -0.005_357_049_749_427_684,
];

/// `x^-0.3` of a normal positive number, within a relative error of 2e-7.
///
/// Products and sums alone, in a fixed order: the power functions of mathematical libraries differ between platforms.
/// With `x = m 2^(10 q + r)` it is `m^-0.3` by a polynomial, times `2^(-0.3 r)` by a table, times `2^(-3 q)`.
fn power(x: f32) -> f32 {
    let bits = x.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    let t = f64::from(f32::from_bits(bits & 0x007f_ffff | 0x3f80_0000)) - 1.5;
    let mantissa = SERIES.iter().rev().fold(0.0, |sum, c| sum * t + c);
    let (q, r) = (exponent.div_euclid(10), exponent.rem_euclid(10));
    let whole = f64::from_bits(((1023 - 3 * q) as u64) << 52);
    (mantissa * POWERS[r as usize] * whole) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_those_of_the_library() {
        for bits in (0x0080_0000..0x7f7f_ffff_u32).step_by(99_991) {
            let x = f32::from_bits(bits);
            let (got, want) = (f64::from(power(x)), f64::from(x).powf(-0.3));
            assert!((got / want - 1.0).abs() < 2e-7, "{x}: {got} {want}");
        }
    }

    #[test]
    fn errors_called_small_shrink_to_nothing() {
        let last = BETA * BETA_STEP.powi(ROUNDS as i32);
        assert!(SMALL - power(SMALL) / last <= 0.0);
        assert_eq!(shrink(-0.1, BETA), 0.0);
        assert!((shrink(-1.0, BETA) + 0.9).abs() < 1e-6);
    }
}
