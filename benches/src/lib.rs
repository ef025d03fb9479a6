//! What the timings of kernels share: the weights they read and the clock they use.

pub mod rans;
pub mod sources;

use std::time::Instant;

/// About normal weights, the same on every machine: sums of 12 uniform numbers less 6.
///
/// ```
/// assert_eq!(aq_benches::weights(4), aq_benches::weights(8)[..4]);
/// ```
pub fn weights(n: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..n).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
}

/// Seconds of one call of `f` in each of `runs` runs. A run repeats the call until it takes at least `shortest` seconds.
pub fn time(runs: usize, shortest: f64, mut f: impl FnMut()) -> Vec<f64> {
    let mut run = |calls: u32| {
        let start = Instant::now();
        (0..calls).for_each(|_| f());
        start.elapsed().as_secs_f64()
    };
    let once = run(1).max(1e-9);
    let calls = (shortest / once).ceil().clamp(1.0, 1e6) as u32;
    (0..runs).map(|_| run(calls) / f64::from(calls)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_is_timed() {
        let mut calls = 0;
        let seconds = time(3, 0.0, || calls += 1);
        assert_eq!((seconds.len(), calls), (3, 4));
        assert!(seconds.iter().all(|s| *s >= 0.0));
    }
}
