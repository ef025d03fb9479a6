//! How much memory there is, how much is used, and how many slabs may be in flight.

use crate::{EngineError, Result, format_size};

/// Memory the program needs before any slab is in flight: code, allocator, writer and reader state.
const BASE_BYTES: u64 = 24 << 20;

/// What the loop over row blocks may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Worker threads.
    pub(crate) workers: usize,
    /// Source bytes read at a time.
    pub(crate) block: u64,
    /// Slabs claimed or finished but not yet written.
    pub(crate) in_flight: usize,
}

/// Largest need of one worker and of one finished slab, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Need {
    /// Source rows, their f32 form and scratch of one worker.
    pub(crate) worker: u64,
    /// Encoded bytes of one slab.
    pub(crate) slab: u64,
    /// What the rows of one layer share. Each worker may be at another layer.
    pub(crate) shared: u64,
}

impl Budget {
    /// Splits `limit` bytes: as many workers as asked for if they fit, and up to four slabs in flight each.
    ///
    /// # Errors
    /// [`EngineError::Memory`] when not even one worker with two slabs fits.
    pub(crate) fn new(limit: u64, threads: usize, block: u64, need: Need) -> Result<Self> {
        let room = limit.saturating_sub(BASE_BYTES);
        let worker = need.worker.saturating_add(need.shared);
        let per_worker = worker.saturating_add(2 * need.slab);
        if room < per_worker {
            return Err(EngineError::Memory(format!(
                "memory limit {} is too small: this model needs {}",
                format_size(limit),
                format_size(BASE_BYTES.saturating_add(per_worker))
            )));
        }
        let workers = ((room / per_worker.max(1)) as usize).clamp(1, threads.max(1));
        let left = room - workers as u64 * worker;
        let in_flight = ((left / need.slab.max(1)) as usize).clamp(2, 4 * workers);
        Ok(Self { workers, block, in_flight })
    }
}

/// Memory that can be had now, by the system's own estimate and the control group's limit; `None` where neither is known.
pub(crate) fn available() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find(|l| l.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|t| t.trim().parse::<u64>().ok());
    Some(group.map_or(kib * 1024, |g| g.min(kib * 1024)))
}

/// Largest resident memory of this process so far, in bytes; 0 where the system does not tell.
pub(crate) fn peak_rss() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let peak = status.lines().find(|l| l.starts_with("VmHWM:"));
    let kib = peak.and_then(|l| l.split_whitespace().nth(1)).and_then(|v| v.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_shrinks_to_fit_and_says_when_it_cannot() {
        let need = Need { worker: 3 << 20, slab: 2 << 20, shared: 1 << 20 };
        let roomy = Budget::new(1 << 30, 8, 1 << 20, need).expect("fits");
        assert_eq!((roomy.workers, roomy.in_flight), (8, 32));
        let tight = Budget::new(BASE_BYTES + (9 << 20), 8, 1 << 20, need).expect("one worker fits");
        assert_eq!(tight.workers, 1);
        let used =
            |b: Budget| b.workers as u64 * (need.worker + need.shared) + b.in_flight as u64 * need.slab;
        assert!(used(tight) <= 9 << 20);
        let heavy = Need { shared: 1 << 30, ..need };
        let error = Budget::new(1 << 30, 8, 1 << 20, heavy).expect_err("what a layer shares does not fit");
        assert_eq!(error.exit_code(), 6);
        let error = Budget::new(BASE_BYTES, 8, 1 << 20, need).expect_err("too small");
        assert_eq!(error.exit_code(), 6);
    }
}
