//! Strategies that quantize one weight at a time, knowing nothing of files and timesteps.
//!
//! | id | strategy | values of a group | stored beside the scale |
//! |---|---|---|---|
//! | `minmax` | [`MinMax`] | a grid over its whole range and 0 | zero point |
//! | `ls` | [`LeastSquares`] | the grid of least squared error, weighted by importance | f16 offset |
//! | `gptq` | [`Gptq`] | that of `ls`; codes make up for what others lost, as the inputs go together | f16 offset |
//! | `entropy` | [`Entropy`] | a grid without ends, entropy-coded at any rate | nothing |
//! | `trellis`, `trellis6` | [`TrellisCoded`] | values picked by a window over the codes, which are chosen together | nothing |
//! | `codebook` | [`Codebook`] | a table trained on the layer, the scale of least squared error | the table, once a slab |
//! | `binary`, `ternary` | [`Sign`] | -1 and 1, or -1, 0 and 1, and the scale of least squared error; experimental | nothing |
//! | `hqq` | [`Hqq`] | a grid as wide as its range, shifted for the least `abs(error)^0.7` | f16 offset |
//! | `nf4` | [`Nf4`] | the table of NormalFloat up to its largest magnitude | the table, once a slab |
//! | `int8`, `convrot` | [`Int8`] | signed bytes up to the largest magnitude of the row, plain or rotated as ComfyUI does | nothing |
//! | `q4_k`, `q8_0` ... | [`GgmlBlocks`] | those of a block type of ggml, of least squared error | as ggml has it |
//!
//! [`Transformed`] rotates a layer around any of them.
//!
//! All but `entropy` and `trellis` quantize a row in the same steps (`row.rs`, the file to read first): find the parameters of each group, round
//! them to what is stored, choose codes for the rounded values, remove the shrinkage with one factor for the row, pack.
//!
//! ```
//! use aq_core::*;
//! let info = TensorInfo::new("w", vec![1, 4], DType::F32)?;
//! let plan = LayerPlan { gain: false, ..LayerPlan::new("minmax", BitWidth::new(2)?, GroupSize::ROW) };
//! let strategies = aq_spatial::strategies();
//! let strategy = strategies.iter().find(|s| s.id() == plan.method).expect("it is registered");
//! let layer = LayerInputs::new(&info);
//!
//! let rows = Rows { data: RowData::F32(&[-1.0, 0.1, 1.1, 2.0]), cols: 4, first_row: 0 };
//! let mut out = EncodedRows::default();
//! strategy.prepare(&layer, &plan)?.quantize_rows(rows, &mut Scratch::default(), &mut out)?;
//!
//! let encoding = strategy.estimate(&info, &layer.stats, &plan).encoding;
//! let mut weights = [0.0; 4];
//! aq_codec::decode(&encoding, &info, out.parts(), 1, 0, &mut aq_codec::ReadScratch::default(), &mut weights)?;
//! assert_eq!(weights, [-1.0, 0.0, 1.0, 2.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod codebook;
mod entropy;
mod exponent;
mod factored;
mod gain;
mod ggml;
mod gptq;
mod grid;
mod grouped;
mod hessian;
mod hqq;
mod int8;
mod ls;
mod minmax;
mod octave;
mod plain;
mod row;
mod sign;
mod smoothing;
mod transform;
mod trellis;

use aq_core::QuantStrategy;

pub use codebook::{Codebook, Nf4};
pub use entropy::Entropy;
pub use ggml::GgmlBlocks;
pub use gptq::Gptq;
pub use hessian::hessian_block;
pub use hqq::Hqq;
pub use int8::Int8;
pub use ls::LeastSquares;
pub use minmax::MinMax;
pub use sign::Sign;
pub use smoothing::Smoothing;
pub use transform::{MAX_LOW_RANK_WEIGHTS, Transformed, estimate};
pub use trellis::TrellisCoded;

/// Every strategy of this crate, in the order in which they are offered.
pub fn strategies() -> Vec<Box<dyn QuantStrategy>> {
    let mut all: Vec<Box<dyn QuantStrategy>> = vec![
        Box::new(MinMax),
        Box::new(LeastSquares),
        Box::new(Gptq),
        Box::new(Entropy),
        Box::new(TrellisCoded::BEST),
        Box::new(TrellisCoded::FAST),
        Box::new(Codebook),
        Box::new(Nf4),
        Box::new(Hqq),
        Box::new(Sign::BINARY),
        Box::new(Sign::TERNARY),
        Box::new(Int8::PLAIN),
        Box::new(Int8::ROTATED),
    ];
    all.extend(GgmlBlocks::all().map(|strategy| Box::new(strategy) as Box<dyn QuantStrategy>));
    all
}
