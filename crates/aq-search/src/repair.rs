//! Brings a plan back into the budget.

use rand::rngs::ChaCha8Rng;

use crate::operators::shuffled;
use crate::{Genome, Problem};

/// Takes bytes from the layers where that adds least to the predicted error, until the plan fits the budget; then, below the
/// floor, gives them where that takes most away. Layers that were `changed` on purpose come last.
pub(crate) fn repair(problem: &Problem, genome: &mut Genome, changed: &[bool], random: &mut ChaCha8Rng) {
    if (problem.floor()..=problem.budget()).contains(&problem.bytes(genome)) {
        return;
    }
    // Among equal layers the first one is taken, so the order is random.
    let order = shuffled(genome.len(), random);
    let (others, own): (Vec<usize>, Vec<usize>) = order.into_iter().partition(|&layer| !changed[layer]);
    for layers in [&others, &own] {
        while problem.bytes(genome) > problem.budget() {
            let Some((layer, gene)) = cheapest(problem, genome, layers) else { break };
            genome[layer] = gene;
        }
    }
    for layers in [&others, &own] {
        while problem.bytes(genome) < problem.floor() {
            let left = problem.budget() - problem.bytes(genome);
            let Some((layer, gene)) = dearest(problem, genome, layers, left) else { break };
            genome[layer] = gene;
        }
    }
}

/// The smaller candidate that adds least to the error for each byte it saves.
fn cheapest(problem: &Problem, genome: &[u16], layers: &[usize]) -> Option<(usize, u16)> {
    let steps = steps(problem, genome, layers).filter(|step| step.bytes < 0);
    let cost = |step: &Step| step.error / -(step.bytes as f64);
    steps.min_by(|a, b| cost(a).total_cmp(&cost(b))).map(|step| (step.layer, step.gene))
}

/// The larger candidate of at most `left` more bytes that takes most from the error for each of them.
fn dearest(problem: &Problem, genome: &[u16], layers: &[usize], left: u64) -> Option<(usize, u16)> {
    let fits = |step: &Step| step.bytes > 0 && step.bytes as u64 <= left;
    let cost = |step: &Step| step.error / step.bytes as f64;
    let steps = steps(problem, genome, layers).filter(fits);
    steps.min_by(|a, b| cost(a).total_cmp(&cost(b))).map(|step| (step.layer, step.gene))
}

/// A change of one gene: what it adds to bytes and error.
struct Step {
    layer: usize,
    gene: u16,
    bytes: i64,
    error: f64,
}

fn steps<'a>(
    problem: &'a Problem,
    genome: &'a [u16],
    layers: &'a [usize],
) -> impl Iterator<Item = Step> + 'a {
    layers.iter().flat_map(move |&layer| {
        let candidates = &problem.layers()[layer];
        let own = candidates[usize::from(genome[layer])];
        candidates.iter().zip(0u16..).map(move |(c, gene)| {
            let bytes = c.bytes as i64 - own.bytes as i64;
            Step { layer, gene, bytes, error: c.error - own.error }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Candidate;
    use proptest::prelude::*;
    use rand::SeedableRng;

    proptest! {
        #[test]
        fn repaired_plans_fit(
            layers in prop::collection::vec(prop::collection::vec((1u64..50, 0.0f64..9.0), 1..6), 1..9),
            share in 0.0f64..1.0,
            seed in 0u64..9,
        ) {
            let layers: Vec<Vec<Candidate>> =
                layers.iter().map(|l| l.iter().map(|&(b, e)| Candidate::new(b, e)).collect()).collect();
            let ends = |of: fn(&Vec<Candidate>) -> Option<u64>| layers.iter().filter_map(of).sum::<u64>();
            let (least, most) = (ends(|l| l.iter().map(|c| c.bytes).min()), ends(|l| l.iter().map(|c| c.bytes).max()));
            let budget = least + ((most - least) as f64 * share) as u64;
            let problem = Problem::new(layers, budget, budget).expect("it fits");
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            for largest in [true, false] {
                let end = |l: &Vec<Candidate>| {
                    let by_bytes = |i: &usize| if largest { l[*i].bytes as i64 } else { -(l[*i].bytes as i64) };
                    (0..l.len()).max_by_key(by_bytes).unwrap_or(0) as u16
                };
                let mut genome: Genome = problem.layers().iter().map(end).collect();
                let changed = vec![false; genome.len()];
                repair(&problem, &mut genome, &changed, &mut random);
                prop_assert!(problem.bytes(&genome) <= budget);
                // Filled up as far as any single larger candidate goes.
                let all: Vec<usize> = (0..genome.len()).collect();
                let left = budget - problem.bytes(&genome);
                prop_assert!(left == 0 || dearest(&problem, &genome, &all, left).is_none());
            }
        }
    }

    #[test]
    fn bytes_are_taken_where_that_costs_least() {
        let layer = |error: f64| vec![Candidate::new(10, error), Candidate::new(20, 0.0)];
        let problem = Problem::new(vec![layer(5.0), layer(1.0), layer(3.0)], 0, 50).expect("it fits");
        let mut random = ChaCha8Rng::seed_from_u64(0);
        let repaired = |changed: [bool; 3], random: &mut ChaCha8Rng| {
            let mut genome = vec![1, 1, 1];
            repair(&problem, &mut genome, &changed, random);
            genome
        };
        assert_eq!(repaired([false; 3], &mut random), [1, 0, 1]);
        assert_eq!(repaired([false, true, false], &mut random), [1, 1, 0]);
    }
}
