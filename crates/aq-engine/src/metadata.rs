//! What is written into the output beside the tensors.

use aq_core::{Decision, StoredTensor};
use aq_io::Source;
use aq_timeaware::Activations;
use serde_json::json;

use crate::Job;
use crate::blocks::TensorQuality;
use crate::plan::ModelPlan;
use crate::report::finite;

/// The footer's key-values: `aq.model`, `aq.plan`, `aq.tool`, and `aq.activations` where inputs are quantized. They depend on the model and the settings only.
pub(crate) fn footer(
    job: &Job,
    plan: &ModelPlan,
    stored: &[StoredTensor],
    quality: &[TensorQuality],
    activations: Option<&Activations>,
) -> Vec<(String, String)> {
    let rows = plan.plan.tensors.iter().zip(stored).zip(quality);
    let tensors: Vec<_> = rows
        .map(|((planned, stored), quality)| match &planned.decision {
            Decision::Keep { reason } => json!({"name": stored.info.name(), "kept_reason": reason}),
            Decision::Quantize(layer) => json!({
                "name": stored.info.name(), "method": layer.method, "bits": layer.bits,
                "group_size": layer.group_size, "gain": layer.gain,
                "rotation": layer.rotation.is_some(), "low_rank": layer.low_rank,
                "smoothing": layer.smoothing,
                "cosine": quality.comparison.cosine(),
                "relative_mse": finite(quality.comparison.relative_mse()),
            }),
        })
        .collect();
    let body = json!({"settings": job.settings(), "tensors": tensors});
    let model = plan.architecture.map_or("unknown", |a| a.id());
    let mut pairs: Vec<(String, String)> =
        vec![("aq.model".into(), model.into()), ("aq.plan".into(), body.to_string()), tool()];
    pairs.extend(activations.map(|a| (Activations::KEY.into(), a.to_json())));
    pairs
}

/// What a file says in front of its tensors: `aq.tool`, `aq.model` and `aq.settings`. They depend on the model and the settings only.
pub(crate) fn header(job: &Job, plan: &ModelPlan) -> Vec<(String, String)> {
    let model = plan.architecture.map_or("unknown", |a| a.id());
    vec![
        ("format".into(), "pt".into()),
        tool(),
        ("aq.model".into(), model.into()),
        ("aq.settings".into(), job.settings().to_string()),
    ]
}

/// The program that wrote a file.
pub(crate) fn tool() -> (String, String) {
    (aq_io::TOOL.into(), concat!("arrowquant ", env!("CARGO_PKG_VERSION")).into())
}

/// Tells whether parts of an earlier run belong to this job: a hash of the settings, the decisions and the source.
pub(crate) fn fingerprint(job: &Job, source: &dyn Source, plan: &ModelPlan) -> String {
    let path = std::path::absolute(source.path()).unwrap_or_else(|_| source.path().into());
    let changed = std::fs::metadata(&path).and_then(|m| m.modified()).ok();
    let text =
        format!("{} {:?} {path:?} {changed:?} {}", job.settings(), plan.plan, env!("CARGO_PKG_VERSION"));
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
}
