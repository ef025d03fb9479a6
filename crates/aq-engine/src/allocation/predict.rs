//! What each option of a layer is predicted to cost.

use aq_core::{Decision, LayerPlan, Plan};
use aq_search::Candidate;

use super::LayerOptions;
use super::candidates::LayerOption;
use super::curve::Curve;
use crate::blocks::TensorQuality;
use crate::job::BLOCK_BYTES;
use crate::measure::measure;
use crate::plan::ModelPlan;
use crate::run::Opened;
use crate::sampled::sampled;
use crate::{EngineError, Job, Progress, Result, Silent};

/// Weights of a layer that are quantized to measure an option.
const WEIGHTS: u64 = 1 << 18;

/// Predicts the errors of all options of `layers`.
///
/// Some rows of each layer are quantized as its options say: with a calibration the error of their outputs on held-out inputs counts, else
/// that of the weights. What is not measured follows from the [`Curve`] through what is, for options that differ in width alone.
///
/// Beside other layers an error counts as often as the layer has weights, so that equal layers with equal errors get equal bits. With measured sensitivities
/// what counts is the damage to the model's outputs at the bits that the option takes, times how much the option errs beside the first one at these bits; nothing is
/// measured then where options differ in width alone, and errors are those of Gaussian weights.
///
/// # Errors
/// When a layer is not among the sensitivities, or cannot be read.
pub(super) fn errors(
    opened: &Opened<'_>,
    plan: &ModelPlan,
    layers: &mut [LayerOptions],
    progress: &mut dyn Progress,
) -> Result<()> {
    let is_one_kind = |l: &LayerOptions| l.options.iter().all(|o| is_alike(&o.plan, &l.options[0].plan));
    let is_told = opened.job.sensitivity.is_some() && opened.job.smallest_within.is_none();
    let measured = match is_told && layers.iter().all(is_one_kind) {
        true => layers.iter().map(|l| l.options.iter().map(|o| Some(o.expected)).collect()).collect(),
        false => measured(opened, plan, layers, progress)?,
    };
    let weights: u64 = layers.iter().map(|layer| layer.weights).sum();
    for (layer, measured) in layers.iter_mut().zip(measured) {
        layer.errors = between(&layer.options, &measured)?;
        let name = opened.source.tensors()[layer.index].info.name();
        let damage: Vec<f64> = match &opened.job.sensitivity {
            Some(sensitivity) => {
                let curve = sensitivity.of(name)?;
                let first = first_kind(layer)?;
                let at = |(option, error): (&LayerOption, &f64)| {
                    let bits = option.bytes as f64 * 8.0 / layer.weights.max(1) as f64;
                    curve.at(bits) * error / first.at(bits)
                };
                layer.options.iter().zip(&layer.errors).map(at).collect()
            }
            None => {
                let share = layer.weights as f64 / weights.max(1) as f64;
                layer.errors.iter().map(|error| error * share).collect()
            }
        };
        let candidates = layer.options.iter().zip(damage);
        // Rounded, since logarithms are not the same to the last bit everywhere, and plans should be.
        let rounded = |error: f64| f64::from(error as f32);
        let candidate = |(option, error): (&LayerOption, f64)| Candidate::new(option.bytes, rounded(error));
        layer.candidates = candidates.map(candidate).collect();
    }
    Ok(())
}

/// The error of each option that is measured.
fn measured(
    opened: &Opened<'_>,
    plan: &ModelPlan,
    layers: &[LayerOptions],
    progress: &mut dyn Progress,
) -> Result<Vec<Vec<Option<f64>>>> {
    let sampled = sampled(opened.source, WEIGHTS)?;
    // The order of sums must not depend on how much is read at a time.
    let job = Job { block_bytes: BLOCK_BYTES, ..opened.job.clone() };
    let opened = Opened { source: &sampled, job: &job, ..*opened };
    let mut plan = plan.plan.clone();
    for (planned, stored) in plan.tensors.iter_mut().zip(opened.source.tensors()) {
        planned.info = stored.info.clone();
    }
    let wanted = |layer: &LayerOptions| -> Vec<usize> {
        let options = &layer.options;
        let same = |a: &LayerOption, b: &LayerOption| a.width == b.width && is_alike(&a.plan, &b.plan);
        let is_known = |i: usize| options[..i].iter().any(|before| same(before, &options[i]));
        (0..options.len()).filter(|&i| options[i].is_measured && !is_known(i)).collect()
    };
    let wanted: Vec<Vec<usize>> = layers.iter().map(wanted).collect();
    let passes = wanted.iter().map(Vec::len).max().unwrap_or(0);
    let mut errors: Vec<Vec<Option<f64>>> = layers.iter().map(|l| vec![None; l.options.len()]).collect();
    for pass in 0..passes {
        progress.measuring(pass + 1, passes);
        let own: Vec<usize> = (0..layers.len()).filter(|&i| pass < wanted[i].len()).collect();
        for &i in &own {
            let option = &layers[i].options[wanted[i][pass]];
            plan.tensors[layers[i].index].decision = Decision::Quantize(option.plan.clone());
        }
        let only: Vec<usize> = own.iter().map(|&i| layers[i].index).collect();
        for (&i, quality) in own.iter().zip(measure_only(&opened, &plan, &only)?) {
            errors[i][wanted[i][pass]] = Some(error(&quality));
        }
    }
    Ok(errors)
}

/// What quantizing the tensors of the indexes `only` does to them.
pub(crate) fn measure_only(opened: &Opened<'_>, plan: &Plan, only: &[usize]) -> Result<Vec<TensorQuality>> {
    measure(opened, plan, Some(only), &mut Silent)
}

/// The relative error of the outputs on held-out inputs, or of the weights where there are none.
pub(crate) fn error(quality: &TensorQuality) -> f64 {
    let error = match quality.output.truth > 0.0 {
        true => quality.output.relative_error(),
        false => quality.comparison.relative_mse(),
    };
    if error.is_finite() { error } else { 1.0 }
}

/// The errors of all options from those that are measured, along options that differ in width alone.
fn between(options: &[LayerOption], measured: &[Option<f64>]) -> Result<Vec<f64>> {
    let error = |option: &LayerOption| {
        let alike = options.iter().zip(measured).filter(|(other, _)| is_alike(&other.plan, &option.plan));
        let points = alike.filter_map(|(other, error)| Some((other.width, (*error)?))).collect();
        curve(points).map(|curve| curve.at(option.width))
    };
    options.iter().map(error).collect()
}

/// Errors of the first kind of options by bits per weight.
fn first_kind(layer: &LayerOptions) -> Result<Curve> {
    let first = &layer.options[0].plan;
    let own = layer.options.iter().zip(&layer.errors).filter(|(option, _)| is_alike(&option.plan, first));
    curve(own.map(|(o, &error)| (o.bytes as f64 * 8.0 / layer.weights.max(1) as f64, error)).collect())
}

fn curve(points: Vec<(f64, f64)>) -> Result<Curve> {
    Curve::new(points).map_err(EngineError::Internal)
}

/// Whether two plans of a layer differ in width alone, or in what does nothing to its weights.
fn is_alike(a: &LayerPlan, b: &LayerPlan) -> bool {
    *a == LayerPlan { bits: a.bits, rate: a.rate, time_groups: a.time_groups, ..b.clone() }
}
