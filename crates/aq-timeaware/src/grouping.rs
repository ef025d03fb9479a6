//! Cuts of a sequence of timestep buckets into groups of neighbours.

use std::ops::Range;

/// Groups of neighbouring buckets: where each begins, and where the last ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundaries {
    starts: Vec<usize>,
    buckets: usize,
}

impl Boundaries {
    /// All buckets in one group.
    pub fn whole(buckets: usize) -> Self {
        Self { starts: vec![0], buckets }
    }

    /// The first bucket of each group but the first, rising.
    pub fn cuts(&self) -> &[usize] {
        &self.starts[1..]
    }

    /// The buckets of each group, in order.
    ///
    /// ```
    /// let groups: Vec<_> = aq_timeaware::uniform_groups(5, 2).ranges().collect();
    /// assert_eq!(groups, [0..2, 2..5]);
    /// ```
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let ends = self.cuts().iter().copied().chain([self.buckets]);
        self.starts.iter().copied().zip(ends).map(|(start, end)| start..end)
    }

    /// Number of groups, at least 1.
    pub fn count(&self) -> usize {
        self.starts.len()
    }
}

/// The cut into at most `groups` groups of least total cost; `cost(first, end)` is that of the buckets `first .. end` together.
///
/// ```text
/// best[g][j] = min over i of best[g - 1][i] + cost(i, j)
/// ```
///
/// Exact, in `O(buckets^2 * groups)` after one call of `cost` for each pair (Bellman, On the approximation of curves by line
/// segments using dynamic programming, CACM 1961). Of equal cuts the one of fewer groups wins, then the one whose last groups begin
/// earliest. A cost that is NaN is never chosen where another is.
///
/// ```
/// let values = [1.0_f64, 1.1, 9.0, 9.2, 9.1];
/// let spread = |i: usize, j: usize| {
///     let part = &values[i..j];
///     part.iter().copied().fold(0.0, f64::max) - part.iter().copied().fold(f64::MAX, f64::min)
/// };
/// assert_eq!(aq_timeaware::optimal_groups(&spread, 5, 2).cuts(), [2]);
/// ```
pub fn optimal_groups(cost: &dyn Fn(usize, usize) -> f64, buckets: usize, groups: usize) -> Boundaries {
    let n = buckets;
    if n < 2 || groups < 2 {
        return Boundaries::whole(buckets);
    }
    let costs: Vec<f64> =
        (0..n).flat_map(|i| (1..=n).map(move |j| if i < j { cost(i, j) } else { 0.0 })).collect();
    let mut layers = vec![Layer { best: (0..n).map(|j| costs[j]).collect(), from: vec![0; n] }];
    for _ in 1..groups.min(n) {
        let next = layers[layers.len() - 1].next(&costs);
        layers.push(next);
    }
    let total = |layer: &Layer| layer.best[n - 1];
    let fewest =
        (1..layers.len()).fold(0, |best, g| if total(&layers[g]) < total(&layers[best]) { g } else { best });
    let mut starts = Vec::with_capacity(fewest + 1);
    let mut end = n;
    for layer in layers[..=fewest].iter().rev() {
        end = layer.from[end - 1];
        starts.push(end);
    }
    starts.reverse();
    Boundaries { starts, buckets }
}

/// Groups of as equal length as can be: group `g` of `groups` begins at bucket `floor(g * buckets / groups)`.
///
/// ```
/// assert_eq!(aq_timeaware::uniform_groups(10, 4).cuts(), [2, 5, 7]);
/// assert_eq!(aq_timeaware::uniform_groups(2, 4).count(), 2, "never more groups than buckets");
/// ```
pub fn uniform_groups(buckets: usize, groups: usize) -> Boundaries {
    let groups = groups.clamp(1, buckets.max(1));
    Boundaries { starts: (0..groups).map(|g| g * buckets / groups).collect(), buckets }
}

/// The best cuts of the first buckets into so many groups.
struct Layer {
    /// Cost of the buckets up to and with `j`.
    best: Vec<f64>,
    /// Where the last group begins then.
    from: Vec<usize>,
}

impl Layer {
    /// The cuts into one group more. `costs[i * n + j]` is that of the buckets `i ..= j`.
    fn next(&self, costs: &[f64]) -> Self {
        let n = self.best.len();
        let (mut best, mut from) = (vec![f64::INFINITY; n], vec![0; n]);
        for j in 1..n {
            for i in 1..=j {
                let total = self.best[i - 1] + costs[i * n + j];
                if total < best[j] {
                    (best[j], from[j]) = (total, i);
                }
            }
        }
        Self { best, from }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The least cost over all cuts into at most `groups` groups.
    fn brute_force(cost: &dyn Fn(usize, usize) -> f64, first: usize, n: usize, groups: usize) -> f64 {
        let whole = cost(first, n);
        if groups == 1 {
            return whole;
        }
        let cut = |end: usize| cost(first, end) + brute_force(cost, end, n, groups - 1);
        (first + 1..n).map(cut).fold(whole, f64::min)
    }

    fn total(cost: &dyn Fn(usize, usize) -> f64, groups: &Boundaries) -> f64 {
        groups.ranges().map(|r| cost(r.start, r.end)).sum()
    }

    proptest! {
        #[test]
        fn no_cut_is_better(values in proptest::collection::vec(0u16..1000, 1..9), groups in 1usize..5) {
            let n = values.len();
            // A cost without structure: neither more nor longer groups are always better.
            let cost = |i: usize, j: usize| {
                let sum: u32 = values[i..j].iter().map(|&v| u32::from(v)).sum();
                f64::from((sum * 7919 + (j - i) as u32 * 104_729) % 1009)
            };
            let found = optimal_groups(&cost, n, groups);
            prop_assert_eq!(total(&cost, &found), brute_force(&cost, 0, n, groups));
            let ends: Vec<_> = found.ranges().collect();
            prop_assert!(ends.iter().all(|r| !r.is_empty()) && found.count() <= groups);
            prop_assert_eq!((ends[0].start, ends[ends.len() - 1].end), (0, n));
        }

        #[test]
        fn never_worse_than_equal_lengths(values in proptest::collection::vec(0.0f64..9.0, 1..20), groups in 1usize..12) {
            let cost = |i: usize, j: usize| {
                let part = &values[i..j];
                let top = part.iter().copied().fold(0.0, f64::max);
                top * top * (j - i) as f64
            };
            let best = total(&cost, &optimal_groups(&cost, values.len(), groups));
            let uniform = total(&cost, &uniform_groups(values.len(), groups));
            prop_assert!(best <= uniform * (1.0 + 1e-12), "{} {}", best, uniform);
        }
    }

    #[test]
    fn ties_take_fewer_groups_and_early_cuts() {
        assert_eq!(optimal_groups(&|_, _| 0.0, 6, 4).cuts(), [] as [usize; 0]);
        let pairs = |i: usize, j: usize| if j - i > 3 { 1.0 } else { 0.0 };
        assert_eq!(optimal_groups(&pairs, 5, 2).cuts(), [2]);
        assert_eq!(optimal_groups(&pairs, 0, 2).ranges().collect::<Vec<_>>(), vec![0..0; 1]);
    }
}
