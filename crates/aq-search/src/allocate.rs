//! The plan of the least error in so many bytes, and its dual.

use crate::exact::{Item, minimize};
use crate::problem::check;
use crate::{Candidate, SearchError};

/// A candidate for each layer, and how near it is to the best there is.
#[derive(Debug, Clone, PartialEq)]
pub struct Allocation {
    /// Index of the candidate of each layer.
    pub choice: Vec<usize>,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Sum of their errors.
    pub error: f64,
    /// What is minimised (the error, or the bytes) cannot be less than this in any plan that is allowed.
    pub bound: f64,
    minimized: f64,
}

impl Allocation {
    /// How much less the sum that is minimised may be at best, in parts of it; 0 where the plan is proven to be the best.
    pub fn gap(&self) -> f64 {
        let gap = self.minimized - self.bound;
        if gap <= 1e-9 * self.minimized.abs() { 0.0 } else { gap / self.minimized.abs() }
    }
}

/// The choice of one candidate for each layer with the least sum of errors among those of at most `budget` bytes.
///
/// ```text
/// minimise sum_i error[i][c_i]    subject to  sum_i bytes[i][c_i] <= budget
/// ```
///
/// This is the multiple-choice knapsack problem. Its linear relaxation is solved by a walk along the lower convex hulls of the layers in
/// the order of falling slopes (Sinha and Zoltners, Operations Research 27, 1979), which gives a Lagrange multiplier, a bound, and a first plan. What
/// a plan may lose against the bound leaves few candidates; their combinations are listed layer by layer without the dominated ones
/// (Dyer, Kayal and Walker, 1984). When the list grows beyond 16,384 the least promising are dropped and the bound says what that may cost.
///
/// # Errors
/// [`SearchError::Budget`] when the smallest candidates do not fit, or when a layer has no candidates or an error is no number.
pub fn allocate(layers: &[Vec<Candidate>], budget: u64) -> Result<Allocation, SearchError> {
    check(layers)?;
    let item = |c: &Candidate| Item { weight: c.bytes as f64, value: c.error };
    match minimize(&items(layers, item), budget as f64) {
        Some((choice, bound)) => Ok(summed(layers, choice, bound, |_, error| error)),
        None => {
            let least = layers.iter().filter_map(|layer| layer.iter().map(|c| c.bytes).min()).sum();
            Err(SearchError::Budget { least, budget })
        }
    }
}

/// The choice of one candidate for each layer with the fewest bytes among those whose errors add up to at most `limit`: [`allocate`]
/// with the parts of bytes and errors exchanged. The sum may exceed the limit by rounding, a billionth of it.
///
/// # Errors
/// [`SearchError::Limit`] when the best candidates err more, or when a layer has no candidates or an error is no number.
///
/// ```
/// use aq_search::{Candidate, fewest_bytes};
/// let layer = vec![Candidate::new(100, 0.5), Candidate::new(200, 0.1)];
/// let plan = fewest_bytes(&[layer.clone(), layer], 0.7)?;
/// assert_eq!((plan.bytes, plan.error), (300, 0.6));
/// # Ok::<(), aq_search::SearchError>(())
/// ```
pub fn fewest_bytes(layers: &[Vec<Candidate>], limit: f64) -> Result<Allocation, SearchError> {
    check(layers)?;
    let item = |c: &Candidate| Item { weight: c.error, value: c.bytes as f64 };
    match minimize(&items(layers, item), limit * (1.0 + 1e-9)) {
        Some((choice, bound)) => Ok(summed(layers, choice, bound, |bytes, _| bytes)),
        None => {
            let best = |layer: &Vec<Candidate>| layer.iter().map(|c| c.error).min_by(f64::total_cmp);
            Err(SearchError::Limit { least: layers.iter().filter_map(best).sum(), limit })
        }
    }
}

fn items(layers: &[Vec<Candidate>], item: impl Fn(&Candidate) -> Item) -> Vec<Vec<Item>> {
    layers.iter().map(|layer| layer.iter().map(&item).collect()).collect()
}

fn summed(
    layers: &[Vec<Candidate>],
    choice: Vec<usize>,
    bound: f64,
    minimized: impl Fn(f64, f64) -> f64,
) -> Allocation {
    let chosen = || layers.iter().zip(&choice).map(|(layer, &c)| layer[c]);
    let bytes = chosen().map(|c| c.bytes).sum();
    let error = chosen().map(|c| c.error).sum();
    Allocation { bytes, error, bound, minimized: minimized(bytes as f64, error), choice }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layers(
        count: std::ops::Range<usize>,
        candidates: usize,
    ) -> impl Strategy<Value = Vec<Vec<Candidate>>> {
        let candidate = (0u64..60, 0u32..50).prop_map(|(bytes, e)| Candidate::new(bytes, f64::from(e) / 8.0));
        prop::collection::vec(prop::collection::vec(candidate, 1..=candidates), count)
    }

    /// Bytes and error of every plan.
    fn all(layers: &[Vec<Candidate>]) -> Vec<(u64, f64)> {
        layers.iter().fold(vec![(0, 0.0)], |plans, layer| {
            let add = |&(bytes, error): &(u64, f64)| {
                layer.iter().map(move |c| (bytes + c.bytes, error + c.error)).collect::<Vec<_>>()
            };
            plans.iter().flat_map(add).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_least_error_is_that_of_all_plans(layers in layers(0..6, 5), budget in 0u64..240) {
            let best = all(&layers).into_iter().filter(|p| p.0 <= budget).map(|p| p.1).min_by(f64::total_cmp);
            match (allocate(&layers, budget), best) {
                (Ok(found), Some(best)) => {
                    prop_assert_eq!(found.error, best);
                    prop_assert_eq!(found.gap(), 0.0);
                    prop_assert!(found.bytes <= budget);
                }
                (Err(SearchError::Budget { .. }), None) => {}
                (found, best) => prop_assert!(false, "{found:?} where {best:?} is best"),
            }
        }

        #[test]
        fn the_fewest_bytes_are_those_of_all_plans(layers in layers(0..6, 5), limit in 0u32..160) {
            let limit = f64::from(limit) / 8.0;
            let best = all(&layers).into_iter().filter(|p| p.1 <= limit).map(|p| p.0).min();
            match (fewest_bytes(&layers, limit), best) {
                (Ok(found), Some(best)) => {
                    prop_assert_eq!(found.bytes, best);
                    prop_assert!(found.error <= limit);
                }
                (Err(SearchError::Limit { .. }), None) => {}
                (found, best) => prop_assert!(false, "{found:?} where {best:?} is best"),
            }
        }

        #[test]
        fn bounds_hold_for_larger_problems(layers in layers(12..13, 4), budget in 100u64..500) {
            let Ok(found) = allocate(&layers, budget) else { return Ok(()) };
            // Least error by dynamic programming over bytes.
            let mut least = vec![0.0; budget as usize + 1];
            for layer in &layers {
                let at = |bytes: usize| {
                    let with = |c: &Candidate| bytes.checked_sub(c.bytes as usize).map(|b| least[b] + c.error);
                    layer.iter().filter_map(with).fold(f64::INFINITY, f64::min)
                };
                least = (0..=budget as usize).map(at).collect();
            }
            prop_assert_eq!(found.error, least[budget as usize]);
            prop_assert!(found.bound <= found.error + 1e-9);
        }
    }

    /// Layers like those of a large model: errors fall by 4 a bit, layers differ 500-fold, sizes by 100.
    fn like_a_model(count: usize) -> Vec<Vec<Candidate>> {
        let layer = |i: usize| {
            let weights = 1000 + (i * 7919) % 99_000;
            let damage = 500f64.powf(((i * 104_729) % 1000) as f64 / 1000.0);
            let candidate = |c: usize| {
                let bits = 2.0 + (c as f64) / 4.0 + ((i * c) % 7) as f64 / 100.0;
                Candidate::new((weights as f64 * bits / 8.0) as u64, damage * 4f64.powf(-bits))
            };
            (0..20).map(candidate).collect()
        };
        (0..count).map(layer).collect()
    }

    #[test]
    fn large_problems_are_near_their_bound() {
        let layers = like_a_model(500);
        let smallest: u64 = layers.iter().map(|l| l.iter().map(|c| c.bytes).min().unwrap_or(0)).sum();
        for factor in [1.05, 1.3, 1.9] {
            let budget = (smallest as f64 * factor) as u64;
            let found = allocate(&layers, budget).expect("it fits");
            assert!(found.bytes <= budget && found.bytes as f64 > budget as f64 * 0.999);
            assert!(found.bound <= found.error);
            assert!(found.gap() < 1e-4, "{factor}: {}", found.gap());
        }
    }

    #[test]
    fn what_cannot_be_met_is_said() {
        let layers = [vec![Candidate::new(10, 1.0)], vec![Candidate::new(20, 2.0)]];
        assert_eq!(allocate(&layers, 29), Err(SearchError::Budget { least: 30, budget: 29 }));
        assert_eq!(fewest_bytes(&layers, 2.5), Err(SearchError::Limit { least: 3.0, limit: 2.5 }));
        assert_eq!(allocate(&[], 0).map(|a| a.bytes), Ok(0));
    }
}
