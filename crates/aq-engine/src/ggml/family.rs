//! What programs that load GGUF files expect of each family of models: the lists of ComfyUI-GGUF, in `ggml_families.json`.

use std::collections::HashSet;
use std::sync::LazyLock;

use aq_core::TensorInfo;
use regex::RegexSet;
use serde::Deserialize;

use crate::architecture::unwrapped;

/// A family of models by its `general.architecture`.
#[derive(Debug)]
pub(crate) struct Family {
    id: String,
    detect: Vec<Vec<String>>,
    keep: RegexSet,
    full: RegexSet,
    convolutions: bool,
}

/// The family of the model that has these tensors.
pub(crate) fn detect<'a>(tensors: impl Iterator<Item = &'a TensorInfo>) -> Option<&'static Family> {
    let names: HashSet<&str> = tensors.map(|t| unwrapped(t.name())).collect();
    let has_all = |list: &Vec<String>| list.iter().all(|name| names.contains(name.as_str()));
    FAMILIES.iter().find(|family| family.detect.iter().any(has_all))
}

impl Family {
    /// Its name in files.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Why a tensor of the family is not quantized.
    pub(crate) fn keep_reason(&self, info: &TensorInfo) -> Option<String> {
        if self.keep.is_match(unwrapped(info.name())) {
            return Some(format!("programs for GGUF files of {} want it plain", self.id));
        }
        let convolution = info.shape().len() != 2 && !self.convolutions;
        convolution.then(|| format!("programs for GGUF files of {} take matrices only", self.id))
    }

    /// Whether a plain tensor is stored as F32.
    pub(crate) fn wants_full(&self, info: &TensorInfo) -> bool {
        self.full.is_match(unwrapped(info.name()))
    }
}

static FAMILIES: LazyLock<Vec<Family>> = LazyLock::new(|| {
    parse(include_str!("../ggml_families.json")).expect("the embedded list is parsed by a test")
});

fn parse(json: &str) -> Result<Vec<Family>, Box<dyn std::error::Error>> {
    let raw: Vec<RawFamily> = serde_json::from_str(json)?;
    raw.into_iter().map(|family| Ok(family.compile()?)).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFamily {
    id: String,
    /// Names, all of any one of these lists.
    detect: Vec<Vec<String>>,
    /// Patterns of tensors that are not quantized.
    keep: Vec<String>,
    /// Patterns of tensors that are F32.
    #[serde(default)]
    full: Vec<String>,
    /// Whether kernels of convolutions may be quantized.
    #[serde(default)]
    convolutions: bool,
}

impl RawFamily {
    fn compile(self) -> Result<Family, regex::Error> {
        let Self { id, detect, keep, full, convolutions } = self;
        Ok(Family { id, detect, keep: RegexSet::new(keep)?, full: RegexSet::new(full)?, convolutions })
    }
}

#[cfg(test)]
mod tests {
    use aq_core::DType;

    use super::*;

    fn info(name: &str, shape: &[u64]) -> TensorInfo {
        TensorInfo::new(name, shape.into(), DType::BF16).expect("a shape")
    }

    #[test]
    fn families_are_found_by_their_names() {
        assert!(FAMILIES.iter().all(|f| !f.detect.is_empty() && !f.keep.is_empty()));
        let of = |names: &[&str]| {
            let tensors: Vec<_> = names.iter().map(|n| info(n, &[256, 256])).collect();
            detect(tensors.iter()).map(Family::id)
        };
        assert_eq!(of(&["model.diffusion_model.double_blocks.0.img_attn.proj.weight"]), Some("flux"));
        assert_eq!(
            of(&["blocks.0.self_attn.norm_q.weight", "text_embedding.2.weight", "head.modulation"]),
            Some("wan")
        );
        assert_eq!(of(&["label_emb.0.0.weight"]), Some("sdxl"));
        assert_eq!(of(&["blocks.0.attn.qkv.weight"]), None);
    }

    #[test]
    fn lists_say_what_is_kept() {
        let tensors = [info("double_blocks.0.img_attn.proj.weight", &[256, 256])];
        let flux = detect(tensors.iter()).expect("flux");
        assert!(flux.keep_reason(&info("img_in.weight", &[256, 64])).is_some());
        assert!(flux.keep_reason(&info("double_blocks.0.txt_attn.qkv.weight", &[256, 64])).is_none());
        assert!(flux.keep_reason(&info("conv.weight", &[256, 64, 3, 3])).is_some());
    }
}
