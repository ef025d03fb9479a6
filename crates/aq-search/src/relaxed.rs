//! The linear relaxation of the allocation problem, and a plan from it.

use crate::exact::Item;

/// The relaxed optimum and a plan that is allowed.
pub(crate) struct Relaxed {
    /// Value that a unit of weight is worth at the limit.
    pub(crate) multiplier: f64,
    /// No plan that is allowed has a smaller value.
    pub(crate) bound: f64,
    /// Item of each class.
    pub(crate) choice: Vec<usize>,
}

/// One step along the hull of a class.
struct Edge {
    class: usize,
    /// The item it leads to.
    to: usize,
    weight: f64,
    /// Value lost for each unit of weight; falls along a class.
    slope: f64,
}

/// Walks along the hulls by falling slope until the limit. `None` when the lightest items exceed it.
pub(crate) fn relaxed(classes: &[Vec<Item>], limit: f64) -> Option<Relaxed> {
    let hulls: Vec<Vec<usize>> = classes.iter().map(|class| hull(class)).collect();
    let mut choice: Vec<usize> = hulls.iter().map(|hull| hull[0]).collect();
    let sum = |part: fn(&Item) -> f64, choice: &[usize]| -> f64 {
        classes.iter().zip(choice).map(|(class, &i)| part(&class[i])).sum()
    };
    let mut left = limit - sum(|item| item.weight, &choice);
    if left < 0.0 {
        return None;
    }
    let mut blocked = vec![false; classes.len()];
    let mut first_blocked = None;
    for Edge { class, to, weight, slope } in edges(classes, &hulls) {
        if blocked[class] {
            continue;
        }
        if weight <= left {
            left -= weight;
            choice[class] = to;
            continue;
        }
        blocked[class] = true;
        if first_blocked.is_none() {
            first_blocked = Some((slope, sum(|item| item.value, &choice) - slope * left));
        }
    }
    let (multiplier, bound) = first_blocked.unwrap_or_else(|| (0.0, sum(|item| item.value, &choice)));
    fill(classes, &mut choice, left);
    Some(Relaxed { multiplier, bound, choice })
}

/// Steps of all classes by falling slope, each class in its own order.
fn edges(classes: &[Vec<Item>], hulls: &[Vec<usize>]) -> Vec<Edge> {
    let steps = hulls.iter().enumerate().flat_map(|(class, hull)| {
        hull.windows(2).map(move |pair| {
            let (from, to) = (classes[class][pair[0]], classes[class][pair[1]]);
            let weight = to.weight - from.weight;
            Edge { class, to: pair[1], weight, slope: (from.value - to.value) / weight }
        })
    });
    let mut edges: Vec<Edge> = steps.collect();
    edges.sort_by(|a, b| b.slope.total_cmp(&a.slope));
    edges
}

/// Items of the lower convex hull by rising weight and falling value; the lightest is always among them.
fn hull(class: &[Item]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..class.len()).collect();
    order.sort_by(|&a, &b| {
        let by_weight = class[a].weight.total_cmp(&class[b].weight);
        by_weight.then(class[a].value.total_cmp(&class[b].value))
    });
    let mut hull: Vec<usize> = Vec::new();
    for i in order {
        if hull.last().is_some_and(|&last| class[i].value >= class[last].value) {
            continue;
        }
        while let [.., before, last] = hull[..] {
            let (a, b, c) = (class[before], class[last], class[i]);
            let above =
                (b.value - a.value) * (c.weight - a.weight) >= (c.value - a.value) * (b.weight - a.weight);
            if !above {
                break;
            }
            hull.pop();
        }
        hull.push(i);
    }
    hull
}

/// Uses what is left of the limit for the best single exchanges.
fn fill(classes: &[Vec<Item>], choice: &mut [usize], mut left: f64) {
    loop {
        let gains = classes.iter().enumerate().flat_map(|(class, items)| {
            let own = items[choice[class]];
            items
                .iter()
                .enumerate()
                .map(move |(i, item)| (class, i, own.value - item.value, item.weight - own.weight))
        });
        let fitting = gains.filter(|&(_, _, gain, weight)| gain > 0.0 && weight <= left);
        let Some((class, item, _, weight)) = fitting.max_by(|a, b| a.2.total_cmp(&b.2)) else { return };
        choice[class] = item;
        left -= weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hull_leaves_out_what_a_mixture_beats() {
        let class = [(5.0, 1.0), (1.0, 9.0), (3.0, 6.0), (2.0, 4.0), (9.0, 1.0)];
        let class = class.map(|(weight, value)| Item { weight, value });
        assert_eq!(hull(&class), [1, 3, 0]);
    }

    #[test]
    fn the_bound_lies_below_every_plan_of_the_limit() {
        let class: Vec<Item> =
            [(0.0, 8.0), (4.0, 2.0), (6.0, 1.0)].map(|(weight, value)| Item { weight, value }).to_vec();
        let found = relaxed(&[class.clone(), class], 7.0).expect("it fits");
        // One class at 4, three quarters of the step of the other.
        assert_eq!((found.bound, found.multiplier), (2.0 + 8.0 - 1.5 * 3.0, 1.5));
        assert_eq!(found.choice, [2, 0]);
    }
}
