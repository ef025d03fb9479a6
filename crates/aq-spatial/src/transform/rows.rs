//! Rows of a transformed layer on their way to the strategy inside.

use aq_core::{EncodedRows, RowData, RowQuantizer, Rows, Scratch, StepDown, StrategyError};

use super::Transformed;
use crate::grouped::{expect_length, row_of, widen_row};

/// A transformed layer that is ready to be quantized.
pub(super) struct TransformedRows<'s> {
    pub(super) layer: &'s Transformed<'s>,
    pub(super) inner: Box<dyn RowQuantizer + 's>,
    pub(super) side: Vec<u8>,
    pub(super) step_downs: Vec<StepDown>,
}

/// The transformed rows, and the buffers of the strategy inside.
#[derive(Default)]
struct Own {
    rows: Vec<f32>,
    scratch: Scratch,
}

impl RowQuantizer for TransformedRows<'_> {
    fn quantize_rows(
        &self,
        rows: Rows<'_>,
        scratch: &mut Scratch,
        out: &mut EncodedRows,
    ) -> Result<(), StrategyError> {
        expect_length("a row", self.layer.inputs.info.name(), rows.cols, self.layer.cols())?;
        let Own { rows: own, scratch } = scratch.own::<Own>();
        own.resize(rows.data.len(), 0.0);
        widen_row(row_of(rows.data, 0, rows.data.len()), own);
        self.layer.forward(own)?;
        (rows.first_row..)
            .zip(own.chunks_exact_mut(rows.cols))
            .for_each(|(i, row)| self.layer.subtract(i, row));
        self.inner.quantize_rows(Rows { data: RowData::F32(own), ..rows }, scratch, out)
    }

    fn end_slab(&self, scratch: &mut Scratch, out: &mut EncodedRows) -> Result<(), StrategyError> {
        self.inner.end_slab(&mut scratch.own::<Own>().scratch, out)
    }

    fn side(&self) -> &[u8] {
        &self.side
    }

    fn step_downs(&self) -> &[StepDown] {
        &self.step_downs
    }
}
