//! What a search knows, in a form that can be stored.

use serde::{Deserialize, Serialize};

use crate::{Genome, Operator, Problem, SearchError};

/// A plan and the score it got.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// The plan.
    pub genome: Genome,
    /// Its score; lower is better. `None` for one that is no number, which is worse than any.
    pub score: Option<f64>,
    /// What made the plan.
    pub operator: Operator,
}

impl Evaluated {
    /// The score, infinite where there is none.
    pub fn cost(&self) -> f64 {
        self.score.unwrap_or(f64::INFINITY)
    }
}

/// All that a search knows after a whole number of generations. A search that goes on from it does what it would have done without
/// a stop, since the random numbers of a generation depend on the seed and its number alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Seed of the search.
    pub seed: u64,
    /// Candidates of each layer, and a hash of their bytes and errors: a checkpoint is of one problem.
    problem: (Vec<usize>, u64),
    /// Generations that are done.
    pub generation: u64,
    /// Every plan that was scored, in order; the first is the one the search began with.
    pub visited: Vec<Evaluated>,
}

impl Checkpoint {
    pub(crate) fn new(problem: &Problem, seed: u64) -> Self {
        Self { seed, problem: identity(problem), generation: 0, visited: Vec::new() }
    }

    /// Checks that the search it is of is the one of `problem` and `seed`.
    ///
    /// # Errors
    /// [`SearchError::Checkpoint`] with what differs.
    pub(crate) fn fits(&self, problem: &Problem, seed: u64) -> Result<(), SearchError> {
        let differs = |what: &str| Err(SearchError::Checkpoint(format!("{what} differ")));
        if self.seed != seed {
            return differs("the seeds");
        }
        if self.problem != identity(problem) || self.visited.iter().any(|e| !problem.has(&e.genome)) {
            return differs("the layers, their candidates or the budget");
        }
        Ok(())
    }

    /// The plan of the lowest score, the earliest of equal ones; `None` before the first is scored.
    pub fn best(&self) -> Option<&Evaluated> {
        self.visited.iter().min_by(|a, b| a.cost().total_cmp(&b.cost()))
    }

    /// The plan that the search began with.
    pub fn start(&self) -> Option<&Evaluated> {
        self.visited.first()
    }
}

fn identity(problem: &Problem) -> (Vec<usize>, u64) {
    let numbers = problem.layers().iter().flatten().flat_map(|c| [c.bytes, c.error.to_bits()]);
    let numbers = numbers.chain([problem.budget(), problem.floor()]);
    // FNV-1a over 64-bit words.
    let hash = numbers.fold(0xcbf2_9ce4_8422_2325u64, |h, n| (h ^ n).wrapping_mul(0x0100_0000_01b3));
    (problem.layers().iter().map(Vec::len).collect(), hash)
}
