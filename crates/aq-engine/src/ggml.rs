//! Which type of ggml a tensor gets: by bits, by a mixture, and by the length of its rows.

mod family;

use std::sync::LazyLock;

use aq_core::{BitWidth, GgmlType, GroupSize, StrategyId, TensorInfo};
use regex::RegexSet;

use crate::{EngineError, Result};

pub(crate) use family::{Family, detect};

/// A mixture of types as users of llama-quantize and ComfyUI-GGUF know it: the layers that lose the most get a larger type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, non_camel_case_types, reason = "the names are those of llama-quantize")]
#[rustfmt::skip]
pub enum Mixture {
    Q3_K_S, Q3_K_M, Q3_K_L, Q4_K_S, Q4_K_M, Q5_K_S, Q5_K_M,
}

impl Mixture {
    const ALL: [(Mixture, &'static str); 7] = [
        (Mixture::Q3_K_S, "q3_k_s"),
        (Mixture::Q3_K_M, "q3_k_m"),
        (Mixture::Q3_K_L, "q3_k_l"),
        (Mixture::Q4_K_S, "q4_k_s"),
        (Mixture::Q4_K_M, "q4_k_m"),
        (Mixture::Q5_K_S, "q5_k_s"),
        (Mixture::Q5_K_M, "q5_k_m"),
    ];

    /// The mixture of that name, in any case.
    ///
    /// ```
    /// use aq_engine::Mixture;
    /// assert_eq!(Mixture::from_name("Q4_K_M"), Some(Mixture::Q4_K_M));
    /// assert_eq!(Mixture::from_name("q4_k"), None);
    /// ```
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(mixture, _)| mixture)
    }

    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(mixture, _)| *mixture == self).map_or("", |(_, name)| name)
    }

    /// Its number as `general.file_type`.
    pub(crate) fn file_type(self) -> u32 {
        11 + self as u32
    }

    /// The type of most layers.
    fn base(self) -> GgmlType {
        match self {
            Mixture::Q3_K_S | Mixture::Q3_K_M | Mixture::Q3_K_L => GgmlType::Q3_K,
            Mixture::Q4_K_S | Mixture::Q4_K_M => GgmlType::Q4_K,
            Mixture::Q5_K_S | Mixture::Q5_K_M => GgmlType::Q5_K,
        }
    }

    /// The type of a layer: `place` counts the layers of its role before it.
    fn kind(self, role: Role, place: usize) -> GgmlType {
        use GgmlType::{Q4_K, Q5_K, Q6_K};
        match (role, self) {
            (Role::Value, Mixture::Q3_K_M) => {
                if place < 2 {
                    Q5_K
                } else {
                    Q4_K
                }
            }
            (Role::Value, Mixture::Q3_K_L) => Q5_K,
            (Role::Value, Mixture::Q4_K_S) if place < 4 => Q5_K,
            (Role::Value, Mixture::Q4_K_M | Mixture::Q5_K_M) => Q6_K,
            (Role::Fused, Mixture::Q3_K_M | Mixture::Q3_K_L) => Q4_K,
            (Role::Fused, Mixture::Q4_K_M) => Q5_K,
            (Role::Fused, Mixture::Q5_K_M) => Q6_K,
            (Role::Down, Mixture::Q3_K_M) => Q4_K,
            (Role::Down, Mixture::Q3_K_L | Mixture::Q4_K_S) => Q5_K,
            (Role::Down, Mixture::Q4_K_M | Mixture::Q5_K_M) => Q6_K,
            _ => self.base(),
        }
    }

    /// The type of each tensor.
    pub(crate) fn kinds<'a>(self, tensors: impl Iterator<Item = &'a TensorInfo>) -> Vec<GgmlType> {
        let mut values = 0;
        let kind = |info: &TensorInfo| {
            let role = Role::of(info.name());
            let kind = self.kind(role, values);
            values += usize::from(role == Role::Value);
            kind
        };
        tensors.map(kind).collect()
    }
}

/// What a layer does in a block of a transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Values of attention.
    Value,
    /// Queries, keys and values in one.
    Fused,
    /// The second layer of a feed-forward part.
    Down,
    Other,
}

/// The names by which ComfyUI-GGUF knows each role, and those of other models.
static ROLES: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new([
        r"attn_v\.weight|\.to_v\.weight|\.v\.weight|\.attn\.w[12]v\.weight|_attn\.v_proj\.weight|\.add_v_proj\.weight",
        r"attn_?\.?qkv\.weight|attention\.qkv\.weight",
        r"ffn_down|experts\..*\.w2\.weight|\.ffn\.2\.weight|\.ff(_context)?\.net\.2\.weight|\.mlp\.layer2\.weight|\.adaln_modulation_mlp\.2\.weight|\.feed_forward\.w2\.weight|\.mlp\.(fc2|down_proj)\.weight",
    ])
    .expect("patterns that a test compiles")
});

impl Role {
    fn of(name: &str) -> Self {
        match ROLES.matches(name).iter().next() {
            Some(0) => Role::Value,
            Some(1) => Role::Fused,
            Some(_) => Role::Down,
            None => Role::Other,
        }
    }
}

/// Bits and group size of a strategy that is a type of ggml, which has no others.
///
/// # Errors
/// [`EngineError::Config`] when other bits are asked for.
pub(crate) fn numbers(method: &StrategyId, asked: Option<u8>) -> Result<Option<(BitWidth, GroupSize)>> {
    let Some(kind) = GgmlType::from_name(method.as_str()) else { return Ok(None) };
    match asked.filter(|&bits| bits != kind.bits().get()) {
        Some(bits) => Err(EngineError::Config(format!("{method} has no codes of {bits} bits"))),
        None => Ok(Some((kind.bits(), kind.group_size()))),
    }
}

/// The type for codes of so many bits.
pub(crate) fn of_bits(bits: BitWidth) -> GgmlType {
    match bits.get() {
        0..=2 => GgmlType::Q2_K,
        3 => GgmlType::Q3_K,
        4 => GgmlType::Q4_K,
        5 => GgmlType::Q5_K,
        6 => GgmlType::Q6_K,
        _ => GgmlType::Q8_0,
    }
}

/// The type that rows of `cols` weights can have in place of `kind`: itself, or the smallest of blocks of 32 that is no coarser, among those that
/// diffusers and ComfyUI run; `None` when they are no multiple of 32.
///
/// | wanted | Q2_K, Q3_K | Q4_K | Q5_K | Q6_K | IQ4_XS |
/// |---|---|---|---|---|---|
/// | instead | Q4_0 | Q4_1 | Q5_1 | Q8_0 | IQ4_NL |
pub(crate) fn fitting(kind: GgmlType, cols: u64) -> Option<GgmlType> {
    if kind.row_bytes(cols).is_some() {
        return Some(kind);
    }
    let smaller = match kind {
        GgmlType::Q2_K | GgmlType::Q3_K => GgmlType::Q4_0,
        GgmlType::Q4_K => GgmlType::Q4_1,
        GgmlType::Q5_K => GgmlType::Q5_1,
        GgmlType::Q6_K => GgmlType::Q8_0,
        GgmlType::IQ4_XS => GgmlType::IQ4_NL,
        other => other,
    };
    smaller.row_bytes(cols).map(|_| smaller)
}

#[cfg(test)]
mod tests {
    use aq_core::DType;

    use super::*;

    #[test]
    fn mixtures_raise_the_layers_that_comfyui_raises() {
        let names = [
            "blocks.0.attn.to_v.weight",
            "blocks.1.attn.to_v.weight",
            "blocks.2.attn.to_v.weight",
            "double_blocks.0.img_attn.qkv.weight",
            "transformer_blocks.0.ff.net.2.weight",
            "blocks.0.attn.to_q.weight",
        ];
        let tensors = names.map(|n| TensorInfo::new(n, vec![256, 256], DType::F32).expect("a shape"));
        let kinds = |name| {
            let mixture = Mixture::from_name(name).expect("a mixture");
            mixture.kinds(tensors.iter()).into_iter().map(GgmlType::name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(kinds("Q4_K_M"), "Q6_K Q6_K Q6_K Q5_K Q6_K Q4_K");
        assert_eq!(kinds("q3_k_m"), "Q5_K Q5_K Q4_K Q4_K Q4_K Q3_K");
        assert_eq!(kinds("q5_k_s"), "Q5_K Q5_K Q5_K Q5_K Q5_K Q5_K");
        assert_eq!(Mixture::Q4_K_M.file_type(), 15);
    }

    #[test]
    fn rows_that_are_no_multiple_of_256_get_small_blocks() {
        let of = |kind, cols| fitting(kind, cols);
        assert_eq!(of(GgmlType::Q4_K, 1024), Some(GgmlType::Q4_K));
        assert_eq!(of(GgmlType::Q4_K, 1152), Some(GgmlType::Q4_1));
        assert_eq!(of(GgmlType::Q6_K, 1152), Some(GgmlType::Q8_0));
        assert_eq!([of(GgmlType::Q4_K, 36), of(GgmlType::Q8_0, 16)], [None, None]);
        for kind in GgmlType::ALL {
            let small = of(kind, 32).expect("one of blocks of 32");
            assert!(small.row_bytes(256) >= kind.row_bytes(256));
        }
        for bits in BitWidth::ALL.into_iter().filter(|bits| bits.get() > 1) {
            assert_eq!(of_bits(bits).bits(), bits);
        }
    }
}
