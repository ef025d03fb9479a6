//! The `entropy` codec: a uniform grid without bounds, whose codes take as many bits as they are surprising.
//!
//! A weight is an integer code, reconstructed near its centroid, times the step of its column and the scale of its row:
//!
//! ```text
//! w = (c - sign(c) * delta[class, min(|c|, 3)] / 256) * step[column] * scale[row]
//! ```
//!
//! Each operation is rounded to `f32`, in that order. Codes are coded by rANS ([`aq_kernels::rans`]) with a frequency table for each class of
//! columns, so a slab takes about the entropy of its codes. A slab is self-contained:
//!
//! ```text
//! codes    streams of rows(cols) = max(1, 2^17 div cols) rows each, one after the other. A stream is its words (with the
//!          states), then the low bits of its codes, row by row, each row filled up to bytes, then its escaped codes
//! scales   number of rows, and their scales in parts of an octave (`scales.rs`)
//! offsets  the header: steps, classes, tables, centroids, lengths of the streams (`header.rs`)
//! extra    nothing
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
mod row;
mod scales;
mod sequence;
mod single;
mod steps;
mod stream;
mod table;

pub use centroid::{Centroids, Deltas};
pub use decode::{DecodeScratch, check_parts, decode_rows};
pub use encode::{EncodeScratch, SlabCodes, encode_slab, estimated_bytes};
pub use scales::{RowScales, power};
pub use steps::{ColumnSteps, step};

/// The most bytes that the parts of `rows` rows have, in the order codes, scales, offsets, extra; `None` when they pass 64 bits.
///
/// They are far more than codes take that any strategy chooses: 64 bits a code are for arbitrary integers.
///
/// ```
/// assert_eq!(aq_codec::entropy::most_bytes(100, 4).map(|[_, scales, _, extra]| (scales, extra)), Some((520, 0)));
/// assert_eq!(aq_codec::entropy::most_bytes(usize::MAX, 4), None);
/// ```
pub fn most_bytes(cols: usize, rows: u64) -> Option<[u64; 4]> {
    let scales = rows.checked_mul(2)?.checked_add(512)?;
    if cols == 0 || rows == 0 {
        return Some([0, scales, 0, 0]);
    }
    let streams = rows.div_ceil(stream::rows(cols) as u64);
    let codes = rows.checked_mul(cols as u64)?.checked_mul(8)?.checked_add(streams.checked_mul(256)?)?;
    let offsets =
        (cols as u64).checked_mul(16)?.checked_add(streams.checked_mul(16)?)?.checked_add(1 << 14)?;
    Some([codes.checked_add(rows)?, scales, offsets, 0])
}

/// Rows of a stream, unless fewer are left in the slab. Whatever rows are asked for, decoding starts where their stream does.
///
/// ```
/// assert_eq!([1, 4096, 1 << 20].map(aq_codec::entropy::stream_rows), [1 << 17, 32, 1]);
/// ```
pub fn stream_rows(cols: usize) -> usize {
    stream::rows(cols)
}

/// Bytes of the low bits of a row.
fn low_bytes(cols: usize, shift: u32) -> usize {
    (cols * shift as usize).div_ceil(8)
}
