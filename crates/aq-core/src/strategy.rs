//! The strategy trait: a way to quantize a layer.

use half::{bf16, f16};

use crate::{EncodedRows, Encoding, LayerPlan, StrategyError, StrategyId, TensorInfo};

/// A way to quantize a layer. Deterministic for the same input and plan.
pub trait QuantStrategy: Send + Sync {
    /// Stable name, written to files.
    fn id(&self) -> StrategyId;

    /// Whether the strategy can take the layer at all, by shape and type only.
    fn supports(&self, layer: &TensorInfo) -> bool;

    /// How the strategy would store the layer, its bytes and its expected error. Cheap; cannot fail.
    fn estimate(&self, layer: &TensorInfo, stats: &LayerStats<'_>, plan: &LayerPlan) -> Estimate;

    /// Does what the rows of the layer share; after it every row can be quantized on its own.
    ///
    /// # Errors
    /// When the inputs do not fit the layer.
    fn prepare<'a>(
        &'a self,
        layer: &LayerInputs<'a>,
        plan: &LayerPlan,
    ) -> Result<Box<dyn RowQuantizer + 'a>, StrategyError>;
}

/// A layer whose shared state is ready.
pub trait RowQuantizer: Send + Sync {
    /// Quantizes `rows` and appends them to `out`. The weights are finite.
    ///
    /// The bytes appended for a row depend on that row and the shared state only.
    ///
    /// # Errors
    /// When `rows` does not fit the layer.
    fn quantize_rows(
        &self,
        rows: Rows<'_>,
        scratch: &mut Scratch,
        out: &mut EncodedRows,
    ) -> Result<(), StrategyError>;
}

/// What a strategy may know of a layer before it sees a row.
#[derive(Debug, Clone, Copy)]
pub struct LayerInputs<'a> {
    /// The weight.
    pub info: &'a TensorInfo,
    /// Statistics of the layer's inputs, when there is a calibration.
    pub stats: LayerStats<'a>,
}

/// Statistics of a layer's inputs.
#[derive(Debug, Clone, Copy, Default)]
pub struct LayerStats<'a> {
    /// Mean square of each input channel over the calibration rows; `cols` values, none negative.
    pub importance: Option<&'a [f32]>,
}

/// What quantizing a layer is expected to give.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// How the layer would be stored.
    pub encoding: Encoding,
    /// Bytes of codes and side data.
    pub bytes: u64,
    /// Expected relative squared error of the weights, for Gaussian weights.
    pub relative_mse: f64,
}

/// Consecutive rows of one weight.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Row-major weights, `n * cols` of them.
    pub data: RowData<'a>,
    /// Weights of a row; at least 1.
    pub cols: usize,
    /// Index of the first row in the tensor.
    pub first_row: u64,
}

/// Weights in one of the three types that kernels read directly.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "each variant is its element type")]
pub enum RowData<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    BF16(&'a [bf16]),
}

impl RowData<'_> {
    /// Number of weights.
    pub fn len(&self) -> usize {
        match self {
            RowData::F32(x) => x.len(),
            RowData::F16(x) => x.len(),
            RowData::BF16(x) => x.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Buffers of one worker, reused from row to row so that the loop does not allocate.
#[derive(Debug, Default)]
pub struct Scratch {
    /// A row widened to f32.
    pub row: Vec<f32>,
    /// The same row decoded.
    pub decoded: Vec<f32>,
    /// One code a byte.
    pub codes: Vec<u8>,
    /// One scale a group.
    pub scales: Vec<f32>,
    /// One offset or zero point a group.
    pub offsets: Vec<f32>,
}
