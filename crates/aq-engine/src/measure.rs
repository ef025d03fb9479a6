//! Encodes and drops what comes out: the damage of a plan without its file.

use std::sync::atomic::AtomicBool;

use aq_core::Plan;
use aq_io::SlabStream;

use crate::blocks::{TensorQuality, run_blocks};
use crate::calibration::Calibration;
use crate::input::{self, Input};
use crate::plan::make_plan;
use crate::registry::Registry;
use crate::run::Opened;
use crate::tasks::{make_layers, make_tasks, plan_budget};
use crate::weights::TensorWeights;
use crate::{EngineError, Job, Progress, Result};

/// Encodes the tensors of `plan`, or those of the indexes `only`, which rise, and measures each.
///
/// # Errors
/// As [`run_blocks`].
pub(crate) fn measure(
    opened: &Opened<'_>,
    plan: &Plan,
    only: Option<&[usize]>,
    progress: &mut dyn Progress,
) -> Result<Vec<TensorQuality>> {
    let Opened { job, registry, cancel, source, calibration, .. } = *opened;
    let weights: Vec<_> = (0..source.tensors().len()).map(|i| TensorWeights::new(source, i)).collect();
    let layers = make_layers(plan, calibration, &weights);
    let mut tasks = make_tasks(source, plan, registry, calibration, &layers)?;
    tasks.retain(|task| only.is_none_or(|only| only.contains(&task.index)));
    let budget = plan_budget(&tasks, job, opened.model.memory_limit)?;
    progress.start(tasks.iter().map(|t| t.stored.info.bytes()).sum(), tasks.len());
    run_blocks(&tasks, budget, None, cancel, progress, &mut discard)
}

fn discard(slabs: &mut dyn SlabStream) -> aq_io::Result<()> {
    while let Some(slab) = slabs.next_slab() {
        slabs.recycle(slab.rows);
    }
    Ok(())
}

/// Plans and encodes as [`crate::run()`] does, with the threads and memory of `job`, and drops what comes out: the compute part of a job, for
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
    let opened = Opened { job, registry, cancel, model: &model, source, calibration: &calibration };
    measure(&opened, &plan.plan, None, progress).map(|_| ())
}
