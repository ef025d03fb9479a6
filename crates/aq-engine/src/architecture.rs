//! Which tensors of a model are kept as they are: skip lists per architecture, and the rule for all of them.
//!
//! The lists are data, `architectures.json`: to add a model, add an entry there. Patterns see a tensor's name
//! without the wrapper prefixes listed in the same file (`model.diffusion_model.`, `module.`, ...).

use std::sync::LazyLock;

use aq_core::{MAX_ROW_WEIGHTS, TensorInfo};
use regex::Regex;
use serde::Deserialize;

/// Tensors with fewer elements are kept.
const MIN_ELEMENTS: u64 = 4096;

/// Tensors with shorter rows are kept.
const MIN_COLS: u64 = 32;

/// A family of models whose tensors are named alike.
#[derive(Debug)]
pub struct Architecture {
    id: String,
    title: String,
    detect: Vec<Regex>,
    skip: Vec<Skip>,
    folds: Vec<Fold>,
}

/// What makes the inputs of some layers.
#[derive(Debug)]
struct Fold {
    layers: Regex,
    into: String,
    form: FoldForm,
}

/// How a layer makes the inputs of another, and so where a factor for each of these can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FoldForm {
    /// A norm: one weight an input.
    Norm,
    /// A linear layer: its outputs are `parts` vectors one after the other, of which the inputs are one, or in proportion to one.
    Rows {
        /// Which of them, from 0.
        part: u64,
        /// Their number.
        parts: u64,
    },
    /// A linear layer that makes `parts` vectors, two of which turn a norm `n` into the inputs `(1 + scale) n + shift`.
    Modulation {
        /// The shift, from 0.
        shift: u64,
        /// The scale, from 0.
        scale: u64,
        /// Their number.
        parts: u64,
    },
}

/// A tensor that this architecture keeps, and why.
#[derive(Debug)]
struct Skip {
    pattern: Regex,
    reason: String,
    below_params: u64,
}

/// The architecture of the model that has these tensors: the first whose every `detect` pattern matches some name.
pub fn detect<'a>(tensors: impl Iterator<Item = &'a TensorInfo> + Clone) -> Option<&'static Architecture> {
    let names: Vec<&str> = tensors.map(|t| unwrapped(t.name())).collect();
    CATALOGUE.architectures.iter().find(|a| a.detect.iter().all(|r| names.iter().any(|n| r.is_match(n))))
}

impl Architecture {
    /// Stable short name, `"flux-diffusers"`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Name for people.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Why this tensor of a model of `params` weights is kept; `None` when it is not on the list.
    pub fn skip_reason(&self, info: &TensorInfo, params: u64) -> Option<&str> {
        let name = unwrapped(info.name());
        let skip = self.skip.iter().find(|s| params < s.below_params && s.pattern.is_match(name))?;
        Some(&skip.reason)
    }

    /// The layer that makes the inputs of layer `name`, where it is known; both without `.weight`.
    ///
    /// ```
    /// use aq_core::{DType, TensorInfo};
    /// use aq_engine::architecture::{FoldForm, detect};
    /// let names = ["embed_tokens", "layers.0.self_attn.q_proj", "layers.0.mlp.gate_proj"];
    /// let tensors = names.map(|n| TensorInfo::new(format!("model.{n}.weight"), vec![64, 64], DType::F32).expect("a shape"));
    /// let dream = detect(tensors.iter()).expect("it is known");
    /// let norm = "model.layers.0.input_layernorm".to_string();
    /// assert_eq!(dream.fold("model.layers.0.self_attn.q_proj"), Some((norm, FoldForm::Norm)));
    /// ```
    pub fn fold(&self, name: &str) -> Option<(String, FoldForm)> {
        let bare = unwrapped(name);
        let wrapper = &name[..name.len() - bare.len()];
        let fold = self.folds.iter().find(|fold| fold.layers.is_match(bare))?;
        Some((format!("{wrapper}{}", fold.layers.replace(bare, &fold.into)), fold.form))
    }
}

/// Why this tensor is kept whatever the architecture; `None` when it can be quantized.
///
/// A tensor that can be quantized holds floating-point numbers, has at least two dimensions and 4096 elements, and
/// rows of 32 to [`MAX_ROW_WEIGHTS`] weights.
pub fn generic_reason(info: &TensorInfo) -> Option<String> {
    let (rank, elements, cols) = (info.shape().len(), info.elements(), info.cols());
    if !info.dtype().is_float() {
        Some(format!("type {} is not floating-point", info.dtype()))
    } else if rank < 2 {
        Some(format!("rank {rank}"))
    } else if elements < MIN_ELEMENTS {
        Some(format!("only {elements} elements"))
    } else if cols < MIN_COLS {
        Some(format!("only {cols} columns"))
    } else if cols > MAX_ROW_WEIGHTS {
        Some(format!("rows of {cols} weights are longer than {MAX_ROW_WEIGHTS}"))
    } else {
        None
    }
}

/// `name` without the prefixes that wrappers and single-file checkpoints put before it.
pub(crate) fn unwrapped(mut name: &str) -> &str {
    while let Some(rest) = CATALOGUE.prefixes.iter().find_map(|p| name.strip_prefix(p.as_str())) {
        name = rest;
    }
    name
}

struct Catalogue {
    prefixes: Vec<String>,
    architectures: Vec<Architecture>,
}

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    parse(include_str!("architectures.json")).expect("the embedded catalogue is parsed by a test")
});

fn parse(json: &str) -> Result<Catalogue, Box<dyn std::error::Error>> {
    let raw: RawCatalogue = serde_json::from_str(json)?;
    let architectures =
        raw.architectures.into_iter().map(RawArchitecture::compile).collect::<Result<_, _>>()?;
    Ok(Catalogue { prefixes: raw.prefixes, architectures })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCatalogue {
    prefixes: Vec<String>,
    architectures: Vec<RawArchitecture>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawArchitecture {
    id: String,
    title: String,
    detect: Vec<String>,
    skip: Vec<RawSkip>,
    #[serde(default)]
    folds: Vec<RawFold>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFold {
    layers: String,
    into: String,
    #[serde(rename = "as")]
    form: FoldForm,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSkip {
    pattern: String,
    reason: String,
    #[serde(default = "always")]
    skip_below_params: u64,
}

fn always() -> u64 {
    u64::MAX
}

impl RawArchitecture {
    fn compile(self) -> Result<Architecture, regex::Error> {
        let detect = self.detect.iter().map(|p| Regex::new(p)).collect::<Result<_, _>>()?;
        let skip = self.skip.into_iter().map(RawSkip::compile).collect::<Result<_, _>>()?;
        let folds = self.folds.into_iter().map(RawFold::compile).collect::<Result<_, _>>()?;
        Ok(Architecture { id: self.id, title: self.title, detect, skip, folds })
    }
}

impl RawFold {
    fn compile(self) -> Result<Fold, regex::Error> {
        Ok(Fold { layers: Regex::new(&self.layers)?, into: self.into, form: self.form })
    }
}

impl RawSkip {
    fn compile(self) -> Result<Skip, regex::Error> {
        let pattern = Regex::new(&self.pattern)?;
        Ok(Skip { pattern, reason: self.reason, below_params: self.skip_below_params })
    }
}

#[cfg(test)]
mod tests {
    use aq_core::DType;

    use super::*;

    fn tensors(names: &[&str]) -> Vec<TensorInfo> {
        let info = |n: &&str| TensorInfo::new(*n, vec![256, 256], DType::BF16).unwrap();
        names.iter().map(info).collect()
    }

    /// Detects `id` under each prefix, and splits the names exactly into those kept and those quantized.
    #[track_caller]
    fn check(id: &str, params: u64, quantized: &[&str], kept: &[&str]) {
        for prefix in
            ["", "module.", "model.diffusion_model.", "backbone.", "module.transformer.", "network."]
        {
            let named = |list: &[&str]| list.iter().map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
            let (quantized, kept) = (named(quantized), named(kept));
            let all: Vec<&str> = kept.iter().chain(&quantized).map(String::as_str).collect();
            let all = tensors(&all);
            let found =
                detect(all.iter()).unwrap_or_else(|| panic!("{id} with prefix {prefix:?} is not detected"));
            assert_eq!(found.id(), id, "prefix {prefix:?}");
            assert!(!found.title().is_empty());
            for info in &all {
                let is_kept = found.skip_reason(info, params).is_some();
                assert_eq!(is_kept, kept.iter().any(|n| n == info.name()), "{}", info.name());
            }
        }
    }

    #[test]
    fn every_entry_is_well_formed_and_unique() {
        let catalogue = parse(include_str!("architectures.json")).unwrap();
        let mut ids: Vec<&str> = catalogue.architectures.iter().map(Architecture::id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), catalogue.architectures.len());
        assert!(catalogue.architectures.iter().all(|a| a.detect.len() >= 2 && !a.skip.is_empty()));
        assert!(catalogue.prefixes.iter().all(|p| p.len() > 1 && p.ends_with('.')));
        assert!(parse(r#"{"prefixes": [], "architectures": [{"id": "x"}]}"#).is_err());
    }

    #[test]
    fn generic_rule() {
        let reason =
            |shape: &[u64], dtype| generic_reason(&TensorInfo::new("w", shape.into(), dtype).unwrap());
        assert_eq!(reason(&[64, 64], DType::F32), None);
        assert_eq!(reason(&[128, 32, 1], DType::F8E4M3), None);
        assert_eq!(reason(&[1, 1 << 22], DType::F16), None);
        for (shape, dtype, expected) in [
            (&[4096][..], DType::F32, "rank 1"),
            (&[], DType::F32, "rank 0"),
            (&[64, 32], DType::F32, "only 2048 elements"),
            (&[0, 64], DType::F32, "only 0 elements"),
            (&[512, 3, 3, 3], DType::F32, "only 27 columns"),
            (&[64, 64], DType::I32, "type I32 is not floating-point"),
            (&[64, 64], DType::F8E8M0, "type F8_E8M0 is not floating-point"),
            (&[1, 36864, 1536], DType::F16, "rows of 56623104 weights are longer than 4194304"),
        ] {
            assert_eq!(reason(shape, dtype).as_deref(), Some(expected));
        }
    }

    #[test]
    fn unknown_models_have_no_architecture() {
        assert!(
            detect(tensors(&["encoder.layer.0.attention.self.query.weight", "x_embedder.weight"]).iter())
                .is_none()
        );
        assert!(detect([].iter()).is_none());
    }

    // The shipped small models: what is quantized is what their own configuration lists.

    #[test]
    fn digits_dit() {
        let quantized = [
            "blocks.0.attn.qkv.weight",
            "blocks.4.attn.proj.weight",
            "blocks.0.mlp.fc1.weight",
            "blocks.0.mlp.fc2.weight",
            "blocks.4.adaLN_modulation.1.weight",
        ];
        let kept = [
            "x_embedder.proj.weight",
            "t_embedder.mlp.0.weight",
            "t_embedder.mlp.2.weight",
            "y_embedder.embedding_table.weight",
            "final_layer.adaLN_modulation.1.weight",
            "final_layer.linear.weight",
        ];
        check("dit", 1_572_489, &quantized, &kept);
    }

    #[test]
    fn small_masked_language_model() {
        let layers = [
            "layers.0.self_attn.q_proj.weight",
            "layers.0.self_attn.k_proj.weight",
            "layers.3.self_attn.v_proj.weight",
            "layers.3.self_attn.o_proj.weight",
            "layers.0.mlp.gate_proj.weight",
            "layers.0.mlp.up_proj.weight",
            "layers.3.mlp.down_proj.weight",
        ];
        let ends = ["embed_tokens.weight", "lm_head.weight"];
        check("dream", 1_116_800, &layers, &ends);
        check("dream", 7_615_616_512, &[&layers[..], &ends].concat(), &[]);
        // As Dream publishes them: one prefix on all but the head.
        let published = tensors(&[
            "model.embed_tokens.weight",
            "model.layers.0.self_attn.q_proj.weight",
            "model.layers.0.mlp.gate_proj.weight",
            "lm_head.weight",
        ]);
        let dream = detect(published.iter()).unwrap();
        assert_eq!(dream.id(), "dream");
        assert!(dream.skip_reason(&published[0], 1_000_000).is_some());
        assert!(dream.skip_reason(&published[3], 1_000_000).is_some());
        assert!(dream.skip_reason(&published[0], 1_000_000_000).is_none());
    }

    #[test]
    fn speech_super_resolution() {
        let quantized = [
            "residual_layers.0.dilated_conv.weight",
            "residual_layers.0.diffusion_projection.weight",
            "residual_layers.7.conditioner_projection.weight",
            "residual_layers.7.output_projection.weight",
            "skip_projection.weight",
        ];
        let kept = [
            "input_projection.weight",
            "diffusion_embedding.projection1.weight",
            "diffusion_embedding.projection2.weight",
            "output_projection.weight",
        ];
        check("diffwave", 1_373_712, &quantized, &kept);
    }

    // Published models.

    #[test]
    fn dit_diffusers() {
        let quantized = [
            "transformer_blocks.0.norm1.linear.weight",
            "transformer_blocks.0.attn1.to_q.weight",
            "transformer_blocks.0.attn1.to_out.0.weight",
            "transformer_blocks.27.ff.net.0.proj.weight",
            "transformer_blocks.27.ff.net.2.weight",
        ];
        let kept = [
            "pos_embed.proj.weight",
            "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1.weight",
            "transformer_blocks.27.norm1.emb.timestep_embedder.linear_2.weight",
            "transformer_blocks.27.norm1.emb.class_embedder.embedding_table.weight",
            "proj_out_1.weight",
            "proj_out_2.weight",
        ];
        check("dit-diffusers", 749_826_464, &quantized, &kept);
    }

    #[test]
    fn pixart() {
        let quantized = [
            "transformer_blocks.0.attn1.to_q.weight",
            "transformer_blocks.0.attn2.to_k.weight",
            "transformer_blocks.27.ff.net.0.proj.weight",
        ];
        let kept = [
            "pos_embed.proj.weight",
            "transformer_blocks.0.scale_shift_table",
            "scale_shift_table",
            "adaln_single.emb.timestep_embedder.linear_1.weight",
            "adaln_single.emb.resolution_embedder.linear_2.weight",
            "adaln_single.linear.weight",
            "caption_projection.linear_1.weight",
            "proj_out.weight",
        ];
        check("pixart-diffusers", 611_349_152, &quantized, &kept);
        let quantized =
            ["blocks.0.attn.qkv.weight", "blocks.0.cross_attn.kv_linear.weight", "blocks.27.mlp.fc2.weight"];
        let kept = [
            "x_embedder.proj.weight",
            "pos_embed",
            "y_embedder.y_proj.fc1.weight",
            "t_embedder.mlp.0.weight",
            "t_block.1.weight",
            "csize_embedder.mlp.0.weight",
            "blocks.0.scale_shift_table",
            "final_layer.scale_shift_table",
            "final_layer.linear.weight",
        ];
        check("pixart", 611_349_152, &quantized, &kept);
    }

    #[test]
    fn stable_diffusion_unet() {
        let quantized = [
            "down_blocks.0.resnets.0.conv1.weight",
            "down_blocks.0.resnets.0.time_emb_proj.weight",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight",
            "down_blocks.1.attentions.0.proj_out.weight",
            "mid_block.attentions.0.proj_in.weight",
            "up_blocks.0.resnets.0.conv_shortcut.weight",
            "up_blocks.0.upsamplers.0.conv.weight",
        ];
        let kept = [
            "conv_in.weight",
            "time_embedding.linear_1.weight",
            "add_embedding.linear_2.weight",
            "conv_out.weight",
        ];
        check("sd-unet-diffusers", 2_567_463_684, &quantized, &kept);
        let quantized = [
            "input_blocks.1.0.in_layers.2.weight",
            "input_blocks.4.1.transformer_blocks.0.attn1.to_q.weight",
            "input_blocks.4.0.emb_layers.1.weight",
            "middle_block.1.proj_in.weight",
            "output_blocks.0.0.skip_connection.weight",
        ];
        let kept = [
            "input_blocks.0.0.weight",
            "time_embed.0.weight",
            "label_emb.0.0.weight",
            "out.2.weight",
            "first_stage_model.encoder.down.0.block.0.conv1.weight",
            "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
            "conditioner.embedders.0.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
        ];
        check("sd-unet", 2_567_463_684, &quantized, &kept);
    }

    #[test]
    fn guided_diffusion() {
        let quantized = [
            "input_blocks.1.0.in_layers.2.weight",
            "input_blocks.4.1.qkv.weight",
            "middle_block.1.proj_out.weight",
            "output_blocks.0.0.out_layers.3.weight",
        ];
        let kept = [
            "input_blocks.0.0.weight",
            "time_embed.0.weight",
            "label_emb.weight",
            "label_emb.0.weight",
            "out.2.weight",
        ];
        check("guided-diffusion", 10_431_841, &quantized, &kept);
    }

    #[test]
    fn stable_diffusion_3() {
        let quantized = [
            "transformer_blocks.0.norm1.linear.weight",
            "transformer_blocks.0.norm1_context.linear.weight",
            "transformer_blocks.0.attn.add_q_proj.weight",
            "transformer_blocks.22.ff_context.net.2.weight",
        ];
        let kept = [
            "pos_embed.pos_embed",
            "pos_embed.proj.weight",
            "time_text_embed.timestep_embedder.linear_1.weight",
            "time_text_embed.text_embedder.linear_2.weight",
            "context_embedder.weight",
            "norm_out.linear.weight",
            "proj_out.weight",
        ];
        check("sd3-diffusers", 2_028_328_000, &quantized, &kept);
        let quantized = [
            "joint_blocks.0.x_block.attn.qkv.weight",
            "joint_blocks.0.context_block.mlp.fc1.weight",
            "joint_blocks.23.x_block.adaLN_modulation.1.weight",
        ];
        let kept = [
            "x_embedder.proj.weight",
            "pos_embed",
            "t_embedder.mlp.0.weight",
            "y_embedder.mlp.2.weight",
            "context_embedder.weight",
            "final_layer.adaLN_modulation.1.weight",
            "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.weight",
        ];
        check("sd3", 2_028_328_000, &quantized, &kept);
    }

    #[test]
    fn flux() {
        let quantized = [
            "transformer_blocks.0.norm1.linear.weight",
            "transformer_blocks.0.attn.add_q_proj.weight",
            "transformer_blocks.18.ff_context.net.2.weight",
            "single_transformer_blocks.1.norm.linear.weight",
            "single_transformer_blocks.0.proj_mlp.weight",
            "single_transformer_blocks.37.proj_out.weight",
        ];
        let kept = [
            "time_text_embed.guidance_embedder.linear_1.weight",
            "context_embedder.weight",
            "x_embedder.weight",
            "single_transformer_blocks.0.norm.linear.weight",
            "norm_out.linear.weight",
            "proj_out.weight",
        ];
        check("flux-diffusers", 11_901_408_320, &quantized, &kept);
        let quantized = [
            "double_blocks.0.img_attn.qkv.weight",
            "double_blocks.0.txt_mod.lin.weight",
            "single_blocks.0.linear1.weight",
            "single_blocks.37.modulation.lin.weight",
        ];
        let kept = [
            "img_in.weight",
            "txt_in.weight",
            "time_in.in_layer.weight",
            "vector_in.out_layer.weight",
            "guidance_in.in_layer.weight",
            "single_blocks.0.modulation.lin.weight",
            "final_layer.linear.weight",
        ];
        check("flux", 11_901_408_320, &quantized, &kept);
    }

    #[test]
    fn vae() {
        let quantized = [
            "encoder.down_blocks.0.resnets.0.conv1.weight",
            "encoder.mid_block.attentions.0.to_q.weight",
            "decoder.up_blocks.0.resnets.0.conv_shortcut.weight",
            "decoder.up_blocks.0.upsamplers.0.conv.weight",
        ];
        let ends = [
            "encoder.conv_in.weight",
            "encoder.conv_out.weight",
            "decoder.conv_in.weight",
            "decoder.conv_out.weight",
            "quant_conv.weight",
            "post_quant_conv.weight",
        ];
        check("vae-diffusers", 83_653_863, &quantized, &ends);
        let quantized = [
            "encoder.down.0.block.0.conv1.weight",
            "encoder.mid.attn_1.q.weight",
            "decoder.up.3.block.0.nin_shortcut.weight",
        ];
        check("vae", 83_653_863, &quantized, &ends);
    }

    #[test]
    fn score_entropy_models() {
        let quantized = [
            "blocks.0.attn_qkv.weight",
            "blocks.0.attn_out.weight",
            "blocks.11.mlp.0.weight",
            "blocks.11.adaLN_modulation.weight",
        ];
        let kept = [
            "vocab_embed.embedding",
            "sigma_map.mlp.0.weight",
            "output_layer.linear.weight",
            "output_layer.adaLN_modulation.weight",
        ];
        check("mdlm", 169_627_218, &quantized, &kept);
    }

    #[test]
    fn llada() {
        let layers = [
            "blocks.0.q_proj.weight",
            "blocks.0.attn_out.weight",
            "blocks.31.ff_proj.weight",
            "blocks.31.ff_out.weight",
        ];
        let ends = ["wte.weight", "ff_out.weight"];
        check("llada", 100_000_000, &layers, &ends);
        check("llada", 8_000_000_000, &[&layers[..], &ends].concat(), &[]);
    }

    #[test]
    fn wavegrad() {
        let quantized = [
            "downsample.1.residual_dense.weight",
            "downsample.1.conv.0.weight",
            "film.0.output_conv.weight",
            "upsample.0.block2.0.weight",
        ];
        check("wavegrad", 15_920_993, &quantized, &["first_conv.weight", "last_conv.weight"]);
    }
}
