//! Rows of a layer, sixteen at a time, and the end of a slab.

use aq_codec::entropy::{Centroids, ColumnSteps, EncodeScratch, RowScales, SlabCodes, encode_slab};
use aq_core::{EncodedRows, RowQuantizer, Rows, Scratch, StepDown, StrategyError};
use aq_kernels::feedback::ROWS;

use super::layer::EntropyLayer;
use super::tile::Tile;
use crate::grouped::{count_rows, row_of, widen_row};

/// A layer that is ready to be quantized.
pub(super) struct EntropyRows<'a> {
    pub(super) layer: EntropyLayer,
    pub(super) tensor: &'a str,
}

/// Buffers of one worker.
#[derive(Default)]
struct Room {
    tile: Tile,
    codes: Vec<i32>,
    levels: Vec<i16>,
    encode: EncodeScratch,
}

impl RowQuantizer for EntropyRows<'_> {
    /// Until the slab ends, `codes` holds two bytes a code and `scales` two bytes a row, the level of its scale.
    fn quantize_rows(
        &self,
        rows: Rows<'_>,
        scratch: &mut Scratch,
        out: &mut EncodedRows,
    ) -> Result<(), StrategyError> {
        let (layer, cols) = (&self.layer, self.layer.cols);
        let count = count_rows(&rows, self.tensor, cols)?;
        let tile = &mut scratch.own::<Room>().tile;
        for start in (0..count).step_by(ROWS) {
            let here = start..count.min(start + ROWS);
            tile.clear(cols);
            for row in here.clone() {
                let weights = row_of(rows.data, row * cols, cols);
                widen_row(weights, &mut tile.weights[(row - start) * cols..][..cols]);
            }
            tile.solve(layer, &layer.found, 0);
            out.codes.extend(tile.codes[..here.len() * cols].iter().flat_map(|c| c.to_le_bytes()));
            let levels = (0..here.len()).map(|row| tile.corrected_level(layer, row) as i16);
            out.scales.extend(levels.flat_map(i16::to_le_bytes));
            out.row_count += here.len() as u64;
        }
        Ok(())
    }

    fn end_slab(&self, scratch: &mut Scratch, out: &mut EncodedRows) -> Result<(), StrategyError> {
        let layer = &self.layer;
        let Room { codes, levels, encode, .. } = scratch.own::<Room>();
        let pairs = |bytes: &[u8]| bytes.as_chunks::<2>().0.iter().map(|&b| i16::from_le_bytes(b)).collect();
        codes.clear();
        codes.extend(out.codes.as_chunks::<2>().0.iter().map(|&b| i32::from(i16::from_le_bytes(b))));
        *levels = pairs(&out.scales);
        let side = std::mem::take(&mut out.side);
        out.clear();
        out.side = side;
        let steps = if layer.quarters.is_empty() {
            ColumnSteps::Equal
        } else {
            ColumnSteps::Quarters(&layer.quarters)
        };
        let slab = SlabCodes { codes, cols: layer.cols, steps };
        let scales = RowScales { unit: layer.found.unit(), fineness: layer.fineness as u8, levels };
        encode_slab(slab, scales, Centroids::Same(layer.found.deltas), encode, out);
        Ok(())
    }

    fn step_downs(&self) -> &[StepDown] {
        &self.layer.step_downs
    }
}
