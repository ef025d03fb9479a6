//! The one loop over row blocks: serial with one worker, parallel with many, streaming by its bounded window.
//!
//! Workers claim slabs in file order, encode them and put them back; the calling thread takes them in order and hands them
//! to whoever writes. No more than `in_flight` slabs are claimed but not yet written, so memory is bounded and
//! the output does not depend on who finished first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aq_core::{EncodedRows, EncodedSlab};
use aq_io::SlabStream;
use aq_kernels::metric::Comparison;
use aq_kernels::output::OutputComparison;

use crate::gate::Gate;
use crate::memory::Budget;
use crate::slab::{Encoded, SlabWorker, TensorTask};
use crate::{EngineError, Progress, Result};

/// What the loop learned about one tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct TensorQuality {
    /// Source weights against decoded ones; all zero for a kept tensor.
    pub(crate) comparison: Comparison,
    /// Outputs of the layer on held-out inputs; all zero without calibration.
    pub(crate) output: OutputComparison,
    /// Bytes that are written.
    pub(crate) bytes: u64,
    /// Bytes of codes and side data, written or not.
    pub(crate) encoded_bytes: u64,
    /// Whether a kept tensor holds NaN or infinite values.
    pub(crate) non_finite: bool,
}

/// Encodes every slab of `tasks` and lets `write` pull them in file order. The first tensor that misses `judge` ends it.
///
/// # Errors
/// The error of the first slab that fails, [`EngineError::Quality`] for a tensor that misses, [`EngineError::Interrupted`] when `cancel`
/// is set, else what `write` says.
pub(crate) fn run_blocks(
    tasks: &[TensorTask<'_>],
    budget: Budget,
    judge: Option<&Gate>,
    cancel: &AtomicBool,
    progress: &mut dyn Progress,
    write: &mut dyn FnMut(&mut dyn SlabStream) -> aq_io::Result<()>,
) -> Result<Vec<TensorQuality>> {
    let line = Line::new(tasks.iter().map(|t| t.slabs).sum(), budget.in_flight as u64);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(budget.workers)
        .build()
        .map_err(|e| EngineError::Internal(e.to_string()))?;
    pool.in_place_scope(|scope| {
        let line = &line;
        for _ in 0..budget.workers {
            scope.spawn(move |_| work(line, tasks, budget.block, cancel));
        }
        let mut output = Output::new(line, tasks, judge, cancel, progress);
        let written = write(&mut output);
        line.stop();
        match (output.failed, written) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(error.into()),
            (None, Ok(())) => Ok(output.quality),
        }
    })
}

/// The slabs between the workers and the writer.
struct Line {
    total: u64,
    window: u64,
    state: Mutex<State>,
    /// The next slab to write is done, or something ended.
    ready: Condvar,
    /// There is room in the window, or something ended.
    room: Condvar,
}

#[derive(Default)]
struct State {
    claimed: u64,
    written: u64,
    /// Finished slabs that wait to be written, at their number modulo the window.
    done: Vec<Option<Result<Encoded>>>,
    spare: Vec<EncodedRows>,
    stopped: bool,
}

impl Line {
    fn new(total: u64, window: u64) -> Self {
        let places = window.min(total) as usize;
        let done = std::iter::repeat_with(|| None).take(places).collect();
        let state = State { done, spare: Vec::with_capacity(places), ..State::default() };
        Self { total, window, state: Mutex::new(state), ready: Condvar::new(), room: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next slab to encode and a buffer for it; waits for room. `None` when there is nothing left to do.
    fn claim(&self) -> Option<(u64, EncodedRows)> {
        let mut state = self.lock();
        loop {
            if state.stopped || state.claimed == self.total {
                return None;
            }
            if state.claimed < state.written + self.window {
                state.claimed += 1;
                return Some((state.claimed - 1, state.spare.pop().unwrap_or_default()));
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn put(&self, slab: u64, result: Result<Encoded>) {
        self.lock().done[(slab % self.window) as usize] = Some(result);
        self.ready.notify_all();
    }

    /// The next slab in order; waits for it, looking at `cancel` ten times a second.
    fn take(&self, cancel: &AtomicBool) -> Option<Result<Encoded>> {
        let mut state = self.lock();
        loop {
            if state.written == self.total {
                return None;
            }
            if cancel.load(Ordering::Relaxed) {
                return Some(Err(EngineError::Interrupted));
            }
            let next = (state.written % self.window) as usize;
            if let Some(result) = state.done[next].take() {
                state.written += 1;
                self.room.notify_all();
                return Some(result);
            }
            let waited = self.ready.wait_timeout(state, Duration::from_millis(100));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn recycle(&self, mut rows: EncodedRows) {
        rows.clear();
        self.lock().spare.push(rows);
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.room.notify_all();
    }
}

fn work(line: &Line, tasks: &[TensorTask<'_>], block_bytes: u64, cancel: &AtomicBool) {
    let mut worker = SlabWorker::new(block_bytes);
    let mut first_of: Vec<u64> = Vec::with_capacity(tasks.len());
    let mut next = 0;
    for task in tasks {
        first_of.push(next);
        next += task.slabs;
    }
    while let Some((slab, rows)) = line.claim() {
        let tensor = first_of.partition_point(|&first| first <= slab) - 1;
        let encode = || worker.encode(&tasks[tensor], slab - first_of[tensor], rows, cancel);
        let result = catch_unwind(AssertUnwindSafe(encode))
            .unwrap_or_else(|_| Err(EngineError::Internal("a worker stopped unexpectedly".into())));
        line.put(slab, result);
    }
}

/// The writer's end of the line.
struct Output<'a, 't> {
    line: &'a Line,
    tasks: &'a [TensorTask<'t>],
    judge: Option<&'a Gate>,
    cancel: &'a AtomicBool,
    progress: &'a mut dyn Progress,
    tensor: usize,
    slab: u64,
    quality: Vec<TensorQuality>,
    failed: Option<EngineError>,
}

impl<'a, 't> Output<'a, 't> {
    fn new(
        line: &'a Line,
        tasks: &'a [TensorTask<'t>],
        judge: Option<&'a Gate>,
        cancel: &'a AtomicBool,
        progress: &'a mut dyn Progress,
    ) -> Self {
        let quality = vec![TensorQuality::default(); tasks.len()];
        Self { line, tasks, judge, cancel, progress, tensor: 0, slab: 0, quality, failed: None }
    }

    fn accept(&mut self, encoded: Encoded) -> Result<EncodedSlab> {
        let task = &self.tasks[self.tensor];
        let quality = &mut self.quality[self.tensor];
        quality.comparison.merge(&encoded.comparison);
        quality.output.merge(&encoded.output);
        let head = task.stored.side_head();
        quality.encoded_bytes += encoded.encoded_bytes + head;
        quality.bytes += encoded.rows.bytes() + if task.plain.is_some() { 0 } else { head };
        if encoded.non_finite && !quality.non_finite {
            quality.non_finite = true;
            self.progress.warn(&format!(
                "tensor {:?} is kept as it is and holds NaN or infinite values",
                task.stored.info.name()
            ));
        }
        self.progress.advance(encoded.source_bytes, task.stored.info.name());
        let slab = EncodedSlab {
            tensor: task.output_index,
            row_start: task.written_row(self.slab),
            rows: encoded.rows,
        };
        self.slab += 1;
        if self.slab == task.slabs {
            task.judge(self.judge, quality)?;
            (self.tensor, self.slab) = (self.tensor + 1, 0);
        }
        Ok(slab)
    }
}

impl SlabStream for Output<'_, '_> {
    fn next_slab(&mut self) -> Option<EncodedSlab> {
        if self.failed.is_some() {
            return None;
        }
        match self.line.take(self.cancel)?.and_then(|encoded| self.accept(encoded)) {
            Ok(slab) => Some(slab),
            Err(error) => {
                self.failed = Some(error);
                None
            }
        }
    }

    fn recycle(&mut self, rows: EncodedRows) {
        self.line.recycle(rows);
    }
}
