//! The main job, from a checked [`Job`] to a [`Report`]. Read this first.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use aq_core::{Plan, StoredTensor};
use aq_io::{CreateOptions, OutputFormat, PendingOutput, Source};
use aq_timeaware::Choice;

use crate::activations;
use crate::blocks::{TensorQuality, run_blocks};
use crate::calibration::Calibration;
use crate::fallback::of_all_layers;
use crate::fold::fold;
use crate::folded::FoldedSource;
use crate::gate::{Chain, Gate, widen_misses};
use crate::gguf;
use crate::input::{self, Input};
use crate::measure::measure;
use crate::memory;
use crate::plan::{ModelPlan, make_plan};
use crate::recast::Recast;
use crate::registry::Registry;
use crate::report::{Details, Fallback, Measured, Page, Report, TensorReport, measure_details};
use crate::slab::TensorTask;
use crate::target::Sizing;
use crate::tasks::{make_layers, make_tasks, plan_budget};
use crate::weights::TensorWeights;
use crate::{EngineError, Job, Progress, Result, caveat, destination, metadata, packed, pipeline, verify};

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
    let report = match input::open(job)? {
        Input::Model(model) => run_model(job, model, path, *format, registry, cancel, progress),
        Input::Pipeline(chosen) => pipeline::run(job, &chosen, path, *format, registry, cancel, progress),
    }?;
    if let Some(file) = &job.report {
        file.write(&Page::of_report(&report), &report.json())?;
    }
    Ok(report)
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
    caveat::tell(&plan.plan, registry, progress);
    let tensors = model.source.tensors();
    let casts = plan.casts(tensors);
    let mut calibration = Calibration::read(job.calibration.as_deref(), tensors, progress)?;
    let (folded, rows) = match job.fold_smoothing {
        true => fold(&*model.source, &mut plan, &mut calibration)?,
        false => (FoldedSource::new(&*model.source, HashMap::new())?, Vec::new()),
    };
    let dropped = if job.is_gguf() { gguf::drop_smoothing(&mut plan) } else { Vec::new() };
    let cast = Recast::new(&folded, casts)?;
    let (source, notes) = formed(&cast, &plan, format)?;
    let mut also: Vec<_> = plan.fallbacks.iter().cloned().chain(rows).chain(dropped).chain(notes).collect();
    let opened = Opened { job, registry, cancel, model: &model, source: &source, calibration: &calibration };
    let mut sizing = Sizing::new(&opened, &mut plan, false, progress)?;
    let mut written = loop {
        sizing.settle(&opened, &mut plan.plan)?;
        let written = write(&opened, &plan, path, format, progress)?;
        let bytes = written.pending.bytes();
        if job.resume || !sizing.misses(bytes) {
            break written;
        }
    };
    let widened = match &job.gate {
        Some(gate) => opened.widen_misses(gate, &mut plan, &written, progress)?,
        None => Vec::new(),
    };
    if !widened.is_empty() {
        // What was written gives up its place first.
        drop(written);
        let (source, _) = formed(&cast, &plan, format)?;
        let opened = Opened { source: &source, ..opened };
        written = write(&opened, &plan, path, format, progress)?;
        opened.hold_gate(&written)?;
    }
    also.extend(sizing.fallback(written.pending.bytes(), !widened.is_empty()));
    also.extend(widened);
    let mut report = report(&opened, &plan, &written, also, (path, format), started);
    if job.report.is_some() {
        report.details = Some(opened.details(&written)?);
    }
    destination::add_beside(&mut *written.pending, format, job, &model.path, &report)?;
    written.pending.commit()?;
    progress.finish();
    Ok(report)
}

/// `source` with the element types that the format has for what `plan` keeps, and rows of the report about it.
fn formed<'a>(
    source: &'a dyn Source,
    plan: &ModelPlan,
    format: OutputFormat,
) -> Result<(Recast<'a>, Vec<Fallback>)> {
    match format {
        OutputFormat::Gguf => gguf::form(source, &plan.narrow, |index| plan.keeps(index)),
        _ => Ok((Recast::new(source, HashMap::new())?, Vec::new())),
    }
}

/// A job whose inputs are open.
pub(crate) struct Opened<'a> {
    pub(crate) job: &'a Job,
    pub(crate) registry: &'a Registry,
    pub(crate) cancel: &'a AtomicBool,
    pub(crate) model: &'a input::Model,
    /// The model, or what folding makes of it.
    pub(crate) source: &'a dyn Source,
    pub(crate) calibration: &'a Calibration,
}

impl Opened<'_> {
    /// Widens the tensors that miss the gate in `plan`.
    fn widen_misses(
        &self,
        gate: &Gate,
        plan: &mut ModelPlan,
        written: &Written,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Fallback>> {
        let chain = Chain { job: self.job, registry: self.registry, source: self.source.tensors() };
        let mut again = |plan: &Plan, only: &[usize]| {
            progress
                .warn(&format!("{} tensors miss the quality gate and are measured at more bits", only.len()));
            measure(self, plan, Some(only), progress)
        };
        widen_misses(gate, &mut plan.plan, &written.tensors, &chain, &mut again)
    }

    /// Reads the model and the output again for what a report file shows.
    fn details(&self, written: &Written) -> Result<Details> {
        let output = aq_io::open(written.pending.path(), aq_io::Access::Positioned)?;
        let quantized = written.tensors.iter().filter(|t| t.is_quantized());
        let measured = quantized.map(|t| Measured {
            name: t.stored.info.name(),
            error: t.output_error().unwrap_or_else(|| t.comparison.relative_mse()),
        });
        measure_details(self.source, &*output, &measured.collect::<Vec<_>>(), self.calibration, self.cancel)
    }

    /// Refuses a result with a tensor that misses the gate.
    fn hold_gate(&self, written: &Written) -> Result<()> {
        let Some(gate) = &self.job.gate else { return Ok(()) };
        let mut quantized = written.tensors.iter().filter(|t| t.is_quantized());
        quantized.try_for_each(|t| gate.hold(t.stored.info.name(), &t.comparison, &t.output))
    }
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
    opened: &Opened<'_>,
    plan: &ModelPlan,
    path: &Path,
    format: OutputFormat,
    progress: &mut dyn Progress,
) -> Result<Written> {
    let Opened { job, registry, cancel, source, calibration, .. } = *opened;
    let weights: Vec<_> = (0..source.tensors().len()).map(|i| TensorWeights::new(source, i)).collect();
    let layers = make_layers(&plan.plan, calibration, &weights);
    let mut tasks = make_tasks(source, &plan.plan, registry, calibration, &layers)?;
    if format.is_plain() {
        tasks = tasks.into_iter().map(|task| task.dequantized(job.dtype)).collect::<Result<_>>()?;
    }
    let budget = plan_budget(&tasks, job, opened.model.memory_limit)?;
    let judge = job.gate.filter(|gate| gate.fail_fast);

    let options = CreateOptions {
        force: job.force,
        resume: job.resume,
        keep_partial: format == OutputFormat::Folder && judge.is_none(),
        fingerprint: metadata::fingerprint(job, source, plan),
        header_metadata: if job.is_gguf() { gguf::header(job, plan) } else { metadata::header(job, plan) },
        stem: Some(destination::stem(format, &opened.model.path)),
        shard_bytes: job.shard_bytes,
        config: opened.model.config.clone(),
    };
    let mut sink = aq_io::create(path, format, &options)?;
    let stored = tasks.iter().map(TensorTask::written).collect::<Result<Vec<StoredTensor>>>()?;
    let resumed = sink.resume(&stored)?;
    let (old, new) = tasks.split_at(resumed.tensors.min(tasks.len()));
    let mut quality = verify::measure_parts(&resumed.parts, old, cancel)?;
    old.iter().zip(&quality).try_for_each(|(task, quality)| task.judge(judge.as_ref(), quality))?;

    progress.start(new.iter().map(|t| t.stored.info.bytes()).sum(), new.len());
    let mut pull = |slabs: &mut dyn aq_io::SlabStream| sink.write(&stored, slabs);
    quality.extend(run_blocks(new, budget, judge.as_ref(), cancel, progress, &mut pull)?);
    for (quality, stored) in quality.iter_mut().zip(&stored) {
        quality.bytes = format.tensor_bytes(stored).unwrap_or(quality.bytes);
    }

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
    destination::verify_pending(&*pending, format, &stored, cancel)?;
    if format == OutputFormat::Diffusers {
        packed::count_bytes(pending.path(), &stored, &mut quality)?;
    }
    let encoded: Vec<&StoredTensor> = tasks.iter().map(|task| &task.stored).collect();
    let tensors = reports(&plan.plan, &stored, &encoded, &quality, &choices);
    let mut fallbacks = fallbacks(calibration, &tasks);
    fallbacks.extend(activations::fallbacks(job.activations, &plan.plan, &choices));
    Ok(Written { pending, threads, fallbacks, tensors })
}

/// Bytes of the output that `plan` gives, which is written beside `path` and dropped.
pub(crate) fn output_bytes(
    opened: &Opened<'_>,
    plan: &ModelPlan,
    path: &Path,
    progress: &mut dyn Progress,
) -> Result<u64> {
    write(opened, plan, path, OutputFormat::Parquet, progress).map(|written| written.pending.bytes())
}

/// What the job did; `also` are rows that no layer tells.
fn report(
    opened: &Opened<'_>,
    plan: &ModelPlan,
    written: &Written,
    also: Vec<Fallback>,
    (path, format): (&Path, OutputFormat),
    started: Instant,
) -> Report {
    let Opened { job, model, .. } = *opened;
    let layers = written.tensors.iter().filter(|t| t.is_quantized()).count();
    let of_layers = of_all_layers(written.fallbacks.clone(), layers);
    let fallbacks = model.fallbacks.iter().cloned().chain(of_layers).chain(also).collect();
    Report {
        input: job.input.display().to_string(),
        input_bytes: model.source.tensors().iter().map(|t| t.info.bytes()).sum(),
        architecture: plan.architecture.map(|a| a.id().to_string()),
        output: path.display().to_string(),
        format: format.name().to_string(),
        output_bytes: written.pending.bytes(),
        settings: job.settings(),
        simd: aq_kernels::level().name(),
        threads: written.threads,
        elapsed_s: started.elapsed().as_secs_f64(),
        peak_rss_bytes: memory::peak_rss(),
        fallbacks,
        caveats: caveat::all(&plan.plan, opened.registry),
        tensors: written.tensors.clone(),
        details: None,
    }
}

/// Steps down of the calibration and of the layers.
fn fallbacks(calibration: &Calibration, tasks: &[TensorTask<'_>]) -> Vec<Fallback> {
    let layers = tasks.iter().flat_map(TensorTask::fallbacks);
    calibration.fallbacks().iter().cloned().chain(layers).collect()
}

fn reports(
    plan: &aq_core::Plan,
    stored: &[StoredTensor],
    encoded: &[&StoredTensor],
    quality: &[TensorQuality],
    choices: &[Option<Choice>],
) -> Vec<TensorReport> {
    let rows = plan.tensors.iter().zip(stored).zip(encoded).zip(quality).zip(choices);
    rows.map(|((((planned, stored), encoded), quality), choice)| {
        TensorReport::new(planned, stored, encoded, quality, choice.as_ref())
    })
    .collect()
}
