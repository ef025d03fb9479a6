//! Rows with error feedback, sixteen at a time.

use aq_codec::trellis::Fit;
use aq_core::{EncodedRows, LayerInputs, RowQuantizer, Rows, Scratch, StepDown, StrategyError};
use aq_kernels::feedback::ROWS;
use aq_kernels::trellis::SEQUENCE;

use super::factor::{Block, factor_blocks};
use super::rows::Store;
use super::tile::Tile;
use crate::exponent::normalize;
use crate::grouped::{count_rows, row_of, widen_row};
use crate::hessian::{Hessian, block_size};

/// A layer whose Hessian is known.
pub(super) struct FedRows<'a> {
    store: Store,
    blocks: Vec<Block>,
    steps: Vec<StepDown>,
    tensor: &'a str,
    cols: usize,
}

impl<'a> FedRows<'a> {
    /// Without calibration rows, or where sequences do not fit the blocks of the Hessian, what to say of it.
    pub(super) fn prepare(
        layer: &LayerInputs<'a>,
        store: Store,
    ) -> Result<Result<Self, Option<StepDown>>, StrategyError> {
        let Some(inputs) = layer.stats.inputs else { return Ok(Err(None)) };
        let (tensor, cols) = (layer.info.name(), layer.info.cols() as usize);
        let block = block_size(cols, SEQUENCE);
        if block < cols && !block.is_multiple_of(SEQUENCE) {
            return Ok(Err(Some(too_wide(block))));
        }
        let hessian = Hessian::read(inputs, tensor, cols, SEQUENCE)?;
        if hessian.rows == 0 {
            return Ok(Err(Some(without_calibration())));
        }
        let (blocks, steps) = factor_blocks(&hessian);
        Ok(Ok(Self { store, blocks, steps, tensor, cols }))
    }
}

fn without_calibration() -> StepDown {
    let reason = "the layer has no calibration inputs";
    StepDown { from: "calibrated".into(), to: "uncalibrated".into(), reason: reason.into() }
}

fn too_wide(block: usize) -> StepDown {
    let reason =
        format!("its Hessian has blocks of {block} columns, and a trellis has sequences of {SEQUENCE}");
    StepDown { from: "Hessian".into(), to: "diagonal".into(), reason }
}

impl RowQuantizer for FedRows<'_> {
    fn quantize_rows(
        &self,
        rows: Rows<'_>,
        scratch: &mut Scratch,
        out: &mut EncodedRows,
    ) -> Result<(), StrategyError> {
        let count = count_rows(&rows, self.tensor, self.cols)?;
        let mut tile = std::mem::take(scratch.own::<Tile>());
        scratch.row.resize(self.cols, 0.0);
        for start in (0..count).step_by(ROWS) {
            tile.clear(self.cols, ROWS.min(count - start));
            for lane in 0..tile.rows {
                widen_row(row_of(rows.data, (start + lane) * self.cols, self.cols), &mut scratch.row);
                tile.exponents[lane] = normalize(&mut scratch.row);
                tile.load(lane, &scratch.row);
            }
            for block in &self.blocks {
                tile.solve(block, self.store);
            }
            for lane in 0..tile.rows {
                self.push(lane, &mut tile, scratch, out);
            }
        }
        *scratch.own::<Tile>() = tile;
        Ok(())
    }

    fn step_downs(&self) -> &[StepDown] {
        &self.steps
    }
}

impl FedRows<'_> {
    /// Appends the row of a lane.
    fn push(&self, lane: usize, tile: &mut Tile, scratch: &mut Scratch, out: &mut EncodedRows) {
        scratch.codes.clear();
        scratch.codes.extend_from_slice(&tile.states[lane * self.cols..][..self.cols]);
        let sequences = self.cols.div_ceil(SEQUENCE);
        let fits: &mut [Fit] = &mut tile.fits[lane * sequences..][..sequences];
        self.store.push(scratch, fits, tile.exponents[lane], tile.slopes[lane], out);
    }
}
