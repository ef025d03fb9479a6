//! How the inputs of layers are quantized: from options to what is stored and reported.

use std::sync::atomic::{AtomicBool, Ordering};

use aq_core::{Decision, GroupSize, Plan};
use aq_spatial::Transformed;
use aq_timeaware::{ActivationOptions, Activations, Choice, Errors, Mode, choose};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::calibration::{Calibration, LayerSamples, layer_of};
use crate::profile::Profile;
use crate::weights::TensorWeights;
use crate::{EngineError, Fallback, JobOptions, Result};

/// The most groups of timesteps.
const MAX_GROUPS: u32 = 1000;
/// Weights read at a time.
const BLOCK_WEIGHTS: u64 = 1 << 17;

/// What `options` asks for, with the groups of timesteps of `profile` where it does not say; `None` where inputs are not to be quantized.
///
/// # Errors
/// [`EngineError::Config`] for a malformed value.
pub(crate) fn options(options: &JobOptions, profile: Profile) -> Result<Option<ActivationOptions>> {
    let Some(bits) = options.act_bits else { return Ok(None) };
    if !matches!(bits, 4 | 6 | 8) {
        return Err(EngineError::Config(format!("act-bits {bits} is not 4, 6 or 8")));
    }
    let mode = match options.act_mode.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("auto" | "token") => Mode::Token,
        Some("static") => Mode::Static,
        Some("groups" | "uniform") if options.time_aware == Some(false) => Mode::Static,
        Some("groups" | "uniform") => Mode::Groups,
        Some(other) => {
            let reason =
                format!("unknown activation mode {other:?}; use auto, static, groups, uniform or token");
            return Err(EngineError::Config(reason));
        }
    };
    let groups = options.time_groups.unwrap_or(profile.time_groups());
    if groups == 0 || groups > MAX_GROUPS {
        return Err(EngineError::Config(format!("time-groups {groups} is not between 1 and {MAX_GROUPS}")));
    }
    let size = options.act_group_size.unwrap_or(0);
    let group_size = GroupSize::new(size).map_err(|e| EngineError::Config(format!("act-group-size: {e}")))?;
    let groups = if options.time_aware == Some(false) { 1 } else { groups as usize };
    let (group_size, shift) = (group_size.get(), options.act_shift != Some(false));
    let uniform = options.act_mode.as_deref().is_some_and(|mode| mode.eq_ignore_ascii_case("uniform"));
    Ok(Some(ActivationOptions { bits, mode, group_size, groups, uniform, shift }))
}

/// Keys of `options` that ask for something about inputs where inputs are not to be quantized.
pub(crate) fn unused(options: &JobOptions) -> Vec<String> {
    let asked = [
        ("act_mode", options.act_mode.is_some()),
        ("act_group_size", options.act_group_size.is_some()),
        ("act_shift", options.act_shift.is_some()),
        ("num_time_groups", options.time_groups.is_some()),
        ("enable_time_aware", options.time_aware == Some(true)),
    ];
    let keys = asked.into_iter().filter(|&(_, asked)| asked && options.act_bits.is_none());
    keys.map(|(key, _)| key.to_string()).collect()
}

/// The settings, for reports and file metadata.
pub(crate) fn settings(options: &ActivationOptions) -> Value {
    let ActivationOptions { bits, mode, group_size, groups, uniform, shift } = options;
    let mode = if *uniform { json!("uniform") } else { json!(mode) };
    json!({"bits": bits, "mode": mode, "group_size": group_size, "time_groups": groups, "shift": shift})
}

/// Chooses ranges for every layer that is quantized; nothing for the other tensors. `threads` layers at a time.
///
/// # Errors
/// When the model or the calibration cannot be read, or `cancel` is set.
pub(crate) fn choose_all(
    options: Option<ActivationOptions>,
    plan: &Plan,
    calibration: &Calibration,
    layers: &[Option<Transformed<'_>>],
    weights: &[TensorWeights<'_>],
    threads: usize,
    cancel: &AtomicBool,
) -> Result<Vec<Option<Choice>>> {
    let Some(options) = options else { return Ok(vec![None; layers.len()]) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|e| EngineError::Internal(e.to_string()))?;
    let one = |index: usize| {
        let (planned, Some(layer)) = (&plan.tensors[index], &layers[index]) else { return Ok(None) };
        if cancel.load(Ordering::Relaxed) {
            return Err(EngineError::Interrupted);
        }
        match (&planned.decision, calibration.of(planned.info.name())) {
            (Decision::Keep { .. }, _) => Ok(None),
            (_, None) => Ok(Some(Choice::unmeasured(&options, "the layer has no calibration samples"))),
            (Decision::Quantize(plan), Some(samples)) => {
                let groups = plan.time_groups.map_or(options.groups, |groups| groups as usize);
                let options = ActivationOptions { groups, ..options };
                choose_one(&options, layer, samples, &weights[index]).map(Some)
            }
        }
    };
    pool.install(|| (0..layers.len()).into_par_iter().map(one).collect())
}

/// Chooses ranges by the inputs and weights as the codes meet them: rotated where the layer is.
fn choose_one(
    options: &ActivationOptions,
    layer: &Transformed<'_>,
    samples: &LayerSamples,
    weights: &TensorWeights<'_>,
) -> Result<Choice> {
    let mut rows = samples.timed()?;
    rows.steps.iter_mut().try_for_each(|step| layer.transform_inputs(&mut step.rows))?;
    let cols = weights.info().cols() as usize;
    let mut norms = vec![0f64; cols];
    weights.visit(BLOCK_WEIGHTS, &mut |block| {
        layer.transform_weights(block)?;
        for row in block.chunks_exact(cols) {
            norms.iter_mut().zip(row).for_each(|(norm, &w)| *norm += f64::from(w) * f64::from(w));
        }
        Ok(())
    })?;
    let norms: Vec<f32> = norms.into_iter().map(|norm| norm as f32).collect();
    Ok(choose(&rows, &norms, options))
}

/// What is stored of the choices; `None` when there are none.
pub(crate) fn stored(plan: &Plan, choices: &[Option<Choice>], time: &str) -> Option<Activations> {
    let layer = |(planned, choice): (&aq_core::PlannedTensor, &Option<Choice>)| {
        let choice = choice.as_ref()?;
        Some((layer_of(planned.info.name()).to_string(), choice.plan.clone()))
    };
    let layers = plan.tensors.iter().zip(choices).filter_map(layer).collect();
    let any = choices.iter().any(Option::is_some);
    any.then(|| Activations { time: time.to_string(), layers })
}

/// The layers whose inputs did not get the ranges that were asked for.
pub(crate) fn fallbacks(
    options: Option<ActivationOptions>,
    plan: &Plan,
    choices: &[Option<Choice>],
) -> Vec<Fallback> {
    let Some(asked) = options else { return Vec::new() };
    let row = |(planned, choice): (&aq_core::PlannedTensor, &Option<Choice>)| {
        let choice = choice.as_ref().filter(|choice| choice.plan.mode != asked.mode)?;
        Some(Fallback {
            tensor: Some(planned.info.name().into()),
            from: ranges(asked.mode).into(),
            to: ranges(choice.plan.mode).into(),
            reason: choice.reason.clone(),
        })
    };
    plan.tensors.iter().zip(choices).filter_map(row).collect()
}

/// What a mode is to users.
fn ranges(mode: Mode) -> &'static str {
    match mode {
        Mode::Groups => "time groups",
        Mode::Static => "one static range",
        Mode::Token => "ranges of each token",
    }
}

/// A choice as a row of the report.
pub(crate) fn json(choice: &Choice) -> Value {
    let error = choice.errors.map(errors_json);
    json!({
        "bits": choice.plan.bits, "mode": choice.plan.mode, "groups": choice.plan.groups(), "shifts": choice.plan.shift.len(),
        "error": error, "reason": choice.reason,
    })
}

/// What each way to quantize inputs costs.
pub(crate) fn errors_json(e: Errors) -> Value {
    json!({"static": e.fixed, "uniform": e.uniform, "groups": e.groups, "token": e.token, "unshifted": e.unshifted})
}

/// How the inputs of layers of a file of ours are quantized; `None` when it does not say.
///
/// # Errors
/// When what it says contradicts itself; layer and fact are named.
pub fn activations(source: &dyn aq_io::Source) -> Result<Option<Activations>> {
    let Some(text) = source.metadata().get(Activations::KEY) else { return Ok(None) };
    let parsed = Activations::parse(text);
    Ok(Some(parsed.map_err(|e| aq_io::IoError::malformed(source.path(), e.to_string()))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_once() {
        let asked = |mode: &str, aware| JobOptions {
            act_bits: Some(8),
            act_mode: Some(mode.into()),
            time_aware: aware,
            ..JobOptions::default()
        };
        let mode =
            |o: &JobOptions| options(o, Profile::Local).map(|o| o.expect("activations are asked for").mode);
        assert_eq!(mode(&asked("auto", None)).expect("good"), Mode::Token);
        assert_eq!(mode(&asked("groups", None)).expect("good"), Mode::Groups);
        assert_eq!(mode(&asked("groups", Some(false))).expect("good"), Mode::Static);
        assert_eq!(options(&JobOptions::default(), Profile::Local).expect("good"), None);
        let groups =
            |profile| options(&asked("groups", None), profile).expect("good").expect("asked for").groups;
        assert_eq!(Profile::ALL.map(groups), [5, 10, 20]);
        for bad in [
            JobOptions { act_bits: Some(5), ..asked("auto", None) },
            asked("sometimes", None),
            JobOptions { time_groups: Some(0), ..asked("groups", None) },
            JobOptions { act_group_size: Some(7), ..asked("token", None) },
        ] {
            assert_eq!(options(&bad, Profile::Local).expect_err("refused").exit_code(), 4);
        }
    }
}
