//! The table of configuration keys. Files, the environment, programs, `aq init` and the JSON Schema know no others.

use serde_json::Value;

use super::kind::Kind;
use crate::profile::Profile;
use crate::{JobOptions, Rule};

/// A key: its names, its values, what it means and which option it sets.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// Other names that are read.
    pub(super) aliases: &'static [&'static str],
    /// The heading it stands under.
    pub(super) section: &'static str,
    pub(super) kind: Kind,
    /// What it is when nobody says; `None` where there is none, or it depends on other keys.
    pub(super) default: fn(Profile) -> Option<String>,
    /// A value to show where there is no default.
    pub(super) example: &'static str,
    pub(super) help: &'static str,
    /// Sets the option to a value that [`Kind::check`] gave.
    set: fn(&mut JobOptions, &Value) -> Result<(), String>,
}

impl Key {
    /// Sets the option in `options`.
    ///
    /// # Errors
    /// What is wrong with `value`.
    pub(super) fn set(&self, options: &mut JobOptions, value: &Value) -> Result<(), String> {
        (self.set)(options, &self.kind.check(value)?)
    }

    /// Its variable in the environment.
    pub(super) fn variable(&self) -> String {
        format!("AQ_{}", self.name.to_ascii_uppercase())
    }
}

/// The key of that name or alias.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name || key.aliases.contains(&name))
}

const fn key(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    example: &'static str,
    help: &'static str,
    set: fn(&mut JobOptions, &Value) -> Result<(), String>,
) -> Key {
    Key { name, aliases: &[], section, kind, default: |_| None, example, help, set }
}

impl Key {
    const fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn default(mut self, default: fn(Profile) -> Option<String>) -> Self {
        self.default = default;
        self
    }
}

/// Stores what was read.
fn put<T>(option: &mut Option<T>, value: Option<T>) -> Result<(), String> {
    *option = Some(value.ok_or("does not fit")?);
    Ok(())
}

fn whole<T: TryFrom<u64>>(value: &Value) -> Option<T> {
    value.as_u64().and_then(|n| T::try_from(n).ok())
}

fn text<T: for<'a> From<&'a str>>(value: &Value) -> Option<T> {
    value.as_str().map(T::from)
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(text).collect()
}

fn yes(on: bool) -> Option<String> {
    Some(if on { "on" } else { "off" }.into())
}

const QUANTIZATION: &str = "Quantization";
const QUALITY: &str = "Quality gate";
const RULES: &str = "Rules";
const TRANSFORMS: &str = "Transforms";
const INPUTS: &str = "Quantized inputs";
const RESOURCES: &str = "Resources: they change no byte of the output";
const FILES: &str = "Input and output";

/// Every key, in the order in which users see them.
pub(super) static KEYS: &[Key] = &[
    key(QUANTIZATION, "profile", Kind::Choice(&["edge", "local", "cloud"]), "local", "Defaults for a kind of machine: edge, local or cloud.", |o, v| {
        put(&mut o.profile, text(v))
    })
    .alias(&["deployment_profile"])
    .default(|p| Some(p.name().into())),
    key(QUANTIZATION, "bits", Kind::OneOf(&[1, 2, 3, 4, 5, 6, 8]), "4", "Bits of a code: 2, 3, 4, 5, 6 or 8; experimental: 1.", |o, v| put(&mut o.bits, whole(v)))
        .alias(&["bit_width"])
        .default(|p| Some(p.bits().to_string())),
    key(
        QUANTIZATION,
        "group_size",
        Kind::GroupSize,
        "128",
        "Weights that share a scale: a multiple of 8 from 16 to 1024, or row. Where it is given, the method, if none is, has groups.",
        |o, v| put(&mut o.group_size, whole(v)),
    ),
    key(
        QUANTIZATION,
        "method",
        Kind::Text,
        "entropy",
        "How codes and scales are chosen: minmax, ls, gptq, entropy, trellis, trellis6, codebook, nf4, hqq, the experimental binary and ternary, or any registered strategy; for GGUF a type of ggml or a mixture such as q4_k_m. By \
         default entropy up to 4 bits and with a calibration, else ls; where a group size is given, gptq with a calibration, else ls.",
        |o, v| put(&mut o.method, text(v)),
    ),
    key(
        QUANTIZATION,
        "rate",
        Kind::Number(0.5, 8.0),
        "2.5",
        "Bits per weight of every quantized layer, side data included: 0.5 to 8, for entropy. By default the bits.",
        |o, v| put(&mut o.rate, v.as_f64()),
    ),
    key(QUANTIZATION, "target_bpw", Kind::Number(0.0, 64.0), "3.0", "Bits of the whole output for each weight of the model.", |o, v| {
        put(&mut o.target_bpw, v.as_f64())
    }),
    key(QUANTIZATION, "target_size", Kind::Size, "1.9GB", "Size of the whole output.", |o, v| put(&mut o.target_size, text(v))),
    key(
        QUANTIZATION,
        "sensitivity",
        Kind::Text,
        "sensitivity.json",
        "What quantizing each layer alone does to the outputs of the model, measured by running it: a target size then goes where it helps most.",
        |o, v| put(&mut o.sensitivity, text::<String>(v).map(Into::into)),
    ),
    key(
        QUANTIZATION,
        "plan",
        Kind::Text,
        "plan.yaml",
        "Plan of aq plan or aq search: what happens to each tensor, in place of bits, method, sizes and rules.",
        |o, v| put(&mut o.plan, text::<String>(v).map(Into::into)),
    ),
    key(
        QUANTIZATION,
        "calibration",
        Kind::Text,
        "calib.safetensors",
        "Activation samples (.safetensors) or their statistics (.parquet): methods then lower the error of each layer's outputs.",
        |o, v| put(&mut o.calibration, text::<String>(v).map(Into::into)),
    ),
    key(QUANTIZATION, "seed", Kind::Whole(0, u64::MAX), "0", "Seed of everything random: same seed, same bytes.", |o, v| {
        put(&mut o.seed, v.as_u64())
    })
    .default(|_| Some("0".into())),
    key(
        QUALITY,
        "min_cosine",
        Kind::Number(0.0, 1.0),
        "0.99",
        "Least cosine of each weight with its quantized form; a tensor below it gets 4 bits, then 8, and is kept when these miss too. 0 is no \
         bound. The profile's holds where neither bits, rate, target nor method are chosen.",
        |o, v| put(&mut o.min_cosine, v.as_f64()),
    )
    .default(|p| Some(p.min_cosine().to_string())),
    key(
        QUALITY,
        "max_error",
        Kind::Number(0.0, f64::INFINITY),
        "0.01",
        "Largest relative squared error of each layer's outputs on held-out calibration rows, or of its weights where it has none.",
        |o, v| put(&mut o.max_error, v.as_f64()),
    ),
    key(QUALITY, "fail_fast", Kind::Switch, "on", "Stop with exit code 5 at the first tensor that misses a bound, and leave nothing.", |o, v| {
        put(&mut o.fail_fast, v.as_bool())
    })
    .default(|_| yes(false)),
    key(
        RULES,
        "rules",
        Kind::Rules,
        "[{match: '\\.mlp\\.', bits: 3}, {blocks: [0, -1], bits: 8}, {match: norm, skip: true}]",
        "Rules for some tensors; the first that matches wins. `match` is a regular expression over names, `blocks` chooses blocks by their number. A \
         rule has `skip: true`, `dtype: f16` or `bf16`, or any of `bits`, `rate`, `method` and `group_size`.",
        |o, v| {
            let rules = v.as_array().into_iter().flatten().map(|rule| Rule::read(rule).map_err(|e| e.to_string()));
            o.rules = rules.collect::<Result<_, _>>()?;
            Ok(())
        },
    ),
    key(
        RULES,
        "tensor_type",
        Kind::Texts,
        "['\\.mlp\\.=ls:3:64', 'blocks[-1]=8', 'norm=skip']",
        "The same as REGEX=SPEC, before the rules: SPEC is bits, skip, f16, bf16, a type of ggml, or method:bits:group.",
        |o, v| {
            o.tensor_types = texts(v);
            Ok(())
        },
    ),
    key(TRANSFORMS, "gain", Kind::Switch, "off", "One factor per output row that removes the shrinkage of the grid.", |o, v| {
        put(&mut o.gain, v.as_bool())
    })
    .default(|_| yes(true)),
    key(
        TRANSFORMS,
        "rotation",
        Kind::Switch,
        "on",
        "Rotate the inputs of each layer by random signs and a block Hadamard transform.",
        |o, v| put(&mut o.rotation, v.as_bool()),
    )
    .default(|_| yes(false)),
    key(
        TRANSFORMS,
        "low_rank",
        Kind::OffOrText,
        "auto",
        "Low-rank part in 8 bits beside the codes: auto (where it pays), off, or a rank from 1 to 64.",
        |o, v| put(&mut o.low_rank, text(v)),
    )
    .default(|_| yes(false)),
    key(
        TRANSFORMS,
        "smoothing",
        Kind::OffOrText,
        "auto",
        "A factor for each input channel: auto (where it pays), off, smoothquant, awq, ptq4dit, or an alpha from 0 to 1. Needs a calibration. Without the key: auto where inputs get fewer than 8 bits, else off.",
        |o, v| put(&mut o.smoothing, text(v)),
    ),
    key(
        TRANSFORMS,
        "spatial",
        Kind::Switch,
        "on",
        "The same as smoothing: auto, or off.",
        |o, v| {
            match v.as_bool() {
                Some(true) => drop(o.smoothing.get_or_insert("auto".into())),
                _ => o.smoothing = Some("off".into()),
            }
            Ok(())
        },
    )
    .alias(&["enable_spatial"]),
    key(
        TRANSFORMS,
        "fold_smoothing",
        Kind::Switch,
        "on",
        "Fold the factors of smoothing into the norm or layer before, where the architecture is known.",
        |o, v| put(&mut o.fold_smoothing, v.as_bool()),
    )
    .default(|_| yes(false)),
    key(INPUTS, "act_bits", Kind::OneOf(&[4, 6, 8]), "8", "Quantize the inputs of layers too, to 4, 6 or 8 bits.", |o, v| {
        put(&mut o.act_bits, whole(v))
    }),
    key(
        INPUTS,
        "act_mode",
        Kind::Choice(&["auto", "static", "groups", "uniform", "token"]),
        "groups",
        "Where their ranges come from: token (each token, while the model runs; what auto is), static, groups of timesteps, or uniform groups \
         to compare with.",
        |o, v| put(&mut o.act_mode, text(v)),
    ),
    key(INPUTS, "act_group_size", Kind::Whole(0, 1024), "128", "Input channels that share a range in mode token; 0 for the whole token.", |o, v| {
        put(&mut o.act_group_size, whole(v))
    }),
    key(
        INPUTS,
        "act_shift",
        Kind::Switch,
        "off",
        "Take the centers of input channels off before rounding, where that lowers the error; on by default.",
        |o, v| put(&mut o.act_shift, v.as_bool()),
    ),
    key(
        INPUTS,
        "time_groups",
        Kind::Whole(0, 1000),
        "10",
        "The most groups of timesteps, each with ranges (mode groups) and channel shifts of its own; 0 is time_aware: false. By default 5 (edge), 10 (local) or 20 (cloud).",
        |o, v| match whole(v) {
            Some(0) => put(&mut o.time_aware, Some(false)),
            groups => put(&mut o.time_groups, groups),
        },
    )
    .alias(&["num_time_groups"]),
    key(INPUTS, "time_aware", Kind::Switch, "off", "Whether mode groups has groups; off is one range for all timesteps.", |o, v| {
        put(&mut o.time_aware, v.as_bool())
    })
    .alias(&["enable_time_aware"]),
    key(RESOURCES, "threads", Kind::Whole(0, 1024), "2", "Worker threads; 0 is all cores, which is the default but for edge: 2.", |o, v| {
        let threads = whole::<usize>(v).filter(|&n| n != 0);
        put(&mut o.threads, threads.or_else(|| Some(crate::job::all_cores())))
    })
    .alias(&["num_threads"]),
    key(RESOURCES, "memory_limit", Kind::Size, "512MiB", "Memory that may be used. By default half of what is free.", |o, v| {
        put(&mut o.memory_limit, text(v))
    }),
    key(
        RESOURCES,
        "streaming",
        Kind::Switch,
        "on",
        "Read the input in bounded pieces instead of mapping it. What exceeds the memory limit always is.",
        |o, v| put(&mut o.streaming, v.as_bool()),
    )
    .alias(&["streaming_mode"])
    .default(|p| yes(p.streaming())),
    key(
        FILES,
        "component",
        Kind::Texts,
        "[transformer]",
        "Components of a pipeline to quantize. By default transformer, unet, prior and decoder.",
        |o, v| {
            o.components = texts(v);
            Ok(())
        },
    )
    .alias(&["components"]),
    key(FILES, "format", Kind::Text, "parquet", "Format of the output when its ending does not say.", |o, v| put(&mut o.format, text(v))),
    key(FILES, "dtype", Kind::Choice(&["f32", "f16", "bf16"]), "bf16", "Element type of dequantized tensors. By default that of the source.", |o, v| {
        put(&mut o.dtype, text(v))
    }),
    key(FILES, "shard_size", Kind::Size, "10GB", "Largest safetensors file of a folder.", |o, v| put(&mut o.shard_size, text(v))),
    key(FILES, "base_model", Kind::Text, "someone/model", "Name of the original on the Hugging Face Hub, for the model card of a folder.", |o, v| {
        put(&mut o.base_model, text(v))
    }),
    key(FILES, "report", Kind::Text, "report.html", "A file for the report: .html, .md or .json.", |o, v| {
        put(&mut o.report, text::<String>(v).map(Into::into))
    }),
    key(FILES, "allow_requantize", Kind::Switch, "on", "Quantize tensors that are quantized already.", |o, v| {
        put(&mut o.allow_requantize, v.as_bool())
    })
    .default(|_| yes(false)),
];
