//! The sweep over a uniform grid without ends.

use super::{Lanes, ROWS, Rounding, Sweep};
use crate::isa::{Isa, run};

/// The grids of 16 rows: one step a column times one factor a row.
#[derive(Debug, Clone, Copy)]
pub struct UniformGrid<'a> {
    /// The step of each column.
    pub steps: &'a [f32],
    /// The factor of each row.
    pub factors: &'a Lanes,
    /// What magnitudes lose before they are rounded, in steps: more gives smaller codes; 0 gives the nearest.
    pub rounding_offset: f32,
    /// How far below a code of magnitude 1, 2, and 3 or more the value lies, in steps.
    pub shrink: [f32; 3],
}

/// The largest magnitude of a code.
pub(crate) const LARGEST: f32 = 32767.0;
/// Adding it leaves no bits for a fraction, for magnitudes up to 2^22.
const MAGIC: f32 = 12_582_912.0;

/// Rounds 16 rows to whole multiples of a step, column by column, with error feedback.
///
/// ```text
/// for each column i in order:
///     step      = steps[i] * factor
///     v         = w[i] * (1 / step)
///     magnitude = round_ties_even(min(max(|v| - rounding_offset, 0), 32767))
///     code[i]   = sign(v) * magnitude
///     value     = sign(v) * (magnitude - shrink[magnitude]) * step
///     w[j]      = w[j] - (w[i] - value) * feedback[i][j]      j > i
///     w[i]      = w[i] - value
/// ```
///
/// `shrink` is 0 for magnitude 0 and its last value for 3 and more. Each operation is rounded to `f32`. `feedback` is that of
/// [`sweep_affine`](super::sweep_affine). A step of 0 gives code 0. Afterwards `w` holds what each column lost;
/// `sum((w[i] / U[i][i])^2)` is the output error of the row, for the factor `U` that the feedback is from.
///
/// # Panics
/// When lengths differ from the number of columns, or `feedback` has not its square.
///
/// ```
/// use aq_kernels::feedback::{UniformGrid, sweep_uniform};
/// let grid = UniformGrid { steps: &[0.5], factors: &[2.0; 16], rounding_offset: 0.1, shrink: [0.0, 0.25, 0.0] };
/// let (mut w, mut codes) = ([[-2.5; 16]], [[0; 16]]);
/// sweep_uniform(&mut w, &[0.0], grid, &mut codes);
/// assert_eq!((codes, w), ([[-2; 16]], [[-0.75; 16]]));
/// ```
pub fn sweep_uniform(w: &mut [Lanes], feedback: &[f32], grid: UniformGrid<'_>, codes: &mut [[i16; ROWS]]) {
    let n = w.len();
    assert_eq!((codes.len(), grid.steps.len()), (n, n), "codes and a step for each column");
    let mut table = [0.0; ROWS];
    table[1..4].copy_from_slice(&grid.shrink);
    run(Sweep::new(w, feedback, Uniform { grid, table, codes }));
}

struct Uniform<'a> {
    grid: UniformGrid<'a>,
    table: Lanes,
    codes: &'a mut [[i16; ROWS]],
}

impl Rounding for Uniform<'_> {
    const LEAVES_ERRORS: bool = true;

    #[inline(always)]
    fn round<I: Isa>(&mut self, isa: I, col: usize, w: I::F) -> I::F {
        let (mut step, mut inverse) = ([0.0; ROWS], [0.0; ROWS]);
        for i in 0..ROWS {
            step[i] = self.grid.steps[col] * self.grid.factors[i];
            inverse[i] = if step[i] > 0.0 { 1.0 / step[i] } else { 0.0 };
        }
        let v = isa.mul(w, isa.load(&inverse));
        let (up, up_value) = self.magnitude(isa, v);
        let (down, down_value) = self.magnitude(isa, isa.sub(isa.splat(0.0), v));
        let mut code = [0.0; ROWS];
        isa.store(isa.sub(up, down), &mut code);
        for (out, code) in self.codes[col].iter_mut().zip(code) {
            *out = code as i16;
        }
        isa.mul(isa.sub(up_value, down_value), isa.load(&step))
    }
}

impl Uniform<'_> {
    /// The magnitude of the code of a positive value, and its value in steps; 0 for a negative one.
    #[inline(always)]
    fn magnitude<I: Isa>(&self, isa: I, v: I::F) -> (I::F, I::F) {
        let zero = isa.splat(0.0);
        let exact = isa.max(isa.sub(v, isa.splat(self.grid.rounding_offset)), zero);
        let magic = isa.splat(MAGIC);
        let code = isa.sub(isa.add(isa.min(exact, isa.splat(LARGEST)), magic), magic);
        let index = isa.round(isa.min(code, isa.splat(3.0)));
        (code, isa.sub(code, isa.look_up(isa.load(&self.table), index)))
    }
}
