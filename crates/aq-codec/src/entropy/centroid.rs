//! Where within its bin a code is reconstructed.

/// How far a class draws codes towards 0, in 1/256 of a bin: codes of 1 and -1, of 2 and -2, and all larger ones.
///
/// A code `c` stands for `c - sign(c) * deltas[min(|c|, 3) - 1] / 256`, and 0 for 0.
pub type Deltas = [i8; 3];

/// Which deltas the classes of a slab get.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Centroids<'a> {
    /// The same in each class.
    Same(Deltas),
    /// Those of least squared error: for the weights `w` with code `c` in units `u` (the row's scale times the column's step),
    /// `sum(u * (u * |c| - sign(c) * w)) / sum(u^2)`, rounded to the nearest 1/256 within [-1/2, 1/2).
    Nearest(&'a [f32]),
}

/// The deltas in bins, by size of the code: none for 0.
pub(super) fn in_bins([one, two, more]: Deltas) -> [f32; 4] {
    [0, one, two, more].map(|delta| f32::from(delta) / 256.0)
}

/// What a code stands for, in units of the grid.
#[inline]
pub(super) fn value(code: i32, deltas: &[f32; 4]) -> f32 {
    let delta = deltas[code.unsigned_abs().min(3) as usize];
    if code < 0 { code as f32 + delta } else { code as f32 - delta }
}

/// Sums of a class for [`Centroids::Nearest`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    wanted: [f64; 3],
    weight: [f64; 3],
}

impl Sums {
    #[inline]
    pub(super) fn add(&mut self, code: i32, weight: f32, unit: f32) {
        let size = code.unsigned_abs();
        if size > 0 {
            let (unit, i) = (f64::from(unit), size.min(3) as usize - 1);
            let toward = f64::from(weight) * f64::from(code.signum());
            self.wanted[i] += unit * (unit * f64::from(size) - toward);
            self.weight[i] += unit * unit;
        }
    }

    pub(super) fn deltas(&self) -> Deltas {
        let nearest = |i: usize| match self.wanted[i] / self.weight[i] * 256.0 {
            delta if delta.is_finite() => delta.round_ties_even().clamp(-128.0, 127.0) as i8,
            _ => 0,
        };
        [nearest(0), nearest(1), nearest(2)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_lead_to_the_mean_of_each_bin() {
        let mut sums = Sums::default();
        for (code, weight) in [(1, 0.75), (-1, -0.85), (2, 1.95), (-3, -2.5), (9, 9.0), (0, 0.4)] {
            sums.add(code, weight * 0.25, 0.25);
        }
        let deltas = sums.deltas();
        assert_eq!(deltas, [51, 13, 64]);
        assert_eq!(
            [0, 1, -1, 2, -3, 9].map(|c| value(c, &in_bins(deltas))),
            [0.0, 0.80078125, -0.80078125, 1.9492188, -2.75, 8.75]
        );
        assert_eq!(Sums::default().deltas(), [0; 3]);
        let mut far = Sums::default();
        far.add(1, 90.0, 1.0);
        far.add(2, -90.0, 1.0);
        assert_eq!(far.deltas(), [-128, 127, 0]);
    }
}
