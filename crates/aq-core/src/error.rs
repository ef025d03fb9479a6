//! Errors of the shared vocabulary.

/// A value that a checked type refuses.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CoreError {
    /// Not a code width.
    #[error("bit width {0} is not one of 1, 2, 3, 4, 5, 6, 8")]
    BitWidth(u8),
    /// Not a group size.
    #[error("group size {0} is neither 0 (whole row) nor a multiple of 8 from 16 to 1024")]
    GroupSize(u32),
    /// Not a rate.
    #[error("rate {0} is not between 0.5 and 8 bits per weight")]
    Rate(f64),
    /// A shape whose number of elements or bytes does not fit 63 bits.
    #[error("tensor {name}: shape {shape:?} has too many elements")]
    ShapeOverflow {
        /// Tensor name.
        name: String,
        /// Its shape.
        shape: Vec<u64>,
    },
}

/// Why a strategy cannot quantize a layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrategyError {
    /// The layer's shape or type is not one the strategy takes.
    #[error("{strategy} does not support tensor {tensor}: {reason}")]
    Unsupported {
        /// Strategy id.
        strategy: &'static str,
        /// Tensor name.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Layer inputs (importance, statistics) that do not fit the layer.
    #[error("{what} of tensor {tensor} has {got} values, expected {expected}")]
    InputLength {
        /// Which input.
        what: &'static str,
        /// Tensor name.
        tensor: String,
        /// Values given.
        got: usize,
        /// Values needed.
        expected: usize,
    },
    /// The calibration or the weights of the layer could not be read.
    #[error("tensor {tensor}: {reason}")]
    Read {
        /// Tensor name.
        tensor: String,
        /// What went wrong.
        reason: String,
    },
    /// A weight that is NaN or infinite.
    #[error(
        "tensor {tensor}: holds NaN or an infinite value at row {row}, column {col}; only finite weights can be quantized"
    )]
    NotFinite {
        /// Tensor name.
        tensor: String,
        /// Row of the first such weight.
        row: u64,
        /// Its place in the row.
        col: u64,
    },
}
