//! The `entropy` codec: a uniform grid without bounds, whose codes take as many bits as they are surprising.
//!
//! A weight is an integer code, reconstructed near its centroid, times the scale of its row, the step of its column and a power
//! of two of its row:
//!
//! ```text
//! w = ((c - sign(c) * delta[class, min(|c|, 3)] / 256) * step[column] * scale[row]) * 2^e[row]
//! ```
//!
//! Each operation is rounded to `f32`, in that order. Codes are coded by rANS ([`aq_kernels::rans`]) with a frequency table for each class of
//! columns, so a slab takes about the entropy of its codes. A slab is self-contained:
//!
//! ```text
//! codes    streams of rows(cols) = max(1, 2^17 div cols) rows each, one after the other. A stream is its words (with the
//!          states), then the low bits of its codes, row by row, each row filled up to bytes, then its escaped codes
//! scales   2 bytes a row: little-endian f16
//! offsets  the header: steps, classes, tables, centroids, lengths of the streams
//! extra    1 byte a row: the exponent e, signed; or nothing when all are 0
//! ```
//!
//! A code is split into `shift` low bits, stored as they are, and the rest, which has a symbol in the table of its class; what is outside of
//! the table's range has the symbol 255 and is written out among the escaped codes. Integers are the codes of `bits.rs`.
//!
//! The rate-distortion argument for unbounded codes with entropy coding (instead of a fixed number of levels): H. Gish and
//! J. Pierce, "Asymptotically efficient quantizing" (IEEE Trans. Inf. Theory 14, 1968).

mod bits;
mod centroid;
mod choose;
mod classes;
mod decode;
mod encode;
mod fit;
mod header;
mod histogram;
mod log2;
mod sequence;
mod single;
mod steps;
mod stream;
mod table;

pub use centroid::{Centroids, Deltas};
pub use decode::{DecodeScratch, check_parts, decode_rows};
pub use encode::{EncodeScratch, SlabCodes, encode_slab, estimated_bytes};
pub use steps::{ColumnSteps, step};

/// Bytes of the low bits of a row.
fn low_bytes(cols: usize, shift: u32) -> usize {
    (cols * shift as usize).div_ceil(8)
}
