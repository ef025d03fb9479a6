//! The evolutionary search: the loop, and when it ends.

use std::collections::HashSet;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use crate::operators::Breeder;
use crate::surrogate::Surrogate;
use crate::{Checkpoint, Evaluated, Genome, Operator, Problem, SearchError, allocate};

/// How a search is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchOptions {
    /// Plans that may be parents: the best so far.
    pub population: usize,
    /// Plans that are scored at a time.
    pub children: usize,
    /// Plans that are scored at most.
    pub evaluations: usize,
    /// Plans that are scored without a better one before the search ends.
    pub patience: usize,
    /// Same seed, same search, whatever scores are computed by and in how many threads.
    pub seed: u64,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self { population: 16, children: 4, evaluations: 200, patience: usize::MAX, seed: 0 }
    }
}

/// What gives plans their scores.
pub trait Scorer {
    /// Why it may fail.
    type Error: From<SearchError>;

    /// A score for each of some plans, which do not depend on one another: lower is better, and what is no number is worst.
    ///
    /// # Errors
    /// Whatever keeps it from scoring; the search ends with it.
    fn score(&mut self, plans: &[Genome]) -> Result<Vec<f64>, Self::Error>;

    /// Sees what is known after each generation, and may store it.
    ///
    /// # Errors
    /// Whatever is to end the search.
    fn observe(&mut self, _known: &Checkpoint) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Why a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// As many plans as were allowed are scored.
    Evaluations,
    /// Nothing better was found for a while.
    Stalled,
    /// No plan that is left could be found.
    Exhausted,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The plan of the lowest score.
    pub best: Evaluated,
    /// Score of the plan it began with; [`Outcome::best`] has no higher one.
    pub start: f64,
    /// Plans that were scored, those of the checkpoint included.
    pub evaluations: usize,
    /// Why it ended.
    pub stop: StopReason,
}

/// Candidates for one child: the one of them that promises most is scored.
const LITTER: usize = 48;
/// Of so many children one is taken without being asked what it promises.
const UNASKED: usize = 4;
/// Attempts at a plan that is not known yet.
const ATTEMPTS: usize = 200;

/// Searches for the plan of the lowest score, beginning with the exact allocation of the predicted errors and the plans of `also`.
///
/// 1. Parents are the best plans so far (elite), drawn by tournaments of two. Children come by uniform crossover, mutation (Q-DiT: Chen et al., CVPR
///    2025), exchanges between two layers that keep the size, and shifts of a family of layers; each operator is used in proportion to
///    its success. They are brought back into the budget, and none is scored twice.
/// 2. A Gaussian process over all scores says which of the children promise most, and these are scored; every fourth is taken unasked.
///
/// The scorer is asked for [`SearchOptions::children`] plans at a time. A search that is given what [`Scorer::observe`] saw as `known` goes on
/// as if it had never stopped.
///
/// # Errors
/// What the scorer says, and [`SearchError::Checkpoint`] when `known` is of another search.
pub fn evolve<E: From<SearchError>>(
    problem: &Problem,
    options: &SearchOptions,
    also: &[Genome],
    known: Option<Checkpoint>,
    scorer: &mut dyn Scorer<Error = E>,
) -> Result<Outcome, E> {
    let mut known = match known {
        Some(known) => {
            known.fits(problem, options.seed)?;
            known
        }
        None => Checkpoint::new(problem, options.seed),
    };
    let stop = loop {
        if let Some(stop) = ended(&known, options) {
            break stop;
        }
        let mut children = match known.visited.is_empty() {
            true => first(problem, also)?,
            false => offspring(problem, options, &known),
        };
        if children.is_empty() {
            break StopReason::Exhausted;
        }
        children.truncate(options.evaluations - known.visited.len());
        let (genomes, operators): (Vec<Genome>, Vec<Operator>) = children.into_iter().unzip();
        let scores = scorer.score(&genomes)?;
        if scores.len() != genomes.len() {
            return Err(SearchError::Scores { asked: genomes.len(), got: scores.len() }.into());
        }
        let scored = genomes.into_iter().zip(scores).zip(operators);
        known.visited.extend(scored.map(|((genome, score), operator)| Evaluated {
            genome,
            score: score.is_finite().then_some(score),
            operator,
        }));
        known.generation += 1;
        scorer.observe(&known)?;
    };
    let nothing = || SearchError::Scores { asked: 1, got: 0 };
    let best = known.best().ok_or_else(nothing)?.clone();
    let start = known.start().ok_or_else(nothing)?.cost();
    Ok(Outcome { best, start, evaluations: known.visited.len(), stop })
}

fn ended(known: &Checkpoint, options: &SearchOptions) -> Option<StopReason> {
    if known.visited.len() >= options.evaluations.max(1) {
        return Some(StopReason::Evaluations);
    }
    let best = known.best()?.cost();
    let at = known.visited.iter().position(|e| e.cost() == best)?;
    (known.visited.len() - 1 - at >= options.patience).then_some(StopReason::Stalled)
}

/// The plans that a search begins with: the exact allocation, and those that are given.
fn first(problem: &Problem, also: &[Genome]) -> Result<Vec<(Genome, Operator)>, SearchError> {
    let exact = allocate(problem.layers(), problem.budget())?.choice;
    let exact: Genome = exact.into_iter().map(|c| c as u16).collect();
    let mut seen = HashSet::from([exact.clone()]);
    let fits = |g: &&Genome| problem.has(g) && problem.bytes(g) <= problem.budget();
    let others: Vec<&Genome> = also.iter().filter(fits).filter(|&g| seen.insert(g.clone())).collect();
    Ok(std::iter::once(exact).chain(others.into_iter().cloned()).map(|g| (g, Operator::Start)).collect())
}

/// The plans to score next; fewer than asked for where no more can be found.
fn offspring(problem: &Problem, options: &SearchOptions, known: &Checkpoint) -> Vec<(Genome, Operator)> {
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    random.set_stream(known.generation);
    let breeder = Breeder::new(problem, known, options.population);
    let mut seen: HashSet<Genome> = known.visited.iter().map(|e| e.genome.clone()).collect();
    let litter = if problem.layers().is_empty() { 0 } else { options.children.max(1) * LITTER };
    let mut pool = Vec::with_capacity(litter);
    for _ in 0..litter {
        let new = (0..ATTEMPTS).map(|_| breeder.child(&mut random)).find(|(g, _)| !seen.contains(g));
        let Some(child) = new else { break };
        seen.insert(child.0.clone());
        pool.push(child);
    }
    chosen(problem, options, known, pool)
}

/// The children of a pool that are scored: most of them by what they promise.
fn chosen(
    problem: &Problem,
    options: &SearchOptions,
    known: &Checkpoint,
    pool: Vec<(Genome, Operator)>,
) -> Vec<(Genome, Operator)> {
    let count = options.children.max(1);
    let Some(surrogate) = Surrogate::new(problem, &known.visited) else {
        return pool.into_iter().take(count).collect();
    };
    let promise = |genome: &Genome| surrogate.expected_improvement(genome);
    let mut rated: Vec<_> = pool.into_iter().map(|child| (promise(&child.0), child)).collect();
    let unasked = rated.split_off(rated.len().saturating_sub(count / UNASKED));
    rated.sort_by(|a, b| b.0.total_cmp(&a.0));
    rated.truncate(count - unasked.len());
    rated.into_iter().chain(unasked).map(|(_, child)| child).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Candidate;
    use rand::RngExt;

    /// 6 layers of 4 candidates whose errors do not add up: every pair of layers has a table of its own.
    struct Interacting {
        own: Vec<[f64; 4]>,
        pairs: Vec<[[f64; 4]; 4]>,
    }

    impl Interacting {
        fn new(seed: u64) -> Self {
            let mut random = ChaCha8Rng::seed_from_u64(1000 + seed);
            let own = (0..6).map(|_| std::array::from_fn(|_| random.random_range(0.0..1.0))).collect();
            let table = |random: &mut ChaCha8Rng| {
                std::array::from_fn(|_| std::array::from_fn(|_| random.random_range(0.0..0.7)))
            };
            Self { own, pairs: (0..15).map(|_| table(&mut random)).collect() }
        }

        fn score(&self, genome: &[u16]) -> f64 {
            let own: f64 = genome.iter().zip(&self.own).map(|(&g, own)| own[usize::from(g)]).sum();
            let pairs = (0..6).flat_map(|i| (0..i).map(move |j| (i, j))).zip(&self.pairs);
            own + pairs
                .map(|((i, j), table)| table[usize::from(genome[i])][usize::from(genome[j])])
                .sum::<f64>()
        }

        /// Bytes rise with the candidate; what is predicted is the layer's own part alone.
        fn problem(&self, budget: u64) -> Problem {
            let layer = |own: &[f64; 4]| {
                own.iter().zip(1..).map(|(&error, bytes)| Candidate::new(bytes, error)).collect()
            };
            Problem::new(self.own.iter().map(layer).collect(), 0, budget).expect("good")
        }

        fn optimum(&self, problem: &Problem) -> f64 {
            let genomes = (0..4096u32).map(|n| (0..6).map(|i| (n >> (2 * i) & 3) as u16).collect::<Genome>());
            let allowed = genomes.filter(|g| problem.bytes(g) <= problem.budget());
            allowed.map(|g| self.score(&g)).fold(f64::INFINITY, f64::min)
        }

        fn search(&self, problem: &Problem, options: &SearchOptions) -> Outcome {
            let mut scorer = Plain { score: |g: &Genome| self.score(g), stored: Vec::new() };
            evolve(problem, options, &[], None, &mut scorer).expect("it ends")
        }
    }

    /// Scores plans one by one, and keeps what it observes.
    struct Plain<F> {
        score: F,
        stored: Vec<String>,
    }

    impl<F: FnMut(&Genome) -> f64> Scorer for Plain<F> {
        type Error = SearchError;

        fn score(&mut self, plans: &[Genome]) -> Result<Vec<f64>, SearchError> {
            Ok(plans.iter().map(&mut self.score).collect())
        }

        fn observe(&mut self, known: &Checkpoint) -> Result<(), SearchError> {
            self.stored.push(serde_json::to_string(known).expect("it has a form"));
            Ok(())
        }
    }

    /// Evaluations until the optimum was found.
    fn evaluations(seed: u64, budget: u64) -> usize {
        let case = Interacting::new(seed);
        let problem = case.problem(budget);
        let optimum = case.optimum(&problem) + 1e-12;
        let (mut scored, mut found) = (0, None);
        let score = |g: &Genome| {
            scored += 1;
            let score = case.score(g);
            found = found.or((score <= optimum).then_some(scored));
            score
        };
        let options = SearchOptions { evaluations: 400, patience: 150, seed, ..Default::default() };
        let mut scorer = Plain { score, stored: Vec::new() };
        evolve(&problem, &options, &[], None, &mut scorer).expect("it ends");
        found
            .unwrap_or_else(|| panic!("seed {seed}, budget {budget}: nothing as good as {optimum} was found"))
    }

    /// Run with `--nocapture` to see after how many evaluations.
    #[test]
    fn the_optimum_of_an_interacting_score_is_found_within_400_evaluations() {
        for budget in [24, 15] {
            let mut all: Vec<usize> = (0..20).map(|seed| evaluations(seed, budget)).collect();
            all.sort_unstable();
            println!("budget {budget}: 20 of 20, median {}, most {}", all[10], all[19]);
        }
    }

    #[test]
    fn it_is_never_worse_than_it_begins_and_a_seed_says_all() {
        let case = Interacting::new(7);
        let problem = case.problem(14);
        let options = SearchOptions { evaluations: 30, seed: 3, ..Default::default() };
        let (once, again) = (case.search(&problem, &options), case.search(&problem, &options));
        assert_eq!(once, again);
        assert!(once.best.cost() <= once.start);
        assert_eq!((once.evaluations, once.stop), (30, StopReason::Evaluations));
        assert!(problem.bytes(&once.best.genome) <= 14);
        let other = case.search(&problem, &SearchOptions { seed: 4, ..options });
        assert_eq!(other.start, once.start);
    }

    #[test]
    fn a_search_goes_on_from_any_checkpoint_as_if_it_had_not_stopped() {
        let case = Interacting::new(5);
        let problem = case.problem(16);
        let options = SearchOptions { evaluations: 40, ..Default::default() };
        let mut scorer = Plain { score: |g: &Genome| case.score(g), stored: Vec::new() };
        let whole = evolve(&problem, &options, &[], None, &mut scorer).expect("it ends");
        let stored = std::mem::take(&mut scorer.stored);
        for text in &stored {
            let known = serde_json::from_str(text).expect("it was written");
            let rest = evolve(&problem, &options, &[], Some(known), &mut scorer);
            assert_eq!(rest.expect("it ends"), whole);
        }
        let known = serde_json::from_str(&stored[0]).expect("it was written");
        let refused = evolve(&case.problem(17), &options, &[], Some(known), &mut scorer);
        assert!(matches!(refused, Err(SearchError::Checkpoint(_))));
    }

    #[test]
    fn no_plan_is_scored_twice_and_none_exceeds_the_budget() {
        let case = Interacting::new(2);
        let problem = case.problem(12);
        let mut seen = HashSet::new();
        let score = |g: &Genome| {
            assert!(seen.insert(g.clone()) && problem.bytes(g) <= 12, "{g:?}");
            case.score(g)
        };
        let options = SearchOptions { evaluations: 300, ..Default::default() };
        evolve(&problem, &options, &[], None, &mut Plain { score, stored: Vec::new() }).expect("it ends");
    }

    #[test]
    fn it_stops_when_nothing_is_left_or_nothing_gets_better() {
        let layer = vec![Candidate::new(1, 1.0), Candidate::new(2, 0.0)];
        let problem = Problem::new(vec![layer.clone(), layer], 0, 4).expect("good");
        let mut constant = Plain { score: |_: &Genome| f64::NAN, stored: Vec::new() };
        let all = SearchOptions { evaluations: 100, ..Default::default() };
        let found = evolve(&problem, &all, &[], None, &mut constant).expect("it ends");
        assert_eq!((found.evaluations, found.stop, found.best.score), (4, StopReason::Exhausted, None));
        let patient = SearchOptions { patience: 2, children: 1, ..all };
        let found = evolve(&problem, &patient, &[], None, &mut constant);
        assert_eq!(found.map(|f| f.stop), Ok(StopReason::Stalled));
    }

    struct Silent;

    impl Scorer for Silent {
        type Error = SearchError;
        fn score(&mut self, _: &[Genome]) -> Result<Vec<f64>, SearchError> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn a_scorer_that_says_nothing_ends_the_search() {
        let problem = Interacting::new(0).problem(24);
        let found = evolve(&problem, &SearchOptions::default(), &[], None, &mut Silent);
        assert_eq!(found, Err(SearchError::Scores { asked: 1, got: 0 }));
        let nothing = Problem::new(Vec::new(), 0, 0).expect("good");
        let mut scorer = Plain { score: |_: &Genome| 1.0, stored: Vec::new() };
        let found = evolve(&nothing, &SearchOptions::default(), &[], None, &mut scorer).expect("it ends");
        assert_eq!((found.evaluations, found.stop), (1, StopReason::Exhausted));
    }
}
