//! Shared vocabulary of ArrowQuant: what a tensor, a plan, a strategy and encoded rows are.
//!
//! Nothing here touches files, threads or SIMD. Every other crate speaks in these types:
//!
//! - [`TensorInfo`] and [`DType`] describe a tensor as it lies in a source file;
//! - [`BitWidth`] and [`GroupSize`] are numbers that were checked once and stay valid;
//! - [`LayerPlan`], [`Decision`] and [`Plan`] say what happens to each tensor;
//! - [`QuantStrategy`] and [`RowQuantizer`] turn rows of weights into [`EncodedRows`];
//! - [`Encoding`] and [`slab_rows`] say how encoded rows are cut into the slabs of a file.
#![forbid(unsafe_code)]

mod bits;
mod dtype;
mod encoded;
mod error;
mod ggml;
mod plan;
mod stored;
mod strategy;
mod tensor;

pub use bits::{BitWidth, GroupSize, Rate};
pub use dtype::DType;
pub use encoded::{
    AffineEncoding, CodebookEncoding, EncodedRows, EncodedSlab, Encoding, MAX_ROW_WEIGHTS, OffsetKind,
    SLAB_WEIGHTS, SignEncoding, SignLevels, SlabParts, TrellisEncoding, slab_count, slab_range, slab_rows,
};
pub use error::{CoreError, StrategyError};
pub use ggml::GgmlType;
pub use plan::{Decision, LayerPlan, LowRankPlan, Plan, PlannedTensor, SmoothingPlan, StrategyId};
pub use stored::StoredTensor;
pub use strategy::{
    Estimate, InputRows, LayerInputs, LayerStats, LayerWeights, QuantStrategy, RowData, RowQuantizer, Rows,
    Scratch, SecondMoments, StepDown,
};
pub use tensor::TensorInfo;
