//! Sixteen rows on their way through a layer.

use aq_codec::entropy::power;
use aq_kernels::feedback::{Lanes, ROWS, UniformGrid, subtract_products, sweep_uniform};

use super::controller::Found;
use super::layer::{Block, EntropyLayer};
use crate::octave;

/// The largest magnitude that a code is given room for.
const LARGEST: f32 = 16384.0;

/// Buffers of one worker: 16 rows of a layer and one block of their columns.
#[derive(Default)]
pub(super) struct Tile {
    /// The weights, row by row.
    pub(super) weights: Vec<f32>,
    /// The codes, row by row.
    pub(super) codes: Vec<i16>,
    /// The level of each row's scale.
    pub(super) levels: [i32; ROWS],
    /// What each bin's weights lose, and how many they are: codes of magnitude 1, 2, and 3 or more.
    pub(super) bins: [(f64, f64); 3],
    /// The squared error in units of the steps.
    pub(super) distortion: f64,
    slopes: [(f64, f64); ROWS],
    state: BlockState,
}

/// Sixteen rows of one block, columns in the order in which they are rounded.
#[derive(Default)]
struct BlockState {
    weights: Vec<Lanes>,
    errors: Vec<Lanes>,
    codes: Vec<[i16; ROWS]>,
    product: Vec<Lanes>,
    /// `0, 1, 2, ...`
    all: Vec<u32>,
}

impl Tile {
    /// Makes room for rows of `cols` weights, with nothing in it.
    pub(super) fn clear(&mut self, cols: usize) {
        self.weights.clear();
        self.weights.resize(cols * ROWS, 0.0);
        self.codes.resize(cols * ROWS, 0);
        self.levels = [0; ROWS];
        self.slopes = [(0.0, 0.0); ROWS];
        (self.bins, self.distortion) = Default::default();
    }

    /// Rounds the rows that are in the tile; `rows` of them count for bins and distortion.
    pub(super) fn solve(&mut self, layer: &EntropyLayer, found: &Found, rows: usize) {
        for row in 0..ROWS {
            self.levels[row] = level(layer, found, &self.weights[row * layer.cols..][..layer.cols]);
        }
        let factors = self.levels.map(|l| found.unit() * power(l, layer.fineness as u8));
        for block in &layer.blocks {
            self.state.gather(block, &self.weights, layer.cols);
            let shrink = found.shrink();
            let grid = UniformGrid {
                steps: &block.steps,
                factors: &factors,
                rounding_offset: found.rounding_offset,
                shrink,
            };
            self.state.sweep(block, grid);
            for (row, &factor) in factors.iter().enumerate().take(rows) {
                self.state.count(block, row, factor, &mut self.bins, &mut self.distortion);
            }
            if layer.gain {
                self.state.add_slopes(block, grid, &mut self.slopes);
            }
            self.state.scatter(block, &mut self.codes, layer.cols);
        }
    }

    /// The level of a row's scale with its gain.
    pub(super) fn corrected_level(&self, layer: &EntropyLayer, row: usize) -> i32 {
        let (norm, product) = self.slopes[row];
        match crate::gain::correction(norm, product) {
            Some(gain) if layer.gain => {
                self.levels[row] + octave::log2(f64::from(gain.factor), layer.fineness)
            }
            _ => self.levels[row],
        }
    }
}

/// The level of a row before its gain: that of its norm without calibration, else 0, or what its largest weight needs.
fn level(layer: &EntropyLayer, found: &Found, row: &[f32]) -> i32 {
    let norm = aq_kernels::metric::sum_squares(row) / row.len() as f64;
    let level = match layer.calibrated || norm == 0.0 {
        true => 0,
        false => octave::log2(norm, layer.fineness).div_euclid(2),
    };
    let needed = row.iter().enumerate().map(|(col, w)| w.abs() / layer.step(col)).fold(0.0, f32::max);
    let room = f64::from(found.unit() * LARGEST) * f64::from(power(level, layer.fineness as u8));
    match f64::from(needed) > room {
        true => level + octave::log2(f64::from(needed) / room, layer.fineness) + 1,
        false => level,
    }
}

impl EntropyLayer {
    pub(super) fn step(&self, col: usize) -> f32 {
        self.quarters.get(col).map_or(1.0, |&quarter| aq_codec::entropy::step(quarter))
    }
}

impl BlockState {
    fn gather(&mut self, block: &Block, weights: &[f32], cols: usize) {
        let columns = block.order.iter().map(|&col| block.first + col as usize);
        self.weights.clear();
        self.weights.extend(columns.map(|col| std::array::from_fn(|row| weights[row * cols + col])));
        self.codes.resize(block.order.len(), [0; ROWS]);
        self.all.clear();
        self.all.extend(0..block.order.len() as u32);
    }

    fn sweep(&mut self, block: &Block, grid: UniformGrid<'_>) {
        self.errors.clone_from(&self.weights);
        sweep_uniform(&mut self.errors, &block.feedback, grid, &mut self.codes);
    }

    fn scatter(&self, block: &Block, codes: &mut [i16], cols: usize) {
        for (lanes, &col) in self.codes.iter().zip(&block.order) {
            for (row, &code) in lanes.iter().enumerate() {
                codes[row * cols + block.first + col as usize] = code;
            }
        }
    }

    /// Adds what a row lost to its bins, and its error.
    fn count(
        &self,
        block: &Block,
        row: usize,
        factor: f32,
        bins: &mut [(f64, f64); 3],
        distortion: &mut f64,
    ) {
        for ((errors, codes), &step) in self.errors.iter().zip(&self.codes).zip(&block.steps) {
            let error = f64::from(errors[row]) / f64::from(step * factor);
            let code = codes[row];
            if code != 0 {
                let bin = &mut bins[code.unsigned_abs().min(3) as usize - 1];
                bin.0 += error * f64::from(code.signum());
                bin.1 += 1.0;
            }
            *distortion += error * error;
        }
    }

    /// Adds the share of this block in `w H w` and `w H q` of each row, or in `w w` and `w q`.
    fn add_slopes(&mut self, block: &Block, grid: UniformGrid<'_>, slopes: &mut [(f64, f64); ROWS]) {
        self.product.clear();
        if block.h.is_empty() {
            self.product.extend(self.weights.iter().map(|w| w.map(|w| -w)));
        } else {
            self.product.resize(self.weights.len(), [0.0; ROWS]);
            let n = self.weights.len();
            subtract_products(&self.weights, &self.all, &block.h, n, 0, &mut self.product);
        }
        let columns = self.weights.iter().zip(&self.codes).zip(&self.product).zip(&block.steps);
        for (((weights, codes), product), &step) in columns {
            for lane in 0..ROWS {
                let damped = -f64::from(product[lane]);
                let output = (damped - f64::from(block.damping * weights[lane])) * block.share;
                let value = value(codes[lane], &grid.shrink) * (step * grid.factors[lane]);
                slopes[lane].0 += f64::from(weights[lane]) * output;
                slopes[lane].1 += f64::from(value) * output;
            }
        }
    }
}

/// What a code stands for, in steps.
pub(super) fn value(code: i16, shrink: &[f32; 3]) -> f32 {
    match code {
        0 => 0.0,
        code => {
            let size = f32::from(code.unsigned_abs());
            let value = size - shrink[code.unsigned_abs().min(3) as usize - 1];
            if code < 0 { -value } else { value }
        }
    }
}
