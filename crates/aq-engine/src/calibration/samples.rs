//! The input rows of one layer, read when they are asked for.

use std::sync::Arc;

use aq_core::{InputRows, StoredTensor, StrategyError};
use aq_io::{IoError, Source};
use aq_timeaware::{Step, TimedRows, steps_of};

use super::times::{Bucket, Times};
use crate::Result;
use crate::weights::WeightReader;

/// The input rows of one layer. Some of them are held out: strategies do not see them, and the report measures on them.
pub(crate) struct LayerSamples {
    source: Arc<dyn Source>,
    index: usize,
    cols: usize,
    rows: u64,
    buckets: Vec<Bucket>,
    importance: Vec<f32>,
    absmax: Vec<f32>,
    /// What each channel is divided by; empty for nothing.
    factors: Vec<f32>,
}

/// Rows read at a time.
const BLOCK_ROWS: u64 = 256;
/// Every so many rows one is held out.
const HOLD_OUT: u64 = 8;
/// Fewer rows than this are too few to hold any out.
const MIN_ROWS: u64 = 64;
/// The most rows that are held out.
const MAX_HELD_OUT: u64 = 128;
/// The most values, and the fewest and most rows a bucket, that activation ranges are chosen by.
const TIMED_VALUES: u64 = 1 << 20;
const TIMED_ROWS: [u64; 2] = [4, 64];

impl LayerSamples {
    /// `None` when a value is not finite.
    pub(super) fn open(
        source: Arc<dyn Source>,
        index: usize,
        tensor: &StoredTensor,
        times: &Times,
    ) -> Result<Option<Self>> {
        let info = &source.tensors()[index].info;
        let fault = |reason: String| IoError::tensor(source.path(), info.name(), reason);
        let cols = tensor.info.cols();
        if info.shape().last() != Some(&cols) || info.elements() == 0 {
            let reason =
                format!("shape {:?} does not fit the {cols} inputs of {}", info.shape(), tensor.info.name());
            return Err(fault(reason).into());
        }
        let buckets = times.buckets(info).map_err(fault)?;
        let rows = info.elements() / cols;
        let (importance, absmax, factors) = (Vec::new(), Vec::new(), Vec::new());
        Self { source, index, cols: cols as usize, rows, buckets, importance, absmax, factors }.scanned()
    }

    /// The same rows with each channel divided by its factor; `None` when a value is not finite then.
    pub(super) fn divided(self, factors: &[f32]) -> Result<Option<Self>> {
        Self { factors: factors.to_vec(), ..self }.scanned()
    }

    /// Mean square of each input channel over the rows that are not held out, each as often as its time counts.
    pub(crate) fn importance(&self) -> &[f32] {
        &self.importance
    }

    /// Largest magnitude of each input channel in each timestep bucket over the rows that are not held out.
    pub(crate) fn absmax(&self) -> &[f32] {
        &self.absmax
    }

    /// The rows that are held out, one after the other; none when there are few rows.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn held_out(&self) -> Result<Vec<f32>> {
        let mut rows = Vec::new();
        self.each_row(|n, _, row| {
            if self.is_held_out(n) {
                rows.extend_from_slice(row);
            }
        })?;
        Ok(rows)
    }

    /// The most bytes of [`LayerSamples::held_out`], with the rows that are read at a time.
    pub(crate) fn held_out_bytes(&self) -> u64 {
        (MAX_HELD_OUT + 2 * BLOCK_ROWS) * self.cols as u64 * 4
    }

    /// At most `limit` of all rows, evenly spread.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn spread(&self, limit: u64) -> Result<Vec<f32>> {
        let step = self.rows.div_ceil(limit.max(1)).max(1);
        let mut rows = Vec::new();
        self.each_row(|n, _, row| {
            if n % step == 0 {
                rows.extend_from_slice(row);
            }
        })?;
        Ok(rows)
    }

    /// Rows in the order of time, of each bucket as many, evenly spread: up to 64, and about 2^20 values in all. One step where times
    /// are not known.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn timed(&self) -> Result<TimedRows> {
        let times: Vec<f64> = self.buckets.iter().map(|b| b.time.unwrap_or(0.0)).collect();
        let share = TIMED_VALUES / (self.cols * self.buckets.len()).max(1) as u64;
        let limit = share.clamp(TIMED_ROWS[0], TIMED_ROWS[1]);
        let mut reader = WeightReader::default();
        let mut steps = Vec::new();
        for buckets in steps_of(&times) {
            let (first, last) = (times[buckets[0]], times[buckets[buckets.len() - 1]]);
            let mut rows = Vec::new();
            for bucket in buckets {
                let start = bucket.checked_sub(1).map_or(0, |before| self.buckets[before].end);
                let count = self.buckets[bucket].end - start;
                for row in (0..count).step_by(count.div_ceil(limit).max(1) as usize) {
                    rows.extend_from_slice(self.read(&mut reader, start + row, 1)?);
                    let at = rows.len() - self.cols;
                    self.divide(&mut rows[at..]);
                }
            }
            steps.push(Step { first, last, rows });
        }
        Ok(TimedRows { cols: self.cols, steps })
    }

    fn is_held_out(&self, row: u64) -> bool {
        let every = HOLD_OUT.max(self.rows.div_ceil(MAX_HELD_OUT));
        self.rows >= MIN_ROWS && row % every == every - 1
    }

    fn read<'a>(&'a self, reader: &'a mut WeightReader, first: u64, count: u64) -> Result<&'a [f32]> {
        let cols = self.cols as u64;
        reader.read(&*self.source, self.index, first * cols, (count * cols) as usize)
    }

    /// Divides each channel of a row by its factor.
    fn divide(&self, row: &mut [f32]) {
        row.iter_mut().zip(&self.factors).for_each(|(x, s)| *x /= s);
    }

    /// Visits every row with its number and its bucket.
    fn each_row(&self, mut visit: impl FnMut(u64, &Bucket, &[f32])) -> Result<()> {
        let (mut reader, mut divided) = (WeightReader::default(), Vec::new());
        let mut buckets = self.buckets.iter().peekable();
        for first in (0..self.rows).step_by(BLOCK_ROWS as usize) {
            let block = self.read(&mut reader, first, BLOCK_ROWS.min(self.rows - first))?;
            for (n, row) in (first..).zip(block.chunks(self.cols)) {
                while buckets.next_if(|bucket| bucket.end <= n).is_some() {}
                let Some(bucket) = buckets.peek() else { continue };
                if self.factors.is_empty() {
                    visit(n, bucket, row);
                    continue;
                }
                divided.clear();
                divided.extend_from_slice(row);
                self.divide(&mut divided);
                visit(n, bucket, &divided);
            }
        }
        Ok(())
    }

    /// With what is known of all rows: the mean square of each channel, and its largest magnitude in each bucket.
    fn scanned(self) -> Result<Option<Self>> {
        let (mut sums, mut total, mut finite) = (vec![0f64; self.cols], 0f64, true);
        let (mut absmax, mut ends) = (Vec::new(), self.buckets.iter().map(|b| b.end).peekable());
        self.each_row(|n, bucket, row| {
            finite &= aq_kernels::metric::first_non_finite(row).is_none();
            while ends.next_if(|&end| end < bucket.end).is_some() || absmax.is_empty() {
                absmax.resize(absmax.len() + self.cols, 0f32);
            }
            if !self.is_held_out(n) {
                let weight = bucket.weight;
                total += weight;
                let at = absmax.len() - self.cols;
                for ((x, sum), largest) in row.iter().zip(&mut sums).zip(&mut absmax[at..]) {
                    *sum += weight * (f64::from(*x) * f64::from(*x));
                    *largest = largest.max(x.abs());
                }
            }
        })?;
        let importance = sums.iter().map(|s| if total > 0.0 { (s / total) as f32 } else { 0.0 }).collect();
        Ok(finite.then(|| Self { importance, absmax, ..self }))
    }
}

impl InputRows for LayerSamples {
    /// Rows that count nothing are left out.
    fn visit(&self, visit: &mut dyn FnMut(&[f32], f64)) -> Result<(), StrategyError> {
        let room = BLOCK_ROWS as usize * self.cols;
        let (mut block, mut weight) = (Vec::with_capacity(room), 1.0);
        let read = self.each_row(|n, bucket, row| {
            if self.is_held_out(n) || bucket.weight == 0.0 {
                return;
            }
            if block.len() == room || bucket.weight != weight {
                if !block.is_empty() {
                    visit(&block, weight);
                    block.clear();
                }
                weight = bucket.weight;
            }
            block.extend_from_slice(row);
        });
        let failed = |e: crate::EngineError| StrategyError::Read {
            tensor: self.source.tensors()[self.index].info.name().to_string(),
            reason: e.to_string(),
        };
        read.map_err(failed)?;
        if !block.is_empty() {
            visit(&block, weight);
        }
        Ok(())
    }
}
