//! The input rows of one layer, read when they are asked for.

use aq_core::{InputRows, SecondMoments, StoredTensor, StrategyError};
use aq_timeaware::{Step, TimedRows, steps_of};

use super::held_out::HeldOut;
use super::rows::{RowReader, RowSource};
use super::times::{Bucket, Times};
use crate::{EngineError, Result};

/// The input rows of one layer. Some of them are held out: strategies do not see them, and the report measures on them.
pub(crate) struct LayerSamples {
    source: RowSource,
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
/// The most values, and the fewest and most rows a bucket, that activation ranges are chosen by.
const TIMED_VALUES: u64 = 1 << 20;
const TIMED_ROWS: [u64; 2] = [4, 64];

impl LayerSamples {
    /// The inputs of `tensor`; `times` are those of a samples file. `None` when a value is not finite.
    ///
    /// # Errors
    /// When they cannot be read, or their shape does not fit the tensor or the times.
    pub(super) fn open(
        source: RowSource,
        times: Option<&Times>,
        tensor: &StoredTensor,
    ) -> Result<Option<Self>> {
        let (cols, weight) = (tensor.info.cols(), tensor.info.name());
        let given = match &source {
            RowSource::Samples { source, index } => source.tensors()[*index].info.shape().to_vec(),
            RowSource::Statistics { file, layer } => vec![file.layers()[*layer].cols as u64],
        };
        if given.last() != Some(&cols) || given.contains(&0) {
            return Err(source.fault(format!("shape {given:?} does not fit the {cols} inputs of {weight}")));
        }
        Self::of_width(source, times, cols as usize)
    }

    /// Inputs of `cols` channels, whatever layer they belong to; `None` when a value is not finite.
    ///
    /// # Errors
    /// When they cannot be read, or their shape does not fit the times.
    pub(crate) fn of_width(source: RowSource, times: Option<&Times>, cols: usize) -> Result<Option<Self>> {
        let buckets = match &source {
            RowSource::Samples { source: file, index } => {
                let info = &file.tensors()[*index].info;
                let buckets = times.map_or(Ok(Vec::new()), |times| times.buckets(info));
                buckets.map_err(|fact| source.fault(fact))?
            }
            RowSource::Statistics { file, layer } => Bucket::stored(&file.layers()[*layer]),
        };
        let rows = buckets.last().map_or(0, |bucket| bucket.end);
        let (importance, absmax, factors) = (Vec::new(), Vec::new(), Vec::new());
        Self { source, cols, rows, buckets, importance, absmax, factors }.look_at_all()
    }

    /// The same rows with each channel divided by its factor; `None` when a value is not finite then.
    pub(super) fn divided(self, factors: &[f32]) -> Result<Option<Self>> {
        Self { factors: factors.to_vec(), ..self }.look_at_all()
    }

    /// Input channels.
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Where the rows of each time are.
    pub(crate) fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// Name of the layer in its file.
    pub(crate) fn name(&self) -> &str {
        self.source.name()
    }

    /// An error about the layer.
    pub(crate) fn fault(&self, fact: String) -> EngineError {
        self.source.fault(fact)
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
        (HeldOut::MOST + 2 * BLOCK_ROWS) * self.cols as u64 * 4
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
        let mut reader = RowReader::default();
        let mut steps = Vec::new();
        for buckets in steps_of(&times) {
            let (first, last) = (times[buckets[0]], times[buckets[buckets.len() - 1]]);
            let mut rows = Vec::new();
            for bucket in buckets {
                let start = bucket.checked_sub(1).map_or(0, |before| self.buckets[before].end);
                let count = self.buckets[bucket].end - start;
                for row in (0..count).step_by(count.div_ceil(limit).max(1) as usize) {
                    rows.extend_from_slice(self.source.read(&mut reader, self.cols, start + row, 1)?);
                    let at = rows.len() - self.cols;
                    self.divide(&mut rows[at..]);
                }
            }
            steps.push(Step { first, last, rows });
        }
        Ok(TimedRows { cols: self.cols, steps })
    }

    fn is_held_out(&self, row: u64) -> bool {
        HeldOut::of(self.rows).holds(row)
    }

    /// Divides each channel of a row by its factor.
    fn divide(&self, row: &mut [f32]) {
        row.iter_mut().zip(&self.factors).for_each(|(x, s)| *x /= s);
    }

    /// Visits every row with its number and the number of its bucket.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn each_row(&self, mut visit: impl FnMut(u64, usize, &[f32])) -> Result<()> {
        let (mut reader, mut divided, mut bucket) = (RowReader::default(), Vec::new(), 0);
        for first in (0..self.rows).step_by(BLOCK_ROWS as usize) {
            let count = BLOCK_ROWS.min(self.rows - first);
            let block = self.source.read(&mut reader, self.cols, first, count)?;
            for (n, row) in (first..).zip(block.chunks(self.cols)) {
                while self.buckets[bucket].end <= n {
                    bucket += 1;
                }
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

    /// With what is known of all rows: the importance, from stored moments where there are some; `None` when a value is not finite.
    fn look_at_all(self) -> Result<Option<Self>> {
        let Some(measured) = self.scanned()? else { return Ok(None) };
        let RowSource::Statistics { file, layer } = &measured.source else { return Ok(Some(measured)) };
        let layer = &file.layers()[*layer];
        let hessian = measured.hessian()?;
        if aq_kernels::metric::first_non_finite(&hessian).is_some() {
            return Ok(None);
        }
        let share = |sum: f32| if layer.weight > 0.0 { (f64::from(sum) / layer.weight) as f32 } else { 0.0 };
        let diagonal = diagonal(&hessian, layer.cols, layer.hessian_block);
        let importance = diagonal.map(share).map(|v| v.max(0.0)).collect();
        Ok(Some(Self { importance, ..measured }))
    }

    /// The stored moments of the divided channels; nothing where there are none.
    fn hessian(&self) -> Result<Vec<f32>> {
        let RowSource::Statistics { file, layer } = &self.source else { return Ok(Vec::new()) };
        let layer = &file.layers()[*layer];
        let mut values = file.hessian(layer)?;
        let mut rest = values.as_mut_slice();
        for factors in self.factors.chunks(layer.hessian_block) {
            let (block, after) = rest.split_at_mut(factors.len() * factors.len());
            for (row, own) in block.chunks_exact_mut(factors.len()).zip(factors) {
                row.iter_mut().zip(factors).for_each(|(h, other)| *h /= own * other);
            }
            rest = after;
        }
        Ok(values)
    }

    /// The mean square of each channel, and its largest magnitude in each bucket; `None` when a value is not finite.
    fn scanned(self) -> Result<Option<Self>> {
        let (mut sums, mut total, mut finite) = (vec![0f64; self.cols], 0f64, true);
        let mut absmax = vec![0f32; self.buckets.len().max(1) * self.cols];
        self.each_row(|n, bucket, row| {
            let weight = self.buckets[bucket].weight;
            finite &= aq_kernels::metric::first_non_finite(row).is_none();
            if !self.is_held_out(n) {
                total += weight;
                let absmax = &mut absmax[bucket * self.cols..][..self.cols];
                for ((x, sum), largest) in row.iter().zip(&mut sums).zip(absmax) {
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
            let own = self.buckets[bucket].weight;
            if self.is_held_out(n) || own == 0.0 {
                return;
            }
            if block.len() == room || own != weight {
                if !block.is_empty() {
                    visit(&block, weight);
                    block.clear();
                }
                weight = own;
            }
            block.extend_from_slice(row);
        });
        read.map_err(|e| self.unreadable(&e))?;
        if !block.is_empty() {
            visit(&block, weight);
        }
        Ok(())
    }

    fn moments(&self) -> Result<Option<SecondMoments>, StrategyError> {
        let RowSource::Statistics { file, layer } = &self.source else { return Ok(None) };
        let layer = &file.layers()[*layer];
        let values = self.hessian().map_err(|e| self.unreadable(&e))?;
        let values = values.into_iter().map(f64::from).collect();
        Ok(Some(SecondMoments { block: layer.hessian_block, rows: layer.rows, values }))
    }
}

impl LayerSamples {
    fn unreadable(&self, error: &EngineError) -> StrategyError {
        StrategyError::Read { tensor: self.name().to_string(), reason: error.to_string() }
    }
}

/// The diagonal of a block-diagonal matrix of `cols` columns.
fn diagonal(values: &[f32], cols: usize, block: usize) -> impl Iterator<Item = f32> {
    (0..cols).map(move |col| {
        let (first, within) = (col / block * block, col % block);
        let size = block.min(cols - first);
        values[first * block + within * (size + 1)]
    })
}
