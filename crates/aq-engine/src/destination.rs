//! What the format of the output asks of the rest of a job.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use aq_core::{DType, Decision, Encoding, StoredTensor};
use aq_io::{IoError, OutputFormat, PendingOutput};

use crate::plan::estimate;
use crate::registry::Registry;
use crate::{EngineError, Job, JobOptions, Report, Result, card, packed, verify};

/// Fills in what `format` asks for.
///
/// # Errors
/// [`EngineError::Usage`] when `options` ask for something that the format cannot hold.
pub(crate) fn adapt(options: &mut JobOptions, format: OutputFormat) -> Result<()> {
    let refuse = |what: &str| Err(EngineError::Usage(format!("format {} {what}", format.name())));
    let sized = options.target_bpw.is_some() || options.target_size.is_some();
    match format {
        OutputFormat::Diffusers => packed::adapt(options),
        OutputFormat::Safetensors if sized => {
            refuse("has the size of the weights whatever their codes; a target size is for other formats")
        }
        OutputFormat::Comfy if sized || options.rate.is_some() => {
            refuse("holds 8 bits a weight and no other rate")
        }
        OutputFormat::Comfy if options.plan.is_some() => {
            refuse("has a plan of its own: 8 bits for every layer")
        }
        OutputFormat::Comfy if options.bits.is_some_and(|bits| bits != 8) => refuse("holds 8 bits a weight"),
        OutputFormat::Comfy if options.rotation == Some(true) => {
            refuse("has a rotation of its own (--method convrot)")
        }
        OutputFormat::Comfy if [&options.low_rank, &options.smoothing].iter().any(|o| is_on(o)) => {
            refuse("knows neither smoothing nor low-rank parts")
        }
        OutputFormat::Comfy => {
            options.bits = Some(8);
            options.group_size = Some(0);
            let method = options.method.get_or_insert_with(|| "convrot".into());
            match ["convrot", "int8"].iter().any(|known| method.eq_ignore_ascii_case(known)) {
                true => Ok(()),
                false => refuse("is written by the methods convrot and int8"),
            }
        }
        _ => Ok(()),
    }
}

fn is_on(option: &Option<String>) -> bool {
    option.as_ref().is_some_and(|value| !value.eq_ignore_ascii_case("off"))
}

/// Reads the name of a format.
///
/// # Errors
/// [`EngineError::Config`] that lists the names there are.
pub(crate) fn format(name: &str) -> Result<OutputFormat> {
    OutputFormat::from_name(&name.to_ascii_lowercase()).ok_or_else(|| {
        let known: Vec<&str> = OutputFormat::ALL.iter().map(|f| f.name()).collect();
        EngineError::Config(format!("unknown format {name:?}; use one of {}", known.join(", ")))
    })
}

/// Reads the element type of dequantized tensors.
///
/// # Errors
/// [`EngineError::Config`] when it is not one of the three that are written.
pub(crate) fn dtype(name: &str) -> Result<DType> {
    match name.to_ascii_lowercase().as_str() {
        "f32" => Ok(DType::F32),
        "f16" => Ok(DType::F16),
        "bf16" => Ok(DType::BF16),
        _ => Err(EngineError::Config(format!("dtype {name:?} is not f32, f16 or bf16"))),
    }
}

/// `decision`, or the reason for which the job's format has the tensor kept.
pub(crate) fn fitting(
    job: &Job,
    stored: &StoredTensor,
    decision: Decision,
    registry: &Registry,
) -> Result<Decision> {
    let Some((_, format)) = &job.output else { return Ok(decision) };
    let asks = matches!(format, OutputFormat::Comfy | OutputFormat::Diffusers);
    if !asks || matches!(decision, Decision::Keep { .. }) {
        return Ok(decision);
    }
    let (encoded, _) = estimate(stored, &decision, registry)?;
    if *format == OutputFormat::Diffusers {
        return packed::fitting(&encoded, decision);
    }
    Ok(format.refusal(&encoded).map_or(decision, |reason| Decision::Keep { reason }))
}

/// The tensor that `stored` is when it is dequantized as `dtype`, or as the type it had in the source where that is F32, F16 or BF16, else
/// as F32. One that is not encoded stays as it is.
pub(crate) fn plain(stored: &StoredTensor, dtype: Option<DType>) -> Result<StoredTensor> {
    if stored.encoding == Encoding::Raw {
        return Ok(stored.clone());
    }
    let own = Some(stored.info.dtype()).filter(|d| matches!(d, DType::F32 | DType::F16 | DType::BF16));
    let dtype = dtype.or(own).unwrap_or(DType::F32);
    let info = stored.info.with_dtype(dtype).map_err(|e| EngineError::Config(e.to_string()))?;
    Ok(StoredTensor::new(info, Encoding::Raw))
}

/// Bytes of a tensor in a format where they depend on its shape alone.
///
/// # Errors
/// When the tensor would be too large.
pub(crate) fn written_bytes(
    (format, dtype): (OutputFormat, Option<DType>),
    encoded: &StoredTensor,
) -> Result<Option<u64>> {
    let written = if format.is_plain() { plain(encoded, dtype)? } else { encoded.clone() };
    Ok(format.tensor_bytes(&written))
}

/// What the names of weight files begin with: what diffusers looks for, or as in the file or folder that a model comes from,
/// `diffusion_pytorch_model` or `model`.
pub(crate) fn stem(format: OutputFormat, given: &Path) -> String {
    let known = "diffusion_pytorch_model";
    if format == OutputFormat::Diffusers {
        return known.into();
    }
    let inside = std::fs::read_dir(given).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut names = inside.chain(given.file_name().map(Into::into));
    let found = names.any(|name| name.to_string_lossy().starts_with(known));
    if found { known } else { "model" }.into()
}

/// Puts beside the model in a folder what belongs to it: the `config.json` of the source, and a model card.
///
/// # Errors
/// When they cannot be written.
pub(crate) fn add_beside(
    pending: &mut dyn PendingOutput,
    format: OutputFormat,
    job: &Job,
    source: &Path,
    report: &Report,
) -> Result<()> {
    add_config(pending, format, source)?;
    if pending.is_folder() && job.card {
        pending.add_file(card::NAME, card::card(job, source, report).as_bytes())?;
    }
    Ok(())
}

/// Puts the `config.json` of the folder `source` beside the model in a folder, without what it says of packed layers. Where the model has such
/// it lies there already.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn add_config(pending: &mut dyn PendingOutput, format: OutputFormat, source: &Path) -> Result<()> {
    let wanted = pending.is_folder() && format != OutputFormat::Diffusers;
    match card::read(&source.join("config.json")).filter(|_| wanted) {
        Some(config) => Ok(pending.add_file("config.json", aq_io::plain_config(&config).as_bytes())?),
        None => Ok(()),
    }
}

/// Reads a result back before it is moved into place: by the checksums of its slabs, or by what was written where.
///
/// # Errors
/// [`EngineError::Verify`] or [`EngineError::Io`] with the first damage found.
pub(crate) fn verify_pending(
    pending: &dyn PendingOutput,
    format: OutputFormat,
    expected: &[StoredTensor],
    cancel: &AtomicBool,
) -> Result<()> {
    if !matches!(format, OutputFormat::Safetensors | OutputFormat::Comfy | OutputFormat::Diffusers) {
        return verify::verify_path(pending.path(), expected, cancel);
    }
    match pending.check(&|| cancel.load(Ordering::Relaxed)) {
        Err(IoError::Stopped { .. }) => return Err(EngineError::Interrupted),
        checked => checked?,
    }
    let source = aq_io::open(pending.path(), aq_io::Access::Positioned)?;
    if format == OutputFormat::Diffusers {
        return packed::check(&*source, expected);
    }
    let held: std::collections::HashSet<&str> = source.tensors().iter().map(|t| t.info.name()).collect();
    match expected.iter().find(|t| !held.contains(t.info.name())) {
        None => Ok(()),
        Some(missing) => {
            let reason = format!("tensor {:?} is not there", missing.info.name());
            Err(EngineError::Verify { path: pending.path().into(), reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comfy_asks_for_signed_bytes() {
        let adapted = |mut options: JobOptions| {
            adapt(&mut options, OutputFormat::Comfy).map(|()| options).map_err(|e| e.exit_code())
        };
        let settled = adapted(JobOptions::default()).expect("the defaults do");
        assert_eq!((settled.bits, settled.method.as_deref()), (Some(8), Some("convrot")));
        for bad in [
            JobOptions { bits: Some(4), ..JobOptions::default() },
            JobOptions { method: Some("gptq".into()), ..JobOptions::default() },
            JobOptions { rotation: Some(true), ..JobOptions::default() },
            JobOptions { smoothing: Some("auto".into()), ..JobOptions::default() },
            JobOptions { target_bpw: Some(3.0), ..JobOptions::default() },
        ] {
            assert_eq!(adapted(bad).err(), Some(2));
        }
        let off = JobOptions {
            smoothing: Some("off".into()),
            method: Some("INT8".into()),
            ..JobOptions::default()
        };
        assert_eq!(adapted(off).expect("nothing is asked for").method.as_deref(), Some("INT8"));
    }
}
