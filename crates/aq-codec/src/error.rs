//! Errors of decoding.

use aq_core::DType;

/// Why bytes cannot be decoded or converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A stored part is too short or too long for its rows.
    #[error("{part} have {got} bytes, expected {expected}")]
    PartLength {
        /// Which part: `codes`, `scales`, `offsets`, `extra` or `elements`.
        part: &'static str,
        /// Bytes found.
        got: u64,
        /// Bytes the rows need.
        expected: u64,
    },
    /// The buffer for the result has another length than the result.
    #[error("the output holds {got} values, expected {expected}")]
    OutputLength {
        /// Values it holds.
        got: usize,
        /// Values there are.
        expected: u64,
    },
    /// Rows whose bytes cannot be counted in 64 bits.
    #[error("{count} rows from row {first} on are more than memory can hold")]
    TooLarge {
        /// First row.
        first: u64,
        /// Number of rows.
        count: u64,
    },
    /// A part of entropy-coded rows, or of rows of signs, that no encoder wrote.
    #[error("{part} are damaged: they do not decode to the rows they should hold")]
    Damaged {
        /// Which part: `codes` or `offsets`.
        part: &'static str,
    },
    /// Side data that is malformed.
    #[error("side data: {0}")]
    Side(&'static str),
    /// An element type that has no conversion to or from `f32`.
    #[error("elements of type {0} have no conversion")]
    ElementType(DType),
}
