//! What the strategies with one grid a group have in common: their checks, estimates and loop over rows.

use aq_codec::encoded_bytes;
use aq_core::{
    AffineEncoding, EncodedRows, Encoding, Estimate, LayerInputs, LayerPlan, MAX_ROW_WEIGHTS, OffsetKind,
    RowData, RowQuantizer, Rows, Scratch, StepDown, StrategyError, TensorInfo,
};
use aq_kernels::Weights;
use aq_kernels::float16::{widen_bf16, widen_f16};
use aq_kernels::metric::first_non_finite;

use crate::plain::push_plain;
use crate::row::{Method, RowEncoder};

/// The fixed facts of a strategy.
pub(crate) struct Grouped {
    pub(crate) id: &'static str,
    pub(crate) offset: OffsetKind,
    /// Relative squared error of Gaussian weights in groups of 128 at 2, 3 and 4 bits.
    pub(crate) relative_mse: [f64; 3],
}

/// Whether a tensor is weights of a length that is quantized.
pub(crate) fn supports(layer: &TensorInfo) -> bool {
    refusal(layer).is_none()
}

pub(crate) fn refusal(layer: &TensorInfo) -> Option<String> {
    if !layer.dtype().is_float() {
        Some(format!("{} is not a floating-point type", layer.dtype()))
    } else if layer.elements() == 0 {
        Some("it has no weights".into())
    } else if layer.cols() > MAX_ROW_WEIGHTS {
        Some(format!("its rows have {} weights, more than {MAX_ROW_WEIGHTS}", layer.cols()))
    } else {
        None
    }
}

impl Grouped {
    pub(crate) fn encoding(&self, plan: &LayerPlan) -> AffineEncoding {
        AffineEncoding { bits: plan.bits, group_size: plan.group_size, offset: self.offset }
    }

    /// Exact bytes, and the error that one more bit divides by 4.
    pub(crate) fn estimate(&self, layer: &TensorInfo, plan: &LayerPlan) -> Estimate {
        let encoding = Encoding::Affine(self.encoding(plan));
        let relative_mse = match plan.bits.get() {
            bits @ 2..=4 => self.relative_mse[usize::from(bits) - 2],
            bits => self.relative_mse[2] * 0.25f64.powi(i32::from(bits) - 4),
        };
        let bytes = encoded_bytes(layer, &encoding);
        Estimate { encoding, bytes, relative_mse, transformed: false, shared_bytes: 0 }
    }

    /// Checks that the layer is one to quantize, and its importance fits it.
    pub(crate) fn check(&self, layer: &LayerInputs<'_>) -> Result<(), StrategyError> {
        check(self.id, layer)
    }

    /// A layer whose groups are fitted by `method`.
    pub(crate) fn prepare<'a, M: Method>(
        &self,
        method: &'a M,
        layer: &LayerInputs<'a>,
        plan: &LayerPlan,
    ) -> Result<Box<dyn RowQuantizer + 'a>, StrategyError> {
        self.check(layer)?;
        let (tensor, cols) = (layer.info.name(), layer.info.cols() as usize);
        // A grid on the whole range does not depend on importances, so its gain does not either.
        let importance = layer.stats.importance.filter(|_| !M::WHOLE_RANGE);
        let encoder = RowEncoder { method, encoding: self.encoding(plan), gain: plan.gain, importance };
        Ok(Box::new(GroupedRows { encoder, tensor, cols }))
    }
}

/// Checks that the layer is one to quantize, and its importance fits it.
pub(crate) fn check(strategy: &'static str, layer: &LayerInputs<'_>) -> Result<(), StrategyError> {
    let tensor = layer.info.name();
    if let Some(reason) = refusal(layer.info) {
        return Err(StrategyError::Unsupported { strategy, tensor: tensor.into(), reason });
    }
    let Some(importance) = layer.stats.importance else { return Ok(()) };
    expect_length("importance", tensor, importance.len(), layer.info.cols() as usize)
}

/// A layer that is ready to be quantized.
struct GroupedRows<'a, M> {
    encoder: RowEncoder<'a, M>,
    tensor: &'a str,
    cols: usize,
}

impl<M: Method> RowQuantizer for GroupedRows<'_, M> {
    fn quantize_rows(
        &self,
        rows: Rows<'_>,
        scratch: &mut Scratch,
        out: &mut EncodedRows,
    ) -> Result<(), StrategyError> {
        let count = count_rows(&rows, self.tensor, self.cols)?;
        scratch.row.resize(self.cols, 0.0);
        for row in 0..count {
            let weights = row_of(rows.data, row * self.cols, self.cols);
            if !push_plain(&self.encoder, weights, scratch, out) {
                widen_row(weights, &mut scratch.row);
                self.require_finite(rows.first_row + row as u64, &scratch.row)?;
                self.encoder.push(scratch, out);
            }
        }
        Ok(())
    }

    fn refuses_non_finite(&self) -> bool {
        true
    }
}

impl<M> GroupedRows<'_, M> {
    fn require_finite(&self, row: u64, weights: &[f32]) -> Result<(), StrategyError> {
        match first_non_finite(weights) {
            Some(col) => Err(StrategyError::NotFinite { tensor: self.tensor.into(), row, col: col as u64 }),
            None => Ok(()),
        }
    }
}

/// How many rows of `cols` weights there are.
pub(crate) fn count_rows(rows: &Rows<'_>, tensor: &str, cols: usize) -> Result<usize, StrategyError> {
    expect_length("a row", tensor, rows.cols, cols)?;
    let count = rows.data.len() / cols;
    expect_length("the rows", tensor, rows.data.len(), count * cols)?;
    Ok(count)
}

/// Widens each row into `scratch.row` and hands it to `push`.
pub(crate) fn each_row(
    rows: &Rows<'_>,
    tensor: &str,
    cols: usize,
    scratch: &mut Scratch,
    mut push: impl FnMut(&mut Scratch),
) -> Result<(), StrategyError> {
    let count = count_rows(rows, tensor, cols)?;
    scratch.row.resize(cols, 0.0);
    for row in 0..count {
        widen_row(row_of(rows.data, row * cols, cols), &mut scratch.row);
        push(scratch);
    }
    Ok(())
}

pub(crate) fn row_of(data: RowData<'_>, start: usize, cols: usize) -> Weights<'_> {
    let range = start..start + cols;
    match data {
        RowData::F32(weights) => Weights::F32(&weights[range]),
        RowData::F16(weights) => Weights::F16(&weights[range]),
        RowData::BF16(weights) => Weights::BF16(&weights[range]),
    }
}

pub(crate) fn widen_row(weights: Weights<'_>, row: &mut [f32]) {
    match weights {
        Weights::F32(weights) => row.copy_from_slice(weights),
        Weights::F16(weights) => widen_f16(weights, row),
        Weights::BF16(weights) => widen_bf16(weights, row),
    }
}

/// An error unless there are as many values as expected.
pub(crate) fn expect_length(
    what: &'static str,
    tensor: &str,
    got: usize,
    expected: usize,
) -> Result<(), StrategyError> {
    if got == expected {
        return Ok(());
    }
    Err(StrategyError::InputLength { what, tensor: tensor.into(), got, expected })
}

/// A quantizer in place of another, with the reason.
pub(crate) struct SteppedDown<'a> {
    inner: Box<dyn RowQuantizer + 'a>,
    step: StepDown,
}

impl<'a> SteppedDown<'a> {
    pub(crate) fn new(inner: Box<dyn RowQuantizer + 'a>, step: StepDown) -> Self {
        Self { inner, step }
    }
}

impl RowQuantizer for SteppedDown<'_> {
    fn quantize_rows(
        &self,
        rows: Rows<'_>,
        scratch: &mut Scratch,
        out: &mut EncodedRows,
    ) -> Result<(), StrategyError> {
        self.inner.quantize_rows(rows, scratch, out)
    }

    fn refuses_non_finite(&self) -> bool {
        self.inner.refuses_non_finite()
    }

    fn end_slab(&self, scratch: &mut Scratch, out: &mut EncodedRows) -> Result<(), StrategyError> {
        self.inner.end_slab(scratch, out)
    }

    fn step_downs(&self) -> &[StepDown] {
        std::slice::from_ref(&self.step)
    }
}
