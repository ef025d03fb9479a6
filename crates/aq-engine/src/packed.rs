//! What a diffusers folder of packed layers asks of a job.

use std::collections::HashMap;
use std::path::Path;

use aq_core::{Decision, Encoding, StoredTensor};
use aq_io::{Access, IoError, ModelConfig, OutputFormat, Source};

use crate::blocks::TensorQuality;
use crate::{ConvertOptions, EngineError, Job, JobOptions, Result, destination, inspect, metadata};

/// Methods whose codec can be packed.
const METHODS: &str = "use ls, gptq, minmax or hqq";

/// Fills in what the format asks for: a method of codec `affine`.
///
/// # Errors
/// [`EngineError::Usage`] when `options` ask for something that such a folder cannot hold.
pub(crate) fn adapt(options: &mut JobOptions) -> Result<()> {
    let ending = options.output.as_deref().and_then(Path::extension).unwrap_or_default();
    if ["safetensors", "parquet", "arrow", "gguf"].iter().any(|of_file| ending == *of_file) {
        return refuse(&format!("is a folder, not a file with the ending .{}", ending.to_string_lossy()));
    }
    if options.rate.is_some() {
        return refuse("holds codes of fixed widths and no rate");
    }
    if options.method.is_none() && options.plan.is_none() {
        options.method = Some(if options.calibration.is_some() { "gptq" } else { "ls" }.into());
    }
    Ok(())
}

fn refuse<T>(what: &str) -> Result<T> {
    Err(EngineError::Usage(format!("format {} {what}", OutputFormat::Diffusers.name())))
}

/// `decision`, by which a tensor becomes `encoded`, or the reason for which the tensor is kept.
///
/// # Errors
/// [`EngineError::Usage`] when its codec has no packed layout.
pub(crate) fn fitting(encoded: &StoredTensor, decision: Decision) -> Result<Decision> {
    let format = OutputFormat::Diffusers;
    match (&decision, encoded.encoding) {
        (_, Encoding::Affine(_)) => {
            Ok(format.refusal(encoded).map_or(decision, |reason| Decision::Keep { reason }))
        }
        (Decision::Quantize(plan), _) => refuse(&format!(
            "has no layout for the method {} (tensor {:?}); {METHODS}",
            plan.method,
            encoded.info.name()
        )),
        _ => Ok(decision),
    }
}

/// The configuration of the model in `path`, where the output of `job` needs it.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn config(job: &Job, path: &Path) -> Result<Option<ModelConfig>> {
    let needed = matches!(job.output, Some((_, OutputFormat::Diffusers)));
    Ok(needed.then(|| ModelConfig::read(path)).transpose()?)
}

/// The tensors that a folder made of `source` has: layers stay as they are, and what cannot be a layer becomes plain.
///
/// # Errors
/// [`IoError::Unsupported`] for a tensor whose codec has no packed layout.
pub(crate) fn tensors(source: &dyn Source, options: &ConvertOptions) -> Result<Vec<StoredTensor>> {
    let form = |t: &StoredTensor| match t.encoding {
        Encoding::Raw => Ok(t.clone()),
        _ => match (OutputFormat::Diffusers.refusal(t), t.encoding) {
            (None, _) => Ok(t.clone()),
            (Some(_), Encoding::Affine(_)) => destination::plain(t, options.dtype),
            (Some(reason), _) => {
                let fact = format!("tensor {:?}: {reason}", t.info.name());
                Err(IoError::unsupported(source.path(), fact).into())
            }
        },
    };
    source.tensors().iter().map(form).collect()
}

/// What files of a folder made of `source` say in front.
pub(crate) fn header(source: &dyn Source) -> Vec<(String, String)> {
    let settings: serde_json::Map<_, _> = inspect::settings(source).into_iter().collect();
    let settings = (!settings.is_empty())
        .then(|| ("aq.settings".into(), serde_json::Value::Object(settings).to_string()));
    let model = source.metadata().get("aq.model").map(|model| ("aq.model".into(), model.clone()));
    [("format".into(), "pt".into()), metadata::tool()].into_iter().chain(model).chain(settings).collect()
}

/// Compares the tensors of a result that was read back with those that were meant to be written.
///
/// # Errors
/// [`EngineError::Verify`] with the first that differs.
pub(crate) fn check(source: &dyn Source, expected: &[StoredTensor]) -> Result<()> {
    let read = by_name(source);
    let differs = |t: &&StoredTensor| {
        let found = read.get(t.info.name()).map(|&i| &source.tensors()[i]);
        found.is_none_or(|found| found.info != t.info || found.encoding != t.encoding)
    };
    match expected.iter().find(differs) {
        None => Ok(()),
        Some(t) => {
            let reason = format!("tensor {:?} read back differs from the one written", t.info.name());
            Err(EngineError::Verify { path: source.path().into(), reason })
        }
    }
}

/// Puts the bytes that tensors take in the result `path` into `quality`, one for each of `stored`: side data included.
///
/// # Errors
/// When the result cannot be read.
pub(crate) fn count_bytes(path: &Path, stored: &[StoredTensor], quality: &mut [TensorQuality]) -> Result<()> {
    let source = aq_io::open(path, Access::Positioned)?;
    let read = by_name(&*source);
    for (t, quality) in stored.iter().zip(quality) {
        quality.bytes = read.get(t.info.name()).map_or(quality.bytes, |&i| source.stored_bytes(i));
    }
    Ok(())
}

fn by_name(source: &dyn Source) -> HashMap<&str, usize> {
    source.tensors().iter().enumerate().map(|(i, t)| (t.info.name(), i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_chosen_where_none_is_named() {
        let adapted =
            |mut options: JobOptions| adapt(&mut options).map(|()| options.method).map_err(|e| e.exit_code());
        assert_eq!(adapted(JobOptions::default()), Ok(Some("ls".into())));
        let calibrated = JobOptions { calibration: Some("c".into()), ..JobOptions::default() };
        assert_eq!(adapted(calibrated), Ok(Some("gptq".into())));
        let named = JobOptions {
            method: Some("hqq".into()),
            output: Some("dit.4bit".into()),
            ..JobOptions::default()
        };
        assert_eq!(adapted(named), Ok(Some("hqq".into())));
        assert_eq!(adapted(JobOptions { plan: Some("p".into()), ..JobOptions::default() }), Ok(None));
        for bad in [
            JobOptions { rate: Some(2.5), ..JobOptions::default() },
            JobOptions { output: Some("out.safetensors".into()), ..JobOptions::default() },
        ] {
            assert_eq!(adapted(bad), Err(2));
        }
    }
}
