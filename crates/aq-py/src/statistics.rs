//! Statistics of layer inputs, written as they are handed over.

use std::collections::BTreeMap;
use std::path::PathBuf;

use aq_engine::{CollectedBucket, CollectedLayer};
use half::f16;
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;

use crate::errors::{raised, refused};

/// A file of statistics that is being written.
#[pyclass(module = "arrow_quant._native")]
pub(crate) struct StatisticsWriter {
    writer: Option<aq_engine::StatisticsWriter>,
}

/// Of a bucket: time, rows, least and largest value, and by channel the largest magnitudes and mean squares; then kept rows.
type Bucket<'py> =
    (f64, u64, f32, f32, PyReadonlyArray1<'py, f32>, PyReadonlyArray1<'py, f32>, PyReadonlyArray1<'py, f16>);

#[pymethods]
impl StatisticsWriter {
    /// Begins a file beside `path`, which is replaced at the end.
    #[new]
    fn new(path: PathBuf) -> PyResult<Self> {
        let writer = aq_engine::StatisticsWriter::create(&path, true).map_err(raised)?;
        Ok(Self { writer: Some(writer) })
    }

    /// Appends a layer.
    fn write(
        &mut self,
        py: Python<'_>,
        name: &str,
        buckets: Vec<Bucket<'_>>,
        rows: u64,
        hessian: PyReadonlyArray1<'_, f64>,
    ) -> PyResult<()> {
        let writer = self.writer.as_mut().ok_or_else(|| refused("the statistics are finished"))?;
        let mut given = Vec::with_capacity(buckets.len());
        for (time, rows, min, max, absmax, mean_square, kept) in &buckets {
            let (absmax, mean_square, kept) = (absmax.as_slice()?, mean_square.as_slice()?, kept.as_slice()?);
            let (time, rows, min, max) = (*time, *rows, *min, *max);
            given.push(CollectedBucket { time, rows, min, max, absmax, mean_square, kept });
        }
        let layer = CollectedLayer { name, buckets: given, rows, hessian: hessian.as_slice()? };
        py.detach(|| writer.write(&layer)).map_err(raised)
    }

    /// Moves the file to its place and gives its bytes.
    fn finish(&mut self, py: Python<'_>, time: &str, aliases: BTreeMap<String, String>) -> PyResult<u64> {
        let writer = self.writer.take().ok_or_else(|| refused("the statistics are finished"))?;
        py.detach(|| writer.finish(time, &aliases)).map_err(raised)
    }
}

/// Columns of a block of the Hessian of a layer of `cols` columns.
#[pyfunction]
pub(crate) fn hessian_block(cols: usize) -> usize {
    aq_engine::hessian_block(cols)
}
