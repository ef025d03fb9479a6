//! Which widths, rates and group sizes the layers of a model get, so that all of it has a size or every layer an error.

mod candidates;
mod curve;
mod predict;
mod sensitivity;

use aq_core::{Decision, Encoding, LayerPlan, Plan};
use aq_search::{Allocation, Candidate, SearchError, allocate};

use crate::plan::{ModelPlan, estimate};
use crate::rules::ModelBlocks;
use crate::run::Opened;
use crate::{Job, Progress, Result, Rule, RuleSpec};

use candidates::LayerOption;
pub(crate) use predict::{error as measured_error, measure_only};
pub use sensitivity::Sensitivity;

/// The layers whose size is open, what each may be, and what that is predicted to cost.
pub(crate) struct Allocator {
    layers: Vec<LayerOptions>,
    /// Whether it is to decide on the layers; else it only says how sensitive they are.
    pub(crate) decides: bool,
}

/// A layer whose size is open.
pub(crate) struct LayerOptions {
    /// Index of the tensor.
    pub(crate) index: usize,
    pub(crate) weights: u64,
    pub(crate) options: Vec<LayerOption>,
    /// Error that is predicted for each option: of its outputs, or its weights where there is no calibration; relative.
    pub(crate) errors: Vec<f64>,
    /// Bytes of each option, and its error with what it counts beside other layers.
    pub(crate) candidates: Vec<Candidate>,
}

/// What a plan says of a layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Note {
    /// Its predicted error, relative.
    pub(crate) error: f64,
    /// Its damage a weight over that of the median layer, both at the same width.
    pub(crate) sensitivity: f64,
}

impl Note {
    /// So many times the median is sensitive.
    const SENSITIVE: f64 = 4.0;

    /// Why the layer is sensitive; `None` where it is not.
    pub(crate) fn reason(&self) -> Option<String> {
        (self.sensitivity >= Self::SENSITIVE).then(|| {
            format!(
                "sensitive: {:.1} times the damage a weight of the median layer at equal bits",
                self.sensitivity
            )
        })
    }
}

impl Allocator {
    /// For a job that needs one: a target that one rate for all layers cannot meet or with measured sensitivities, or a bound on
    /// errors as its goal; for a plan that is only looked at (`shown`) also where there is a calibration or sensitivities.
    ///
    /// # Errors
    /// When a layer was not measured, or cannot be read.
    pub(crate) fn for_job(
        opened: &Opened<'_>,
        plan: &ModelPlan,
        shown: bool,
        progress: &mut dyn Progress,
    ) -> Result<Option<Self>> {
        let job = opened.job;
        let by_one_rate = job.sensitivity.is_none() && has_variable_rate(opened, plan)?;
        let needed = job.target.is_some() && !by_one_rate || job.smallest_within.is_some();
        let looked_at = shown && (job.sensitivity.is_some() || job.calibration.is_some());
        if !needed && !looked_at {
            return Ok(None);
        }
        let own = Self::new(opened, plan, &|base| vec![base.clone()], progress)?;
        Ok(Some(Self { decides: needed, ..own }))
    }

    /// With the options of every plan that `bases` makes of the plan of a layer.
    ///
    /// # Errors
    /// When a layer was not measured, or cannot be read.
    pub(crate) fn new(
        opened: &Opened<'_>,
        plan: &ModelPlan,
        bases: &dyn Fn(&LayerPlan) -> Vec<LayerPlan>,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let Opened { job, registry, source, .. } = *opened;
        let pinned = pinned(job, &plan.plan);
        let mut layers = Vec::new();
        for (index, planned) in plan.plan.tensors.iter().enumerate() {
            let Decision::Quantize(layer) = &planned.decision else { continue };
            if pinned[index] {
                continue;
            }
            let mut options = Vec::new();
            for base in bases(layer) {
                let strategy = registry.get(&base.method);
                if strategy.is_some_and(|s| s.supports(&planned.info)) {
                    options.extend(candidates::options(&source.tensors()[index], &base, job, registry)?);
                }
            }
            let (weights, errors, candidates) = (planned.info.elements(), Vec::new(), Vec::new());
            layers.push(LayerOptions { index, weights, options, errors, candidates });
        }
        layers.retain(|layer| !layer.options.is_empty());
        predict::errors(opened, plan, &mut layers, progress)?;
        Ok(Self { layers, decides: true })
    }

    pub(crate) fn layers(&self) -> &[LayerOptions] {
        &self.layers
    }

    /// Gives the layers the plans of the least sum of errors in `budget` bytes.
    ///
    /// # Errors
    /// When even the smallest take more.
    pub(crate) fn allocate(&self, plan: &mut Plan, budget: u64) -> Result<Allocation, SearchError> {
        let candidates: Vec<Vec<Candidate>> = self.layers.iter().map(|l| l.candidates.clone()).collect();
        let found = allocate(&candidates, budget)?;
        self.set(plan, &found.choice);
        Ok(found)
    }

    /// Gives each layer its smallest plan with a predicted error of at most `bound`, or its best.
    pub(crate) fn bound(&self, plan: &mut Plan, bound: f64) {
        let choice = |layer: &LayerOptions| {
            let all = 0..layer.options.len();
            let good = all.clone().filter(|&i| layer.errors[i] <= bound);
            let smallest = good.min_by_key(|&i| layer.options[i].bytes);
            let best = || all.min_by(|&a, &b| layer.errors[a].total_cmp(&layer.errors[b]));
            smallest.or_else(best).unwrap_or(0)
        };
        let choice: Vec<usize> = self.layers.iter().map(choice).collect();
        self.set(plan, &choice);
    }

    /// Gives each layer the option of that index.
    pub(crate) fn set(&self, plan: &mut Plan, choice: &[usize]) {
        for (layer, &choice) in self.layers.iter().zip(choice) {
            plan.tensors[layer.index].decision = Decision::Quantize(layer.options[choice].plan.clone());
        }
    }

    /// Whether the tensor of that index has a size that is open.
    pub(crate) fn holds(&self, index: usize) -> bool {
        self.layers.binary_search_by_key(&index, |layer| layer.index).is_ok()
    }

    /// Bytes of the smallest options.
    pub(crate) fn least_bytes(&self) -> u64 {
        self.layers.iter().filter_map(|layer| layer.options.iter().map(|o| o.bytes).min()).sum()
    }

    /// Bytes of the largest options.
    pub(crate) fn most_bytes(&self) -> u64 {
        self.layers.iter().filter_map(|layer| layer.options.iter().map(|o| o.bytes).max()).sum()
    }

    /// What there is to say of the layers of `plan`, by index of their tensors.
    pub(crate) fn notes(&self, plan: &Plan, job: &Job) -> Vec<Option<Note>> {
        let width = job.rate.unwrap_or_else(|| job.bits.into()).bits_per_weight();
        let near = |layer: &LayerOptions, distance: &dyn Fn(&LayerOption) -> f64| {
            let all = 0..layer.options.len();
            all.min_by(|&a, &b| distance(&layer.options[a]).total_cmp(&distance(&layer.options[b])))
                .unwrap_or(0)
        };
        let damage: Vec<f64> = self
            .layers
            .iter()
            .map(|layer| {
                let at = near(layer, &|o| (o.width - width).abs());
                layer.candidates[at].error / layer.weights.max(1) as f64
            })
            .collect();
        let mut sorted = damage.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0).max(f64::MIN_POSITIVE);
        let mut notes = vec![None; plan.tensors.len()];
        for (layer, damage) in self.layers.iter().zip(damage) {
            let Decision::Quantize(own) = &plan.tensors[layer.index].decision else { continue };
            let own_width = own.rate.map_or(f64::from(own.bits.get()), aq_core::Rate::bits_per_weight);
            let mismatch = |o: &LayerOption| f64::from(u8::from(o.plan.group_size != own.group_size)) / 1e3;
            let at = near(layer, &|o| (o.width - own_width).abs() + mismatch(o));
            notes[layer.index] = Some(Note { error: layer.errors[at], sensitivity: damage / median });
        }
        notes
    }
}

/// Whether a rule says how large each tensor is.
pub(crate) fn pinned(job: &Job, plan: &Plan) -> Vec<bool> {
    let names = || plan.tensors.iter().map(|planned| planned.info.name());
    let blocks = ModelBlocks::of(names());
    let is_sized = |rule: &Rule| match rule.spec() {
        RuleSpec::Quantize { bits, rate, group_size, .. } => {
            bits.is_some() || rate.is_some() || group_size.is_some()
        }
        _ => false,
    };
    names()
        .map(|name| job.rules.iter().find(|rule| rule.matches(name, &blocks)).is_some_and(is_sized))
        .collect()
}

/// Whether some layer whose size is open has a method of variable rate.
fn has_variable_rate(opened: &Opened<'_>, plan: &ModelPlan) -> Result<bool> {
    let pinned = pinned(opened.job, &plan.plan);
    for ((planned, stored), pinned) in plan.plan.tensors.iter().zip(opened.source.tensors()).zip(pinned) {
        let (stored, _) = estimate(stored, &planned.decision, opened.registry)?;
        let is_quantized = matches!(planned.decision, Decision::Quantize(_));
        if is_quantized && stored.encoding == Encoding::Entropy && !pinned {
            return Ok(true);
        }
    }
    Ok(false)
}
