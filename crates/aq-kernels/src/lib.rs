//! Kernels of ArrowQuant: slices in, slices out, the fastest instruction set of the machine chosen at run time.
//!
//! Nothing here knows layers, plans or files, and nothing allocates. Lengths are asserted once at the edge; the only
//! error is a matrix that has no Cholesky factor. Every kernel gives the same bits on every machine and at every SIMD level (`docs/numerics.md`), so what
//! is stored never depends on where it was computed.
//!
//! - [`affine`]: codes from weights and back, given scale and offset;
//! - [`encode`] and [`decode`]: weights of any type to packed codes, back, and both compared, each in one pass;
//! - [`codebook`]: nearest values of a small table, values of codes, the scale of a group;
//! - [`product`]: products of a packed matrix with activations;
//! - [`trellis`]: codes of 2 to 4 bits that pick values through a sliding window, chosen by dynamic programming;
//! - [`rans`]: entropy coding of symbols, and weights from decoded symbols;
//! - [`hadamard`]: the block Hadamard transform;
//! - [`search`]: the scale and offset of a group by least squares;
//! - [`groups`]: scales of 16 small groups at once, for the block types of ggml;
//! - [`gram`] and [`cholesky`]: Hessians of layer inputs and the factor of their inverse;
//! - [`feedback`]: rounding a row with error feedback;
//! - [`pack`]: codes of 2 to 8 bits to dense bytes and back;
//! - [`float16`]: half precision and bfloat16 to `f32` and back;
//! - [`metric`]: dot products, errors and comparisons, accumulated in `f64`;
//! - [`output`]: the outputs of a layer before and after quantization;
//! - [`level`] and [`levels`]: which instruction set is in use, and which there are.
//!
//! ```
//! use aq_kernels::{affine, pack};
//! let weights = [-1.0_f32, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0];
//! let (low, high) = affine::min_max(&weights);
//! let scale = (high - low) / 15.0;
//!
//! let (mut codes, mut bytes) = ([0; 8], [0; 4]);
//! affine::quantize(&weights, 1.0 / scale, low, 15, &mut codes);
//! pack::pack(4, &codes, &mut bytes);
//!
//! let (mut unpacked, mut back) = ([0; 8], [0.0; 8]);
//! pack::unpack(4, &bytes, &mut unpacked);
//! affine::dequantize_offset(&unpacked, scale, low, &mut back);
//! assert!(weights.iter().zip(back).all(|(w, b)| (w - b).abs() <= 0.5001 * scale));
//! ```
#![deny(unsafe_code)]

pub mod affine;
pub mod cholesky;
pub mod codebook;
pub mod decode;
mod dispatch;
pub mod encode;
pub mod feedback;
pub mod float16;
pub mod gram;
pub mod groups;
pub mod hadamard;
mod isa;
mod lanes;
pub mod metric;
pub mod output;
pub mod pack;
pub mod product;
pub mod rans;
#[doc(hidden)]
pub mod reference;
pub mod search;
mod tile;
pub mod trellis;
mod weights;

#[doc(hidden)]
pub use dispatch::with_level;
pub use dispatch::{Level, level, levels};
pub use weights::{Weights, WeightsMut};
