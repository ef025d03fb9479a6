//! How often each code occurs.

/// Values with a count of their own, from [`FIRST`] on.
pub(super) const WINDOW: usize = 256;
/// The first of them.
pub(super) const FIRST: i32 = -128;

/// Counts of values near 0, and of those further away by how far they are.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    near: [u32; WINDOW],
    /// Element `b`: values that are from 2^(b-1) to 2^b - 1 outside of the window.
    far: [u32; 33],
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { near: [0; WINDOW], far: [0; 33], total: 0 }
    }
}

impl Histogram {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    #[inline]
    pub(super) fn add(&mut self, value: i32) {
        self.total += 1;
        match self.near.get_mut(value.wrapping_sub(FIRST) as usize) {
            Some(count) => *count += 1,
            None => {
                let outside = if value > 0 { value as u32 - 127 } else { value.unsigned_abs() - 128 };
                self.far[(32 - outside.leading_zeros()) as usize] += 1;
            }
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.near.iter_mut().zip(&other.near).for_each(|(a, b)| *a += b);
        self.far.iter_mut().zip(&other.far).for_each(|(a, b)| *a += b);
        self.total += other.total;
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Occurrences of `value`; 0 outside of the window.
    pub(super) fn count(&self, value: i32) -> u64 {
        self.near.get(value.wrapping_sub(FIRST) as usize).map_or(0, |&n| u64::from(n))
    }

    /// All counts that are not 0.
    pub(super) fn counts(&self) -> impl Iterator<Item = u64> {
        self.near.iter().chain(&self.far).filter(|n| **n > 0).map(|&n| u64::from(n))
    }

    /// Occurrences of the values from `low` to `high`.
    pub(super) fn sum(&self, low: i32, high: i32) -> u64 {
        (low..=high).map(|value| self.count(value)).sum()
    }

    /// The first and last of the values that occur more than `rare` times each.
    pub(super) fn span(&self, rare: u64) -> Option<(i32, i32)> {
        let common = |&n: &u32| u64::from(n) > rare;
        let first = self.near.iter().position(common)?;
        let last = self.near.iter().rposition(common)?;
        Some((first as i32 + FIRST, last as i32 + FIRST))
    }

    /// The values outside of `low..=high` with their counts, as distances from that range, 0 for the next value. Of values outside
    /// of the window the distance is about right.
    pub(super) fn outside(&self, low: i32, high: i32) -> impl Iterator<Item = (u64, u64)> {
        let below = (FIRST..low).map(move |v| ((low - 1 - v) as u64, self.count(v)));
        let above = (high + 1..FIRST + WINDOW as i32).map(move |v| ((v - high - 1) as u64, self.count(v)));
        let edge = (127 - high).min(low + 128).max(0) as u64;
        let far = (1..33).map(move |b| (edge + (3 << b >> 2), u64::from(self.far[b])));
        below.chain(above).chain(far).filter(|(_, n)| *n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_counted_once() {
        let mut histogram = Histogram::default();
        let values = [i32::MIN, -129, -128, -5, 0, 0, 3, 127, 128, 1000, i32::MAX];
        values.iter().for_each(|&v| histogram.add(v));
        assert_eq!((histogram.total(), histogram.count(0), histogram.count(1000)), (11, 2, 0));
        assert_eq!(
            (histogram.span(0), histogram.span(1), histogram.span(2)),
            (Some((-128, 127)), Some((0, 0)), None)
        );
        assert_eq!(histogram.sum(-5, 127), 5);
        assert_eq!(histogram.outside(-5, 3).map(|(_, n)| n).sum::<u64>(), 7);
        assert_eq!(histogram.outside(-5, 3).next(), Some((122, 1)));
        let far: Vec<_> = histogram.outside(-128, 127).collect();
        assert_eq!(far.iter().map(|(_, n)| n).sum::<u64>(), 5);
        assert!(far[0].0 <= 1 && far.last().is_some_and(|(d, _)| (1 << 30..1_u64 << 32).contains(d)));
    }
}
