//! Sixteen rows on their way through a layer.

use std::ops::Range;

use aq_codec::trellis::{Fit, Trellis, encode_sequence};
use aq_kernels::feedback::{Lanes, ROWS, subtract_products};
use aq_kernels::trellis::{Descent, Feedback, SEQUENCE, descend, encode_with_feedback};

use super::factor::Block;
use super::rows::Store;

/// Passes over the codes of a sequence once it is encoded.
const PASSES: usize = 4;

/// Buffers of one worker: 16 rows of a layer and one block of their columns.
#[derive(Default)]
pub(super) struct Tile {
    /// Rows that there are.
    pub(super) rows: usize,
    /// The states, row by row.
    pub(super) states: Vec<u8>,
    /// The fits of each sequence, row by row.
    pub(super) fits: Vec<Fit>,
    /// The powers of two.
    pub(super) exponents: [i32; ROWS],
    /// `w H w` and `w H q` of each row.
    pub(super) slopes: [(f64, f64); ROWS],
    cols: usize,
    /// The weights by column, in units of the row's power of two.
    weights: Vec<Lanes>,
    /// The weights moved by what columns behind them lost.
    targets: Vec<Lanes>,
    /// Target less value of each column.
    errors: Vec<Lanes>,
    product: Vec<Lanes>,
    /// `0, 1, 2, ...`
    all: Vec<u32>,
}

impl Tile {
    /// Makes room for `rows` rows of `cols` weights.
    pub(super) fn clear(&mut self, cols: usize, rows: usize) {
        (self.cols, self.rows) = (cols, rows);
        self.states.resize(cols * ROWS, 0);
        self.fits.clear();
        self.fits.resize(cols.div_ceil(SEQUENCE) * ROWS, Fit { table: 0, scale: 0.0 });
        for lanes in [&mut self.weights, &mut self.errors] {
            lanes.clear();
            lanes.resize(cols, [0.0; ROWS]);
        }
        self.slopes = [(0.0, 0.0); ROWS];
    }

    /// Takes the weights of a row.
    pub(super) fn load(&mut self, lane: usize, row: &[f32]) {
        self.weights.iter_mut().zip(row).for_each(|(lanes, &w)| lanes[lane] = w);
    }

    /// Finds the states and fits of a block of columns, from its last sequence to the first.
    pub(super) fn solve(&mut self, block: &Block, store: Store) {
        let n = block.importance.len();
        self.all.clear();
        self.all.extend(0..n as u32);
        self.targets.clear();
        self.targets.extend_from_slice(&self.weights[block.first..][..n]);
        for start in (0..n).step_by(SEQUENCE).rev() {
            let range = start..n.min(start + SEQUENCE);
            for lane in 0..self.rows {
                self.encode(block, range.clone(), lane, store.trellis);
            }
            let errors = &self.errors[block.first..][range.clone()];
            let before = &mut self.targets[..start];
            subtract_products(errors, &self.all[range], &block.matrix, n, 0, before);
        }
        if store.gain {
            self.add_slopes(block);
        }
    }

    /// Encodes a sequence of one row.
    fn encode(&mut self, block: &Block, range: Range<usize>, lane: usize, trellis: Trellis) {
        let n = range.len();
        let mut target = [0.0; SEQUENCE];
        target.iter_mut().zip(&self.targets[range.clone()]).for_each(|(t, lanes)| *t = lanes[lane]);
        let first = block.first + range.start;
        let states = &mut self.states[lane * self.cols + first..][..n];
        let sequence = Sequence::new(block, range, trellis);
        let (fit, errors) = sequence.encode(&target[..n], states);
        self.fits[lane * self.cols.div_ceil(SEQUENCE) + first / SEQUENCE] = fit;
        self.errors[first..][..n].iter_mut().zip(errors).for_each(|(lanes, e)| lanes[lane] = e);
    }

    /// Adds the share of a block in `w H w` and `w H q` of each row, without the damping.
    fn add_slopes(&mut self, block: &Block) {
        let n = block.importance.len();
        let weights = &self.weights[block.first..][..n];
        self.product.clear();
        self.product.resize(n, [0.0; ROWS]);
        subtract_products(weights, &self.all, &block.h, n, 0, &mut self.product);
        let errors = &self.errors[block.first..][..n];
        for (((weights, targets), errors), product) in
            weights.iter().zip(&self.targets).zip(errors).zip(&self.product)
        {
            for lane in 0..ROWS {
                let weight = f64::from(weights[lane]);
                let output = -f64::from(product[lane]) - block.damping * weight;
                self.slopes[lane].0 += weight * output;
                self.slopes[lane].1 += f64::from(targets[lane] - errors[lane]) * output;
            }
        }
    }
}

/// Target less value of each weight.
fn errors_of(target: &[f32], table: &[i8], scale: f32, states: &[u8]) -> [f32; SEQUENCE] {
    let mut errors = [0.0; SEQUENCE];
    for ((error, &t), &s) in errors.iter_mut().zip(target).zip(states) {
        *error = t - f32::from(table[usize::from(s)]) * scale;
    }
    errors
}

/// A sequence of columns of a block.
struct Sequence<'a> {
    importance: &'a [f32],
    /// The rows of its columns, from its first column on.
    matrix: &'a [f32],
    stride: usize,
    /// The Hessian of its columns, in rows of 256.
    own: &'a [f32],
    trellis: Trellis,
}

impl<'a> Sequence<'a> {
    fn new(block: &'a Block, range: Range<usize>, trellis: Trellis) -> Self {
        let stride = block.importance.len();
        let matrix = &block.matrix[range.start * stride + range.start..];
        let own = &block.own[range.start * SEQUENCE..range.end * SEQUENCE];
        Self { importance: &block.importance[range], matrix, stride, own, trellis }
    }

    /// The states of a row's sequence, its fit, and what each of its columns lost.
    fn encode(&self, target: &[f32], states: &mut [u8]) -> (Fit, [f32; SEQUENCE]) {
        let mut fit = encode_sequence(self.trellis, target, Some(self.importance), states);
        let table = self.trellis.table(fit.table);
        if fit.scale > 0.0 {
            let inverse = 1.0 / fit.scale;
            let mut x = [0.0; SEQUENCE];
            x.iter_mut().zip(target).for_each(|(x, &t)| *x = t * inverse);
            let x = &mut x[..target.len()];
            let feedback = Feedback { importance: self.importance, matrix: self.matrix, stride: self.stride };
            encode_with_feedback(self.trellis.bits(), table, x, feedback, states);
            fit.scale = self.best_scale(target, table, states).unwrap_or(fit.scale);
            let errors = errors_of(target, table, fit.scale, states);
            let (bits, scale, hessian) = (self.trellis.bits(), fit.scale, self.own);
            let descent = Descent { bits, table, scale, hessian, stride: SEQUENCE, passes: PASSES };
            if descend(descent, &errors[..target.len()], states) > 0 {
                fit.scale = self.best_scale(target, table, states).unwrap_or(fit.scale);
            }
        }
        (fit, errors_of(target, table, fit.scale, states))
    }

    /// The scale that errs least for those states, as the block's own columns count.
    fn best_scale(&self, target: &[f32], table: &[i8], states: &[u8]) -> Option<f32> {
        let values = states.iter().map(|&s| f32::from(table[usize::from(s)]));
        let (mut t, mut v) = ([0.0; SEQUENCE], [0.0; SEQUENCE]);
        t[..target.len()].copy_from_slice(target);
        v.iter_mut().zip(values).for_each(|(v, value)| *v = value);
        let (mut product, mut norm) = (0.0, 0.0);
        for i in 0..target.len() {
            // Column `i` is still as it was: only columns behind it move it.
            let row = &self.matrix[i * self.stride..][..i];
            let (own_t, own_v) = (t[i], v[i]);
            for ((t, v), m) in t.iter_mut().zip(&mut v).zip(row) {
                *t -= own_t * m;
                *v -= own_v * m;
            }
        }
        for ((t, v), &d) in t.iter().zip(&v).zip(self.importance) {
            let weighted = f64::from(d) * f64::from(*v);
            product += weighted * f64::from(*t);
            norm += weighted * f64::from(*v);
        }
        let scale = (product / norm) as f32;
        (scale > 0.0 && scale.is_finite()).then_some(scale)
    }
}
