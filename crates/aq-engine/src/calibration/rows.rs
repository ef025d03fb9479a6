//! Where the rows of a layer are read from.

use std::sync::Arc;

use aq_core::DType;
use aq_io::{IoError, Source, StatisticsFile, StoredLayer};

use crate::weights::WeightReader;
use crate::{EngineError, Result};

/// The rows of one layer in a calibration file.
pub(crate) enum RowSource {
    /// All rows of tensor `index`.
    Samples {
        /// The file.
        source: Arc<dyn Source>,
        /// The tensor.
        index: usize,
    },
    /// The rows that statistics keep.
    Statistics {
        /// The file.
        file: Arc<StatisticsFile>,
        /// The layer.
        layer: usize,
    },
}

/// Buffers for reading, reused from call to call.
#[derive(Debug, Default)]
pub(super) struct RowReader {
    weights: WeightReader,
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl RowSource {
    /// Name of the layer.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Samples { source, index } => source.tensors()[*index].info.name(),
            Self::Statistics { file, layer } => &file.layers()[*layer].layer,
        }
    }

    /// An error about the layer.
    pub(crate) fn fault(&self, fact: String) -> EngineError {
        let path = match self {
            Self::Samples { source, .. } => source.path(),
            Self::Statistics { file, .. } => file.path(),
        };
        IoError::tensor(path, self.name(), fact).into()
    }

    /// Rows `first .. first + count` of `cols` values.
    pub(super) fn read<'a>(
        &self,
        reader: &'a mut RowReader,
        cols: usize,
        first: u64,
        count: u64,
    ) -> Result<&'a [f32]> {
        match self {
            Self::Samples { source, index } => {
                reader.weights.read(&**source, *index, first * cols as u64, count as usize * cols)
            }
            Self::Statistics { file, layer } => {
                reader.read_stored(file, &file.layers()[*layer], first, count)?;
                Ok(&reader.values)
            }
        }
    }
}

impl RowReader {
    fn read_stored(
        &mut self,
        file: &StatisticsFile,
        layer: &StoredLayer,
        first: u64,
        count: u64,
    ) -> Result<()> {
        let row_bytes = 2 * layer.cols as u64;
        self.bytes.resize((count * row_bytes) as usize, 0);
        let (mut start, mut filled) = (0, 0);
        for bucket in &layer.buckets {
            let end = start + bucket.samples;
            let (from, to) = (first.max(start), (first + count).min(end));
            if from < to {
                let bytes = ((to - from) * row_bytes) as usize;
                let dst = &mut self.bytes[filled..filled + bytes];
                file.read_samples(bucket, (from - start) * row_bytes, dst)?;
                filled += bytes;
            }
            start = end;
        }
        self.values.resize(count as usize * layer.cols, 0.0);
        aq_codec::bytes_to_f32(DType::F16, &self.bytes, &mut self.values)
            .map_err(|e| EngineError::Internal(e.to_string()))
    }
}
