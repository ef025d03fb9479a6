//! The main job, from a checked [`Job`] to a [`Report`]. Read this first.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use aq_core::StoredTensor;
use aq_io::{CreateOptions, OutputFormat, PendingOutput, Source};
use aq_timeaware::Choice;

use crate::activations;
use crate::blocks::{TensorQuality, run_blocks};
use crate::calibration::Calibration;
use crate::fold::fold;
use crate::folded::FoldedSource;
use crate::gguf;
use crate::input::{self, Input, OpenModel};
use crate::memory;
use crate::plan::{ModelPlan, make_plan};
use crate::recast::Recast;
use crate::registry::Registry;
use crate::report::{Fallback, Report, TensorReport};
use crate::slab::TensorTask;
use crate::target::Aim;
use crate::tasks::{make_layers, make_tasks, plan_budget};
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
    let mut plan = make_plan(model.source.path(), model.source.tensors(), job, registry)?;
    if plan.architecture.is_none() {
        progress.warn("unknown architecture: only the generic rule decides which tensors are quantized");
    }
    let tensors = model.source.tensors();
    let mut calibration = Calibration::read(job.calibration.as_deref(), tensors, progress)?;
    let (source, folded) = match job.fold_smoothing {
        true => fold(&*model.source, &mut plan, &mut calibration)?,
        false => (FoldedSource::unchanged(&*model.source), Vec::new()),
    };
    let dropped = if job.is_gguf() { gguf::drop_smoothing(&mut plan) } else { Vec::new() };
    let (source, notes) = match format {
        OutputFormat::Gguf => gguf::form(&source, &plan.narrow, |i| plan.keeps(i))?,
        _ => (Recast::new(&source, HashMap::new())?, Vec::new()),
    };
    let files = Files { model: &model, source: &source, path, format };
    let mut aim = job.target.map(|target| Aim::new(target, &plan.plan));
    loop {
        if let Some(aim) = &mut aim {
            aim.set_rates(&mut plan.plan, source.tensors(), registry)?;
        }
        let written = write(job, &files, &plan, registry, &calibration, cancel, progress)?;
        let bytes = written.pending.bytes();
        if aim.as_mut().is_some_and(|aim| !job.resume && aim.misses(bytes)) {
            continue;
        }
        let missed = aim.and_then(|aim| aim.fallback(bytes));
        let also =
            plan.fallbacks.iter().cloned().chain(folded).chain(dropped).chain(notes).chain(missed).collect();
        let report = report(job, &files, &plan, &written, also, started);
        written.pending.commit()?;
        progress.finish();
        return Ok(report);
    }
}

/// Where a model comes from and goes to.
struct Files<'a> {
    model: &'a input::Model,
    /// The model, or what folding makes of it.
    source: &'a dyn Source,
    path: &'a Path,
    format: OutputFormat,
}

/// A complete output beside its destination, and what was learned on the way.
struct Written {
    pending: Box<dyn PendingOutput>,
    threads: usize,
    fallbacks: Vec<Fallback>,
    tensors: Vec<TensorReport>,
}

/// Encodes every slab, writes it beside the destination and reads it back.
fn write(
    job: &Job,
    files: &Files<'_>,
    plan: &ModelPlan,
    registry: &Registry,
    calibration: &Calibration,
    cancel: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Written> {
    let source = files.source;
    let weights: Vec<_> = (0..source.tensors().len()).map(|i| TensorWeights::new(source, i)).collect();
    let layers = make_layers(&plan.plan, calibration, &weights);
    let tasks = make_tasks(source, &plan.plan, registry, calibration, &layers)?;
    let budget = plan_budget(&tasks, job, files.model.memory_limit)?;

    let options = CreateOptions {
        force: job.force,
        resume: job.resume,
        keep_partial: files.format == OutputFormat::Folder,
        fingerprint: metadata::fingerprint(job, source, plan),
        header_metadata: if job.is_gguf() { gguf::header(job, plan) } else { Vec::new() },
    };
    let mut sink = aq_io::create(files.path, files.format, &options)?;
    let stored: Vec<StoredTensor> = tasks.iter().map(|t| t.stored.clone()).collect();
    let resumed = sink.resume(&stored)?;
    let (old, new) = tasks.split_at(resumed.tensors.min(tasks.len()));
    let mut quality = verify::measure_parts(&resumed.parts, old, cancel)?;

    progress.start(new.iter().map(|t| t.stored.info.bytes()).sum(), new.len());
    let mut pull = |slabs: &mut dyn aq_io::SlabStream| sink.write(&stored, slabs);
    quality.extend(run_blocks(new, budget, cancel, progress, &mut pull)?);

    let threads = budget.workers;
    let choices = activations::choose_all(
        job.activations,
        &plan.plan,
        calibration,
        &layers,
        &weights,
        threads,
        cancel,
    )?;
    let activations = activations::stored(&plan.plan, &choices, calibration.time());
    let metadata = metadata::footer(job, plan, &stored, &quality, activations.as_ref());
    let pending = sink.finish(&metadata)?;
    progress.verifying();
    verify::verify_path(pending.path(), &stored, cancel)?;
    let tensors = reports(&plan.plan, &stored, &quality, &choices);
    Ok(Written { pending, threads, fallbacks: fallbacks(calibration, &tasks), tensors })
}

/// What the job did; `also` are rows about the whole job.
fn report(
    job: &Job,
    files: &Files<'_>,
    plan: &ModelPlan,
    written: &Written,
    also: Vec<Fallback>,
    started: Instant,
) -> Report {
    let fallbacks = files.model.fallbacks.iter().chain(&written.fallbacks).cloned().chain(also);
    Report {
        input: job.input.display().to_string(),
        input_bytes: files.model.source.tensors().iter().map(|t| t.info.bytes()).sum(),
        architecture: plan.architecture.map(|a| a.id().to_string()),
        output: files.path.display().to_string(),
        format: files.format.name().to_string(),
        output_bytes: written.pending.bytes(),
        settings: job.settings(),
        simd: aq_kernels::level().name(),
        threads: written.threads,
        elapsed_s: started.elapsed().as_secs_f64(),
        peak_rss_bytes: memory::peak_rss(),
        fallbacks: fallbacks.collect(),
        tensors: written.tensors.clone(),
    }
}

/// Steps down of the calibration and of the layers.
fn fallbacks(calibration: &Calibration, tasks: &[TensorTask<'_>]) -> Vec<Fallback> {
    let layers = tasks.iter().flat_map(TensorTask::fallbacks);
    calibration.fallbacks().iter().cloned().chain(layers).collect()
}

/// Plans and encodes as [`run`] does, with the threads and memory of `job`, and drops what comes out: the compute part of a job, for
/// timings. The model is a single one; no output is looked at.
///
/// # Errors
/// See [`EngineError`].
pub fn encode_only(
    job: &Job,
    registry: &Registry,
    cancel: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<()> {
    let Input::Model(model) = input::open(job)? else {
        return Err(EngineError::Usage("a pipeline is not one model".into()));
    };
    let source = &*model.source;
    let plan = make_plan(source.path(), source.tensors(), job, registry)?;
    let calibration = Calibration::read(job.calibration.as_deref(), source.tensors(), progress)?;
    let weights: Vec<_> = (0..source.tensors().len()).map(|i| TensorWeights::new(source, i)).collect();
    let layers = make_layers(&plan.plan, &calibration, &weights);
    let tasks = make_tasks(source, &plan.plan, registry, &calibration, &layers)?;
    let budget = plan_budget(&tasks, job, model.memory_limit)?;
    let mut discard = |slabs: &mut dyn aq_io::SlabStream| {
        while let Some(slab) = slabs.next_slab() {
            slabs.recycle(slab.rows);
        }
        Ok(())
    };
    run_blocks(&tasks, budget, cancel, progress, &mut discard).map(|_| ())
}

fn reports(
    plan: &aq_core::Plan,
    stored: &[StoredTensor],
    quality: &[TensorQuality],
    choices: &[Option<Choice>],
) -> Vec<TensorReport> {
    let rows = plan.tensors.iter().zip(stored).zip(quality).zip(choices);
    rows.map(|(((planned, stored), quality), choice)| {
        TensorReport::new(planned, stored, quality, choice.as_ref())
    })
    .collect()
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
