//! Sixteen rows on their way through a layer.

use aq_kernels::feedback::{AffineGrid, AffineGrids, Lanes, ROWS, descend, subtract_products, sweep_affine};

use super::refit::Bounds;
use super::{Block, Shared};

/// Passes over all codes before the grids are refitted, and after it.
const PASSES: [usize; 2] = [2, 4];

/// Buffers of one worker: 16 rows of a layer and one block of their columns.
#[derive(Default)]
pub(super) struct Tile {
    /// The weights, row by row, in units of the row's power of two.
    pub(super) weights: Vec<f32>,
    /// The codes, row by row.
    pub(super) codes: Vec<u8>,
    /// The grids of each group.
    pub(super) grids: Vec<AffineGrid>,
    /// The powers of two.
    pub(super) exponents: [i32; ROWS],
    /// The largest magnitude that a row may decode to.
    pub(super) limits: [f64; ROWS],
    /// `w H w` and `w H q` of each row.
    pub(super) slopes: [(f64, f64); ROWS],
    state: BlockState,
}

/// Sixteen rows of one block, columns in the order in which they are rounded.
#[derive(Default)]
pub(super) struct BlockState {
    weights: Vec<Lanes>,
    pub(super) values: Vec<Lanes>,
    pub(super) codes: Vec<[u8; ROWS]>,
    /// `H (w - q)`.
    pub(super) residual: Vec<Lanes>,
    pub(super) product: Vec<Lanes>,
    /// `0, 1, 2, ...`
    all: Vec<u32>,
}

impl Tile {
    /// Makes room for rows of `cols` weights in `groups` groups, with nothing in it.
    pub(super) fn clear(&mut self, cols: usize, groups: usize) {
        self.weights.clear();
        self.weights.resize(cols * ROWS, 0.0);
        self.codes.resize(cols * ROWS, 0);
        self.grids.clear();
        self.grids.resize(groups, AffineGrid::new([0.0; ROWS], [0.0; ROWS]));
        self.exponents = [0; ROWS];
        self.limits = [0.0; ROWS];
        self.slopes = [(0.0, 0.0); ROWS];
    }

    /// Finds the codes of a block of columns, and better grids for its groups.
    pub(super) fn solve(&mut self, block: &Block, shared: &Shared) {
        let Self { weights, codes, grids, limits, slopes, state, .. } = self;
        let top = shared.encoding.bits.max_code();
        state.gather(block, weights, shared.cols);
        state.sweep(block, grids_of(block, grids, top));
        state.measure(block);
        state.descend(block, grids_of(block, grids, top), PASSES[0]);
        let bounds = Bounds { max_code: top, limits };
        for group in &block.whole {
            group.refit(block, &mut grids[group.group()], state, bounds);
        }
        state.descend(block, grids_of(block, grids, top), PASSES[1]);
        if shared.gain {
            state.add_slopes(block, grids, slopes);
        }
        state.scatter(block, codes, shared.cols);
    }
}

impl BlockState {
    fn gather(&mut self, block: &Block, weights: &[f32], cols: usize) {
        let columns = block.factored.order.iter().map(|&col| block.factored.first + col as usize);
        self.weights.clear();
        self.weights.extend(columns.map(|col| std::array::from_fn(|row| weights[row * cols + col])));
        self.codes.resize(block.len(), [0; ROWS]);
        self.all.clear();
        self.all.extend(0..block.len() as u32);
    }

    fn scatter(&self, block: &Block, codes: &mut [u8], cols: usize) {
        for (lanes, &col) in self.codes.iter().zip(&block.factored.order) {
            for (row, &code) in lanes.iter().enumerate() {
                codes[row * cols + block.factored.first + col as usize] = code;
            }
        }
    }

    /// Rounds all columns; `values` are those of their codes afterwards.
    fn sweep(&mut self, block: &Block, grids: AffineGrids<'_>) {
        self.values.clone_from(&self.weights);
        sweep_affine(&mut self.values, &block.factored.feedback, grids, &mut self.codes);
    }

    /// Computes the residual of `values`.
    fn measure(&mut self, block: &Block) {
        for (value, weight) in self.values.iter_mut().zip(&self.weights) {
            for lane in 0..ROWS {
                value[lane] -= weight[lane];
            }
        }
        self.residual.clear();
        self.residual.resize(block.len(), [0.0; ROWS]);
        let h = &block.factored.h;
        subtract_products(&self.values, &self.all, h, block.len(), 0, &mut self.residual);
    }

    /// Moves codes until none moves or the passes are over.
    fn descend(&mut self, block: &Block, grids: AffineGrids<'_>, passes: usize) {
        let (h, inverse) = (&block.factored.h, &block.factored.inverse_diagonal);
        for _ in 0..passes {
            if descend(&mut self.residual, h, inverse, grids, &mut self.codes) == 0 {
                break;
            }
        }
    }

    /// Adds the share of this block in `w H w` and `w H q` of each row, without the damping.
    fn add_slopes(&mut self, block: &Block, grids: &[AffineGrid], slopes: &mut [(f64, f64); ROWS]) {
        self.product.clear();
        self.product.resize(block.len(), [0.0; ROWS]);
        let h = &block.factored.h;
        subtract_products(&self.weights, &self.all, h, block.len(), 0, &mut self.product);
        let columns = self.weights.iter().zip(&self.codes).zip(&self.product).zip(&block.group);
        for (((weights, codes), product), &group) in columns {
            let (scale, offset) = (grids[group as usize].scale(), grids[group as usize].offset());
            for lane in 0..ROWS {
                let value = f32::from(codes[lane]) * scale[lane] + offset[lane];
                let weight = f64::from(weights[lane]);
                let output = -f64::from(product[lane]) - block.factored.damping * weight;
                slopes[lane].0 += weight * output;
                slopes[lane].1 += f64::from(value) * output;
            }
        }
    }
}

fn grids_of<'a>(block: &'a Block, grids: &'a [AffineGrid], max_code: u8) -> AffineGrids<'a> {
    AffineGrids { grids, group: &block.group, max_code }
}
