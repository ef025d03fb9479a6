//! The states of a sequence: where the circular stream closes, then the best path that closes there.

use super::SEQUENCE;
use super::feedback::Fed;
use super::viterbi::{Choices, Found, Pass, Run, WORDS, next_state, pass, start};

/// Weights before and after the seam of a sequence that decide the bits there. Choices further away hardly depend on
/// each other: 16 more change no figure of the error.
const SEAM: usize = 32;
/// Weights of a sequence so short that every seam is tried; at some of them no path of so few codes closes.
const SHORT: usize = 8;

/// Finds the states with a small squared error from `x`, and returns that error.
///
/// ```text
/// minimise  sum(importance[i] * (x[i] - table[states[i]])^2)      importance: 1 where there is none
/// ```
///
/// The seam of the circular stream is fixed first, by the best path over the 32 weights around it on either side; the
/// best path through the whole sequence that agrees with it there is the result (the two passes of QTIP, of which the
/// first is short). Up to 8 weights every seam is tried instead. Costs are `f32`, added up from the last weight to the first; products and sums are each rounded. Of
/// equal costs the one with the smaller reversed code wins, and the smallest first state.
///
/// A sequence of no weights has the error 0. Errors that overflow `f32` give a valid path and infinity.
///
/// # Panics
/// When `bits` is not 2, 3 or 4, `table` has neither 64 nor 256 values, the lengths differ, or `x` has more than [`SEQUENCE`]
/// weights.
///
/// # Examples
/// ```
/// use aq_kernels::trellis::encode;
/// let table: Vec<i8> = (0..64).map(|s| (s * 37 % 64 - 32) as i8).collect();
/// let mut states = [0; 4];
/// let error = encode(4, &table, &[3.0, -20.0, 17.0, 0.5], None, &mut states);
/// assert!(error < 50.0);
/// // The low bits of a state are its code, the others the low bits of the next one.
/// assert!((0..4).all(|i| states[i] >> 4 == states[(i + 1) % 4] & 3));
/// ```
pub fn encode(bits: u8, table: &[i8], x: &[f32], importance: Option<&[f32]>, states: &mut [u8]) -> f32 {
    assert!(x.len() <= SEQUENCE && states.len() == x.len(), "a state for each of at most 256 weights");
    assert!(importance.is_none_or(|h| h.len() == x.len()), "an importance for each weight");
    Task::Free(Run { x, importance }).solve(bits, table, states)
}

/// A sequence to encode.
pub(super) enum Task<'a> {
    Free(Run<'a>),
    Fed(Fed<'a>),
}

impl Task<'_> {
    pub(super) fn solve(self, bits: u8, table: &[i8], states: &mut [u8]) -> f32 {
        match (table.len(), bits) {
            (64, 2) => self.solve_with(Encoder::<64, 2>::new(table), states),
            (64, 3) => self.solve_with(Encoder::<64, 3>::new(table), states),
            (64, 4) => self.solve_with(Encoder::<64, 4>::new(table), states),
            (256, 2) => self.solve_with(Encoder::<256, 2>::new(table), states),
            (256, 3) => self.solve_with(Encoder::<256, 3>::new(table), states),
            (256, 4) => self.solve_with(Encoder::<256, 4>::new(table), states),
            (values, bits) => panic!("no trellis of {values} values and {bits} bits"),
        }
    }

    fn solve_with<const STATES: usize, const BITS: u32>(
        self,
        mut encoder: Encoder<STATES, BITS>,
        states: &mut [u8],
    ) -> f32 {
        match self {
            Task::Free(run) => encoder.encode(run, states),
            Task::Fed(fed) if fed.x.len() <= SHORT => encoder.encode(fed.run(), states),
            Task::Fed(fed) => {
                encoder.encode_fed(fed, states);
                0.0
            }
        }
    }
}

pub(super) struct Encoder<const STATES: usize, const BITS: u32> {
    pub(super) table: [f32; STATES],
    pub(super) choices: [Choices; SEQUENCE],
}

impl<const STATES: usize, const BITS: u32> Encoder<STATES, BITS> {
    /// What a state shares with the next one.
    const OVERLAPS: usize = STATES >> BITS;

    fn new(table: &[i8]) -> Self {
        Self { table: std::array::from_fn(|s| f32::from(table[s])), choices: [[0; WORDS]; SEQUENCE] }
    }

    fn encode(&mut self, run: Run<'_>, states: &mut [u8]) -> f32 {
        if run.x.is_empty() {
            return 0.0;
        }
        if run.x.len() <= SHORT {
            return self.exhaust(run, states);
        }
        let seam = self.seam(run);
        let found = self.pass(run, Some(seam));
        self.follow(found, states);
        found.cost
    }

    /// The best path over all seams.
    fn exhaust(&mut self, run: Run<'_>, states: &mut [u8]) -> f32 {
        let mut least = f32::INFINITY;
        states.fill(0);
        for seam in 0..Self::OVERLAPS {
            let found = self.pass(run, Some(seam));
            if found.cost < least {
                least = found.cost;
                self.follow(found, states);
            }
        }
        least
    }

    /// What the last state and the first should share.
    pub(super) fn seam(&mut self, run: Run<'_>) -> usize {
        let n = run.x.len();
        let around = |of: &[f32]| -> [f32; 2 * SEAM] {
            let mut next = (SEAM / n + 1) * n - SEAM - 1;
            std::array::from_fn(|_| {
                next = (next + 1) % n;
                of[next]
            })
        };
        let (x, importance) = (around(run.x), run.importance.map(around));
        let found = self.pass(Run { x: &x, importance: importance.as_ref().map(|h| &h[..]) }, None);
        let mut states = [0; SEAM + 1];
        self.follow(found, &mut states);
        usize::from(states[SEAM]) % Self::OVERLAPS
    }

    fn pass(&mut self, run: Run<'_>, seam: Option<usize>) -> Found {
        let choices = &mut self.choices[..run.x.len()];
        pass(Pass::<'_, STATES, BITS> { run, table: &self.table, least: &mut start(seam), seam, choices })
    }

    /// The states of the path found last, as many as there is room for.
    fn follow(&self, found: Found, states: &mut [u8]) {
        self.follow_from(0, found.state, states);
    }

    /// The states of the path that is in `state` at the weight `first`, as many as there is room for.
    pub(super) fn follow_from(&self, first: usize, mut state: usize, states: &mut [u8]) {
        for (i, out) in states.iter_mut().enumerate() {
            if i > 0 {
                state = next_state::<STATES, BITS>(&self.choices[first + i], state);
            }
            *out = state as u8;
        }
    }
}
