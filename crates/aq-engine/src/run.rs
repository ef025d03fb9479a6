//! The main job, from a checked [`Job`] to a [`Report`]. Read this first.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use aq_core::StoredTensor;
use aq_io::{CreateOptions, OutputFormat};

use crate::blocks::{TensorQuality, run_blocks};
use crate::calibration::Calibration;
use crate::input::{self, Input, OpenModel};
use crate::memory;
use crate::plan::make_plan;
use crate::registry::Registry;
use crate::report::{Fallback, Report, TensorReport};
use crate::slab::TensorTask;
use crate::tasks::{make_tasks, plan_budget};
use crate::weights::TensorWeights;
use crate::{EngineError, Job, Progress, Result, metadata, pipeline, verify};

/// Quantizes a model: opens it, plans, encodes every slab, reads the result back, moves it into place.
///
/// Until the last step the destination is untouched; on an error or when `cancel` is set nothing is left there.
///
/// # Errors
/// See [`EngineError`].
pub fn run(
    job: &Job,
    registry: &Registry,
    cancel: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Report> {
    let (path, format) =
        job.output.as_ref().ok_or_else(|| EngineError::Usage("no output path is given".into()))?;
    match input::open(job)? {
        Input::Model(model) => run_model(job, model, path, *format, registry, cancel, progress),
        Input::Pipeline(chosen) => pipeline::run(job, &chosen, path, *format, registry, cancel, progress),
    }
}

/// The job for one model file or folder.
pub(crate) fn run_model(
    job: &Job,
    model: input::Model,
    path: &Path,
    format: OutputFormat,
    registry: &Registry,
    cancel: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Report> {
    let started = Instant::now();
    let source = &*model.source;
    let plan = make_plan(source.path(), source.tensors(), job, registry)?;
    if plan.architecture.is_none() {
        progress.warn("unknown architecture: only the generic rule decides which tensors are quantized");
    }
    let calibration = Calibration::read(job.calibration.as_deref(), source.tensors(), progress)?;
    let weights: Vec<_> = (0..source.tensors().len()).map(|i| TensorWeights::new(source, i)).collect();
    let tasks = make_tasks(source, &plan.plan, registry, &calibration, &weights)?;
    let budget = plan_budget(&tasks, job, model.memory_limit)?;

    let options = CreateOptions {
        force: job.force,
        resume: job.resume,
        keep_partial: format == OutputFormat::Folder,
        fingerprint: metadata::fingerprint(job, source, &plan),
        header_metadata: Vec::new(),
    };
    let mut sink = aq_io::create(path, format, &options)?;
    let stored: Vec<StoredTensor> = tasks.iter().map(|t| t.stored.clone()).collect();
    let resumed = sink.resume(&stored)?;
    let (old, new) = tasks.split_at(resumed.tensors.min(tasks.len()));
    let mut quality = verify::measure_parts(&resumed.parts, old, cancel)?;

    progress.start(new.iter().map(|t| t.stored.info.bytes()).sum(), new.len());
    let mut write = |slabs: &mut dyn aq_io::SlabStream| sink.write(&stored, slabs);
    quality.extend(run_blocks(new, budget, cancel, progress, &mut write)?);

    let metadata = metadata::footer(job, &plan, &stored, &quality);
    let pending = sink.finish(&metadata)?;
    progress.verifying();
    verify::verify_path(pending.path(), &stored, cancel)?;
    let output_bytes = pending.bytes();
    pending.commit()?;
    progress.finish();
    Ok(Report {
        input: job.input.display().to_string(),
        input_bytes: source.tensors().iter().map(|t| t.info.bytes()).sum(),
        architecture: plan.architecture.map(|a| a.id().to_string()),
        output: path.display().to_string(),
        format: format.name().to_string(),
        output_bytes,
        settings: job.settings(),
        simd: aq_kernels::level().name(),
        threads: budget.workers,
        elapsed_s: started.elapsed().as_secs_f64(),
        peak_rss_bytes: memory::peak_rss(),
        fallbacks: fallbacks(model.fallbacks, &calibration, &tasks),
        tensors: reports(&plan.plan, &stored, &quality),
    })
}

/// Steps down of the job, of the calibration and of the layers.
fn fallbacks(mut job: Vec<Fallback>, calibration: &Calibration, tasks: &[TensorTask<'_>]) -> Vec<Fallback> {
    job.extend_from_slice(calibration.fallbacks());
    job.extend(tasks.iter().flat_map(TensorTask::fallbacks));
    job
}

fn reports(plan: &aq_core::Plan, stored: &[StoredTensor], quality: &[TensorQuality]) -> Vec<TensorReport> {
    let rows = plan.tensors.iter().zip(stored).zip(quality);
    rows.map(|((planned, stored), quality)| TensorReport::new(planned, stored, quality)).collect()
}

/// Opens the source of a job for a plan only.
///
/// # Errors
/// See [`EngineError`].
pub fn open_for_plan(job: &Job) -> Result<Vec<OpenModel>> {
    match input::open(job)? {
        Input::Model(model) => Ok(vec![OpenModel { component: None, source: model.source }]),
        Input::Pipeline(chosen) => chosen.open_components(),
    }
}
