//! Encodes one slab: reads its rows a block at a time, quantizes them and measures the damage.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aq_codec::ReadScratch;
use aq_core::{
    DType, EncodedRows, Encoding, LayerPlan, QuantStrategy, RowData, RowQuantizer, Rows, Scratch, SlabParts,
    StepDown, StoredTensor, StrategyError,
};
use aq_io::Source;
use aq_kernels::metric::Comparison;
use aq_kernels::output::{OutputComparison, compare_outputs};
use aq_spatial::Transformed;

use crate::blocks::TensorQuality;
use crate::calibration::LayerSamples;
use crate::gate::Gate;
use crate::weights::{WeightReader, first_non_finite};
use crate::{EngineError, Fallback, Result, destination};

/// One tensor of the output and how its slabs are made.
pub(crate) struct TensorTask<'a> {
    /// The model and the index of the tensor in it.
    pub(crate) source: &'a dyn Source,
    /// Index in the source.
    pub(crate) index: usize,
    /// Index in the output.
    pub(crate) output_index: usize,
    /// How it is encoded.
    pub(crate) stored: StoredTensor,
    /// Where the output has it dequantized: as what it is written.
    pub(crate) plain: Option<DType>,
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

/// A layer to quantize; what its rows share is prepared when the first worker needs it and dropped when the last slab is encoded, whether
/// that is written yet or not: so there is one at most for each worker.
pub(crate) struct Layer<'a> {
    pub(crate) strategy: &'a dyn QuantStrategy,
    pub(crate) plan: &'a LayerPlan,
    layer: &'a Transformed<'a>,
    pub(crate) samples: Option<&'a LayerSamples>,
    state: Mutex<LayerState<'a>>,
}

#[derive(Default)]
struct LayerState<'a> {
    prepared: Option<Arc<Prepared<'a>>>,
    /// Slabs that are encoded.
    encoded: u64,
    step_downs: Vec<StepDown>,
}

/// What the rows of a layer share.
struct Prepared<'a> {
    quantizer: Box<dyn RowQuantizer + 'a>,
    /// Calibration rows that the strategy did not see.
    held_out: Vec<f32>,
}

impl<'a> Layer<'a> {
    pub(crate) fn new(
        strategy: &'a dyn QuantStrategy,
        plan: &'a LayerPlan,
        layer: &'a Transformed<'a>,
        samples: Option<&'a LayerSamples>,
    ) -> Self {
        Self { strategy, plan, layer, samples, state: Mutex::default() }
    }

    /// The most bytes that [`Prepared`] takes.
    pub(crate) fn shared_bytes(&self) -> u64 {
        let held_out = self.samples.map_or(0, LayerSamples::held_out_bytes);
        self.layer.estimate(self.strategy, self.plan).shared_bytes.saturating_add(held_out)
    }

    fn prepared(&self) -> Result<Arc<Prepared<'a>>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = &state.prepared {
            return Ok(prepared.clone());
        }
        let quantizer = self.layer.prepare(self.strategy, self.plan)?;
        state.step_downs = quantizer.step_downs().to_vec();
        let held_out = self.samples.map(LayerSamples::held_out).transpose()?.unwrap_or_default();
        Ok(state.prepared.insert(Arc::new(Prepared { quantizer, held_out })).clone())
    }
}

impl Layer<'_> {
    /// Counts an encoded slab of `slabs`.
    fn encoded(&self, slabs: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.encoded += 1;
        if state.encoded == slabs {
            state.prepared = None;
        }
    }
}

impl TensorTask<'_> {
    /// The same task for an output without encoded tensors, whose elements are of `dtype`, or of the source's type.
    ///
    /// # Errors
    /// When the tensor would be too large.
    pub(crate) fn dequantized(mut self, dtype: Option<DType>) -> Result<Self> {
        if self.stored.encoding != Encoding::Raw {
            self.plain = Some(destination::plain(&self.stored, dtype)?.info.dtype());
        }
        Ok(self)
    }

    /// The tensor as it is written.
    pub(crate) fn written(&self) -> Result<StoredTensor> {
        self.plain
            .map_or_else(|| Ok(self.stored.clone()), |dtype| destination::plain(&self.stored, Some(dtype)))
    }

    /// First row of slab `slab`, counted as the written tensor's.
    pub(crate) fn written_row(&self, slab: u64) -> u64 {
        let (row, _) = aq_core::slab_range(&self.stored.info, &self.stored.encoding, slab);
        if self.plain.is_some() { row * self.stored.encoding.cols(&self.stored.info) } else { row }
    }

    /// The steps down that preparing the layer took.
    pub(crate) fn fallbacks(&self) -> Vec<Fallback> {
        let Work::Quantize(layer) = &self.work else { return Vec::new() };
        let state = layer.state.lock().unwrap_or_else(PoisonError::into_inner);
        let tensor = self.stored.info.name();
        let fallback = |step: &StepDown| Fallback {
            tensor: Some(tensor.to_string()),
            from: step.from.clone(),
            to: step.to.clone(),
            reason: step.reason.clone(),
        };
        state.step_downs.iter().map(fallback).collect()
    }

    /// Refuses the tensor when it is quantized and misses `gate`.
    pub(crate) fn judge(&self, gate: Option<&Gate>, quality: &TensorQuality) -> Result<()> {
        match (gate, &self.work) {
            (Some(gate), Work::Quantize(_)) => {
                gate.hold(self.stored.info.name(), &quality.comparison, &quality.output)
            }
            _ => Ok(()),
        }
    }

    /// Calibration rows of the layer that its strategy did not see.
    pub(crate) fn held_out(&self) -> Result<Vec<f32>> {
        match &self.work {
            Work::Quantize(Layer { samples: Some(samples), .. }) => samples.held_out(),
            _ => Ok(Vec::new()),
        }
    }

    /// `error` with the model's path where it is about a weight.
    fn located(&self, error: EngineError) -> EngineError {
        match error {
            EngineError::Strategy(StrategyError::NotFinite { row, col, .. }) => self.not_finite(row, col),
            error => error,
        }
    }

    /// The error for a weight that is NaN or infinite.
    fn not_finite(&self, row: u64, col: u64) -> EngineError {
        let reason = format!(
            "holds NaN or an infinite value at row {row}, column {col}; only finite weights can be quantized"
        );
        self.fault(reason)
    }

    /// An error about the tensor in its source.
    fn fault(&self, reason: String) -> EngineError {
        let tensor = self.stored.info.name().to_string();
        EngineError::Tensor { path: self.source.path().into(), tensor, reason }
    }
}

/// An encoded slab with what was learned on the way.
pub(crate) struct Encoded {
    pub(crate) rows: EncodedRows,
    /// Bytes of the encoded rows; `rows` holds others where they are written dequantized.
    pub(crate) encoded_bytes: u64,
    pub(crate) comparison: Comparison,
    pub(crate) output: OutputComparison,
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
        if slab == 0 {
            rows.side.extend_from_slice(parts.side);
        }
    }
    rows.row_count = count;
    Ok(())
}

/// Makes room for `count` rows at once: growing row by row would move them, and take up to twice the memory.
fn reserve(rows: &mut EncodedRows, encoding: &Encoding, cols: usize, count: usize) {
    if *encoding == Encoding::Entropy {
        // Until the slab ends, two bytes a code and two a row.
        rows.codes.reserve_exact(2 * cols * count);
        rows.scales.reserve_exact(2 * count);
    }
    let (codes, scales, offsets) = match encoding {
        Encoding::Affine(affine) => {
            let row = aq_codec::row_bytes(affine, cols);
            // The zero points of the last row lie behind their packed form for a moment.
            (row.codes, row.scales, row.offsets * count + affine.group_size.groups(cols))
        }
        Encoding::Codebook(codebook) => {
            let scales = codebook.group_size.groups(cols) * 2;
            (codebook.bits.packed_len(cols), scales, aq_codec::table_bytes(codebook) as usize)
        }
        Encoding::Sign(sign) => {
            (cols.div_ceil(sign.levels.codes_per_byte()), sign.group_size.groups(cols) * 2, 0)
        }
        Encoding::Ggml(kind) => (kind.row_bytes(cols as u64).unwrap_or(0) as usize, 0, 0),
        _ => return,
    };
    rows.codes.reserve_exact(codes * count);
    rows.scales.reserve_exact(scales * count);
    rows.offsets.reserve_exact(offsets);
    rows.extra.reserve_exact(count);
}

/// The buffers of one worker.
pub(crate) struct SlabWorker {
    block_bytes: u64,
    reader: WeightReader,
    stored: Vec<u8>,
    plain: Vec<u8>,
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
            plain: Vec::new(),
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
        let encoded_bytes = match task.plain {
            Some(dtype) => self.copy_decoded(task, slab, dtype, &mut rows)?,
            None => {
                copy_slab(task.source, task.index, slab, &mut self.stored, &mut rows)?;
                rows.bytes()
            }
        };
        let raw = task.stored.encoding == Encoding::Raw;
        let non_finite = raw && self.holds_non_finite(task.stored.info.dtype(), &rows.codes)?;
        let source_bytes = rows.bytes();
        let (comparison, output) = Default::default();
        Ok(Encoded { rows, encoded_bytes, comparison, output, non_finite, source_bytes })
    }

    /// Fills `rows` with the decoded weights of a slab; returns the bytes that it has encoded.
    fn copy_decoded(
        &mut self,
        task: &TensorTask<'_>,
        slab: u64,
        dtype: DType,
        rows: &mut EncodedRows,
    ) -> Result<u64> {
        let StoredTensor { info, encoding, .. } = &task.stored;
        let (_, count) = aq_core::slab_range(info, encoding, slab);
        let elements = count * encoding.cols(info);
        let parts = task.source.read_slab(task.index, slab, &mut self.stored)?;
        let encoded = [parts.codes, parts.scales, parts.offsets, parts.extra].map(|part| part.len() as u64);
        let side = if slab == 0 { parts.side.len() as u64 } else { 0 };
        self.weights.resize(elements as usize, 0.0);
        aq_codec::decode(encoding, info, parts, count, 0, &mut self.read_scratch, &mut self.weights)
            .map_err(|e| task.fault(e.to_string()))?;
        self.plain.clear();
        push_plain(dtype, &self.weights, &mut self.plain)?;
        self.hand_out(elements, rows);
        Ok(encoded.iter().sum::<u64>() + side)
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
        let prepared = layer.prepared().map_err(|e| task.located(e))?;
        if slab == 0 {
            rows.side.extend_from_slice(prepared.quantizer.side());
        }
        reserve(&mut rows, encoding, info.cols() as usize, count as usize);
        // Whatever needs a slab that is complete waits until it is.
        let at_once = encoding.has_fixed_size() && prepared.held_out.is_empty();
        let mut measured = Measured::default();
        for block in Block::all(start, count, step) {
            if cancel.load(Ordering::Relaxed) {
                return Err(EngineError::Interrupted);
            }
            let comparison = at_once.then_some(&mut measured.comparison);
            self.quantize_block(task, &*prepared.quantizer, block, &mut rows, comparison)?;
        }
        prepared.quantizer.end_slab(&mut self.scratch, &mut rows)?;
        aq_codec::seal(&mut rows);
        // Decoding starts where a stream does, so blocks are whole streams.
        let step = step.next_multiple_of(aq_codec::entropy::stream_rows(info.cols() as usize) as u64);
        if !at_once {
            for block in Block::all(start, count, step) {
                self.measure(task, &prepared, block, rows.parts(), &mut measured)?;
            }
        }
        let encoded_bytes = rows.bytes();
        if let Some(dtype) = task.plain {
            self.dequantize(task, &prepared, dtype, Block::all(start, count, step), &mut rows)?;
        }
        drop(prepared);
        layer.encoded(task.slabs);
        let Measured { comparison, output, .. } = measured;
        let source_bytes = count * row_bytes;
        Ok(Encoded { rows, encoded_bytes, comparison, output, non_finite: false, source_bytes })
    }

    /// Puts the decoded weights of a slab, of which `blocks` are all blocks, in the place of its codes.
    fn dequantize(
        &mut self,
        task: &TensorTask<'_>,
        prepared: &Prepared<'_>,
        dtype: DType,
        blocks: impl Iterator<Item = Block>,
        rows: &mut EncodedRows,
    ) -> Result<()> {
        let StoredTensor { info, encoding, .. } = &task.stored;
        self.plain.clear();
        for block in blocks {
            let parts = block.of(rows.parts(), prepared.quantizer.side());
            self.weights.resize(block.weights(info.cols() as usize).1, 0.0);
            let (scratch, weights) = (&mut self.read_scratch, &mut self.weights);
            aq_codec::decode(encoding, info, parts, block.rows, block.in_slab, scratch, weights)
                .map_err(|e| EngineError::Internal(e.to_string()))?;
            push_plain(dtype, weights, &mut self.plain)?;
        }
        let elements = rows.row_count * info.cols();
        self.hand_out(elements, rows);
        Ok(())
    }

    /// Makes `rows` the `elements` plain elements that were gathered.
    fn hand_out(&mut self, elements: u64, rows: &mut EncodedRows) {
        rows.clear();
        std::mem::swap(&mut rows.codes, &mut self.plain);
        rows.row_count = elements;
    }

    /// Quantizes the rows of `block`, appends them to `rows`, and compares them where `comparison` is to be filled.
    fn quantize_block(
        &mut self,
        task: &TensorTask<'_>,
        quantizer: &dyn RowQuantizer,
        block: Block,
        rows: &mut EncodedRows,
        comparison: Option<&mut Comparison>,
    ) -> Result<()> {
        let cols = task.stored.info.cols() as usize;
        let (start, n) = block.weights(cols);
        let weights = self.reader.read_rows(task.source, task.index, start, n)?;
        if !quantizer.refuses_non_finite()
            && let Some(at) = first_non_finite(weights)
        {
            return Err(task.not_finite(block.first + (at / cols) as u64, (at % cols) as u64));
        }
        let source = Rows { data: weights, cols, first_row: block.first };
        quantizer.quantize_rows(source, &mut self.scratch, rows).map_err(|e| task.located(e.into()))?;
        let (got, expected) = (rows.row_count, block.in_slab + block.rows);
        if got != expected {
            return Err(EngineError::Internal(format!("a strategy gave {got} rows of {expected}")));
        }
        let Some(comparison) = comparison else { return Ok(()) };
        let parts = block.of(rows.parts(), quantizer.side());
        block.compare(task, parts, weights, &mut self.read_scratch, comparison)
    }

    /// Compares the rows of `block` in the slab `parts` with the weights they were made of, and their outputs where inputs were
    /// held out.
    fn measure(
        &mut self,
        task: &TensorTask<'_>,
        prepared: &Prepared<'_>,
        block: Block,
        parts: SlabParts<'_>,
        measured: &mut Measured,
    ) -> Result<()> {
        let StoredTensor { info, encoding, .. } = &task.stored;
        let (cols, parts) = (info.cols() as usize, block.of(parts, prepared.quantizer.side()));
        let (start, n) = block.weights(cols);
        let scratch = &mut self.read_scratch;
        if prepared.held_out.is_empty() {
            let weights = self.reader.read_rows(task.source, task.index, start, n)?;
            return block.compare(task, parts, weights, scratch, &mut measured.comparison);
        }
        let weights = self.reader.read(task.source, task.index, start, n)?;
        self.weights.resize(n, 0.0);
        aq_codec::decode(encoding, info, parts, block.rows, block.in_slab, scratch, &mut self.weights)
            .map_err(|e| EngineError::Internal(e.to_string()))?;
        measured.add_rows(cols, weights, &self.weights, &prepared.held_out);
        Ok(())
    }
}

/// Appends `weights` as elements of `dtype`.
fn push_plain(dtype: DType, weights: &[f32], out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    out.resize(start + weights.len() * dtype.size(), 0);
    aq_codec::f32_to_bytes(dtype, weights, &mut out[start..])
        .map_err(|e| EngineError::Internal(e.to_string()))
}

/// Some rows of a slab that are worked on at once.
#[derive(Clone, Copy)]
struct Block {
    /// First row in the tensor.
    first: u64,
    /// First row in the slab.
    in_slab: u64,
    rows: u64,
}

impl Block {
    /// The blocks of `step` rows, the last one maybe of fewer, of a slab of `count` rows from `start` on.
    fn all(start: u64, count: u64, step: u64) -> impl Iterator<Item = Self> {
        (0..count).step_by(step as usize).map(move |done| Self {
            first: start + done,
            in_slab: done,
            rows: step.min(count - done),
        })
    }

    /// Its first weight in the tensor, and their number.
    fn weights(self, cols: usize) -> (u64, usize) {
        (self.first * cols as u64, self.rows as usize * cols)
    }

    /// The parts of its slab with what they need of their place in the tensor.
    fn of<'a>(self, parts: SlabParts<'a>, side: &'a [u8]) -> SlabParts<'a> {
        SlabParts { side, row_start: self.first - self.in_slab, ..parts }
    }

    /// Compares its encoded rows with the weights they were made of.
    fn compare(
        self,
        task: &TensorTask<'_>,
        parts: SlabParts<'_>,
        weights: RowData<'_>,
        scratch: &mut ReadScratch,
        total: &mut Comparison,
    ) -> Result<()> {
        let StoredTensor { info, encoding, .. } = &task.stored;
        aq_codec::compare(encoding, info, parts, self.rows, self.in_slab, weights, scratch, total)
            .map_err(|e| EngineError::Internal(e.to_string()))
    }
}

/// What is measured of rows and their quantized form.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) comparison: Comparison,
    pub(crate) output: OutputComparison,
    /// Room for the errors of a row.
    errors: Vec<f32>,
}

impl Measured {
    /// Adds what was measured of other rows.
    pub(crate) fn merge(&mut self, other: &Measured) {
        self.comparison.merge(&other.comparison);
        self.output.merge(&other.output);
    }

    /// Adds rows of `cols` weights `w` and their quantized form `q`, and what they make of `inputs`, row by row.
    pub(crate) fn add_rows(&mut self, cols: usize, w: &[f32], q: &[f32], inputs: &[f32]) {
        self.errors.resize(cols, 0.0);
        for (w, q) in w.chunks(cols).zip(q.chunks(cols)) {
            self.comparison.merge(&aq_kernels::metric::compare(w, q));
            if !inputs.is_empty() {
                self.output.merge(&compare_outputs(inputs, w, q, &mut self.errors));
            }
        }
    }
}
