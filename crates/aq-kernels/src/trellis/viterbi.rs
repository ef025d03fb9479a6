//! The cheapest path through the trellis, by Viterbi's algorithm.
//!
//! A pass goes from the last weight of a run to its first. With `J = STATES / 2^BITS` and `t` below `2^BITS`,
//!
//! ```text
//! cost[i][s] = importance[i] * (x[i] - table[s])^2 + least[i + 1][s >> BITS]
//! least[i][j] = min over t of cost[i][t * J + j]
//! ```
//!
//! Costs lie in the order of their states, 16 to a vector, so a minimum is over vectors `J / 16` apart, and over lanes where
//! `J < 16`. It is taken in halves. Which half was smaller is one bit a lane, and all that the way back needs.

use crate::isa::{Isa, Kernel, run};
use crate::lanes::{LANES, pieces};

/// Words that one weight's choices take at most: 15 comparisons of halves.
pub(super) const WORDS: usize = 16;

/// Which halves were smaller when the costs of one weight were reduced: bit `l` is lane `l`.
pub(super) type Choices = [u16; WORDS];

/// Costs by the high bits of a state, which the next one begins with.
pub(super) type Least = [[f32; LANES]; 4];

/// Weights in units of the table, and what their errors count.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) x: &'a [f32],
    pub(super) importance: Option<&'a [f32]>,
}

/// One pass over a run.
pub(super) struct Pass<'a, const STATES: usize, const BITS: u32> {
    pub(super) run: Run<'a>,
    pub(super) table: &'a [f32; STATES],
    /// The costs behind the last weight by what the last state goes on with; those behind the first one afterwards.
    pub(super) least: &'a mut Least,
    /// The low bits of the first state; whatever is cheapest when `None`.
    pub(super) seam: Option<usize>,
    /// Room for the choices of each weight.
    pub(super) choices: &'a mut [Choices],
}

/// The cheapest path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) cost: f32,
    /// Its first state.
    pub(super) state: usize,
}

/// Runs a pass at the level in use.
pub(super) fn pass<const STATES: usize, const BITS: u32>(pass: Pass<'_, STATES, BITS>) -> Found {
    match (STATES, pass.run.importance.is_some()) {
        (64, false) => run(Vectors::<'_, STATES, BITS, 4, false>(pass)),
        (64, true) => run(Vectors::<'_, STATES, BITS, 4, true>(pass)),
        (_, false) => run(Vectors::<'_, STATES, BITS, 16, false>(pass)),
        (_, true) => run(Vectors::<'_, STATES, BITS, 16, true>(pass)),
    }
}

/// A pass whose costs are `VECTORS` vectors.
struct Vectors<'a, const STATES: usize, const BITS: u32, const VECTORS: usize, const WEIGHTED: bool>(
    Pass<'a, STATES, BITS>,
);

impl<const STATES: usize, const BITS: u32, const VECTORS: usize, const WEIGHTED: bool> Kernel
    for Vectors<'_, STATES, BITS, VECTORS, WEIGHTED>
{
    type Output = Found;

    #[inline(always)]
    fn call<I: Isa>(self, isa: I) -> Found {
        let Pass { run, table, least: kept, seam, choices } = self.0;
        let table = pieces::<f32, VECTORS>(table);
        let mut least = kept.map(|lanes| isa.load(&lanes));
        let mut costs = [isa.splat(0.0); VECTORS];
        for (i, choices) in choices.iter_mut().enumerate().rev() {
            let (x, h) = (isa.splat(run.x[i]), isa.splat(run.importance.map_or(1.0, |h| h[i])));
            for v in 0..VECTORS {
                let d = isa.sub(x, isa.load(&table[v]));
                let error = if WEIGHTED { isa.mul(isa.mul(d, d), h) } else { isa.mul(d, d) };
                costs[v] = isa.add(error, isa.repeat::<BITS>(least[v >> BITS], v % (1 << BITS)));
            }
            Layout::<STATES, BITS>::reduce(isa, &costs, &mut least, choices);
        }
        kept.iter_mut().zip(least).for_each(|(kept, least)| isa.store(least, kept));
        let mut all = [[0.0; LANES]; VECTORS];
        all.iter_mut().zip(costs).for_each(|(all, costs)| isa.store(costs, all));
        first_of_least(all.as_flattened(), seam.unwrap_or(0), seam.map_or(1, |_| STATES >> BITS))
    }
}

/// Costs behind the last weight of a sequence whose first state begins with `seam`; no costs when that is open.
pub(super) fn start(seam: Option<usize>) -> Least {
    let mut lanes = [[if seam.is_some() { f32::INFINITY } else { 0.0 }; LANES]; 4];
    if let Some(seam) = seam {
        lanes[seam / LANES % 4][seam % LANES] = 0.0;
    }
    lanes
}

/// The cheapest of every `step`-th state from `first` on.
fn first_of_least(costs: &[f32], first: usize, step: usize) -> Found {
    let mut found = Found { cost: f32::INFINITY, state: first };
    for (i, &cost) in costs[first..].iter().step_by(step).enumerate() {
        if cost < found.cost {
            found = Found { cost, state: first + i * step };
        }
    }
    found
}

/// How the costs of the states lie in vectors.
struct Layout<const STATES: usize, const BITS: u32>;

impl<const STATES: usize, const BITS: u32> Layout<STATES, BITS> {
    const J: usize = STATES >> BITS;
    /// Vectors that `least` fills.
    const GROUPS: usize = Self::J.div_ceil(LANES);
    /// Vectors of costs that are reduced to one of `least`.
    const PARTS: usize = STATES / LANES / Self::GROUPS;

    #[inline(always)]
    fn reduce<I: Isa>(isa: I, costs: &[I::F], least: &mut [I::F; 4], choices: &mut Choices) {
        for g in 0..Self::GROUPS {
            let mut parts = [costs[0]; 16];
            for t in 0..Self::PARTS {
                parts[t] = costs[t * Self::GROUPS + g];
            }
            let mut word = g * (Self::PARTS - 1);
            if Self::PARTS >= 16 {
                halve::<I, 8>(isa, &mut parts, choices, &mut word);
            }
            if Self::PARTS >= 8 {
                halve::<I, 4>(isa, &mut parts, choices, &mut word);
            }
            halve::<I, 2>(isa, &mut parts, choices, &mut word);
            halve::<I, 1>(isa, &mut parts, choices, &mut word);
            if Self::J <= 8 {
                fold::<I, 8>(isa, &mut parts[0], choices, &mut word);
            }
            if Self::J <= 4 {
                fold::<I, 4>(isa, &mut parts[0], choices, &mut word);
            }
            least[g] = parts[0];
        }
    }
}

/// The smaller of the vectors `t` and `t + HALF` becomes vector `t`.
#[inline(always)]
fn halve<I: Isa, const HALF: usize>(isa: I, parts: &mut [I::F; 16], choices: &mut Choices, word: &mut usize) {
    for t in 0..HALF {
        let (low, high) = (parts[t], parts[t + HALF]);
        choices[*word] = isa.less(high, low);
        parts[t] = isa.min(high, low);
        *word += 1;
    }
}

/// The smaller of the lanes `l` and `l + HALF` becomes lane `l`.
#[inline(always)]
fn fold<I: Isa, const HALF: usize>(isa: I, part: &mut I::F, choices: &mut Choices, word: &mut usize) {
    let (low, high) = (*part, isa.swap::<HALF>(*part));
    choices[*word] = isa.less(high, low);
    *part = isa.min(high, low);
    *word += 1;
}

/// The state of the weight after one of state `state`. `choices` are those of the weight after.
#[inline(always)]
pub(super) fn next_state<const STATES: usize, const BITS: u32>(choices: &Choices, state: usize) -> usize {
    let (j, groups, parts) =
        (Layout::<STATES, BITS>::J, Layout::<STATES, BITS>::GROUPS, Layout::<STATES, BITS>::PARTS);
    let low = state >> BITS;
    let (group, mut lane) = (low / LANES, low % LANES);
    let first = group * (parts - 1);
    let bit = |word: usize, lane: usize| usize::from(choices[word % WORDS] >> lane & 1);
    // Backwards through the comparisons: the last one was between the lowest bits of what was chosen.
    let folds = (LANES / j.min(LANES)).ilog2() as usize;
    for n in 0..folds {
        lane += (j << n) * bit(parts - 2 + folds - n, lane);
    }
    let (mut part, mut half) = (0, 1);
    while half < parts {
        part += half * bit(first + parts - 2 * half + part, lane);
        half *= 2;
    }
    (part * groups + group) * LANES + lane
}
