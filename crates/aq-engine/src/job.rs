//! Raw options become a checked [`Job`]; nothing after this checks them again.

use std::path::PathBuf;

use aq_core::{BitWidth, DType, GroupSize, LowRankPlan, Rate, SmoothingPlan, StrategyId};
use aq_io::OutputFormat;
use aq_timeaware::ActivationOptions;
use serde_json::{Value, json};

use crate::activations;
use crate::allocation::Sensitivity;
use crate::destination;
use crate::gate::Gate;
use crate::ggml::{self, Mixture};
use crate::gguf;
use crate::plan_file::PlanFile;
use crate::profile::Profile;
use crate::registry::Registry;
use crate::{EngineError, ReportFile, Result, Rule, Target, parse_size};

/// Options as a user gives them; everything but the input may be left out.
#[derive(Debug, Clone, Default)]
#[allow(
    missing_docs,
    reason = "each field is the command-line option of the same name; see `aq quantize --help`"
)]
pub struct JobOptions {
    pub input: PathBuf,
    pub output: Option<PathBuf>,
    pub format: Option<String>,
    pub dtype: Option<String>,
    pub shard_size: Option<String>,
    pub base_model: Option<String>,
    pub report: Option<PathBuf>,
    pub components: Vec<String>,
    pub bits: Option<u8>,
    pub group_size: Option<u32>,
    pub rate: Option<f64>,
    pub target_bpw: Option<f64>,
    pub target_size: Option<String>,
    pub sensitivity: Option<PathBuf>,
    pub plan: Option<PathBuf>,
    pub method: Option<String>,
    pub profile: Option<String>,
    pub calibration: Option<PathBuf>,
    pub tensor_types: Vec<String>,
    pub rules: Vec<Rule>,
    pub gain: Option<bool>,
    pub rotation: Option<bool>,
    pub low_rank: Option<String>,
    pub act_bits: Option<u8>,
    pub act_mode: Option<String>,
    pub act_group_size: Option<u32>,
    pub act_shift: Option<bool>,
    pub time_groups: Option<u32>,
    pub time_aware: Option<bool>,
    pub min_cosine: Option<f64>,
    pub max_error: Option<f64>,
    pub fail_fast: Option<bool>,
    pub smoothing: Option<String>,
    pub fold_smoothing: Option<bool>,
    pub threads: Option<usize>,
    pub memory_limit: Option<String>,
    pub block_size: Option<String>,
    pub streaming: Option<bool>,
    pub force: bool,
    pub resume: bool,
    pub allow_requantize: Option<bool>,
    pub seed: Option<u64>,
    pub unused: Vec<String>,
}

/// A checked job: from here on no option is invalid.
#[derive(Debug, Clone)]
pub struct Job {
    /// The model.
    pub input: PathBuf,
    /// Destination and its format; `None` for a plan only.
    pub output: Option<(PathBuf, OutputFormat)>,
    /// Element type of dequantized tensors; `None` for that of the source.
    pub dtype: Option<DType>,
    /// The most bytes of a safetensors file in a folder; `None` for 10 GB.
    pub shard_bytes: Option<u64>,
    /// Name of the original in the model card; `None` for the one that is found.
    pub base_model: Option<String>,
    /// Whether a folder gets a model card.
    pub card: bool,
    /// A file for the report.
    pub report: Option<ReportFile>,
    /// Components of a pipeline to quantize; empty for the default ones.
    pub components: Vec<String>,
    /// The preset that filled what was not given.
    pub profile: Profile,
    /// Bits of a code.
    pub bits: BitWidth,
    /// Weights that share a scale.
    pub group_size: GroupSize,
    /// Whether a group size was asked for, so that the method, where none is named, has groups.
    pub in_groups: bool,
    /// Bits per weight for methods of variable rate; `None` for as many as `bits`.
    pub rate: Option<Rate>,
    /// How large the output may be.
    pub target: Option<Target>,
    /// What damage to each layer does to the outputs of the model.
    pub sensitivity: Option<Sensitivity>,
    /// The largest error of a layer where the smallest output with no larger one is the goal: no widths, size or plan are given.
    pub smallest_within: Option<f64>,
    /// Decisions on all tensors.
    pub plan: Option<PlanFile>,
    /// Strategy; `None` for the best there is at each width.
    pub method: Option<StrategyId>,
    /// A mixture of types of ggml in place of one strategy.
    pub mixture: Option<Mixture>,
    /// Per-row gain correction.
    pub gain: bool,
    /// Random rotation of the input axis.
    pub rotation: bool,
    /// A low-rank part beside the codes.
    pub low_rank: LowRankPlan,
    /// How inputs of layers are quantized; `None` for not at all.
    pub activations: Option<ActivationOptions>,
    /// A factor for each input channel.
    pub smoothing: SmoothingPlan,
    /// Whether these factors go into what makes the inputs, where that is known.
    pub fold_smoothing: bool,
    /// What each quantized tensor has to meet.
    pub gate: Option<Gate>,
    /// Per-tensor rules, first match wins.
    pub rules: Vec<Rule>,
    /// Calibration samples.
    pub calibration: Option<PathBuf>,
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Memory limit in bytes; `None` for half of what is free.
    pub memory_limit: Option<u64>,
    /// Source bytes read at a time.
    pub block_bytes: u64,
    /// Positioned reads although memory would allow a map.
    pub streaming: bool,
    /// Replace an existing output.
    pub force: bool,
    /// Continue a folder output.
    pub resume: bool,
    /// Accept tensors that are quantized already.
    pub allow_requantize: bool,
    /// Seed of everything random.
    pub seed: u64,
    /// Keys of the configuration that ask for something that has no effect on weights alone.
    pub unused: Vec<String>,
}

/// Source bytes read at a time by default: they and their f32 form stay in a core's cache.
pub(crate) const BLOCK_BYTES: u64 = 256 << 10;

impl Job {
    /// Checks `options` against `registry` and fills in what is missing from the profile.
    ///
    /// # Errors
    /// [`EngineError::Config`] for a malformed value, [`EngineError::Usage`] for a combination that makes no sense.
    pub fn new(mut options: JobOptions, registry: &Registry) -> Result<Self> {
        let output = output(&options)?;
        if let Some((_, format)) = &output {
            destination::adapt(&mut options, *format)?;
        }
        let profile = Profile::named(options.profile.as_deref().unwrap_or("local"))?;
        let gate = Gate::new(&options, profile)?;
        let activations = activations::options(&options, profile)?;
        let mut unused = options.unused.clone();
        unused.extend(activations::unused(&options));
        let bits = match options.bits {
            Some(bits) => BitWidth::new(bits).map_err(config)?,
            None => profile.bits(),
        };
        let in_groups = options.group_size.is_some();
        let given_group = options.group_size.map(GroupSize::new).transpose().map_err(config)?;
        let rate = options.rate.map(Rate::new).transpose().map_err(config)?;
        let target = Target::new(options.target_bpw, options.target_size.as_deref())?;
        let by_rate = rate.is_some() || target.is_some();
        let smallest_within = options.max_error.filter(|_| leaves_widths_open(&options));
        if options.plan.is_some() {
            refuse_beside_plan(&options)?;
        }
        let plan = options.plan.as_deref().map(PlanFile::read).transpose()?;
        let sensitivity = options.sensitivity.as_deref().map(Sensitivity::read).transpose()?;
        let mixture = options.method.as_deref().and_then(Mixture::from_name);
        let method = options.method.filter(|_| mixture.is_none());
        let method = method.or_else(|| by_rate.then(|| "entropy".to_string()));
        let method = method.map(|m| registry.resolve(&m)).transpose()?;
        let typed = options.tensor_types.iter().map(|t| Rule::parse(t));
        let rules: Vec<Rule> = typed.chain(options.rules.into_iter().map(Ok)).collect::<Result<_>>()?;
        for rule in &rules {
            if let crate::RuleSpec::Quantize { method: Some(m), .. } = rule.spec() {
                registry.resolve(m)?;
            }
        }
        if options.resume && !matches!(output, Some((_, OutputFormat::Folder))) {
            return Err(EngineError::Usage("--resume continues a folder output only".into()));
        }
        let threads = options.threads.unwrap_or_else(|| profile.threads());
        if threads == 0 || threads > 1024 {
            return Err(EngineError::Config(format!("threads {threads} is not between 1 and 1024")));
        }
        let calibrated = options.calibration.is_some();
        let smoothing = match &options.smoothing {
            Some(text) => smoothing(text)?,
            None if calibrated && smooths(activations.as_ref(), output.as_ref()) => SmoothingPlan::Auto,
            None => SmoothingPlan::Off,
        };
        let own = method.clone().unwrap_or_else(|| registry.default_strategy(bits, calibrated, in_groups));
        let group_size = given_group.unwrap_or_else(|| registry.default_group(&own, profile));
        let (bits, group_size) = match &method {
            Some(method) => {
                let nearest = || registry.nearest_width(method, bits);
                let bits = options.bits.map_or_else(nearest, |_| bits);
                ggml::numbers(method, options.bits)?.unwrap_or((bits, group_size))
            }
            None => (bits, group_size),
        };
        let job = Self {
            input: options.input,
            output,
            dtype: options.dtype.as_deref().map(destination::dtype).transpose()?,
            shard_bytes: options.shard_size.as_deref().map(parse_size).transpose()?,
            base_model: options.base_model,
            card: true,
            report: options.report.map(ReportFile::new).transpose()?,
            components: options.components,
            profile,
            bits,
            group_size,
            in_groups,
            rate,
            target,
            sensitivity,
            smallest_within,
            plan,
            method,
            mixture,
            gain: options.gain.unwrap_or(true),
            rotation: options.rotation.unwrap_or(false),
            low_rank: options.low_rank.as_deref().map_or(Ok(LowRankPlan::Off), low_rank)?,
            activations,
            smoothing,
            fold_smoothing: options.fold_smoothing.unwrap_or(false),
            gate,
            rules,
            calibration: options.calibration,
            threads,
            memory_limit: options.memory_limit.as_deref().map(parse_size).transpose()?,
            block_bytes: options.block_size.as_deref().map(parse_size).transpose()?.unwrap_or(BLOCK_BYTES),
            streaming: options.streaming.unwrap_or(profile.streaming()),
            force: options.force,
            resume: options.resume,
            allow_requantize: options.allow_requantize.unwrap_or(false),
            seed: options.seed.unwrap_or(0),
            unused,
        };
        gguf::check(&job)?;
        Ok(job)
    }

    /// The settings that decide the output's bytes, for reports and file metadata.
    pub fn settings(&self) -> Value {
        json!({
            "profile": self.profile.name(),
            "bits": self.bits,
            "group_size": self.group_size,
            "rate": self.rate,
            "target": self.target.map(Target::text),
            "sensitivity": self.sensitivity.is_some(),
            "plan": self.plan.is_some(),
            "method": self.mixture.map_or_else(|| json!(self.method), |mixture| json!(mixture.name())),
            "gain": self.gain,
            "rotation": self.rotation,
            "low_rank": self.low_rank,
            "activations": self.activations.as_ref().map(activations::settings),
            "smoothing": self.smoothing,
            "fold_smoothing": self.fold_smoothing,
            "gate": self.gate.as_ref().map(Gate::settings),
            "tensor_type": self.rules.iter().map(Rule::text).collect::<Vec<_>>(),
            "calibrated": self.calibration.is_some(),
            "seed": self.seed,
        })
    }
}

/// Whether nothing says how wide codes are.
fn leaves_widths_open(options: &JobOptions) -> bool {
    let JobOptions { bits, rate, target_bpw, target_size, plan, profile, .. } = options;
    let given = [bits.is_some(), rate.is_some(), target_bpw.is_some(), target_size.is_some()];
    !given.contains(&true) && plan.is_none() && profile.is_none()
}

/// Refuses options that say what a plan says already.
fn refuse_beside_plan(options: &JobOptions) -> Result<()> {
    let given = [
        ("bits", options.bits.is_some()),
        ("rate", options.rate.is_some()),
        ("group-size", options.group_size.is_some()),
        ("method", options.method.is_some()),
        ("target-bpw", options.target_bpw.is_some()),
        ("target-size", options.target_size.is_some()),
        ("tensor-type", !options.tensor_types.is_empty()),
        ("rules", !options.rules.is_empty()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((name, _)) => {
            let reason = format!("a plan decides on every tensor; give either --plan or --{name}, not both");
            Err(EngineError::Usage(reason))
        }
        None => Ok(()),
    }
}

/// Destination and format, where there is a destination.
fn output(options: &JobOptions) -> Result<Option<(PathBuf, OutputFormat)>> {
    let Some(path) = &options.output else { return Ok(None) };
    let format = match &options.format {
        Some(name) => destination::format(name)?,
        None => OutputFormat::from_path(path)?,
    };
    Ok(Some((path.clone(), format)))
}

fn low_rank(text: &str) -> Result<LowRankPlan> {
    LowRankPlan::parse(text).ok_or_else(|| {
        EngineError::Config(format!(
            "low rank {text:?} is not auto, off or a rank from 1 to {}",
            LowRankPlan::MAX_RANK
        ))
    })
}

fn smoothing(text: &str) -> Result<SmoothingPlan> {
    SmoothingPlan::parse(text).ok_or_else(|| {
        EngineError::Config(format!(
            "smoothing {text:?} is not auto, off, smoothquant, awq, ptq4dit or an alpha from 0 to 1"
        ))
    })
}

/// Whether smoothing is looked for unasked: where inputs get fewer than 8 bits, which it helps (`docs/methods.md`), and the output has a place
/// for its factors.
fn smooths(activations: Option<&ActivationOptions>, output: Option<&(PathBuf, OutputFormat)>) -> bool {
    use OutputFormat::{Arrow, Diffusers, Folder, Parquet};
    let has_place = output.is_none_or(|(_, format)| matches!(format, Parquet | Arrow | Folder | Diffusers));
    has_place && activations.is_some_and(|inputs| inputs.bits < 8)
}

fn config(error: aq_core::CoreError) -> EngineError {
    EngineError::Config(error.to_string())
}

/// The cores that this process may use.
pub(crate) fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
