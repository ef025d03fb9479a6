//! How new plans are made from those that are known.

use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::repair::repair;
use crate::{Checkpoint, Evaluated, Genome, Problem};

/// What made a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// It is the plan that the search began with.
    Start,
    /// Uniform crossover of two plans, each gene of either with the same probability, and mutation of a tenth of the genes.
    Crossover,
    /// One gene at random.
    Mutation,
    /// Each gene at random with a probability of three tenths.
    Upheaval,
    /// One layer up and another down by so much that the plan keeps its size.
    Exchange,
    /// A family of layers up or down, all others as the budget then asks.
    Shift,
}

/// The operators that make children.
const MAKING: [Operator; 5] =
    [Operator::Crossover, Operator::Mutation, Operator::Upheaval, Operator::Exchange, Operator::Shift];
/// Plans of which the best is a parent.
const TOURNAMENT: usize = 2;

/// Makes children of the best plans of a checkpoint.
pub(crate) struct Breeder<'a> {
    problem: &'a Problem,
    /// The best plans, in order of their scores.
    parents: Vec<&'a Evaluated>,
    /// How often each operator of [`MAKING`] is to be used, relative to the others.
    shares: [f64; MAKING.len()],
}

impl<'a> Breeder<'a> {
    /// Parents are the best `population` plans. An operator is used in proportion to how many of its children became parents.
    pub(crate) fn new(problem: &'a Problem, known: &'a Checkpoint, population: usize) -> Self {
        let mut parents: Vec<&Evaluated> = known.visited.iter().collect();
        parents.sort_by(|a, b| a.cost().total_cmp(&b.cost()));
        parents.truncate(population.max(1));
        let share = |operator: Operator| {
            let count =
                |all: &mut dyn Iterator<Item = Operator>| all.filter(|&o| o == operator).count() as f64;
            let children = count(&mut known.visited.iter().map(|e| e.operator));
            let good = count(&mut parents.iter().map(|e| e.operator));
            (good + 1.0) / (children + MAKING.len() as f64)
        };
        let mut shares = MAKING.map(share);
        if problem.families().is_empty() {
            shares[MAKING.len() - 1] = 0.0;
        }
        Self { problem, parents, shares }
    }

    /// A plan within the budget, whether it is known or not.
    pub(crate) fn child(&self, random: &mut ChaCha8Rng) -> (Genome, Operator) {
        let mut genome = self.parent(random).genome.clone();
        let operator = self.operator(random);
        let before = genome.clone();
        match operator {
            Operator::Crossover => {
                let other = self.parent(random);
                let pairs = genome.iter_mut().zip(&other.genome);
                pairs.for_each(|(gene, &o)| *gene = if random.random_bool(0.5) { o } else { *gene });
                self.mutate(&mut genome, 0.1, random);
            }
            Operator::Upheaval => self.mutate(&mut genome, 0.3, random),
            Operator::Exchange => self.exchange(&mut genome, random),
            Operator::Shift => self.shift(&mut genome, random),
            Operator::Mutation | Operator::Start => {
                let layer = random.random_range(0..genome.len());
                self.resample(&mut genome, layer, random);
            }
        }
        let changed: Vec<bool> = genome.iter().zip(&before).map(|(a, b)| a != b).collect();
        repair(self.problem, &mut genome, &changed, random);
        (genome, operator)
    }

    fn parent(&self, random: &mut ChaCha8Rng) -> &Evaluated {
        let pick = |random: &mut ChaCha8Rng| random.random_range(0..self.parents.len());
        let best = (0..TOURNAMENT).map(|_| pick(random)).min().unwrap_or(0);
        self.parents[best]
    }

    fn operator(&self, random: &mut ChaCha8Rng) -> Operator {
        let mut at = random.random_range(0.0..self.shares.iter().sum::<f64>());
        for (operator, share) in MAKING.into_iter().zip(self.shares) {
            if at < share {
                return operator;
            }
            at -= share;
        }
        Operator::Mutation
    }

    fn mutate(&self, genome: &mut Genome, probability: f64, random: &mut ChaCha8Rng) {
        for layer in 0..genome.len() {
            if random.random_bool(probability) {
                self.resample(genome, layer, random);
            }
        }
    }

    /// Another candidate for a layer: a neighbour by bytes, or any.
    fn resample(&self, genome: &mut Genome, layer: usize, random: &mut ChaCha8Rng) {
        let count = self.problem.layers()[layer].len();
        if count < 2 {
            return;
        }
        let own = genome[layer];
        genome[layer] = if random.random_bool(0.5) {
            self.problem.stepped(layer, own, if random.random_bool(0.5) { 1 } else { -1 })
        } else {
            let other = random.random_range(0..count - 1) as u16;
            other + u16::from(other >= own)
        };
    }

    /// Moves bytes from one layer to another.
    fn exchange(&self, genome: &mut Genome, random: &mut ChaCha8Rng) {
        let layers = genome.len();
        if layers < 2 {
            return self.resample(genome, 0, random);
        }
        let first = random.random_range(0..layers);
        let second = (first + random.random_range(1..layers)) % layers;
        let bytes = |layer: usize, gene: u16| self.problem.layers()[layer][usize::from(gene)].bytes;
        let before = bytes(first, genome[first]) + bytes(second, genome[second]);
        self.resample(genome, first, random);
        let wanted = before.saturating_sub(bytes(first, genome[first]));
        // What the first layer leaves, as nearly as the second can take it.
        let candidates = 0..self.problem.layers()[second].len() as u16;
        let nearest = candidates.min_by_key(|&gene| bytes(second, gene).abs_diff(wanted));
        genome[second] = nearest.unwrap_or(genome[second]);
    }

    fn shift(&self, genome: &mut Genome, random: &mut ChaCha8Rng) {
        let families = self.problem.families();
        let Some(family) = families.get(random.random_range(0..families.len().max(1))) else { return };
        let steps = [-2, -1, 1, 2][random.random_range(0..4)];
        for &layer in family {
            genome[layer] = self.problem.stepped(layer, genome[layer], steps);
        }
    }
}

/// A random order of `0..count`.
pub(crate) fn shuffled(count: usize, random: &mut impl Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for i in (1..count).rev() {
        order.swap(i, random.random_range(0..=i));
    }
    order
}
