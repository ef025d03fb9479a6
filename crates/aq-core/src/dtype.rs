//! Element types of source tensors.

use serde::{Deserialize, Serialize};

/// Element type of a tensor as stored, named as in safetensors (`"F32"`, `"BF16"`, ...).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of the safetensors format")]
#[rustfmt::skip]
pub enum DType {
    F64, F32, F16, BF16,
    #[serde(rename = "F8_E4M3")] F8E4M3,
    #[serde(rename = "F8_E5M2")] F8E5M2,
    #[serde(rename = "F8_E8M0")] F8E8M0,
    C64, I64, U64, I32, U32, I16, U16, I8, U8,
    #[serde(rename = "BOOL")] Bool,
}

impl DType {
    /// Every type there is.
    #[rustfmt::skip]
    pub const ALL: [DType; 17] = [
        DType::F64, DType::F32, DType::F16, DType::BF16, DType::F8E4M3, DType::F8E5M2, DType::F8E8M0,
        DType::C64, DType::I64, DType::U64, DType::I32, DType::U32, DType::I16, DType::U16, DType::I8,
        DType::U8, DType::Bool,
    ];

    /// The safetensors name.
    ///
    /// ```
    /// use aq_core::DType;
    /// assert_eq!(DType::F8E4M3.name(), "F8_E4M3");
    /// assert_eq!(DType::from_name("BF16"), Some(DType::BF16));
    /// assert_eq!(DType::from_name("bf16"), None);
    /// ```
    #[rustfmt::skip]
    pub fn name(self) -> &'static str {
        match self {
            DType::F64 => "F64", DType::F32 => "F32", DType::F16 => "F16", DType::BF16 => "BF16",
            DType::F8E4M3 => "F8_E4M3", DType::F8E5M2 => "F8_E5M2", DType::F8E8M0 => "F8_E8M0",
            DType::C64 => "C64", DType::I64 => "I64", DType::U64 => "U64", DType::I32 => "I32",
            DType::U32 => "U32", DType::I16 => "I16", DType::U16 => "U16", DType::I8 => "I8",
            DType::U8 => "U8", DType::Bool => "BOOL",
        }
    }

    /// The type of that exact safetensors name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::F64 | DType::C64 | DType::I64 | DType::U64 => 8,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => 2,
            _ => 1,
        }
    }

    /// Whether elements are real floating-point numbers that can be quantized.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F64 | DType::F32 | DType::F16 | DType::BF16 | DType::F8E4M3 | DType::F8E5M2)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
