//! The job for a diffusers pipeline: its denoisers are quantized, everything else is copied.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use aq_io::{CreateOptions, OutputFormat, StagedFolder};

use crate::input::{self, Chosen};
use crate::registry::Registry;
use crate::report::Report;
use crate::run::run_model;
use crate::{EngineError, Job, Progress, Result, card};

/// Quantizes the chosen components. A single component may become a single file; otherwise the output is a pipeline folder whose
/// chosen components hold parts and a manifest in place of their weight files.
pub(crate) fn run(
    job: &Job,
    chosen: &Chosen,
    path: &Path,
    format: OutputFormat,
    registry: &Registry,
    cancel: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Report> {
    if !format.is_folder(path) {
        let [name] = chosen.components.as_slice() else {
            return Err(EngineError::Usage(format!(
                "{} components do not fit one {} file; give a folder as output or one --component",
                chosen.components.len(),
                format.name()
            )));
        };
        let model = input::open_model(&chosen.path(name), job)?;
        return run_model(job, model, path, format, registry, cancel, progress);
    }
    let options = CreateOptions { force: job.force, resume: job.resume, ..CreateOptions::default() };
    let mut folder = StagedFolder::create(path, &options)?;
    let parts = Job { card: false, ..job.clone() };
    folder.keep_when_dropped(job.resume && !job.gate.is_some_and(|gate| gate.fail_fast));
    let mut whole: Option<Report> = None;
    for name in &chosen.components {
        let model = input::open_model(&chosen.path(name), job)?;
        let report = run_model(&parts, model, &folder.path().join(name), format, registry, cancel, progress)?;
        whole = Some(match whole {
            None => prefixed(report, name),
            Some(whole) => merged(whole, prefixed(report, name)),
        });
    }
    let mut report = whole.ok_or_else(|| EngineError::Usage("no component is chosen".into()))?;
    report.output = path.display().to_string();
    report.format = "diffusers".into();
    folder.add_file(card::NAME, card::card(job, &chosen.pipeline.path, &report).as_bytes())?;
    let components: Vec<&str> = chosen.components.iter().map(String::as_str).collect();
    report.output_bytes += chosen.pipeline.copy_rest(folder.path(), &components)?;
    folder.commit()?;
    Ok(report)
}

fn prefixed(mut report: Report, component: &str) -> Report {
    report.details = report.details.map(|details| details.prefixed(component));
    for tensor in &mut report.tensors {
        let name = format!("{component}.{}", tensor.stored.info.name());
        tensor.stored.info = tensor.stored.info.clone().renamed(name);
    }
    for tensor in report.fallbacks.iter_mut().filter_map(|row| row.tensor.as_mut()) {
        *tensor = format!("{component}.{tensor}");
    }
    report
}

fn merged(mut whole: Report, more: Report) -> Report {
    whole.input_bytes += more.input_bytes;
    whole.output_bytes += more.output_bytes;
    whole.elapsed_s += more.elapsed_s;
    whole.peak_rss_bytes = whole.peak_rss_bytes.max(more.peak_rss_bytes);
    whole.fallbacks.extend(more.fallbacks);
    let caveats = more.caveats.into_iter().filter(|caveat| !whole.caveats.contains(caveat));
    whole.caveats.extend(caveats.collect::<Vec<_>>());
    whole.tensors.extend(more.tensors);
    if let (Some(details), Some(more)) = (&mut whole.details, more.details) {
        details.merge(more);
    }
    whole
}
