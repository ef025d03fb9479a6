//! Decides what happens to each tensor.

use std::collections::HashMap;
use std::path::Path;

use aq_core::{
    BitWidth, DType, Decision, Encoding, Estimate, GgmlType, LayerPlan, LayerStats, Plan, PlannedTensor,
    StoredTensor, StrategyId, TensorInfo,
};
use aq_io::OutputFormat;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::architecture::{self, Architecture};
use crate::destination;
use crate::ggml::{self, Family};
use crate::registry::Registry;
use crate::rules::ModelBlocks;
use crate::{EngineError, Fallback, Job, Result, Rule, RuleSpec};

/// The decisions for a model, with the architecture that was recognised.
#[derive(Debug, Clone)]
pub struct ModelPlan {
    /// One entry a tensor, in source order.
    pub plan: Plan,
    /// The architecture whose skip list was used.
    pub architecture: Option<&'static Architecture>,
    /// Seed of rotations.
    pub seed: u64,
    /// Steps down that the shapes of tensors ask for.
    pub fallbacks: Vec<Fallback>,
    /// Kept tensors that GGUF stores as F16, as their rows are no whole blocks.
    pub(crate) narrow: Vec<usize>,
    /// Format of the output, where there is one, and the element type of what it has dequantized.
    pub written: Option<(OutputFormat, Option<DType>)>,
}

impl ModelPlan {
    /// Whether the tensor is kept as it is.
    pub(crate) fn keeps(&self, index: usize) -> bool {
        self.plan.tensors.get(index).is_some_and(|t| matches!(t.decision, Decision::Keep { .. }))
    }

    /// The tensors of `source` that a rule wants in another element type.
    pub(crate) fn casts(&self, source: &[StoredTensor]) -> HashMap<usize, DType> {
        let pairs = self.plan.tensors.iter().zip(source).enumerate();
        let cast = |(index, (planned, stored)): (usize, (&PlannedTensor, &StoredTensor))| {
            let dtype = planned.info.dtype();
            (dtype != stored.info.dtype()).then_some((index, dtype))
        };
        pairs.filter_map(cast).collect()
    }
}

/// Decides for every tensor: as the job's plan says, or the first matching rule, else the architecture's skip list, else the generic rule.
///
/// # Errors
/// [`EngineError::Config`] when a tensor that a rule names cannot be quantized, [`EngineError::Io`] when the model is
/// quantized already and the job does not allow that.
pub fn make_plan(path: &Path, tensors: &[StoredTensor], job: &Job, registry: &Registry) -> Result<ModelPlan> {
    if !job.allow_requantize
        && let Some(t) = tensors.iter().find(|t| t.encoding != Encoding::Raw)
    {
        let reason = format!(
            "tensor {:?} is quantized already; --allow-requantize quantizes it again, with more damage",
            t.info.name()
        );
        return Err(aq_io::IoError::unsupported(path, reason).into());
    }
    let architecture = architecture::detect(tensors.iter().map(|t| &t.info));
    let seed = job.seed;
    let written = job.output.as_ref().map(|(_, format)| (*format, job.dtype));
    if let Some(file) = &job.plan {
        let mut plan = file.decide(path, tensors, job, registry)?;
        for (stored, planned) in tensors.iter().zip(&mut plan.tensors) {
            planned.decision = destination::fitting(job, stored, planned.decision.clone(), registry)?;
        }
        return Ok(ModelPlan {
            plan,
            architecture,
            seed,
            fallbacks: Vec::new(),
            narrow: Vec::new(),
            written,
        });
    }
    let params = tensors.iter().map(|t| t.info.elements()).sum();
    let family = job.is_gguf().then(|| ggml::detect(tensors.iter().map(|t| &t.info))).flatten();
    let mut kinds = BlockTypes::new(tensors, job);
    let blocks = ModelBlocks::of(tensors.iter().map(|t| t.info.name()));
    let decide = |(i, t): (usize, &StoredTensor)| {
        let rule = job.rules.iter().find(|r| r.matches(t.info.name(), &blocks));
        if let Some(RuleSpec::Cast(dtype)) = rule.map(Rule::spec) {
            return Ok(cast(t, *dtype));
        }
        let kept = Kept { architecture, family, params };
        let decision = decide(&t.info, rule, job, registry, kept, kinds.kinds.get(i))?;
        let decision = destination::fitting(job, t, kinds.fit(i, &t.info, decision), registry)?;
        Ok(PlannedTensor { info: t.info.clone(), decision })
    };
    let planned = tensors.iter().enumerate().map(decide).collect::<Result<_>>()?;
    let BlockTypes { fallbacks, narrow, .. } = kinds;
    Ok(ModelPlan { plan: Plan { tensors: planned }, architecture, seed, fallbacks, narrow, written })
}

/// A tensor that is kept in another element type.
fn cast(stored: &StoredTensor, dtype: DType) -> PlannedTensor {
    let (info, name) = (&stored.info, dtype.name());
    let can_be = info.dtype().is_float() && stored.encoding == Encoding::Raw;
    let cast = info.with_dtype(dtype).ok().filter(|_| can_be);
    let reason = match &cast {
        Some(_) => format!("rule: stored as {name}"),
        None => format!("a rule asks for {name}, but it is not plain floating-point"),
    };
    PlannedTensor { info: cast.unwrap_or_else(|| info.clone()), decision: Decision::Keep { reason } }
}

/// What is known of a model besides its tensors.
#[derive(Clone, Copy)]
struct Kept<'a> {
    architecture: Option<&'a Architecture>,
    family: Option<&'a Family>,
    params: u64,
}

impl Kept<'_> {
    fn reason(&self, info: &TensorInfo) -> Option<String> {
        let listed = || self.architecture?.skip_reason(info, self.params).map(str::to_string);
        architecture::generic_reason(info).or_else(listed).or_else(|| self.family?.keep_reason(info))
    }
}

/// The types of ggml of a model's tensors, and what came of them.
struct BlockTypes<'a> {
    job: &'a Job,
    /// One for each tensor, where the job asks for no strategy.
    kinds: Vec<GgmlType>,
    fallbacks: Vec<Fallback>,
    narrow: Vec<usize>,
}

impl<'a> BlockTypes<'a> {
    fn new(tensors: &[StoredTensor], job: &'a Job) -> Self {
        let kinds = match job.mixture {
            Some(mixture) => mixture.kinds(tensors.iter().map(|t| &t.info)),
            None if job.is_gguf() && job.method.is_none() => vec![ggml::of_bits(job.bits); tensors.len()],
            None => Vec::new(),
        };
        let own_groups = || Fallback {
            tensor: None,
            from: format!("groups of {} weights", job.group_size),
            to: "those of the types of ggml".into(),
            reason: "GGUF has no others".into(),
        };
        let fallbacks = (job.is_gguf() && job.in_groups).then(own_groups).into_iter().collect();
        Self { job, kinds, fallbacks, narrow: Vec::new() }
    }

    /// The decision with a type that the rows of the tensor can have.
    fn fit(&mut self, index: usize, info: &TensorInfo, decision: Decision) -> Decision {
        let Decision::Quantize(mut layer) = decision else { return decision };
        let Some(kind) = GgmlType::from_name(layer.method.as_str()) else { return Decision::Quantize(layer) };
        let mut step = |to: &str, why: &str| {
            let tensor = Some(info.name().to_string());
            let reason = format!("rows of {} weights are no multiple of {why}", info.cols());
            self.fallbacks.push(Fallback {
                tensor,
                from: kind.name().into(),
                to: to.into(),
                reason: reason.clone(),
            });
            reason
        };
        let Some(fitting) = ggml::fitting(kind, info.cols()) else {
            let narrow = self.job.is_gguf() && info.dtype() == aq_core::DType::F32;
            let reason = step(if narrow { "F16" } else { info.dtype().name() }, "32");
            self.narrow.extend(narrow.then_some(index));
            return Decision::Keep { reason };
        };
        if fitting != kind {
            step(fitting.name(), "256");
        }
        (layer.bits, layer.group_size) = (fitting.bits(), fitting.group_size());
        layer.method = StrategyId::new(fitting.method());
        layer.gain = false;
        Decision::Quantize(layer)
    }
}

fn decide(
    info: &TensorInfo,
    rule: Option<&Rule>,
    job: &Job,
    registry: &Registry,
    kept: Kept<'_>,
    kind: Option<&GgmlType>,
) -> Result<Decision> {
    let keep = |reason: &str| Ok(Decision::Keep { reason: reason.to_string() });
    let in_groups = |rule: Option<_>| rule.is_some() || job.in_groups;
    if rule.is_none_or(|rule| rule.is_of_blocks() && *rule.spec() != RuleSpec::Skip)
        && let Some(reason) = kept.reason(info)
    {
        return Ok(Decision::Keep { reason });
    }
    let (method, bits, rate, group_size, in_groups) = match rule.map(Rule::spec) {
        Some(RuleSpec::Skip | RuleSpec::Cast(_)) => return keep("rule"),
        Some(RuleSpec::Quantize { method, bits, rate, group_size }) => {
            if !info.dtype().is_float() || info.elements() == 0 || info.cols() > aq_core::MAX_ROW_WEIGHTS {
                return keep("a rule asks for it, but it cannot be quantized");
            }
            let method = method.as_deref().map(|m| registry.resolve(m)).transpose()?;
            let rate = rate.or(if bits.is_none() { job.rate } else { None });
            let nearest = |method| registry.nearest_width(method, job.bits);
            let bits = bits.unwrap_or_else(|| method.as_ref().map_or(job.bits, nearest));
            (method, bits, rate, *group_size, rate.is_none() && in_groups(*group_size))
        }
        None => (None, job.bits, job.rate, None, job.in_groups),
    };
    let of_rule = rule.is_some_and(|r| matches!(r.spec(), RuleSpec::Quantize { bits: Some(_), .. }));
    let kind = kind.map(|&kind| if of_rule { ggml::of_bits(bits) } else { kind });
    let method = method.or_else(|| job.method.clone()).or_else(|| kind.map(|k| StrategyId::new(k.method())));
    let method =
        method.unwrap_or_else(|| registry.default_strategy(bits, job.calibration.is_some(), in_groups));
    let asked = group_size.or(job.in_groups.then_some(job.group_size));
    let group_size = asked.unwrap_or_else(|| registry.default_group(&method, job.profile));
    let is_block_type = GgmlType::from_name(method.as_str()).is_some();
    if let Some(reason) = registry.refusal(&method, bits).filter(|_| !is_block_type) {
        return Err(EngineError::Config(format!("tensor {:?}: {reason}", info.name())));
    }
    let supported = registry.get(&method).is_some_and(|s| s.supports(info));
    if !supported && !is_block_type {
        return Ok(Decision::Keep { reason: format!("{method} does not support it") });
    }
    let rotation = job.rotation.then(|| xxh3_64_with_seed(info.name().as_bytes(), job.seed));
    let (gain, low_rank, smoothing) = (job.gain, job.low_rank, job.smoothing);
    Ok(Decision::Quantize(LayerPlan {
        method,
        bits,
        group_size,
        gain,
        rate,
        rotation,
        low_rank,
        smoothing,
        act_bits: job.activations.as_ref().and_then(|a| BitWidth::new(a.bits).ok()),
        act_shift: job.activations.as_ref().is_some_and(|a| a.shift),
        time_groups: None,
    }))
}

/// How `decision` would store a tensor and its bytes.
pub(crate) fn estimate(
    stored: &StoredTensor,
    decision: &Decision,
    registry: &Registry,
) -> Result<(StoredTensor, u64)> {
    match decision {
        Decision::Keep { .. } => {
            let bytes = aq_codec::encoded_bytes(&stored.info, &stored.encoding);
            Ok((stored.clone(), bytes))
        }
        Decision::Quantize(plan) => {
            let strategy = strategy(registry, &plan.method)?;
            let Estimate { encoding, transformed, bytes, .. } =
                aq_spatial::estimate(strategy, &stored.info, &LayerStats::default(), plan);
            Ok((StoredTensor { info: stored.info.clone(), encoding, transformed }, bytes))
        }
    }
}

pub(crate) fn strategy<'a>(
    registry: &'a Registry,
    id: &StrategyId,
) -> Result<&'a dyn aq_core::QuantStrategy> {
    registry.get(id).ok_or_else(|| EngineError::Config(format!("unknown method {:?}", id.as_str())))
}
