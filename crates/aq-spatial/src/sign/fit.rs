//! Scales of least squared error.

/// The mean magnitude of `weights`, by their importance where it is given: not all of it may be 0.
pub(super) fn binary_scale(weights: &[f32], importance: Option<&[f32]>) -> f32 {
    let mut sums = Sums::default();
    for (i, &w) in weights.iter().enumerate() {
        sums.add(w, importance.map_or(1.0, |h| h[i]));
    }
    sums.scale()
}

/// The scale of the best set of the weights of largest magnitude; the others are 0. `order` is room for sorting.
///
/// With the scale `a = sum(h |w|) / sum(h)` of a set the error is `sum(h w^2)` over all weights less `sum(h |w|)^2 / sum(h)` over the set.
pub(super) fn ternary_scale(weights: &[f32], importance: Option<&[f32]>, order: &mut Vec<u64>) -> f32 {
    order.clear();
    // Magnitudes are in the order of their bits; the place of a weight makes ties definite.
    let key = |(i, w): (usize, &f32)| u64::from(w.abs().to_bits()) << 32 | i as u64;
    order.extend(weights.iter().enumerate().map(key));
    order.sort_unstable();
    let (mut sums, mut best) = (Sums::default(), Sums::default());
    for &key in order.iter().rev() {
        let i = (key & u64::from(u32::MAX)) as usize;
        sums.add(weights[i], importance.map_or(1.0, |h| h[i]));
        if sums.explained() > best.explained() {
            best = sums;
        }
    }
    best.scale()
}

/// Sums over a set of weights.
#[derive(Clone, Copy, Default)]
struct Sums {
    /// `sum(h |w|)`
    product: f64,
    /// `sum(h)`
    importance: f64,
}

impl Sums {
    fn add(&mut self, w: f32, h: f32) {
        self.product += f64::from(h) * f64::from(w.abs());
        self.importance += f64::from(h);
    }

    /// By how much the set lowers the squared error below that of zeros.
    fn explained(&self) -> f64 {
        if self.importance > 0.0 { self.product * self.product / self.importance } else { 0.0 }
    }

    /// The scale of least squared error.
    fn scale(&self) -> f32 {
        if self.importance > 0.0 { (self.product / self.importance) as f32 } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Squared error of the best signs for a scale.
    fn error(weights: &[f32], importance: Option<&[f32]>, scale: f32, values: &[f64]) -> f64 {
        let nearest = |w: f32| {
            let errors = values.iter().map(|v| (f64::from(w) - v * f64::from(scale)).powi(2));
            errors.fold(f64::INFINITY, f64::min)
        };
        let terms = weights.iter().enumerate();
        terms.map(|(i, &w)| importance.map_or(1.0, |h| f64::from(h[i])) * nearest(w)).sum()
    }

    /// The least error over all assignments of `values`, each with its best scale.
    fn least(weights: &[f32], importance: Option<&[f32]>, values: &[f64]) -> f64 {
        let all: f64 = error(weights, importance, 0.0, &[0.0]);
        let count = values.len().pow(weights.len() as u32);
        let explained = (0..count).map(|mut assignment| {
            let (mut product, mut square) = (0.0, 0.0);
            for (i, &w) in weights.iter().enumerate() {
                let h = importance.map_or(1.0, |h| f64::from(h[i]));
                let value = values[assignment % values.len()];
                (product, square) = (product + h * f64::from(w) * value, square + h * value * value);
                assignment /= values.len();
            }
            if square > 0.0 && product > 0.0 { product * product / square } else { 0.0 }
        });
        all - explained.fold(0.0, f64::max)
    }

    proptest! {
        #[test]
        fn no_signs_and_scale_err_less(
            weights in prop::collection::vec(prop_oneof![4 => -3.0f32..3.0, 1 => -0.01f32..0.01, 1 => Just(0.0)], 1..9),
            importance in prop::collection::vec(prop_oneof![3 => 0.01f32..4.0, 1 => Just(0.0)], 8),
            weighted: bool,
        ) {
            let importance = weighted.then(|| &importance[..weights.len()]).filter(|h| h.iter().any(|&h| h > 0.0));
            let total = error(&weights, importance, 0.0, &[0.0]);
            let binary = error(&weights, importance, binary_scale(&weights, importance), &[-1.0, 1.0]);
            prop_assert!(binary <= least(&weights, importance, &[-1.0, 1.0]) + 1e-6 * total, "binary {binary}");
            let scale = ternary_scale(&weights, importance, &mut Vec::new());
            let ternary = error(&weights, importance, scale, &[-1.0, 0.0, 1.0]);
            prop_assert!(ternary <= least(&weights, importance, &[-1.0, 0.0, 1.0]) + 1e-6 * total, "ternary {ternary}");
        }
    }

    #[test]
    fn zeros_have_no_scale() {
        assert_eq!(
            (binary_scale(&[0.0; 5], None), ternary_scale(&[0.0; 5], None, &mut Vec::new())),
            (0.0, 0.0)
        );
    }
}
