//! Coordinate descent on the codes of a sequence.

use super::SEQUENCE;
use super::feedback::Feed;
use crate::isa::{Isa, Kernel, run};
use crate::lanes::LANES;

/// States that hold a code at most.
const HOLDERS: usize = 4;

/// The values of a trellis and what their errors count.
#[derive(Debug, Clone, Copy)]
pub struct Descent<'a> {
    /// Bits of a code: 2, 3 or 4.
    pub bits: u8,
    /// 64 or 256 values.
    pub table: &'a [i8],
    /// What they are multiplied by.
    pub scale: f32,
    /// A symmetric matrix whose row `i` begins at `i * stride`.
    pub hessian: &'a [f32],
    /// Values from the beginning of one row to that of the next: a multiple of 16, and no fewer than there are weights.
    pub stride: usize,
    /// How often every code is looked at.
    pub passes: usize,
}

/// Moves each code of a sequence in turn to where the quadratic error is least.
///
/// ```text
/// error = e H e      e = w - scale * table[states], of which `errors` are those to begin with
/// ```
///
/// A code is part of the states of its own weight and of those before it, as many as a state has codes; a move changes the values of all of
/// them. `r = H e` is kept up to date, so that what a move by `d` gains, `d (2 r - H d)`, takes only these few columns. Of the moves that gain most the
/// smallest code is made. Each operation is rounded to `f32`, sums go from the code's own weight backwards. Returns how many codes moved. Sequences of
/// fewer than 8 weights are left as they are.
///
/// # Panics
/// When lengths do not fit, or `states` has more than [`SEQUENCE`].
///
/// # Examples
/// ```
/// use aq_kernels::trellis::{Descent, descend};
/// let table: Vec<i8> = (0..64).map(|s| (s % 16) as i8).collect();
/// // Every weight is 3 and every value 0.
/// let (mut states, mut hessian) = ([0; 16], [0.0; 256]);
/// hessian.iter_mut().step_by(17).for_each(|h| *h = 1.0);
/// let descent = Descent { bits: 4, table: &table, scale: 1.0, hessian: &hessian, stride: 16, passes: 2 };
/// assert_eq!(descend(descent, &[3.0; 16], &mut states), 16);
/// assert!(states.iter().all(|s| s % 16 == 3));
/// ```
pub fn descend(descent: Descent<'_>, errors: &[f32], states: &mut [u8]) -> usize {
    let n = states.len();
    assert!(n <= SEQUENCE && errors.len() == n, "an error for each of at most 256 weights");
    assert!(descent.stride >= n && descent.stride.is_multiple_of(LANES), "rows of whole vectors");
    if n < 2 * HOLDERS {
        return 0;
    }
    let mut residual = [0.0; SEQUENCE];
    let negative: [f32; SEQUENCE] = std::array::from_fn(|i| errors.get(i).map_or(0.0, |e| -e));
    let (rows, stride) = (descent.hessian, descent.stride);
    run(Feed { errors: &negative[..n], rows, stride, out: &mut residual[..n] });
    run(Sweeps { descent, residual, states })
}

struct Sweeps<'a> {
    descent: Descent<'a>,
    residual: [f32; SEQUENCE],
    states: &'a mut [u8],
}

impl Kernel for Sweeps<'_> {
    type Output = usize;

    #[inline(always)]
    fn call<I: Isa>(self, isa: I) -> usize {
        match self.descent.table.len().ilog2().div_ceil(u32::from(self.descent.bits)) {
            2 => self.passes::<I, 2>(isa),
            3 => self.passes::<I, 3>(isa),
            _ => self.passes::<I, HOLDERS>(isa),
        }
    }
}

impl Sweeps<'_> {
    #[inline(always)]
    fn passes<I: Isa, const M: usize>(mut self, isa: I) -> usize {
        let mut moved = 0;
        for _ in 0..self.descent.passes {
            let before = moved;
            for i in 0..self.states.len() {
                moved += usize::from(self.step::<I, M>(isa, i));
            }
            if moved == before {
                break;
            }
        }
        moved
    }

    /// Chooses code `i` anew, which `M` states hold, and says whether it moved.
    #[inline(always)]
    fn step<I: Isa, const M: usize>(&mut self, isa: I, i: usize) -> bool {
        let Descent { bits, table, scale, hessian, stride, .. } = self.descent;
        let n = self.states.len();
        let at: [usize; M] = std::array::from_fn(|a| if i >= a { i - a } else { i + n - a });
        let old = at.map(|t| self.states[t]);
        let twice = at.map(|t| self.residual[t] + self.residual[t]);
        let h = at.map(|t| at.map(|u| hessian[t * stride + u]));
        let own = old[0] & ((1 << bits) - 1);
        let (mut most, mut best) = (0.0, ([0.0; M], old));
        for code in (0..1u8 << bits).filter(|&code| code != own) {
            let new: [u8; M] =
                std::array::from_fn(|a| replaced(old[a], code, own, a as u32 * u32::from(bits), table.len()));
            let value = |s: u8| f32::from(table[usize::from(s)]);
            let d: [f32; M] = std::array::from_fn(|a| (value(new[a]) - value(old[a])) * scale);
            let mut gain = 0.0;
            for a in 0..M {
                let mut rest = twice[a];
                for (h, d) in h[a].iter().zip(&d) {
                    rest -= h * d;
                }
                gain += d[a] * rest;
            }
            if gain > most {
                (most, best) = (gain, (d, new));
            }
        }
        if most <= 0.0 {
            return false;
        }
        at.iter().zip(best.1).for_each(|(&t, s)| self.states[t] = s);
        for (&t, d) in at.iter().zip(best.0) {
            let row = &hessian[t * stride..][..n.next_multiple_of(LANES).min(stride)];
            let pieces = self.residual.as_chunks_mut::<LANES>().0.iter_mut().zip(row.as_chunks::<LANES>().0);
            for (residual, row) in pieces {
                let change = isa.mul(isa.splat(d), isa.load(row));
                isa.store(isa.sub(isa.load(residual), change), residual);
            }
        }
        true
    }
}

/// A state with `code` in place of `own` from bit `shift` on, of a trellis of `states`.
#[inline(always)]
fn replaced(state: u8, code: u8, own: u8, shift: u32, states: usize) -> u8 {
    let change = (u32::from(code ^ own) << shift) & (states as u32 - 1);
    state ^ change as u8
}
