//! What the bytes of each codec mean: rows of codes, scales and offsets in, rows of weights out.
//!
//! - [`push_row`] appends one row of `affine` codes to an [`EncodedRows`](aq_core::EncodedRows), [`push_codebook_row`] one of
//!   `codebook` codes, [`push_sign_row`] one of `sign` codes; [`seal`] finishes a slab;
//! - [`decode`] turns any stored slab, or some rows of it, back into `f32`; [`check`] says first whether its parts fit;
//! - [`encoded_bytes`] is the exact size of a tensor before a weight is read;
//! - [`entropy::encode_slab`] makes a slab of the codec whose codes are as long as they are surprising;
//! - [`ggml::push_block`] appends a block of a type of ggml;
//! - [`Side`] is what else a tensor may have: a rotation, smoothing, a low-rank part, which [`decode`] undoes;
//! - [`bytes_to_f32`] and [`f32_to_bytes`] convert the elements of tensors that are kept as they are.
//!
//! Nothing here decides a parameter (that is a strategy) or opens a file. Reading never panics, whatever the bytes are.
#![forbid(unsafe_code)]

mod affine;
mod affine_read;
mod codebook;
mod codec;
mod element;
pub mod entropy;
mod error;
mod float8;
#[doc(hidden)]
pub mod fuzzing;
pub mod ggml;
mod low_rank;
mod rotation;
mod side;
mod sign;
pub mod trellis;
mod zero_points;

pub use affine::{AffineRow, RowBytes, push_grids, push_row, row_bytes, seal};
pub use affine_read::{ReadScratch, check_parts, compare_rows, decode_rows, power_of_two};
pub use codebook::{CodebookRow, push_codebook_row, table_bytes};
pub use codec::{PartLengths, check, compare, decode, encoded_bytes, part_lengths};
pub use element::{bytes_to_f32, f32_to_bytes};
pub use error::CodecError;
pub use low_rank::{LowRank, MAX_RANK};
pub use rotation::Rotation;
pub use side::{Side, side_limit};
pub use sign::{SignRow, push_sign_row};
pub use zero_points::{pack_zero_points, unpack_zero_points};
