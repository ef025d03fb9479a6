//! What a job would do, as `aq plan` shows it.

use std::sync::atomic::AtomicBool;

use aq_core::{Encoding, StoredTensor};
use serde_json::{Value, json};

use crate::architecture::Architecture;
use crate::calibration::Calibration;
use crate::input::{self, Input};
use crate::plan::{ModelPlan, estimate, make_plan};
use crate::plan_file::row;
use crate::registry::Registry;
use crate::run::Opened;
use crate::target::Sizing;
use crate::{Job, Progress, Result, caveat, destination};

/// The plan of a job as the JSON object of `aq plan --json`, without the work. Weights are read only where there is a calibration, or a
/// target that needs to know their errors.
///
/// # Errors
/// As [`crate::run()`].
pub fn plan(
    job: &Job,
    registry: &Registry,
    cancel: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Value> {
    match input::open(job)? {
        Input::Model(model) => plan_model(job, &model, registry, cancel, progress),
        Input::Pipeline(chosen) => {
            let mut plans = Vec::new();
            for name in &chosen.components {
                let model = input::open_model(&chosen.path(name), job)?;
                let mut plan = plan_model(job, &model, registry, cancel, progress)?;
                plan["component"] = json!(name);
                plans.push(plan);
            }
            if plans.len() == 1 {
                return Ok(plans.remove(0));
            }
            Ok(json!({"schema": "aq.plan/1", "components": plans}))
        }
    }
}

fn plan_model(
    job: &Job,
    model: &input::Model,
    registry: &Registry,
    cancel: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Value> {
    let source = &*model.source;
    let mut plan = make_plan(source.path(), source.tensors(), job, registry)?;
    caveat::tell(&plan.plan, registry, progress);
    let calibration = Calibration::read(job.calibration.as_deref(), source.tensors(), progress)?;
    let opened = Opened { job, registry, cancel, model, source, calibration: &calibration };
    let mut sizing = Sizing::new(&opened, &mut plan, true, progress)?;
    sizing.settle(&opened, &mut plan.plan)?;
    plan_json(&opened, &plan, &sizing)
}

fn plan_json(opened: &Opened<'_>, model: &ModelPlan, sizing: &Sizing) -> Result<Value> {
    let (mut layers, mut jobs) = (Vec::new(), Vec::new());
    let (mut bytes, mut params) = (0u64, 0u64);
    let notes = sizing.allocator().map(|allocator| allocator.notes(&model.plan, opened.job));
    for (i, (stored, planned)) in opened.source.tensors().iter().zip(&model.plan.tensors).enumerate() {
        let stored = &StoredTensor { info: planned.info.clone(), ..stored.clone() };
        let (planned_form, encoded) = estimate(stored, &planned.decision, opened.registry)?;
        let written = model.written.map(|written| destination::written_bytes(written, &planned_form));
        let estimate = written.transpose()?.flatten().unwrap_or(encoded);
        bytes += estimate;
        params += stored.info.elements();
        let mut layer = row(&stored.info, &planned.decision);
        layer["bytes_estimate"] = json!(estimate);
        if let Some(note) = notes.as_ref().and_then(|notes| notes[i].as_ref()) {
            layer["error_estimate"] = json!(note.error);
            layer["sensitivity"] = json!(note.sensitivity);
            layer["reason"] = json!(note.reason());
        }
        layers.push(layer);
        jobs.extend(slab_jobs(stored, &planned_form.encoding, jobs.len()));
    }
    Ok(json!({
        "schema": "aq.plan/1",
        "architecture": model.architecture.map(Architecture::id),
        "seed": model.seed,
        "layers": layers,
        "caveats": caveat::json(&caveat::all(&model.plan, opened.registry)),
        "bytes_estimate": bytes,
        "bits_per_weight_estimate": bytes as f64 * 8.0 / params.max(1) as f64,
        "allocation_gap": sizing.gap(),
        "jobs": jobs,
    }))
}

/// One job a slab: the unit that workers and machines share.
fn slab_jobs(stored: &StoredTensor, encoding: &Encoding, first_id: usize) -> Vec<Value> {
    let info = &stored.info;
    (0..aq_core::slab_count(info, encoding))
        .map(|slab| {
            let (row_start, row_count) = aq_core::slab_range(info, encoding, slab);
            let bytes = row_count * encoding.cols(info) * info.dtype().size() as u64;
            json!({
                "id": first_id + slab as usize, "tensor": info.name(), "row_start": row_start,
                "row_count": row_count, "bytes_read": bytes,
            })
        })
        .collect()
}
