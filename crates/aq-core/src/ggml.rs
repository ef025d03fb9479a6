//! The block types of ggml: what GGUF files hold.

use crate::{BitWidth, GroupSize};

/// A block type of ggml: so many weights in so many bytes, with scales of their own.
///
/// Blocks of 32 weights have one scale; blocks of 256 have a scale for each group of 16 or 32, an integer that is multiplied by
/// the one of the block. `docs/format.md` has the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, non_camel_case_types, reason = "the names are those of ggml")]
#[rustfmt::skip]
pub enum GgmlType {
    Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS,
}

/// Everything that is fixed for a type.
struct Facts {
    name: &'static str,
    /// Names of the codec in our own files, without and with side data.
    codecs: [&'static str; 2],
    /// Name of the strategy that writes it.
    method: &'static str,
    id: u32,
    bits: usize,
    group: u32,
    weights: usize,
    bytes: usize,
}

macro_rules! facts {
    ($name:literal, $lower:literal, $id:literal, $bits:literal, $group:literal, $weights:literal, $bytes:literal) => {
        Facts {
            name: $name,
            codecs: [concat!("ggml_", $lower), concat!("ggml_", $lower, "+transform")],
            method: $lower,
            id: $id,
            bits: $bits,
            group: $group,
            weights: $weights,
            bytes: $bytes,
        }
    };
}

#[rustfmt::skip]
const FACTS: [Facts; 12] = [
    facts!("Q4_0",   "q4_0",    2, 4, 32,  32,  18),
    facts!("Q4_1",   "q4_1",    3, 4, 32,  32,  20),
    facts!("Q5_0",   "q5_0",    6, 5, 32,  32,  22),
    facts!("Q5_1",   "q5_1",    7, 5, 32,  32,  24),
    facts!("Q8_0",   "q8_0",    8, 8, 32,  32,  34),
    facts!("Q2_K",   "q2_k",   10, 2, 16, 256,  84),
    facts!("Q3_K",   "q3_k",   11, 3, 16, 256, 110),
    facts!("Q4_K",   "q4_k",   12, 4, 32, 256, 144),
    facts!("Q5_K",   "q5_k",   13, 5, 32, 256, 176),
    facts!("Q6_K",   "q6_k",   14, 6, 16, 256, 210),
    facts!("IQ4_NL", "iq4_nl", 20, 4, 32,  32,  18),
    facts!("IQ4_XS", "iq4_xs", 23, 4, 32, 256, 136),
];

impl GgmlType {
    /// Every type there is.
    #[rustfmt::skip]
    pub const ALL: [GgmlType; 12] = [
        GgmlType::Q4_0, GgmlType::Q4_1, GgmlType::Q5_0, GgmlType::Q5_1, GgmlType::Q8_0, GgmlType::Q2_K,
        GgmlType::Q3_K, GgmlType::Q4_K, GgmlType::Q5_K, GgmlType::Q6_K, GgmlType::IQ4_NL, GgmlType::IQ4_XS,
    ];

    fn facts(self) -> &'static Facts {
        &FACTS[self as usize]
    }

    /// Its name in ggml.
    ///
    /// ```
    /// use aq_core::GgmlType;
    /// assert_eq!(GgmlType::Q4_K.name(), "Q4_K");
    /// assert_eq!(GgmlType::from_name("iq4_xs"), Some(GgmlType::IQ4_XS));
    /// ```
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The type of that name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name().eq_ignore_ascii_case(name))
    }

    /// Its number in GGUF files.
    pub fn id(self) -> u32 {
        self.facts().id
    }

    /// The type of that number.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.id() == id)
    }

    /// Name of the codec in our own files: `ggml_q4_k`.
    pub fn codec(self) -> &'static str {
        self.facts().codecs[0]
    }

    /// The same for a tensor with side data.
    pub(crate) fn transformed_codec(self) -> &'static str {
        self.facts().codecs[1]
    }

    /// The type whose codec has that name.
    pub fn from_codec(codec: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.codec() == codec)
    }

    /// Id of the strategy that chooses its codes: its name in lower case.
    pub fn method(self) -> &'static str {
        self.facts().method
    }

    /// Bits of a code.
    pub fn bits(self) -> BitWidth {
        BitWidth::ALL
            .into_iter()
            .find(|b| usize::from(b.get()) == self.facts().bits)
            .unwrap_or(BitWidth::ALL[5])
    }

    /// Weights that share a scale.
    pub fn group_size(self) -> GroupSize {
        GroupSize::new(self.facts().group).unwrap_or(GroupSize::ROW)
    }

    /// The same as a number: 16 or 32.
    pub fn group_weights(self) -> usize {
        self.facts().group as usize
    }

    /// Weights of a block: 32 or 256.
    pub fn block_weights(self) -> usize {
        self.facts().weights
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.facts().bytes
    }

    /// Bytes of a row of `cols` weights; `None` when that is no whole number of blocks, or too many.
    ///
    /// ```
    /// use aq_core::GgmlType;
    /// assert_eq!(GgmlType::Q4_K.row_bytes(4096), Some(2304));
    /// assert_eq!(GgmlType::Q4_K.row_bytes(1152 - 32), None);
    /// ```
    pub fn row_bytes(self, cols: u64) -> Option<u64> {
        let (weights, bytes) = (self.facts().weights as u64, self.facts().bytes as u64);
        if cols.is_multiple_of(weights) { (cols / weights).checked_mul(bytes) } else { None }
    }
}

impl std::fmt::Display for GgmlType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_all_its_names() {
        for (place, kind) in GgmlType::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place, "the table has the order of the types");
            assert_eq!(GgmlType::from_name(kind.method()), Some(kind));
            assert_eq!(GgmlType::from_id(kind.id()), Some(kind));
            assert_eq!(GgmlType::from_codec(kind.codec()), Some(kind));
            assert_eq!(usize::from(kind.bits().get()), kind.facts().bits);
            assert_eq!(kind.group_size().get(), kind.facts().group);
        }
        assert_eq!((GgmlType::from_id(0), GgmlType::from_id(77)), (None, None));
    }
}
