//! The best choice of one item of each class within a limit of weight.

use crate::relaxed::{Relaxed, relaxed};

/// A candidate as the allocation sees it: both numbers are to be small, one is limited.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Item {
    /// Sums of weights are limited.
    pub(crate) weight: f64,
    /// The sum of values is minimised.
    pub(crate) value: f64,
}

/// The most partial plans that are kept at a time.
const MOST: usize = 1 << 14;

/// The items with the least sum of values whose weights add up to at most `limit`, and a bound: no such choice has a smaller sum.
/// `None` when the lightest items exceed the limit.
///
/// With the multiplier `m` of the relaxation the reduced cost of an item is `value + m weight` above the least of its class. A plan
/// of weight `w` has a value of `bound + sum of reduced costs + m (limit - w)`, so all that is
/// better than a known plan has reduced costs that add up to less than what that lies above the bound.
pub(crate) fn minimize(classes: &[Vec<Item>], limit: f64) -> Option<(Vec<usize>, f64)> {
    let first = relaxed(classes, limit)?;
    let known: f64 = value(classes, &first.choice);
    let gap = known - first.bound;
    if gap <= 1e-12 * known.abs() {
        return Some((first.choice, known.min(first.bound)));
    }
    let mut search = Search::new(classes, &first, limit, gap);
    for place in 0..search.order.len() {
        search.extend(place);
    }
    let bound = first.bound + search.dropped;
    match search.best() {
        Some(choice) if value(classes, &choice) < known => {
            let best = value(classes, &choice);
            Some((choice, best.min(bound)))
        }
        _ => Some((first.choice, known.min(bound))),
    }
}

fn value(classes: &[Vec<Item>], choice: &[usize]) -> f64 {
    classes.iter().zip(choice).map(|(class, &i)| class[i].value).sum()
}

/// An item that a better plan may have.
struct Kept {
    index: usize,
    item: Item,
    reduced: f64,
}

/// A choice for the first classes.
#[derive(Clone, Copy)]
struct Partial {
    weight: f64,
    value: f64,
    reduced: f64,
    /// Its last choice, in the list of all choices.
    step: u32,
}

struct Search {
    /// Items that a better plan may have.
    classes: Vec<Vec<Kept>>,
    /// Classes with more than one such item; the others are in the first partial plan.
    order: Vec<usize>,
    /// Least and greatest weight of what follows each place of the order.
    following: Vec<(f64, f64)>,
    limit: f64,
    multiplier: f64,
    /// A better plan has a smaller sum of reduced costs.
    gap: f64,
    plans: Vec<Partial>,
    /// Class place, item and previous step of every choice.
    steps: Vec<(u32, u32, u32)>,
    /// The smallest reduced cost of a plan that was dropped for want of room; infinite where none was.
    dropped: f64,
}

const START: u32 = u32::MAX;

impl Search {
    fn new(classes: &[Vec<Item>], first: &Relaxed, limit: f64, gap: f64) -> Self {
        let multiplier = first.multiplier;
        let kept: Vec<Vec<Kept>> = classes.iter().map(|class| kept(class, multiplier, gap)).collect();
        let mut order: Vec<usize> = (0..kept.len()).filter(|&class| kept[class].len() > 1).collect();
        // Classes whose items differ most in cost decide most, so they come first and later ones have fewer plans to extend.
        let second = |class: usize| {
            let least = |so_far: (f64, f64), k: &Kept| match k.reduced {
                r if r < so_far.0 => (r, so_far.0),
                r => (so_far.0, so_far.1.min(r)),
            };
            kept[class].iter().fold((f64::INFINITY, f64::INFINITY), least).1
        };
        order.sort_by(|&a, &b| second(b).total_cmp(&second(a)));
        let mut following = vec![(0.0, 0.0)];
        for &class in order.iter().rev() {
            let weights = kept[class].iter().map(|k| k.item.weight);
            let (low, high) = weights.fold((f64::INFINITY, 0.0f64), |(l, h), w| (l.min(w), h.max(w)));
            let (after_low, after_high) = following[following.len() - 1];
            following.push((after_low + low, after_high + high));
        }
        following.reverse();
        let fixed = kept.iter().filter(|class| class.len() == 1).map(|class| &class[0]);
        let (mut weight, mut value, mut reduced) = (0.0, 0.0, 0.0);
        for k in fixed {
            (weight, value, reduced) = (weight + k.item.weight, value + k.item.value, reduced + k.reduced);
        }
        let plans = vec![Partial { weight, value, reduced, step: START }];
        let (steps, dropped) = (Vec::new(), f64::INFINITY);
        Self { classes: kept, order, following, limit, multiplier, gap, plans, steps, dropped }
    }

    /// Extends every partial plan by the items of a class, without those that lead nowhere or that another is better than.
    fn extend(&mut self, place: usize) {
        let (least, most) = self.following[place + 1];
        let mut next = Vec::new();
        for (number, plan) in self.plans.iter().enumerate() {
            for (i, k) in self.classes[self.order[place]].iter().enumerate() {
                let weight = plan.weight + k.item.weight;
                let reduced = plan.reduced + k.reduced;
                let unused = (self.limit - weight - most).max(0.0);
                if weight + least <= self.limit && reduced + self.multiplier * unused <= self.gap {
                    let value = plan.value + k.item.value;
                    next.push((Partial { weight, value, reduced, step: 0 }, number, i));
                }
            }
        }
        next.sort_by(|a, b| a.0.weight.total_cmp(&b.0.weight).then(a.0.value.total_cmp(&b.0.value)));
        let mut best = f64::INFINITY;
        next.retain(|(plan, _, _)| {
            let better = plan.value < best;
            best = best.min(plan.value);
            better
        });
        if next.len() > MOST {
            next.sort_by(|a, b| a.0.reduced.total_cmp(&b.0.reduced));
            self.dropped = self.dropped.min(next[MOST].0.reduced);
            next.truncate(MOST);
        }
        let before = std::mem::take(&mut self.plans);
        for (plan, number, i) in next {
            self.steps.push((place as u32, i as u32, before[number].step));
            self.plans.push(Partial { step: self.steps.len() as u32 - 1, ..plan });
        }
    }

    /// The best of the complete plans.
    fn best(&self) -> Option<Vec<usize>> {
        let plan = self.plans.iter().min_by(|a, b| a.value.total_cmp(&b.value))?;
        let mut choice: Vec<usize> = self.classes.iter().map(|class| class[0].index).collect();
        let mut step = plan.step;
        while step != START {
            let (place, i, before) = self.steps[step as usize];
            let class = self.order[place as usize];
            choice[class] = self.classes[class][i as usize].index;
            step = before;
        }
        Some(choice)
    }
}

/// The items of a class that a plan better than the known one may have; at least the one of the least cost.
fn kept(class: &[Item], multiplier: f64, gap: f64) -> Vec<Kept> {
    let cost = |item: &Item| item.value + multiplier * item.weight;
    let least = class.iter().map(cost).fold(f64::INFINITY, f64::min);
    let items =
        class.iter().enumerate().map(|(index, &item)| Kept { index, item, reduced: cost(&item) - least });
    items.filter(|k| k.reduced <= gap).collect()
}
