//! Damage by bits, between and beyond the points where it was measured.

/// Damage as a function of bits per weight, falling.
///
/// Between points its logarithm is a line, above the last point each bit divides it by 4, as for any fine grid. Below the first point it grows
/// half again as fast as between the first two, at least by 8 a bit: there the law of fine grids fails, and what was not measured is not to be
/// relied on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Curve {
    /// Bits and the binary logarithm of the damage.
    points: Vec<(f64, f64)>,
}

/// Damage below which differences are noise.
const LEAST: f64 = 1e-12;

impl Curve {
    /// Through `points` of bits and damage, in any order. Where more bits do more damage, which is noise, they do as much as fewer.
    ///
    /// # Errors
    /// The fact, when there are no points, two are of the same bits, or a number is out of range.
    pub(crate) fn new(mut points: Vec<(f64, f64)>) -> Result<Self, String> {
        let good = |&(bits, damage): &(f64, f64)| {
            bits > 0.0 && bits.is_finite() && damage >= 0.0 && damage.is_finite()
        };
        if let Some(wrong) = points.iter().find(|point| !good(point)) {
            return Err(format!("a damage of {} at {} bits per weight is out of range", wrong.1, wrong.0));
        }
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        if points.is_empty() {
            return Err("there are no points".into());
        }
        if let Some(pair) = points.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("{} bits per weight are there twice", pair[0].0));
        }
        let mut least = f64::INFINITY;
        let falling = points.into_iter().map(|(bits, damage)| {
            least = least.min(damage.max(LEAST).log2());
            (bits, least)
        });
        Ok(Self { points: falling.collect() })
    }

    /// Damage at so many bits per weight.
    pub(crate) fn at(&self, bits: f64) -> f64 {
        let (first, last) = (self.points[0], self.points[self.points.len() - 1]);
        let log = if bits >= last.0 {
            last.1 - 2.0 * (bits - last.0)
        } else if bits <= first.0 {
            let slope = self.points.get(1).map_or(-2.0, |second| (second.1 - first.1) / (second.0 - first.0));
            first.1 + 1.5 * slope.min(-2.0) * (bits - first.0)
        } else {
            let next = self.points.partition_point(|point| point.0 <= bits);
            let (a, b) = (self.points[next - 1], self.points[next]);
            a.1 + (b.1 - a.1) * (bits - a.0) / (b.0 - a.0)
        };
        log.exp2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_fall_and_pass_through_their_points() {
        let curve = Curve::new(vec![(4.0, 0.01), (2.0, 0.16), (3.0, 0.2)]).expect("good");
        let at = [2.0, 3.0, 4.0, 5.0].map(|bits| curve.at(bits));
        for (at, expected) in at.into_iter().zip([0.16, 0.16, 0.01, 0.0025]) {
            assert!((at - expected).abs() < 1e-12, "{at} {expected}");
        }
        assert!((curve.at(3.5) - 0.04).abs() < 1e-12);
        assert!((curve.at(1.0) - 0.16 * 8.0).abs() < 1e-12);
        let all: Vec<f64> = (4..60).map(|i| curve.at(f64::from(i) / 8.0)).collect();
        assert!(all.windows(2).all(|pair| pair[0] >= pair[1]));
        assert!(Curve::new(vec![(1.0, 0.0)]).expect("good").at(1.0) > 0.0);
    }
}
