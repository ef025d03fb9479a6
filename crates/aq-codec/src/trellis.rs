//! The `trellis` codec: codes of 2 to 4 bits that pick trained values through a sliding window.
//!
//! A row is cut into sequences of 256 weights, the last one maybe shorter. Each is encoded on its own, as
//! [`aq_kernels::trellis`] describes:
//!
//! ```text
//! w[i] = (table[state[i]] * |scale|) * 2^e       state[i]: the L bits of the sequence's circular stream from bit i * bits on
//! ```
//!
//! Each product is rounded to `f32`, in that order. The parts of a slab are
//!
//! ```text
//! codes    ceil(cols * bits / 8) bytes a row: the streams of its sequences, the lowest bit of a byte first
//! scales   2 bytes a sequence: little-endian f16. Its sign bit says which of two tables it is
//! offsets  1 byte a slab: L, 6 or 8
//! extra    1 byte a row: the exponent e, signed; or nothing when all are 0
//! ```
//!
//! There are two tables for each number of bits and each `L`. The first was trained on sequences whose mean magnitude is large
//! beside their root mean square, as that of normal weights is, the second on the others, with heavier tails. They are
//! in `trellis/tables.json`, and `cargo run --release -p aq-benches --bin trellis-tables` makes them again.

mod choose;
mod read;
mod rows;

use aq_core::BitWidth;

pub use choose::{Fit, UNITS, encode_sequence, table_for};
pub(crate) use read::{check_rows, decode_rows};
pub(crate) use rows::lengths;
pub use rows::{Sequences, push_row};

/// Values of all tables: by `L`, then by bits, then the two of each.
const VALUES: [i8; 1920] = include!("trellis/tables.json");

/// A trellis that there are tables for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Trellis {
    bits: u8,
    state_bits: u8,
}

impl Trellis {
    /// A trellis of 2, 3 or 4 bits a weight and states of 6 or 8 bits; `None` for other numbers.
    ///
    /// ```
    /// use aq_codec::trellis::Trellis;
    /// use aq_core::BitWidth;
    /// let trellis = Trellis::new(BitWidth::new(2)?, 8).expect("there is one");
    /// assert_eq!(trellis.table(0).len(), 256);
    /// assert_eq!(Trellis::new(BitWidth::new(2)?, 7), None);
    /// # Ok::<(), aq_core::CoreError>(())
    /// ```
    pub fn new(bits: BitWidth, state_bits: u8) -> Option<Self> {
        let known = (2..=4).contains(&bits.get()) && [6, 8].contains(&state_bits);
        known.then_some(Self { bits: bits.get(), state_bits })
    }

    /// Bits that a weight adds to the stream.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// Bits of a state, `L`.
    pub fn state_bits(self) -> u8 {
        self.state_bits
    }

    /// The table `index`, of `2^L` values.
    ///
    /// # Panics
    /// When `index` is above 1.
    pub fn table(self, index: usize) -> &'static [i8] {
        assert!(index < 2, "two tables");
        let values = 1 << self.state_bits;
        let before = if self.state_bits == 6 { 0 } else { 6 * 64 };
        &VALUES[before + (usize::from(self.bits - 2) * 2 + index) * values..][..values]
    }
}
