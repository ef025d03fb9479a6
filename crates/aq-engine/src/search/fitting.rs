//! Which of the plans that were scored is taken: the best whose output has the size that was asked for.

use aq_search::{Evaluated, Genome, Problem, SearchError};

use crate::Result;

/// Outputs that are written to see their size.
const TRIES: usize = 4;

/// The plan of the lowest score whose output has at most `goal` bytes by `output_bytes`.
///
/// The budget of a search is about layers. What a file says of them besides, such as the ranges of time groups, differs from plan to plan, so an
/// output may be a little too large. The next one is then taken that is smaller by at least the excess; after some of these the plan that the
/// search began with, whose size is known.
///
/// # Errors
/// Those of `output_bytes`.
pub(super) fn best(
    problem: &Problem,
    visited: &[Evaluated],
    goal: u64,
    mut output_bytes: impl FnMut(&Genome) -> Result<u64>,
) -> Result<Evaluated> {
    let mut by_score: Vec<&Evaluated> = visited.iter().collect();
    by_score.sort_by(|a, b| a.cost().total_cmp(&b.cost()));
    let mut most = problem.budget();
    for _ in 0..TRIES {
        let Some(&next) = by_score.iter().find(|e| problem.bytes(&e.genome) <= most) else { break };
        let excess = output_bytes(&next.genome)?.saturating_sub(goal);
        if excess == 0 {
            return Ok(next.clone());
        }
        most = problem.bytes(&next.genome).saturating_sub(excess);
    }
    Ok(visited.first().ok_or(SearchError::Scores { asked: 1, got: 0 })?.clone())
}

#[cfg(test)]
mod tests {
    use aq_search::{Candidate, Operator};

    use super::*;

    fn visited(genome: [u16; 2], score: f64) -> Evaluated {
        Evaluated { genome: genome.to_vec(), score: Some(score), operator: Operator::Start }
    }

    #[test]
    fn the_best_plan_of_the_size_is_taken() {
        let layer: Vec<Candidate> = (0..4).map(|b| Candidate::new(10 + b, 1.0)).collect();
        let problem = Problem::new(vec![layer.clone(), layer], 0, 26).expect("good");
        let all = [visited([3, 3], 9.0), visited([3, 2], 5.0), visited([2, 3], 4.0), visited([1, 1], 6.0)];
        let choose = |goal: u64, beside: u64| {
            let bytes = |genome: &Genome| Ok(problem.bytes(genome) + beside);
            best(&problem, &all, goal, bytes).expect("one is there").cost()
        };
        assert_eq!(choose(126, 100), 4.0);
        assert_eq!(choose(126, 101), 4.0);
        assert_eq!(choose(126, 102), 6.0, "two bytes too many");
        assert_eq!(choose(126, 200), 9.0, "nothing fits but what it began with");
    }
}
