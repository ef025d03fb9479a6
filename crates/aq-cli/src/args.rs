//! What users type.

use std::path::PathBuf;

use aq_engine::{JobOptions, Result, read_config, read_environment};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::examples;

/// Make diffusion models several times smaller on an ordinary CPU.
#[derive(Debug, Parser)]
#[command(name = "aq", arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Quantize a model
    #[command(after_help = examples::QUANTIZE)]
    Quantize(QuantizeArgs),
    /// Show what quantize would do, without doing it
    #[command(after_help = examples::PLAN)]
    Plan(PlanArgs),
    /// Search for the best plan of a size; quantize --plan takes it
    Search(SearchArgs),
    /// List tensors, codecs, sizes and metadata of a file
    Inspect(InspectArgs),
    /// Measure the error of a model against another, tensor by tensor
    #[command(after_help = examples::COMPARE)]
    Compare(CompareArgs),
    /// Turn activation samples into statistics, which --calibration takes too
    Calibrate(CalibrateArgs),
    /// Check every checksum, shape and stream of a file that aq wrote
    Verify(VerifyArgs),
    /// Turn a quantized file back into plain tensors
    #[command(after_help = examples::DEQUANTIZE)]
    Dequantize(DequantizeArgs),
    /// Change the format without quantizing again
    #[command(after_help = examples::CONVERT)]
    Convert(ConvertArgs),
    /// Write a commented configuration file with every key and its default
    Init(InitArgs),
    /// Print a shell completion script
    #[command(after_help = examples::COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Print the manual page, or write those of all commands to a folder
    #[command(after_help = examples::MAN)]
    Man(ManArgs),
}

#[derive(Debug, Args)]
pub(crate) struct QuantizeArgs {
    /// Safetensors or GGUF file, folder of shards, diffusers pipeline folder, or a .parquet or .arrow file of ours
    pub(crate) input: PathBuf,
    /// Destination: .parquet, .arrow, .gguf, .safetensors (dequantized), or a folder (a trailing / or no ending)
    #[arg(short, long, value_name = "PATH", required_unless_present = "dry_run")]
    pub(crate) output: Option<PathBuf>,
    /// Format of the output when its ending does not say: parquet, arrow, gguf, folder, safetensors (dequantized weights, which any program
    /// loads), comfy (8-bit safetensors for ComfyUI and stable-diffusion.cpp), diffusers (a folder of packed layers that diffusers loads after
    /// `import arrow_quant.diffusers`)
    #[arg(long, value_name = "NAME")]
    pub(crate) format: Option<String>,
    #[command(flatten)]
    pub(crate) plain: PlainArgs,
    #[command(flatten)]
    pub(crate) choice: ChoiceArgs,
    #[command(flatten)]
    pub(crate) resources: ResourceArgs,
    /// Name of the original on the Hugging Face Hub, for the model card of a folder [default: found by path or configuration]
    #[arg(long, value_name = "NAME", help_heading = "Output")]
    pub(crate) base_model: Option<String>,
    /// Replace an existing output
    #[arg(long, help_heading = "Output")]
    pub(crate) force: bool,
    /// Continue a folder output that was stopped
    #[arg(long, help_heading = "Output")]
    pub(crate) resume: bool,
    /// Show what would happen, in bytes, and stop
    #[arg(long, help_heading = "Output")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
}

/// How safetensors are written.
#[derive(Debug, Args)]
pub(crate) struct PlainArgs {
    /// Element type of dequantized tensors: f32, f16 or bf16 [default: that of the source]
    #[arg(long, value_name = "TYPE", help_heading = "Output")]
    pub(crate) dtype: Option<String>,
    /// Largest safetensors file of a folder [default: 10GB]
    #[arg(long, value_name = "SIZE", help_heading = "Output")]
    pub(crate) shard_size: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Safetensors file, folder of shards, or diffusers pipeline folder
    pub(crate) input: PathBuf,
    #[command(flatten)]
    pub(crate) choice: ChoiceArgs,
    /// Print a table for people instead of JSON
    #[arg(long)]
    pub(crate) table: bool,
    /// Print JSON (the default)
    #[arg(long, conflicts_with = "table")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The score is lower for better plans. Without --fitness it is the error of the layers' outputs on held-out calibration rows, \
which the plan that the search begins with has nearly the least of: a fitness that runs the model finds more.\n\n\
Example:\n  aq search model/ --calibration c.safetensors --target-bpw 2.5 -o plan.yaml --fitness 'python score.py {plan}'\n  \
aq quantize model/ --calibration c.safetensors --plan plan.yaml -o model.parquet"
)]
pub(crate) struct SearchArgs {
    /// Safetensors file, folder of shards, or diffusers pipeline folder
    pub(crate) input: PathBuf,
    /// Destination of the plan, YAML
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// Command whose last number on stdout is the score of a plan, in the file {plan}
    #[arg(long, value_name = "CMD", help_heading = "Search")]
    pub(crate) fitness: Option<String>,
    /// Plans that are scored at most
    #[arg(long, value_name = "N", default_value_t = 200, help_heading = "Search")]
    pub(crate) evaluations: usize,
    /// Best plans so far that new ones are made of
    #[arg(long, value_name = "N", default_value_t = 16, help_heading = "Search")]
    pub(crate) population: usize,
    /// Plans that are scored before the next ones are made, on as many threads as there are
    #[arg(long, value_name = "N", default_value_t = 4, help_heading = "Search")]
    pub(crate) children: usize,
    /// Stop after so many plans without a better one [default: never]
    #[arg(long, value_name = "N", help_heading = "Search")]
    pub(crate) patience: Option<usize>,
    /// File that keeps what is known; a search that finds it goes on from there
    #[arg(long, value_name = "FILE", help_heading = "Search")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Methods that each layer may have [default: the one of --method]
    #[arg(long, value_name = "M,M", value_delimiter = ',', help_heading = "Search")]
    pub(crate) methods: Vec<String>,
    /// Smoothings that each layer may have, such as off,0.35,0.5 [default: the one of --smoothing]
    #[arg(long, value_name = "S,S", value_delimiter = ',', help_heading = "Search")]
    pub(crate) smoothings: Vec<String>,
    /// Numbers of time groups that each layer may have, with --act-mode groups [default: the one of --time-groups]
    #[arg(long, value_name = "N,N", value_delimiter = ',', help_heading = "Search", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) groups: Vec<u32>,
    #[command(flatten)]
    pub(crate) choice: ChoiceArgs,
    #[command(flatten)]
    pub(crate) resources: ResourceArgs,
    /// Replace an existing output
    #[arg(long, help_heading = "Output")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
}

/// What is quantized and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Quantization")]
pub(crate) struct ChoiceArgs {
    /// Bits of a code: 2, 3, 4, 5, 6 or 8; experimental: 1, which stands for the method binary [default: the profile's]
    #[arg(long, value_name = "B")]
    pub(crate) bits: Option<u8>,
    /// Weights that share a scale: a multiple of 8 from 16 to 1024, or 0 for the whole row [default: the profile's]
    #[arg(long, value_name = "G")]
    pub(crate) group_size: Option<u32>,
    /// Bits per weight of every quantized layer, side data included: 0.5 to 8, for `entropy` [default: the bits]
    #[arg(long, value_name = "X")]
    pub(crate) rate: Option<f64>,
    /// Bits of the whole output for each weight of the model
    #[arg(long, value_name = "X")]
    pub(crate) target_bpw: Option<f64>,
    /// Size of the whole output, such as 1.9GB
    #[arg(long, value_name = "SIZE")]
    pub(crate) target_size: Option<String>,
    /// What quantizing each layer alone does to the outputs of the model, measured by running it (aq.sensitivity/1): a target size is
    /// then given to the layers where it helps most
    #[arg(long, value_name = "FILE")]
    pub(crate) sensitivity: Option<PathBuf>,
    /// Plan of `aq plan --json` or `aq search`: what happens to each tensor, in place of bits, method, sizes and rules
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
    /// minmax, ls, gptq, entropy, trellis, trellis6, codebook, nf4, hqq, the experimental binary and ternary, or any registered strategy; for GGUF a type of ggml (q4_0,
    /// q4_k, iq4_xs ...) or a mixture (q3_k_s, q3_k_m, q3_k_l, q4_k_s, q4_k_m, q5_k_s, q5_k_m) [default: entropy up to 4 bits
    /// and with a calibration, else ls; where a group size is given, gptq with a calibration, else ls; for GGUF the type of the bits]
    #[arg(long, value_name = "M")]
    pub(crate) method: Option<String>,
    /// Defaults for a kind of machine: edge (2 bits), local (4) or cloud (8); docs/configuration.md has the table [default: local]
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// YAML file with keys of the same names as the options; `aq init` writes one
    #[arg(long, value_name = "FILE", env = "AQ_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Activation samples (.safetensors) or their statistics (.parquet): methods then lower the error of each layer's outputs
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: Option<PathBuf>,
    /// Rule for the tensors whose name matches, or for blocks by their number as in 'blocks[-1]=8' or 'layers[0..2]=f16'; first match
    /// wins; SPEC is bits, skip, f16, bf16, a type of ggml, or method:bits:group
    #[arg(long, value_name = "REGEX=SPEC")]
    pub(crate) tensor_type: Vec<String>,
    /// Component of a pipeline to quantize, repeatable [default: transformer, unet, prior, decoder]
    #[arg(long, value_name = "NAME")]
    pub(crate) component: Vec<String>,
    /// One factor per output row that removes the shrinkage of the grid [default: on]
    #[arg(long, value_name = "on|off")]
    pub(crate) gain: Option<Switch>,
    /// Rotate the inputs of each layer by random signs and a block Hadamard transform [default: off]
    #[arg(long, value_name = "on|off")]
    pub(crate) rotation: Option<Switch>,
    /// Low-rank part in 8 bits beside the codes: auto (where it pays), off, or a rank [default: off]
    #[arg(long, value_name = "auto|off|R")]
    pub(crate) low_rank: Option<String>,
    /// Quantize the inputs of layers too, to 4, 6 or 8 bits [default: off]
    #[arg(long, value_name = "B")]
    pub(crate) act_bits: Option<u8>,
    /// Where the ranges of inputs come from: token (each token, while the model runs), static, groups of timesteps, or uniform groups to compare with [default: token]
    #[arg(long, value_name = "auto|static|groups|uniform|token")]
    pub(crate) act_mode: Option<String>,
    /// Input channels that share a range in mode token; 0 for the whole token [default: 0]
    #[arg(long, value_name = "G")]
    pub(crate) act_group_size: Option<u32>,
    /// Take the centers of input channels off before rounding, where that lowers the error [default: on]
    #[arg(long, value_name = "on|off")]
    pub(crate) act_shift: Option<Switch>,
    /// The most groups of timesteps, each with ranges (mode groups) and channel shifts of its own [default: the profile's]
    #[arg(long, value_name = "N")]
    pub(crate) time_groups: Option<u32>,
    /// One range and shift for all timesteps
    #[arg(long)]
    pub(crate) no_time_aware: bool,
    /// No smoothing, whatever the configuration says
    #[arg(long, conflicts_with = "smoothing")]
    pub(crate) no_spatial: bool,
    /// A factor for each input channel, stored in the file: auto (where it pays), off, smoothquant, awq, ptq4dit, or an alpha from 0 to 1; needs --calibration [default: auto with --act-bits below 8, else off]
    #[arg(long, value_name = "auto|off|ALPHA")]
    pub(crate) smoothing: Option<String>,
    /// Fold the factors of smoothing into the norm or layer before, where the architecture is known: no program has to divide by
    /// them, but tensors are no longer those of the original one by one [default: off]
    #[arg(long, value_name = "on|off")]
    pub(crate) fold_smoothing: Option<Switch>,
    /// Least cosine of each weight with its quantized form; a tensor below it gets 4 bits, then 8, and is kept when these miss too
    /// [default: the profile's, unless bits or a method are chosen; 0 for none]
    #[arg(long, value_name = "C")]
    pub(crate) min_cosine: Option<f64>,
    /// Largest relative squared error of each layer's outputs on held-out calibration rows, or of its weights where it has none; a
    /// tensor above it gets 4 bits, then 8, and is kept when these miss too. Where no width, size, profile or plan is given, each layer
    /// first gets the smallest codes that are predicted to err no more
    #[arg(long, value_name = "E")]
    pub(crate) max_error: Option<f64>,
    /// Stop with exit code 5 at the first tensor that misses a bound, and leave nothing
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Quantize tensors that are quantized already
    #[arg(long)]
    pub(crate) allow_requantize: bool,
    /// Seed of everything random: same seed, same bytes [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Resources")]
pub(crate) struct ResourceArgs {
    /// Worker threads [default: all cores; two with profile edge]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Memory that may be used, such as 512MiB [default: half of what is free]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_limit: Option<String>,
    /// Read the input in bounded pieces instead of mapping it [default: with profile edge, or when it exceeds the memory limit]
    #[arg(long)]
    pub(crate) streaming: bool,
    /// Source bytes read at a time
    #[arg(long, value_name = "SIZE", env = "AQ_BLOCK_BYTES", hide = true)]
    pub(crate) block_size: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct ShowArgs {
    /// Print one JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
    /// Write a report too, in the form of its ending: .html (a page with charts), .md or .json; an earlier one is replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Print nothing but errors and warnings
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print a line for each tensor
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Any file or folder we read
    pub(crate) file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The original model
    pub(crate) original: PathBuf,
    /// The quantized one
    pub(crate) quantized: PathBuf,
    /// Compare layer outputs too, on the activation samples or statistics of this file
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: Option<PathBuf>,
    /// Write a report too, in the form of its ending: .html (a page with charts), .md or .json; an earlier one is replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CalibrateArgs {
    /// Activation samples: a .safetensors file with `timesteps`, and for each layer a tensor of T x N x inputs
    pub(crate) samples: PathBuf,
    /// Destination, a .parquet file
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// Layers worked on at once [default: all cores]
    #[arg(long, value_name = "N", env = "AQ_THREADS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Replace an existing output
    #[arg(long)]
    pub(crate) force: bool,
    /// Print one JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
    /// Print nothing but errors and warnings
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A file or folder that aq wrote
    pub(crate) file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DequantizeArgs {
    /// A quantized file or folder
    pub(crate) file: PathBuf,
    /// Destination, a .safetensors file or a folder
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// Type of the tensors that were quantized
    #[arg(long, default_value = "f32")]
    pub(crate) dtype: FloatType,
    /// Replace an existing output
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FloatType {
    F32,
    F16,
    Bf16,
}

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// A file or folder that we read
    pub(crate) file: PathBuf,
    /// Destination: .parquet, .arrow, .gguf, .safetensors (dequantized), or a folder
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// Format of the output when its ending does not say: parquet, arrow, gguf, folder, safetensors, comfy, diffusers
    #[arg(long, value_name = "NAME")]
    pub(crate) format: Option<String>,
    #[command(flatten)]
    pub(crate) plain: PlainArgs,
    /// The original model, whose config.json a diffusers folder gets [default: the file or folder that is converted]
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    pub(crate) model: Option<PathBuf>,
    /// Replace an existing output
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Destination [default: standard output]
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// The profile whose defaults are shown: edge, local or cloud
    #[arg(long, value_name = "NAME", default_value = "local")]
    pub(crate) profile: String,
    /// The JSON Schema of configuration files instead, for editors
    #[arg(long, conflicts_with = "profile")]
    pub(crate) schema: bool,
    /// Replace an existing file
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Folder for the pages, aq.1, aq-quantize.1 and so on; it is made when it is not there
    pub(crate) folder: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

impl ChoiceArgs {
    /// What variables of the environment and, below them, the configuration file say.
    pub(crate) fn surroundings(&self) -> Result<JobOptions> {
        let variables =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        let environment = read_environment(variables)?;
        environment.doubts.iter().for_each(|doubt| crate::output::warn(doubt));
        let file = self.config.as_deref().map_or_else(|| Ok(JobOptions::default()), read_config)?;
        Ok(environment.options.over(file))
    }

    /// The options of a job on `input`, resources and output left out.
    pub(crate) fn job(&self, input: &std::path::Path) -> JobOptions {
        JobOptions {
            input: input.into(),
            components: self.component.clone(),
            bits: self.bits,
            group_size: self.group_size,
            rate: self.rate,
            target_bpw: self.target_bpw,
            target_size: self.target_size.clone(),
            sensitivity: self.sensitivity.clone(),
            plan: self.plan.clone(),
            method: self.method.clone(),
            profile: self.profile.clone(),
            calibration: self.calibration.clone(),
            tensor_types: self.tensor_type.clone(),
            gain: self.gain.map(|g| g == Switch::On),
            rotation: self.rotation.map(|r| r == Switch::On),
            low_rank: self.low_rank.clone(),
            act_bits: self.act_bits,
            act_mode: self.act_mode.clone(),
            act_group_size: self.act_group_size,
            act_shift: self.act_shift.map(|s| s == Switch::On),
            time_groups: self.time_groups,
            time_aware: self.no_time_aware.then_some(false),
            smoothing: if self.no_spatial { Some("off".into()) } else { self.smoothing.clone() },
            fold_smoothing: self.fold_smoothing.map(|f| f == Switch::On),
            min_cosine: self.min_cosine,
            max_error: self.max_error,
            fail_fast: self.fail_fast.then_some(true),
            allow_requantize: self.allow_requantize.then_some(true),
            seed: self.seed,
            ..JobOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
