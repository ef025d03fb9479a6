//! Calibration rows in the order of time.

/// Calibration rows of a layer, one step of time after the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TimedRows {
    /// Values of a row; at least 1.
    pub cols: usize,
    /// Steps by rising time, at most [`MAX_STEPS`].
    pub steps: Vec<Step>,
}

/// The rows of one or more timestep buckets that are not told apart.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// Time of the first bucket, in the units of the calibration (t, sigma or mask ratio).
    pub first: f64,
    /// Time of the last one.
    pub last: f64,
    /// Whole rows of finite values.
    pub rows: Vec<f32>,
}

/// The most steps that are told apart; neighbouring buckets of longer calibrations share one.
pub const MAX_STEPS: usize = 100;

impl TimedRows {
    /// The time at which step `step` and those after it begin: halfway from the step before.
    pub(crate) fn boundary(&self, step: usize) -> f64 {
        let (before, after) = (self.steps[step - 1].last, self.steps[step].first);
        let middle = before + (after - before) / 2.0;
        if middle > before { middle } else { after }
    }

    /// The rows of step `step`.
    pub(crate) fn rows(&self, step: usize) -> impl Iterator<Item = &[f32]> {
        self.steps[step].rows.chunks_exact(self.cols)
    }

    /// All rows with the number of their step.
    pub(crate) fn all(&self) -> impl Iterator<Item = (usize, &[f32])> {
        (0..self.steps.len()).flat_map(|step| self.rows(step).map(move |row| (step, row)))
    }
}

/// The buckets of each step, by rising time: buckets of one time share a step, and so do neighbours where there are more than
/// [`MAX_STEPS`] of them. Times are finite.
///
/// ```
/// assert_eq!(aq_timeaware::steps_of(&[900.0, 5.0, 900.0, 400.0]), [vec![1], vec![3], vec![0, 2]]);
/// ```
pub fn steps_of(times: &[f64]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..times.len()).collect();
    order.sort_by(|&a, &b| times[a].total_cmp(&times[b]));
    let alike: Vec<&[usize]> = order.chunk_by(|&a, &b| times[a] == times[b]).collect();
    let count = alike.len().min(MAX_STEPS);
    let part = |i: usize| alike[i * alike.len() / count..(i + 1) * alike.len() / count].concat();
    (0..count).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_calibrations_are_joined_without_losing_a_bucket() {
        let times: Vec<f64> = (0..257).map(|i| f64::from(i * 37 % 257)).collect();
        let steps = steps_of(&times);
        assert_eq!(steps.len(), MAX_STEPS);
        let joined: Vec<f64> = steps.concat().into_iter().map(|bucket| times[bucket]).collect();
        assert_eq!(joined, (0..257).map(f64::from).collect::<Vec<_>>());
        assert!(steps_of(&[]).is_empty());
    }

    #[test]
    fn boundaries_lie_between_steps() {
        let step = |first, last| Step { first, last, rows: vec![] };
        let rows =
            TimedRows { cols: 1, steps: vec![step(1.0, 2.0), step(4.0, 4.0), step(4.0f64.next_up(), 9.0)] };
        assert_eq!(rows.boundary(1), 3.0);
        assert_eq!(rows.boundary(2), 4.0f64.next_up());
    }
}
