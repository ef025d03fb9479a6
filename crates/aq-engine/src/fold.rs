//! Folds smoothing into what makes the inputs of a layer, so that no program has to divide by the factors.

use std::collections::{BTreeMap, HashMap};

use aq_core::{DType, Decision, Encoding, LayerPlan, SmoothingPlan};
use aq_io::Source;
use aq_spatial::Smoothing;

use crate::architecture::FoldForm;
use crate::calibration::Calibration;
use crate::folded::{Change, FoldedSource};
use crate::plan::ModelPlan;
use crate::tasks::layer_inputs;
use crate::weights::TensorWeights;
use crate::{EngineError, Fallback, Result};

/// Finds the factors of the layers that the architecture can fold, and changes the source, the plan and the calibration so that they
/// are those of a model that makes smoothed inputs. The other layers keep their plans.
///
/// # Errors
/// When weights or calibration inputs cannot be read.
pub(crate) fn fold<'a>(
    source: &'a dyn Source,
    plan: &mut ModelPlan,
    calibration: &mut Calibration,
) -> Result<(FoldedSource<'a>, Vec<Fallback>)> {
    let mut folding = Folding { source, changes: HashMap::new(), rows: Vec::new() };
    for (target, members) in groups(plan) {
        if let Some(parts) = Target::find(source, &target, plan.plan.tensors[members[0]].info.cols()) {
            folding.group(plan, calibration, &target.0, &parts, &members)?;
        }
    }
    let Folding { changes, rows, .. } = folding;
    for &index in changes.keys() {
        let info = &mut plan.plan.tensors[index].info;
        *info = info.with_dtype(DType::F32).map_err(internal)?;
    }
    Ok((FoldedSource::new(source, changes)?, rows))
}

fn internal(error: aq_core::CoreError) -> EngineError {
    EngineError::Internal(error.to_string())
}

/// The layers that take their inputs from the same place, by that place.
fn groups(plan: &ModelPlan) -> BTreeMap<(String, FoldForm), Vec<usize>> {
    let mut groups: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, planned) in plan.plan.tensors.iter().enumerate() {
        let Decision::Quantize(LayerPlan { smoothing, .. }) = &planned.decision else { continue };
        let name = planned.info.name();
        let layer = name.strip_suffix(".weight").filter(|_| !smoothing.is_off());
        if let Some(target) = layer.and_then(|layer| plan.architecture?.fold(layer)) {
            groups.entry(target).or_default().push(index);
        }
    }
    groups
}

/// The tensors that factors are folded into.
struct Target {
    weight: usize,
    bias: Option<usize>,
    form: FoldForm,
}

impl Target {
    /// `None` where they do not exist or do not fit `inputs` input channels.
    fn find(source: &dyn Source, (name, form): &(String, FoldForm), inputs: u64) -> Option<Self> {
        let find = |end: &str| {
            let full = format!("{name}.{end}");
            let index = source.tensors().iter().position(|t| t.info.name() == full)?;
            let stored = &source.tensors()[index];
            (stored.encoding == Encoding::Raw && stored.info.dtype().is_float()).then_some(index)
        };
        let (weight, bias) = (find("weight")?, find("bias"));
        let rows = |index: usize| source.tensors()[index].info.shape().first().copied();
        let rank = source.tensors()[weight].info.shape().len();
        let fits = match form {
            FoldForm::Norm => rank == 1 && rows(weight) == Some(inputs),
            FoldForm::Rows { parts, .. } => rank > 1 && rows(weight) == Some(inputs * parts),
            FoldForm::Modulation { parts, .. } => {
                rank > 1 && bias.is_some() && rows(weight) == Some(inputs * parts)
            }
        };
        let fits = fits && bias.is_none_or(|bias| rows(bias) == rows(weight));
        fits.then_some(Self { weight, bias, form: *form })
    }
}

struct Folding<'a> {
    source: &'a dyn Source,
    changes: HashMap<usize, Change>,
    rows: Vec<Fallback>,
}

impl Folding<'_> {
    fn group(
        &mut self,
        plan: &mut ModelPlan,
        calibration: &mut Calibration,
        name: &str,
        target: &Target,
        members: &[usize],
    ) -> Result<()> {
        let weights: Vec<_> = members.iter().map(|&i| TensorWeights::new(self.source, i)).collect();
        let layers =
            members.iter().zip(&weights).map(|(&i, w)| layer_inputs(&plan.plan.tensors[i], calibration, w));
        let Decision::Quantize(layer_plan) = &plan.plan.tensors[members[0]].decision else { return Ok(()) };
        let smoothing = Smoothing::new(layers.collect(), layer_plan);
        let factors = smoothing.factors()?;
        let Some(factors) = factors.map(<[f32]>::to_vec) else { return Ok(()) };
        self.change_target(target, &factors);
        for &index in members {
            self.change(index).cols.clone_from(&factors);
            let planned = &mut plan.plan.tensors[index];
            calibration.divide(planned.info.name(), &factors)?;
            if let Decision::Quantize(layer) = &mut planned.decision {
                layer.smoothing = SmoothingPlan::Off;
            }
            self.rows.push(folded(planned.info.name(), name));
        }
        Ok(())
    }

    fn change(&mut self, index: usize) -> &mut Change {
        self.changes.entry(index).or_default()
    }

    /// Divides what makes channel `i` by factor `i`.
    fn change_target(&mut self, target: &Target, factors: &[f32]) {
        let inputs = factors.len();
        for index in [Some(target.weight), target.bias].into_iter().flatten() {
            let change = self.change(index);
            let mut divide = |part: u64, parts: u64| {
                change.rows.resize(inputs * parts as usize, 1.0);
                let rows = &mut change.rows[inputs * part as usize..][..inputs];
                rows.iter_mut().zip(factors).for_each(|(row, s)| *row *= s);
            };
            match target.form {
                FoldForm::Norm => divide(0, 1),
                FoldForm::Rows { part, parts } => divide(part, parts),
                FoldForm::Modulation { shift, scale, parts } => {
                    divide(shift, parts);
                    divide(scale, parts);
                    if Some(index) == target.bias {
                        change.before.resize(inputs * parts as usize, 0.0);
                        change.before[inputs * scale as usize..][..inputs].fill(1.0);
                    }
                }
            }
        }
    }
}

fn folded(tensor: &str, into: &str) -> Fallback {
    Fallback {
        tensor: Some(tensor.into()),
        from: "smoothing".into(),
        to: format!("folded into {into}"),
        reason: "the architecture table says what makes its inputs".into(),
    }
}
