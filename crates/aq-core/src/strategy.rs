//! The strategy trait: a way to quantize a layer.

use std::any::Any;

use half::{bf16, f16};

use crate::{BitWidth, EncodedRows, Encoding, GroupSize, LayerPlan, StrategyError, StrategyId, TensorInfo};

/// A way to quantize a layer. Deterministic for the same input and plan.
pub trait QuantStrategy: Send + Sync {
    /// Stable name, written to files.
    fn id(&self) -> StrategyId;

    /// Whether the strategy can take the layer at all, by shape and type only.
    fn supports(&self, layer: &TensorInfo) -> bool;

    /// Whether the strategy has codes of that many bits; by default all but those of one bit.
    fn takes(&self, bits: BitWidth) -> bool {
        BitWidth::ALL.contains(&bits)
    }

    /// Weights that share a scale where no number is asked for; by default those of the profile.
    fn default_group_size(&self) -> Option<GroupSize> {
        None
    }

    /// What users are told whenever the strategy is used, in a clause: that it is experimental, and what else there is.
    fn caveat(&self) -> Option<&'static str> {
        None
    }

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
    /// Quantizes `rows` and appends them to `out`. The weights are finite, unless [`Self::refuses_non_finite`] says that they need not be.
    ///
    /// The bytes appended for a row depend on that row and the shared state only.
    ///
    /// # Errors
    /// When `rows` does not fit the layer; [`StrategyError::NotFinite`] where the strategy looks for such weights itself.
    fn quantize_rows(
        &self,
        rows: Rows<'_>,
        scratch: &mut Scratch,
        out: &mut EncodedRows,
    ) -> Result<(), StrategyError>;

    /// Whether [`Self::quantize_rows`] itself finds every weight that is NaN or infinite and refuses it with
    /// [`StrategyError::NotFinite`]. Else it is never given one, which takes whoever calls it a pass over the weights.
    fn refuses_non_finite(&self) -> bool {
        false
    }

    /// Ends a slab, after its last row was appended to `out`: codecs that code a slab as a whole do it here.
    ///
    /// # Errors
    /// When the rows cannot be stored.
    fn end_slab(&self, _scratch: &mut Scratch, _out: &mut EncodedRows) -> Result<(), StrategyError> {
        Ok(())
    }

    /// Side data of the tensor, as `aq_codec::Side` has it. Not empty only where the estimate said that it is transformed.
    fn side(&self) -> &[u8] {
        &[]
    }

    /// Steps down that preparing the layer took, for the report.
    fn step_downs(&self) -> &[StepDown] {
        &[]
    }
}

/// A step down that a strategy took by itself: more damping, a plainer method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepDown {
    /// What was wanted.
    pub from: String,
    /// What was done.
    pub to: String,
    /// Why.
    pub reason: String,
}

/// What a strategy may know of a layer before it quantizes a row.
#[derive(Clone, Copy)]
pub struct LayerInputs<'a> {
    /// The weight.
    pub info: &'a TensorInfo,
    /// Statistics of the layer's inputs, when there is a calibration.
    pub stats: LayerStats<'a>,
    /// The weights themselves, for what is decided from some or all of them; `None` where only single rows are at hand.
    pub weights: Option<&'a dyn LayerWeights>,
}

impl<'a> LayerInputs<'a> {
    /// A layer without calibration, of which only single rows are at hand.
    pub fn new(info: &'a TensorInfo) -> Self {
        Self { info, stats: LayerStats::default(), weights: None }
    }
}

/// Statistics of a layer's inputs.
#[derive(Clone, Copy, Default)]
pub struct LayerStats<'a> {
    /// Mean square of each input channel over the calibration rows; `cols` values, none negative.
    pub importance: Option<&'a [f32]>,
    /// Largest magnitude of each input channel in each timestep bucket, bucket after bucket; whole buckets of `cols` values.
    pub absmax: Option<&'a [f32]>,
    /// The calibration rows themselves.
    pub inputs: Option<&'a dyn InputRows>,
}

/// Calibration inputs of a layer, read when a strategy asks for them.
pub trait InputRows: Send + Sync {
    /// Calls `visit` with blocks of whole rows of `cols` finite values, always in the same order and the same blocks, and with
    /// the weight that each row of the block counts with.
    ///
    /// # Errors
    /// [`StrategyError::Read`] when they cannot be read.
    fn visit(&self, visit: &mut dyn FnMut(&[f32], f64)) -> Result<(), StrategyError>;

    /// Their second moments where those were taken before, then of more rows than are visited.
    ///
    /// # Errors
    /// [`StrategyError::Read`] when they cannot be read.
    fn moments(&self) -> Result<Option<SecondMoments>, StrategyError> {
        Ok(None)
    }
}

/// `sum(weight x^T x)` over calibration rows `x`, block-diagonal.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SecondMoments {
    /// Columns of a block; the last one may have fewer.
    pub block: usize,
    /// Rows that were seen.
    pub rows: u64,
    /// The blocks one after the other, each a row-major, symmetric, square matrix.
    pub values: Vec<f64>,
}

/// The weights of a layer, row by row.
pub trait LayerWeights: Send + Sync {
    /// Fills `out` with the `cols` finite weights of row `row`.
    ///
    /// # Errors
    /// [`StrategyError::Read`] when they cannot be read or are not finite.
    fn read_row(&self, row: u64, out: &mut Vec<f32>) -> Result<(), StrategyError>;
}

/// What quantizing a layer is expected to give.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// How the layer would be stored.
    pub encoding: Encoding,
    /// Whether the layer has side data.
    pub transformed: bool,
    /// Bytes of codes and side data.
    pub bytes: u64,
    /// Expected relative squared error of the weights, for Gaussian weights.
    pub relative_mse: f64,
    /// The most memory in bytes that what the layer's rows share takes, while it is made and afterwards. It depends on whether there
    /// are calibration inputs.
    pub shared_bytes: u64,
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
    /// What the strategy in use keeps beside them; see [`Scratch::own`].
    pub other: Option<Box<dyn Any + Send>>,
}

impl Scratch {
    /// A buffer of the strategy's own type, kept from call to call; made anew when another strategy used the scratch.
    ///
    /// ```
    /// let mut scratch = aq_core::Scratch::default();
    /// scratch.own::<Vec<i32>>().push(7);
    /// assert_eq!(*scratch.own::<Vec<i32>>(), [7]);
    /// ```
    pub fn own<T: Any + Send + Default>(&mut self) -> &mut T {
        if !self.other.as_ref().is_some_and(|own| own.is::<T>()) {
            self.other = None;
        }
        let own = self.other.get_or_insert_with(|| Box::<T>::default());
        own.downcast_mut().expect("it was made of this type")
    }
}
