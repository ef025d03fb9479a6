//! Encodes one slab: reads its rows a block at a time, quantizes them and measures the damage.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aq_codec::ReadScratch;
use aq_core::{
    DType, EncodedRows, Encoding, LayerInputs, LayerPlan, LayerStats, QuantStrategy, RowQuantizer, Rows,
    Scratch, StoredTensor,
};
use aq_io::Source;
use aq_kernels::metric::Comparison;

use crate::weights::{WeightReader, first_non_finite};
use crate::{EngineError, Result};

/// One tensor of the output and how its slabs are made.
pub(crate) struct TensorTask<'a> {
    /// The model and the index of the tensor in it.
    pub(crate) source: &'a dyn Source,
    /// Index in the source.
    pub(crate) index: usize,
    /// Index in the output.
    pub(crate) output_index: usize,
    /// How it is stored in the output.
    pub(crate) stored: StoredTensor,
    /// Number of slabs.
    pub(crate) slabs: u64,
    /// What is done to its rows.
    pub(crate) work: Work<'a>,
}

/// What is done to the rows of a tensor.
pub(crate) enum Work<'a> {
    /// They are copied in the encoding they have.
    Copy,
    /// They are quantized.
    Quantize(Layer<'a>),
}

/// A layer to quantize; what its rows share is prepared when the first worker needs it and dropped after the last slab.
pub(crate) struct Layer<'a> {
    pub(crate) strategy: &'a dyn QuantStrategy,
    pub(crate) plan: &'a LayerPlan,
    pub(crate) inputs: LayerInputs<'a>,
    prepared: Mutex<Option<Arc<dyn RowQuantizer + 'a>>>,
}

impl<'a> Layer<'a> {
    pub(crate) fn new(
        strategy: &'a dyn QuantStrategy,
        plan: &'a LayerPlan,
        info: &'a aq_core::TensorInfo,
        importance: Option<&'a [f32]>,
    ) -> Self {
        let inputs = LayerInputs { info, stats: LayerStats { importance } };
        Self { strategy, plan, inputs, prepared: Mutex::new(None) }
    }

    fn quantizer(&self) -> Result<Arc<dyn RowQuantizer + 'a>> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(quantizer) = prepared.as_ref() {
            return Ok(quantizer.clone());
        }
        let quantizer: Arc<dyn RowQuantizer + 'a> = self.strategy.prepare(&self.inputs, self.plan)?.into();
        Ok(prepared.insert(quantizer).clone())
    }
}

impl TensorTask<'_> {
    /// Drops what the layer's rows shared.
    pub(crate) fn release(&self) {
        if let Work::Quantize(layer) = &self.work {
            *layer.prepared.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    fn fail(&self, reason: String) -> EngineError {
        let tensor = self.stored.info.name().to_string();
        EngineError::Tensor { path: self.source.path().into(), tensor, reason }
    }
}

/// An encoded slab with what was learned on the way.
pub(crate) struct Encoded {
    pub(crate) rows: EncodedRows,
    pub(crate) comparison: Comparison,
    pub(crate) non_finite: bool,
    pub(crate) source_bytes: u64,
}

/// Copies slab `slab` of tensor `index` as it is stored into `rows`, which is empty. `buffer` is room for reading.
pub(crate) fn copy_slab(
    source: &dyn Source,
    index: usize,
    slab: u64,
    buffer: &mut Vec<u8>,
    rows: &mut EncodedRows,
) -> Result<()> {
    let stored = &source.tensors()[index];
    let (start, count) = aq_core::slab_range(&stored.info, &stored.encoding, slab);
    if stored.encoding == Encoding::Raw {
        let size = stored.info.dtype().size() as u64;
        rows.codes.resize((count * size) as usize, 0);
        source.read_bytes(index, start * size, &mut rows.codes)?;
    } else {
        let parts = source.read_slab(index, slab, buffer)?;
        rows.codes.extend_from_slice(parts.codes);
        rows.scales.extend_from_slice(parts.scales);
        rows.offsets.extend_from_slice(parts.offsets);
        rows.extra.extend_from_slice(parts.extra);
    }
    rows.row_count = count;
    Ok(())
}

/// Makes room for `count` rows at once: growing row by row would move them, and take up to twice the memory.
fn reserve(rows: &mut EncodedRows, encoding: &Encoding, cols: usize, count: usize) {
    let Encoding::Affine(affine) = encoding else { return };
    let row = aq_codec::row_bytes(affine, cols);
    rows.codes.reserve_exact(row.codes * count);
    rows.scales.reserve_exact(row.scales * count);
    // The zero points of the last row lie behind their packed form for a moment.
    rows.offsets.reserve_exact(row.offsets * count + affine.group_size.groups(cols));
    rows.extra.reserve_exact(count);
}

/// The buffers of one worker.
pub(crate) struct SlabWorker {
    block_bytes: u64,
    reader: WeightReader,
    stored: Vec<u8>,
    weights: Vec<f32>,
    read_scratch: ReadScratch,
    scratch: Scratch,
}

impl SlabWorker {
    pub(crate) fn new(block_bytes: u64) -> Self {
        Self {
            block_bytes,
            reader: WeightReader::default(),
            stored: Vec::new(),
            weights: Vec::new(),
            read_scratch: ReadScratch::default(),
            scratch: Scratch::default(),
        }
    }

    /// Encodes slab `slab` of `task` into `rows`, which is empty.
    pub(crate) fn encode(
        &mut self,
        task: &TensorTask<'_>,
        slab: u64,
        rows: EncodedRows,
        cancel: &AtomicBool,
    ) -> Result<Encoded> {
        match &task.work {
            Work::Copy => self.copy(task, slab, rows),
            Work::Quantize(layer) => self.quantize(task, layer, slab, rows, cancel),
        }
    }

    fn copy(&mut self, task: &TensorTask<'_>, slab: u64, mut rows: EncodedRows) -> Result<Encoded> {
        copy_slab(task.source, task.index, slab, &mut self.stored, &mut rows)?;
        let raw = task.stored.encoding == Encoding::Raw;
        let non_finite = raw && self.holds_non_finite(task.stored.info.dtype(), &rows.codes)?;
        let source_bytes = rows.bytes();
        Ok(Encoded { rows, comparison: Comparison::default(), non_finite, source_bytes })
    }

    fn holds_non_finite(&mut self, dtype: DType, bytes: &[u8]) -> Result<bool> {
        if !dtype.is_float() {
            return Ok(false);
        }
        for block in bytes.chunks(1 << 16) {
            self.weights.resize(block.len() / dtype.size(), 0.0);
            aq_codec::bytes_to_f32(dtype, block, &mut self.weights)
                .map_err(|e| EngineError::Internal(e.to_string()))?;
            if aq_kernels::metric::first_non_finite(&self.weights).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn quantize(
        &mut self,
        task: &TensorTask<'_>,
        layer: &Layer<'_>,
        slab: u64,
        mut rows: EncodedRows,
        cancel: &AtomicBool,
    ) -> Result<Encoded> {
        let (info, encoding) = (&task.stored.info, &task.stored.encoding);
        let (start, count) = aq_core::slab_range(info, encoding, slab);
        let row_bytes = (info.cols() * info.dtype().size() as u64).max(1);
        let step = (self.block_bytes / row_bytes).clamp(1, count.max(1));
        let quantizer = layer.quantizer()?;
        reserve(&mut rows, encoding, info.cols() as usize, count as usize);
        let mut comparison = Comparison::default();
        let mut done = 0;
        while done < count {
            if cancel.load(Ordering::Relaxed) {
                return Err(EngineError::Interrupted);
            }
            let n = step.min(count - done);
            self.block(task, &*quantizer, start + done, n, done, &mut rows, &mut comparison)?;
            done += n;
        }
        aq_codec::seal(&mut rows);
        Ok(Encoded { rows, comparison, non_finite: false, source_bytes: count * row_bytes })
    }

    /// Quantizes `n` rows from `first` on, which are the rows from `in_slab` on of the slab.
    #[allow(clippy::too_many_arguments, reason = "the coordinates of one block in tensor and slab")]
    fn block(
        &mut self,
        task: &TensorTask<'_>,
        quantizer: &dyn RowQuantizer,
        first: u64,
        n: u64,
        in_slab: u64,
        rows: &mut EncodedRows,
        comparison: &mut Comparison,
    ) -> Result<()> {
        let info = &task.stored.info;
        let cols = info.cols() as usize;
        let weights =
            self.reader.read_rows(task.source, task.index, first * cols as u64, n as usize * cols)?;
        if let Some(at) = first_non_finite(weights) {
            let (row, col) = (first + (at / cols) as u64, at % cols);
            return Err(task.fail(format!(
                "holds NaN or an infinite value at row {row}, column {col}; only finite weights can be quantized"
            )));
        }
        let block = Rows { data: weights, cols, first_row: first };
        quantizer.quantize_rows(block, &mut self.scratch, rows)?;
        if rows.row_count != in_slab + n {
            let (got, expected) = (rows.row_count, in_slab + n);
            return Err(EngineError::Internal(format!("a strategy gave {got} rows of {expected}")));
        }
        let (encoding, parts) = (&task.stored.encoding, rows.parts());
        aq_codec::compare(encoding, info, parts, n, in_slab, weights, &mut self.read_scratch, comparison)
            .map_err(|e| EngineError::Internal(e.to_string()))
    }
}
