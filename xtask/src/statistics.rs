//! Figures of repeated timings.

/// The middle of some numbers, the mean of the middle two of an even count; NaN of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// The median of some measurements and the range they lie in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measured {
    pub(crate) value: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) runs: usize,
}

impl Measured {
    pub(crate) fn of(values: &[f64]) -> Self {
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Measured { value: median(values), min, max, runs: values.len() }
    }

    /// The rate at which `work` was done in each of these seconds.
    pub(crate) fn rate(work: f64, seconds: &[f64]) -> Self {
        let time = Measured::of(seconds);
        Measured { value: work / time.value, min: work / time.max, max: work / time.min, runs: time.runs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_slowest_run_has_the_lowest_rate() {
        let want = Measured { value: 5.0, min: 2.5, max: 10.0, runs: 3 };
        assert_eq!(Measured::rate(10.0, &[2.0, 4.0, 1.0]), want);
    }
}
