//! Rows of a layer, sixteen at a time.

use aq_codec::{AffineRow, push_row};
use aq_core::{EncodedRows, RowQuantizer, Rows, Scratch, StepDown, StrategyError};
use aq_kernels::feedback::{AffineGrid, ROWS};

use super::Shared;
use super::tile::Tile;
use crate::exponent::limit;
use crate::gain::correction;
use crate::grouped::{count_rows, row_of, widen_row};
use crate::ls::LeastSquares;
use crate::row::RowEncoder;

/// A layer that is ready to be quantized.
pub(super) struct GptqRows<'a> {
    pub(super) shared: Shared,
    pub(super) tensor: &'a str,
    pub(super) steps: Vec<StepDown>,
}

impl RowQuantizer for GptqRows<'_> {
    fn quantize_rows(
        &self,
        rows: Rows<'_>,
        scratch: &mut Scratch,
        out: &mut EncodedRows,
    ) -> Result<(), StrategyError> {
        let count = count_rows(&rows, self.tensor, self.shared.cols)?;
        let mut tile = std::mem::take(scratch.own::<Tile>());
        scratch.row.resize(self.shared.cols, 0.0);
        for start in (0..count).step_by(ROWS) {
            let rows_here = start..count.min(start + ROWS);
            tile.clear(self.shared.cols, self.shared.groups());
            for row in rows_here.clone() {
                widen_row(row_of(rows.data, row * rows.cols, rows.cols), &mut scratch.row);
                self.shared.load(row - start, scratch, &mut tile);
            }
            for block in &self.shared.blocks {
                tile.solve(block, &self.shared);
            }
            for row in rows_here {
                self.shared.push(row - start, &tile, scratch, out);
            }
        }
        *scratch.own::<Tile>() = tile;
        Ok(())
    }

    fn step_downs(&self) -> &[StepDown] {
        &self.steps
    }
}

impl Shared {
    pub(super) fn groups(&self) -> usize {
        self.encoding.group_size.groups(self.cols)
    }

    fn encoder(&self) -> RowEncoder<'_, LeastSquares> {
        let importance = Some(self.importance.as_slice());
        RowEncoder { method: &LeastSquares, encoding: self.encoding, gain: self.gain, importance }
    }

    /// Finds the grids of `scratch.row` and puts both in a lane of the tile.
    fn load(&self, lane: usize, scratch: &mut Scratch, tile: &mut Tile) {
        let exponent = self.encoder().find_grids(scratch);
        tile.weights[lane * self.cols..][..self.cols].copy_from_slice(&scratch.row);
        tile.exponents[lane] = exponent;
        tile.limits[lane] = limit(exponent);
        for (grid, (&scale, &offset)) in
            tile.grids.iter_mut().zip(scratch.scales.iter().zip(&scratch.offsets))
        {
            let (mut scales, mut offsets) = (*grid.scale(), *grid.offset());
            (scales[lane], offsets[lane]) = (scale, offset);
            *grid = AffineGrid::new(scales, offsets);
        }
    }

    /// Appends the row of a lane.
    fn push(&self, lane: usize, tile: &Tile, scratch: &mut Scratch, out: &mut EncodedRows) {
        scratch.row.copy_from_slice(&tile.weights[lane * self.cols..][..self.cols]);
        scratch.scales.clear();
        scratch.scales.extend(tile.grids.iter().map(|grid| grid.scale()[lane]));
        scratch.offsets.clear();
        scratch.offsets.extend(tile.grids.iter().map(|grid| grid.offset()[lane]));
        let mut exponent = tile.exponents[lane];
        let (norm, product) = tile.slopes[lane];
        if let Some(gain) = correction(norm, product).filter(|_| self.gain) {
            exponent = self.encoder().apply_gain(scratch, gain.factor, exponent);
        }
        let codes = &tile.codes[lane * self.cols..][..self.cols];
        let (scales, offsets) = (&scratch.scales, &scratch.offsets);
        push_row(&self.encoding, AffineRow { codes, scales, offsets, exponent: exponent as i8 }, out);
    }
}
