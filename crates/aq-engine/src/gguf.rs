//! A model in the form that GGUF has: types that ggml has, and what loaders read of the header.

use std::collections::HashMap;

use aq_core::{BitWidth, DType, Decision, Encoding, GgmlType, StoredTensor, TensorInfo};
use aq_io::{IoError, OutputFormat, Source};

use crate::ggml::{self, Family};
use crate::plan::ModelPlan;
use crate::recast::Recast;
use crate::report::Fallback;
use crate::{EngineError, Job, Result, RuleSpec};

/// Tensors of no more elements are stored as F32, as ComfyUI-GGUF does it.
const SMALL: u64 = 1024;

/// The longest name that plain builds of ggml read; programs for diffusion models read twice as many bytes.
const SHORT_NAME: usize = 63;

/// Refuses options that a GGUF file has no place for.
///
/// # Errors
/// [`EngineError::Usage`] that names the option.
pub(crate) fn check(job: &Job) -> Result<()> {
    if !job.is_gguf() {
        return Ok(());
    }
    let options = [
        ("--rotation", job.rotation),
        ("--low-rank", !job.low_rank.is_off()),
        ("--smoothing without --fold-smoothing on", !job.smoothing.is_off() && !job.fold_smoothing),
        ("--act-bits", job.activations.is_some()),
        ("--rate", job.rate.is_some()),
        ("--plan", job.plan.is_some()),
        ("--target-bpw or --target-size", job.target.is_some()),
    ];
    if let Some((option, _)) = options.into_iter().find(|(_, given)| *given) {
        return Err(EngineError::Usage(format!("GGUF has no place for {option}; write .parquet instead")));
    }
    let mut widths = job.rules.iter().filter_map(|rule| match rule.spec() {
        RuleSpec::Quantize { bits, .. } => *bits,
        _ => None,
    });
    if job.bits == BitWidth::ONE || widths.any(|bits| bits == BitWidth::ONE) {
        let reason =
            "GGUF is written with types of ggml of 2 bits or more; write .parquet for codes of 1 bit";
        return Err(EngineError::Usage(reason.into()));
    }
    let rules = job.rules.iter().filter_map(|rule| match rule.spec() {
        RuleSpec::Quantize { method, .. } => method.as_deref(),
        _ => None,
    });
    let mut methods = job.method.iter().map(|m| m.as_str()).chain(rules);
    match methods.find(|m| GgmlType::from_name(m).is_none()) {
        Some(method) => {
            let types: Vec<&str> = GgmlType::ALL.into_iter().map(GgmlType::method).collect();
            Err(EngineError::Usage(format!(
                "GGUF holds types of ggml only, not {method:?}; leave the method out, or use one of {}, or a mixture such as q4_k_m",
                types.join(", ")
            )))
        }
        None => Ok(()),
    }
}

/// `source` with the element types that GGUF stores of what is kept, and rows of the report about it. `narrow` are tensors to be stored as F16.
///
/// # Errors
/// When an element type has no counterpart.
pub(crate) fn form<'a>(
    source: &'a dyn Source,
    narrow: &[usize],
    is_kept: impl Fn(usize) -> bool,
) -> Result<(Recast<'a>, Vec<Fallback>)> {
    let (tensors, mut casts) = (source.tensors(), HashMap::new());
    let family = ggml::detect(tensors.iter().map(|t| &t.info));
    for (i, StoredTensor { info, encoding, .. }) in tensors.iter().enumerate() {
        if *encoding != Encoding::Raw || !is_kept(i) {
            continue;
        }
        let wanted = match narrow.contains(&i) {
            true => DType::F16,
            false => kept_type(info, family).ok_or_else(|| {
                let reason = format!("GGUF has no elements of type {}", info.dtype());
                IoError::Unsupported {
                    path: source.path().into(),
                    reason: format!("tensor {:?}: {reason}", info.name()),
                }
            })?,
        };
        if wanted != info.dtype() {
            casts.insert(i, wanted);
        }
    }
    Ok((Recast::new(source, casts)?, long_names(tensors)))
}

/// Takes the smoothing of layers whose factors were not folded away out of the plan, with a row of the report for each.
pub(crate) fn drop_smoothing(plan: &mut ModelPlan) -> Vec<Fallback> {
    let mut dropped = Vec::new();
    for planned in &mut plan.plan.tensors {
        if let Decision::Quantize(layer) = &mut planned.decision
            && !std::mem::take(&mut layer.smoothing).is_off()
        {
            dropped.push(Fallback {
                tensor: Some(planned.info.name().into()),
                from: "smoothing".into(),
                to: "off".into(),
                reason: "what makes its inputs cannot take the factors, and GGUF stores none".into(),
            });
        }
    }
    dropped
}

/// The type in which a plain tensor is stored: F32 for vectors, what is small, and what the family wants so; else what it has.
fn kept_type(info: &TensorInfo, family: Option<&Family>) -> Option<DType> {
    let full = info.shape().len() < 2
        || info.elements() <= SMALL
        || family.is_some_and(|family| family.wants_full(info));
    match info.dtype() {
        DType::BF16 if full => Some(DType::F32),
        DType::F64 | DType::F8E8M0 | DType::U8 | DType::U16 | DType::Bool => Some(DType::F32),
        DType::F8E4M3 | DType::F8E5M2 => Some(DType::F16),
        DType::U32 | DType::U64 | DType::C64 => None,
        plain => Some(plain),
    }
}

fn long_names(tensors: &[StoredTensor]) -> Vec<Fallback> {
    let long = tensors.iter().map(|t| t.info.name()).filter(|name| name.len() > SHORT_NAME).count();
    let note = || Fallback {
        tensor: None,
        from: format!("names of at most {SHORT_NAME} bytes"),
        to: format!("{long} longer names"),
        reason: "programs for diffusion models read up to 127 bytes, plain builds of ggml do not".into(),
    };
    (long > 0).then(note).into_iter().collect()
}

/// The metadata at the front of the file.
pub(crate) fn header(job: &Job, plan: &ModelPlan) -> Vec<(String, String)> {
    let infos = plan.plan.tensors.iter().map(|t| &t.info);
    let mut pairs = architecture(ggml::detect(infos), plan.architecture.map(|a| a.id()));
    let kinds = plan.plan.tensors.iter().map(|t| match &t.decision {
        Decision::Quantize(layer) => (GgmlType::from_name(layer.method.as_str()), t.info.elements()),
        Decision::Keep { .. } => (None, t.info.elements()),
    });
    let file_type = job.mixture.map_or_else(|| file_type(kinds), |mixture| mixture.file_type());
    pairs.push(("general.file_type".into(), file_type.to_string()));
    pairs.push(("aq.tool".into(), concat!("arrowquant ", env!("CARGO_PKG_VERSION")).into()));
    pairs.push(("aq.settings".into(), job.settings().to_string()));
    pairs
}

/// The same for a model that is only converted.
pub(crate) fn plain_header(tensors: &[StoredTensor]) -> Vec<(String, String)> {
    let family = ggml::detect(tensors.iter().map(|t| &t.info));
    let known = crate::architecture::detect(tensors.iter().map(|t| &t.info));
    let mut pairs = architecture(family, known.map(|a| a.id()));
    let kinds = tensors.iter().map(|t| match t.encoding {
        Encoding::Ggml(kind) => (Some(kind), t.info.elements()),
        _ => (None, t.info.elements()),
    });
    pairs.push(("general.file_type".into(), file_type(kinds).to_string()));
    pairs
}

fn architecture(family: Option<&Family>, known: Option<&str>) -> Vec<(String, String)> {
    let id = family.map(Family::id).or(known).unwrap_or("unknown");
    // The version of block layouts since 2023.
    vec![("general.architecture".into(), id.into()), ("general.quantization_version".into(), "2".into())]
}

/// The number for the type that most weights have; 1 (F16) when none is quantized.
fn file_type(kinds: impl Iterator<Item = (Option<GgmlType>, u64)>) -> u32 {
    let mut weights: HashMap<u32, u64> = HashMap::new();
    for (kind, count) in kinds {
        let Some(kind) = kind else { continue };
        *weights.entry(number(kind)).or_default() += count;
    }
    weights.into_iter().max_by_key(|&(number, count)| (count, number)).map_or(1, |(number, _)| number)
}

fn number(kind: GgmlType) -> u32 {
    match kind {
        GgmlType::Q4_0 => 2,
        GgmlType::Q4_1 => 3,
        GgmlType::Q8_0 => 7,
        GgmlType::Q5_0 => 8,
        GgmlType::Q5_1 => 9,
        GgmlType::Q2_K => 10,
        GgmlType::Q3_K => 11,
        GgmlType::Q4_K => 14,
        GgmlType::Q5_K => 16,
        GgmlType::Q6_K => 18,
        GgmlType::IQ4_NL => 25,
        GgmlType::IQ4_XS => 30,
    }
}

impl Job {
    /// Whether the output is a GGUF file.
    pub(crate) fn is_gguf(&self) -> bool {
        matches!(self.output, Some((_, OutputFormat::Gguf)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_tensors_have_types_of_ggml() {
        let of = |shape: &[u64], dtype| {
            kept_type(&TensorInfo::new("x", shape.into(), dtype).expect("a shape"), None)
        };
        assert_eq!(of(&[5000], DType::BF16), Some(DType::F32));
        assert_eq!(of(&[64, 64], DType::BF16), Some(DType::BF16));
        assert_eq!(of(&[32, 32], DType::BF16), Some(DType::F32));
        assert_eq!(of(&[64], DType::F16), Some(DType::F16));
        assert_eq!(of(&[64, 64], DType::F8E5M2), Some(DType::F16));
        assert_eq!(of(&[1], DType::I64), Some(DType::I64));
        assert_eq!(of(&[1], DType::U64), None);
    }
}
