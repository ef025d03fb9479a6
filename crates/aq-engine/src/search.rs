//! The search for a better plan than the allocation of predicted errors: what it is about, what scores plans, and what comes out.

mod fitness;
mod fitting;
mod score;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use aq_core::{LayerPlan, Plan, SmoothingPlan, StrategyId};
use aq_search::{
    Candidate, Checkpoint, Genome, Outcome, Problem, SearchError, SearchOptions, StopReason, evolve,
};
use aq_timeaware::Mode;
use serde_json::{Value, json};

use crate::allocation::Allocator;
use crate::calibration::{Calibration, layer_of};
use crate::input::{self, Input};
use crate::plan::{ModelPlan, make_plan};
use crate::plan_file::{row, yaml};
use crate::registry::Registry;
use crate::run::{Opened, output_bytes};
use crate::target::Sizing;
use crate::{EngineError, Job, Progress, Result};

pub use fitness::{CommandFitness, Fitness};
use score::{PlanScorer, replace};

/// How a search is done.
#[derive(Debug, Clone, Default)]
pub struct SearchSettings {
    /// Plans that may be parents, plans that are scored at all and at a time, when it gives up, and the seed.
    pub options: SearchOptions,
    /// Where what is known is stored after each generation; a search goes on from what is there.
    pub checkpoint: Option<PathBuf>,
    /// Methods that a layer may have; its own where there are none.
    pub methods: Vec<StrategyId>,
    /// Smoothings that a layer may have; its own where there are none.
    pub smoothings: Vec<SmoothingPlan>,
    /// Numbers of time groups that a layer may have, where its inputs are quantized in such groups; its own where there are none.
    pub time_groups: Vec<u32>,
}

/// What a search found.
#[derive(Debug, Clone)]
pub struct Searched {
    /// The plan.
    plan: Plan,
    seed: u64,
    outcome: Outcome,
    bytes: u64,
    goal: String,
    fitness: String,
    history: Vec<f64>,
}

/// Searches for the plan of the lowest score whose output has the size that `job` asks for.
///
/// It begins with the exact allocation of the predicted errors, so what it finds is not worse. Without a `fitness` the score is what the allocation
/// minimises, measured on all rows in place of some: errors of layers then add up, and little can be gained. A fitness that runs the model tells more.
///
/// # Errors
/// [`EngineError::Usage`] without a target, [`EngineError::Config`] where it cannot be met or the checkpoint is not one of this search, what
/// the fitness says, and as [`crate::run()`].
pub fn search(
    job: &Job,
    settings: &SearchSettings,
    fitness: Option<&dyn Fitness>,
    registry: &Registry,
    cancel: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Searched> {
    let target = job.target.ok_or_else(|| {
        EngineError::Usage("a search needs a size: give --target-bpw or --target-size".into())
    })?;
    let model = open(job)?;
    let source = &*model.source;
    let mut plan = make_plan(source.path(), source.tensors(), job, registry)?;
    let calibration = Calibration::read(job.calibration.as_deref(), source.tensors(), progress)?;
    let opened = Opened { job, registry, cancel, model: &model, source, calibration: &calibration };
    let bases = |own: &LayerPlan| settings.bases(own, job);
    let allocator = Allocator::new(&opened, &plan, &bases, progress)?;
    if allocator.layers().is_empty() {
        return Err(EngineError::Config(
            "there is nothing to search for: no layer has a size that is open".into(),
        ));
    }
    let folder = tempfile::tempdir().map_err(aq_io::IoError::os(&std::env::temp_dir()))?;
    let sizing =
        sized(&opened, &mut plan, allocator, target, &folder.path().join("start.parquet"), progress)?;
    let allocator = sizing.allocator().ok_or_else(|| EngineError::Internal("an allocator is lost".into()))?;
    let problem = problem(&opened, allocator, sizing.budget())?;
    let goal = target.bytes(plan.plan.tensors.iter().map(|t| t.info.elements()).sum());
    let known = settings.checkpoint.as_deref().map(read_checkpoint).transpose()?.flatten();
    let mut scorer = PlanScorer {
        opened: &opened,
        allocator,
        plan: plan.plan.clone(),
        fitness,
        folder: folder.path(),
        checkpoint: settings.checkpoint.as_deref(),
        most: settings.options.evaluations,
        measured: BTreeMap::new(),
        history: Vec::new(),
        visited: Vec::new(),
        progress,
    };
    let mut outcome = evolve(&problem, &settings.options, &[], known, &mut scorer)?;
    let PlanScorer { history, visited, progress, .. } = scorer;
    let bytes_of = |genome: &Genome| {
        allocator.set(&mut plan.plan, &indexes(genome));
        let bytes = output_bytes(&opened, &plan, &folder.path().join("found.parquet"), progress);
        progress.finish();
        bytes
    };
    outcome.best = fitting::best(&problem, &visited, goal, bytes_of)?;
    allocator.set(&mut plan.plan, &indexes(&outcome.best.genome));
    let ModelPlan { plan, seed, .. } = plan;
    let bytes = problem.bytes(&outcome.best.genome);
    let fitness = fitness.map_or_else(|| "error of layers".to_string(), |fitness| fitness.name());
    Ok(Searched { plan, seed, outcome, bytes, goal: target.text(), fitness, history })
}

/// The model of a job, or the only component of its pipeline that is quantized.
fn open(job: &Job) -> Result<input::Model> {
    match input::open(job)? {
        Input::Model(model) => Ok(model),
        Input::Pipeline(chosen) => match chosen.components.as_slice() {
            [one] => input::open_model(&chosen.path(one), job),
            several => {
                let names = several.join(", ");
                Err(EngineError::Usage(format!(
                    "a search is about one model; choose one of {names} with --component"
                )))
            }
        },
    }
}

/// Settles the allocation by what the file has beside the layers, which writing it once tells.
fn sized(
    opened: &Opened<'_>,
    plan: &mut ModelPlan,
    allocator: Allocator,
    target: crate::Target,
    path: &Path,
    progress: &mut dyn Progress,
) -> Result<Sizing> {
    let mut sizing = Sizing::with(allocator, target, &plan.plan);
    loop {
        sizing.settle(opened, &mut plan.plan)?;
        let bytes = output_bytes(opened, plan, path, progress)?;
        if !sizing.misses(bytes) {
            progress.finish();
            return Ok(sizing);
        }
    }
}

/// Plans may take up to a hundredth less than the budget.
const SLACK: f64 = 0.01;

fn problem(opened: &Opened<'_>, allocator: &Allocator, budget: u64) -> Result<Problem> {
    let candidates: Vec<Vec<Candidate>> = allocator.layers().iter().map(|l| l.candidates.clone()).collect();
    let floor = (budget as f64 * (1.0 - SLACK)) as u64;
    let names: Vec<&str> =
        allocator.layers().iter().map(|l| layer_of(opened.source.tensors()[l.index].info.name())).collect();
    Ok(Problem::new(candidates, floor, budget)?.with_families(families(&names)))
}

/// Layers that do the same in their blocks, and the layers of each block.
fn families(names: &[&str]) -> Vec<Vec<usize>> {
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let mut families: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (i, name) in names.iter().enumerate() {
        let parts: Vec<&str> = name.split('.').collect();
        let Some(at) = parts.iter().position(is_number) else { continue };
        families.entry(format!("block {}", parts[..=at].join("."))).or_default().push(i);
        families
            .entry(format!("role {} {}", parts[..at].join("."), parts[at + 1..].join(".")))
            .or_default()
            .push(i);
    }
    families.into_values().filter(|family| family.len() < names.len()).collect()
}

impl SearchSettings {
    /// The plans that a layer of plan `own` may have but for widths.
    fn bases(&self, own: &LayerPlan, job: &Job) -> Vec<LayerPlan> {
        let by_groups = job.activations.as_ref().is_some_and(|a| a.mode == Mode::Groups);
        let or =
            |list: &[LayerPlan], none: LayerPlan| if list.is_empty() { vec![none] } else { list.to_vec() };
        let methods: Vec<LayerPlan> =
            self.methods.iter().map(|m| LayerPlan { method: m.clone(), ..own.clone() }).collect();
        let smoothed = |plan: &LayerPlan| {
            let all: Vec<_> =
                self.smoothings.iter().map(|&smoothing| LayerPlan { smoothing, ..plan.clone() }).collect();
            or(&all, plan.clone())
        };
        let grouped = |plan: &LayerPlan| {
            let groups = self.time_groups.iter().filter(|_| by_groups);
            let all: Vec<_> = groups.map(|&n| LayerPlan { time_groups: Some(n), ..plan.clone() }).collect();
            or(&all, plan.clone())
        };
        let all = or(&methods, own.clone());
        all.iter().flat_map(smoothed).collect::<Vec<_>>().iter().flat_map(grouped).collect()
    }
}

/// What is known of an earlier search; nothing where there is no file yet.
fn read_checkpoint(path: &Path) -> Result<Option<Checkpoint>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(aq_io::IoError::os(path))?,
    };
    let read = serde_json::from_str(&text);
    read.map(Some).map_err(|e| EngineError::Config(format!("{}: not a checkpoint: {e}", path.display())))
}

impl From<SearchError> for EngineError {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Budget { .. } | SearchError::Limit { .. } | SearchError::Checkpoint(_) => {
                Self::Config(error.to_string())
            }
            _ => Self::Internal(error.to_string()),
        }
    }
}

impl Searched {
    /// The plan as YAML, for `--plan`.
    pub fn yaml(&self) -> String {
        let Outcome { best, start, evaluations, .. } = &self.outcome;
        let scores = format!("score {} after {evaluations} plans, {start} at the start", best.cost());
        yaml(&self.plan, self.seed, &[format!("aq search, {}, by {}", self.goal, self.fitness), scores])
    }

    /// Writes the plan, complete or not at all.
    ///
    /// # Errors
    /// [`EngineError::Io`] when it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        replace(path, &self.yaml())
    }

    /// The JSON object of `aq search --json`.
    pub fn json(&self) -> Value {
        let Outcome { best, start, evaluations, stop } = &self.outcome;
        let stop = match stop {
            StopReason::Evaluations => "evaluations",
            StopReason::Stalled => "stalled",
            StopReason::Exhausted => "exhausted",
        };
        let layers: Vec<Value> = self.plan.tensors.iter().map(|t| row(&t.info, &t.decision)).collect();
        json!({
            "schema": "aq.search/1", "version": env!("CARGO_PKG_VERSION"), "target": self.goal, "fitness": self.fitness,
            "start": {"score": start}, "best": {"score": best.score, "operator": best.operator, "layer_bytes": self.bytes},
            "evaluations": evaluations, "stop": stop, "history": self.history, "seed": self.seed, "layers": layers,
        })
    }
}

/// The choice of a genome as indexes of options.
fn indexes(genome: &Genome) -> Vec<usize> {
    genome.iter().map(|&gene| usize::from(gene)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_do_the_same_and_those_of_a_block_are_families() {
        let names =
            ["blocks.0.attn.qkv", "blocks.0.mlp.fc1", "blocks.1.attn.qkv", "blocks.1.mlp.fc1", "head"];
        assert_eq!(families(&names), [vec![0, 1], vec![2, 3], vec![0, 2], vec![1, 3]]);
        assert_eq!(families(&["a.0.x", "a.1.x"]), [vec![0], vec![1]]);
    }
}
