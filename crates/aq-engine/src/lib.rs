//! The ArrowQuant job: options are checked, a plan is made, every row block is encoded, the result is read back and moved into
//! place, and a report says what it cost.
//!
//! Start at [`run()`]: it does all of that in order. [`Job::new`] checks the options; `blocks.rs` is the one loop.
#![forbid(unsafe_code)]

mod activations;
mod allocation;
pub mod architecture;
mod array;
mod blocks;
mod calibrate;
mod calibration;
mod card;
mod caveat;
mod compare;
mod config;
mod convert;
mod destination;
mod error;
mod fallback;
mod fold;
mod folded;
mod gate;
mod ggml;
mod gguf;
mod input;
mod inspect;
mod job;
mod measure;
mod memory;
mod metadata;
mod overlay;
mod packed;
mod pipeline;
mod plan;
mod plan_file;
mod planned;
mod profile;
mod progress;
mod recast;
mod registry;
mod report;
mod rules;
mod run;
mod sampled;
mod search;
mod size;
mod slab;
mod statistics;
mod target;
mod tasks;
mod tensors;
mod verify;
mod weights;

pub use aq_core;
pub use aq_core::SmoothingPlan;
pub use aq_io::{Format, IoError, OutputFormat, SlabRow, Source, slab_row};
pub use aq_kernels::level as simd_level;
pub use aq_timeaware;

pub use activations::activations;
pub use allocation::Sensitivity;
pub use aq_search::SearchOptions;
pub use array::quantize_array;
pub use calibrate::{Calibrated, CalibratedLayer, calibrate};
pub use caveat::Caveat;
pub use compare::{ModelComparison, TensorComparison, compare};
pub use config::{
    Environment, config_template, option_names, read_config, read_environment, read_options, schema,
    write_new_file,
};
pub use convert::{ConvertOptions, convert, dequantize};
pub use error::{EngineError, Result};
pub use gate::Gate;
pub use ggml::Mixture;
pub use inspect::{inspect, inspect_json, settings};
pub use job::{Job, JobOptions};
pub use measure::encode_only;
pub use plan::{ModelPlan, make_plan};
pub use plan_file::PlanFile;
pub use planned::plan;
pub use profile::Profile;
pub use progress::{Progress, Silent};
pub use registry::Registry;
pub use report::{
    Details, ErrorsByTime, Fallback, Histogram, Report, ReportFile, TensorReport, report_comparison,
};
pub use rules::{Rule, RuleSpec};
pub use run::run;
pub use search::{CommandFitness, Fitness, SearchSettings, Searched, search};
pub use size::{format_size, parse_size};
pub use statistics::{CollectedBucket, CollectedLayer, StatisticsWriter, hessian_block};
pub use target::Target;
pub use tensors::{open, read_weights};
pub use verify::{Verified, verify};
