//! Some rows of a layer, on which a grid is tried.

use aq_codec::entropy::{ColumnSteps, EncodeScratch, RowScales, SlabCodes, estimated_bytes};
use aq_core::{LayerInputs, StrategyError, TensorInfo};
use aq_kernels::feedback::ROWS;

use super::controller::Found;
use super::layer::EntropyLayer;
use super::tile::{Tile, value};
use crate::hessian::Hessian;
use crate::octave;

/// Weights of the rows that are tried; a layer of no more is tried as a whole.
const WEIGHTS: u64 = 1 << 19;
/// Rows on which dampings are compared.
const FIRST_ROWS: usize = 128;
/// Parts of an octave in which costs are compared.
const COST_FINENESS: u32 = 10;

/// Rows evenly spread over a layer.
pub(super) struct Sample {
    pub(super) cols: usize,
    rows: usize,
    weights: Vec<f32>,
}

/// What a grid gives on the sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    /// Bits per weight, side data included.
    pub(super) bits: f64,
    /// Mean squared error in units of the steps.
    pub(super) distortion: f64,
    /// The centroid of each bin, in 1/256 of a step below its middle.
    pub(super) deltas: [i8; 3],
}

/// Rows that are tried.
fn sample_rows(layer: &TensorInfo) -> u64 {
    layer.rows().min((WEIGHTS / layer.cols()).max(ROWS as u64))
}

/// Bytes of the sample and of what a trial makes of it: of each weight itself, its code and what the codec counts of it.
pub(super) fn sample_bytes(layer: &TensorInfo) -> u64 {
    sample_rows(layer).saturating_mul(layer.cols()).saturating_mul(16)
}

impl Sample {
    /// Reads the rows.
    pub(super) fn read(layer: &LayerInputs<'_>) -> Result<Self, StrategyError> {
        let (all, cols) = (layer.info.rows(), layer.info.cols());
        let count = sample_rows(layer.info);
        let (mut weights, mut row) = (Vec::new(), Vec::new());
        let source = layer.weights.ok_or_else(|| StrategyError::Read {
            tensor: layer.info.name().into(),
            reason: "the strategy needs to look at some rows first".into(),
        })?;
        for i in 0..count {
            source.read_row(i * all / count, &mut row)?;
            weights.extend_from_slice(&row);
        }
        Ok(Self { cols: cols as usize, rows: count as usize, weights })
    }

    /// At most [`FIRST_ROWS`] of the rows, evenly spread.
    pub(super) fn first_rows(&self) -> Self {
        let count = self.rows.min(FIRST_ROWS);
        let row = |i: usize| &self.weights[i * self.rows / count * self.cols..][..self.cols];
        Self { cols: self.cols, rows: count, weights: (0..count).flat_map(row).copied().collect() }
    }

    /// The root mean square of the weights, each in units of its column's step.
    pub(super) fn rms(&self, quarters: &[i8]) -> f64 {
        let step = |col: usize| quarters.get(col).map_or(1.0, |&q| aq_codec::entropy::step(q));
        let columns: Vec<f64> = (0..self.cols).map(|col| f64::from(step(col)).powi(-2)).collect();
        let row = |row: &[f32]| row.iter().zip(&columns).map(|(&w, s)| f64::from(w).powi(2) * s).sum::<f64>();
        let sum: f64 = self.weights.chunks(self.cols).map(row).sum();
        (sum / self.weights.len().max(1) as f64).sqrt()
    }

    /// Rounds the rows; their codes are in `tile.codes` of no use afterwards.
    pub(super) fn trial(&self, layer: &EntropyLayer, found: &Found, tile: &mut Tile) -> Trial {
        let (mut codes, mut levels) = (Vec::with_capacity(self.weights.len()), Vec::new());
        let (mut bins, mut distortion) = ([(0.0, 0.0); 3], 0.0);
        self.each_tile(layer, found, tile, |tile, rows| {
            codes.extend(tile.codes[..rows.len() * self.cols].iter().map(|&c| i32::from(c)));
            levels.extend((0..rows.len()).map(|row| tile.corrected_level(layer, row) as i16));
            distortion += tile.distortion;
            for (sum, bin) in bins.iter_mut().zip(tile.bins) {
                *sum = (sum.0 + bin.0, sum.1 + bin.1);
            }
        });
        let steps = if layer.quarters.is_empty() {
            ColumnSteps::Equal
        } else {
            ColumnSteps::Quarters(&layer.quarters)
        };
        let slab = SlabCodes { codes: &codes, cols: self.cols, steps };
        let scales = RowScales { unit: found.unit(), fineness: layer.fineness as u8, levels: &levels };
        let bytes = estimated_bytes(slab, scales, &mut EncodeScratch::default());
        Trial {
            bits: bytes as f64 * 8.0 / self.weights.len().max(1) as f64,
            distortion: distortion / self.weights.len().max(1) as f64,
            deltas: centroids(bins, found.deltas),
        }
    }

    /// The error of the outputs on the rows that `other` was made of.
    pub(super) fn error(&self, layer: &EntropyLayer, other: &Hessian) -> f64 {
        let mut tile = Tile::default();
        let mut sum = 0.0;
        let shrink = layer.found.shrink();
        self.each_tile(layer, &layer.found, &mut tile, |tile, rows| {
            for row in 0..rows.len() {
                let factor = layer.factor(tile.levels[row]);
                let range = row * self.cols..(row + 1) * self.cols;
                let pairs = tile.weights[range.clone()].iter().zip(&tile.codes[range]).enumerate();
                let lost = |(col, (&w, &code)): (usize, (&f32, &i16))| {
                    f64::from(w - value(code, &shrink) * (layer.step(col) * factor))
                };
                let lost: Vec<f64> = pairs.map(lost).collect();
                sum += other.quadratic(&lost);
            }
        });
        sum
    }

    /// Rounds 16 rows at a time.
    fn each_tile(
        &self,
        layer: &EntropyLayer,
        found: &Found,
        tile: &mut Tile,
        mut visit: impl FnMut(&Tile, std::ops::Range<usize>),
    ) {
        for start in (0..self.rows).step_by(ROWS) {
            let rows = start..self.rows.min(start + ROWS);
            tile.clear(self.cols);
            let weights = &self.weights[start * self.cols..rows.end * self.cols];
            tile.weights[..weights.len()].copy_from_slice(weights);
            tile.solve(layer, found, rows.len());
            visit(tile, rows);
        }
    }
}

/// Where the weights of each bin lie on average; as before where there are few.
fn centroids(bins: [(f64, f64); 3], before: [i8; 3]) -> [i8; 3] {
    std::array::from_fn(|i| {
        let (lost, count) = bins[i];
        let delta = f64::from(before[i]) - 256.0 * lost / count;
        if count < 16.0 { before[i] } else { delta.round_ties_even().clamp(-128.0, 127.0) as i8 }
    })
}

impl Trial {
    /// `log2(D) + 2 R`: what the error would be at a rate of 0, as each bit divides it by 4.
    pub(super) fn cost(&self) -> i32 {
        self.cost_with(self.distortion)
    }

    /// The same with another error.
    pub(super) fn cost_with(&self, distortion: f64) -> i32 {
        let rate = (2.0 * self.bits * f64::from(1 << COST_FINENESS)) as i32;
        octave::log2(distortion.max(f64::MIN_POSITIVE), COST_FINENESS) + rate
    }
}
