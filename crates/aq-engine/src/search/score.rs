//! Gives the plans of a search their scores.

use std::collections::BTreeMap;
use std::path::Path;

use aq_core::Plan;
use aq_search::{Checkpoint, Evaluated, Genome, Scorer};
use rayon::prelude::*;

use super::fitness::Fitness;
use super::indexes;
use crate::allocation::{Allocator, measure_only, measured_error};
use crate::plan_file::yaml;
use crate::run::Opened;
use crate::{EngineError, Progress, Result};

/// Scores plans by a fitness, or by the errors of their layers.
pub(super) struct PlanScorer<'a, 'p> {
    pub(super) opened: &'a Opened<'a>,
    pub(super) allocator: &'a Allocator,
    /// The plan whose layers are open.
    pub(super) plan: Plan,
    pub(super) fitness: Option<&'a dyn Fitness>,
    /// Where plans are written for the fitness.
    pub(super) folder: &'a Path,
    pub(super) checkpoint: Option<&'a Path>,
    /// Plans that are scored at most.
    pub(super) most: usize,
    /// Errors of layers that were measured on all rows, by layer and option.
    pub(super) measured: BTreeMap<(usize, usize), f64>,
    /// The best score after each generation.
    pub(super) history: Vec<f64>,
    /// Every plan that was scored.
    pub(super) visited: Vec<Evaluated>,
    pub(super) progress: &'p mut dyn Progress,
}

impl Scorer for PlanScorer<'_, '_> {
    type Error = EngineError;

    fn score(&mut self, plans: &[Genome]) -> Result<Vec<f64>> {
        match self.fitness {
            Some(fitness) => self.by_fitness(fitness, plans),
            None => self.by_layers(plans),
        }
    }

    fn observe(&mut self, known: &Checkpoint) -> Result<()> {
        if let Some(path) = self.checkpoint {
            let text = serde_json::to_string(known).map_err(|e| EngineError::Internal(e.to_string()))?;
            replace(path, &text)?;
        }
        let of = |e: Option<&Evaluated>| e.map_or(f64::INFINITY, Evaluated::cost);
        let (best, start) = (of(known.best()), of(known.start()));
        self.history.push(best);
        self.visited.clone_from(&known.visited);
        self.progress.searched(known.visited.len(), self.most, best, start);
        Ok(())
    }
}

impl PlanScorer<'_, '_> {
    /// Some plans at once, each written to a file of its own.
    fn by_fitness(&self, fitness: &dyn Fitness, plans: &[Genome]) -> Result<Vec<f64>> {
        let Opened { job, cancel, .. } = *self.opened;
        let (allocator, planned, folder) = (self.allocator, &self.plan, self.folder);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(job.threads).build();
        let pool = pool.map_err(|e| EngineError::Internal(e.to_string()))?;
        let one = |(number, genome): (usize, &Genome)| {
            let mut plan = planned.clone();
            allocator.set(&mut plan, &indexes(genome));
            let path = folder.join(format!("plan-{number}.yaml"));
            std::fs::write(&path, yaml(&plan, job.seed, &[])).map_err(aq_io::IoError::os(&path))?;
            fitness.score(&path, cancel)
        };
        pool.install(|| plans.par_iter().enumerate().map(|(i, genome)| one((i, genome))).collect())
    }

    /// The sum of the predicted errors, each corrected by what it is on all rows of the layer.
    fn by_layers(&mut self, plans: &[Genome]) -> Result<Vec<f64>> {
        for genome in plans {
            let choice = indexes(genome);
            let missing = |layer: &usize| !self.measured.contains_key(&(*layer, choice[*layer]));
            let missing: Vec<usize> = (0..choice.len()).filter(missing).collect();
            self.allocator.set(&mut self.plan, &choice);
            let layers = self.allocator.layers();
            let only: Vec<usize> = missing.iter().map(|&layer| layers[layer].index).collect();
            let quality = measure_only(self.opened, &self.plan, &only)?;
            for (layer, quality) in missing.into_iter().zip(&quality) {
                self.measured.insert((layer, choice[layer]), measured_error(quality));
            }
        }
        Ok(plans.iter().map(|genome| self.sum(&indexes(genome))).collect())
    }

    fn sum(&self, choice: &[usize]) -> f64 {
        let layers = self.allocator.layers().iter().zip(choice).enumerate();
        let error = |(i, (layer, &choice)): (usize, (&crate::allocation::LayerOptions, &usize))| {
            let measured = self.measured.get(&(i, choice)).copied().unwrap_or(1.0);
            layer.candidates[choice].error * measured / layer.errors[choice]
        };
        layers.map(error).sum()
    }
}

/// Puts `text` at `path` in one step.
pub(super) fn replace(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(folder).map_err(aq_io::IoError::os(path))?;
    std::fs::write(file.path(), text).map_err(aq_io::IoError::os(path))?;
    file.persist(path).map_err(|e| aq_io::IoError::os(path)(e.error))?;
    Ok(())
}
