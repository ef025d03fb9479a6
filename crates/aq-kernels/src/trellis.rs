//! Trellis-coded quantization: a weight of 2 to 4 bits is one of 64 or 256 values, chosen together with its neighbours.
//!
//! The codes of a sequence of `n` weights, `bits` wide each, make a circular stream of `n * bits` bits: code `i` is bits
//! `i * bits` and up, the lowest first, and after the last bit comes the first again. Weight `i` is looked up with the `L` bits
//! that begin at its own code,
//!
//! ```text
//! state[i] = bits i * bits .. i * bits + L of the stream        L: log2 of the table's length, 6 or 8
//! weight[i] = table[state[i]] * scale
//! ```
//!
//! so a code decides the value of its own weight and of those before it, and the values that a weight can take are many more
//! than its codes. Which codes err least is found by dynamic programming over the states.
//!
//! The code is the "bitshift trellis" of Tseng et al., "QTIP: quantization with trellises and incoherence processing"
//! (NeurIPS 2024), with tables that are trained instead of computed, after Marcellin and Fischer, "Trellis coded quantization of
//! memoryless and Gauss-Markov sources" (IEEE Trans. Communications 38, 1990).

mod decode;
mod descend;
mod encode;
mod feedback;
mod viterbi;

pub use decode::{decode, pack};
pub use descend::{Descent, descend};
pub use encode::encode;
pub use feedback::{Feedback, encode_with_feedback};

/// Weights of the longest sequence.
pub const SEQUENCE: usize = 256;
