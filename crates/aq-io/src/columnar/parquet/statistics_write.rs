//! The writer of calibration statistics: one row group a layer.

use std::io::Write;
use std::path::{Path, PathBuf};

use arrow2::array::{Array, BinaryArray, PrimitiveArray, Utf8Array};
use arrow2::io::parquet::write::{KeyValue, Version, to_parquet_schema};
use parquet2::write::{DynIter, FileWriter};

use super::write::{Fault, Kept, encode};
use crate::columnar::schema::{ARROW_SCHEMA_KEY, CREATED_BY, encoded_schema};
use crate::columnar::statistics::{BucketStatistics, KIND, LayerStatistics, statistics_schema};
use crate::{IoError, Result};

/// A statistics file being written to `W`.
pub(crate) struct StatisticsWriter<W: Write> {
    path: PathBuf,
    file: FileWriter<Kept<W>>,
    fault: Fault,
}

impl<W: Write> StatisticsWriter<W> {
    /// Nothing is written yet. `path` names the file in errors.
    ///
    /// # Errors
    /// Never for the schema of this format.
    pub(crate) fn new(writer: W, path: &Path) -> Result<Self> {
        let schema = to_parquet_schema(&statistics_schema())
            .map_err(|e| IoError::unsupported(path, format!("schema: {e}")))?;
        let fault = Fault::default();
        let kept = Kept { inner: writer, fault: fault.clone() };
        let options = parquet2::write::WriteOptions { write_statistics: false, version: Version::V1 };
        let file = FileWriter::new(kept, schema, options, Some(CREATED_BY.into()));
        Ok(Self { path: path.into(), file, fault })
    }

    /// Appends a layer.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn write(&mut self, layer: &LayerStatistics) -> Result<()> {
        let Self { path, file, fault } = self;
        let columns = encode(arrays(layer), file).map_err(|e| fault.explain(path, &e))?;
        file.write(DynIter::new(columns.into_iter())).map_err(|e| fault.explain(path, &e))
    }

    /// Writes the footer and gives the writer back.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn finish(mut self, metadata: &[(String, String)]) -> Result<W> {
        let mut pairs = vec![(KIND.0.to_string(), KIND.1.to_string())];
        pairs.extend(metadata.iter().filter(|(key, _)| key != KIND.0).cloned());
        pairs.push((ARROW_SCHEMA_KEY.into(), encoded_schema(&statistics_schema())));
        let pairs = pairs.into_iter().map(|(key, value)| KeyValue { key, value: Some(value) }).collect();
        self.file.end(Some(pairs)).map_err(|e| self.fault.explain(&self.path, &e))?;
        Ok(self.file.into_inner().inner)
    }
}

/// The rows of a layer: its buckets, then its Hessian.
fn arrays(layer: &LayerStatistics) -> Vec<Box<dyn Array>> {
    let last = BucketStatistics { weight: layer.weight, rows: layer.rows, ..BucketStatistics::default() };
    let rows: Vec<&BucketStatistics> = layer.buckets.iter().chain([&last]).collect();
    let buckets = (0..layer.buckets.len() as i32).chain([-1]);
    let floats =
        |of: fn(&BucketStatistics) -> f32| PrimitiveArray::from_vec(rows.iter().map(|r| of(r)).collect());
    let doubles =
        |of: fn(&BucketStatistics) -> f64| PrimitiveArray::from_vec(rows.iter().map(|r| of(r)).collect());
    let vectors = |of: fn(&BucketStatistics) -> &[f32]| binary(rows.iter().map(|r| bytes(of(r))));
    let count = rows.len();
    let of_hessian = |value: i32| (0..count as i32 - 1).map(|_| 0).chain([value]).collect::<Vec<i32>>();
    let hessian = (1..count).map(|_| Vec::new()).chain([bytes(&layer.hessian)]);
    vec![
        Utf8Array::<i32>::from_trusted_len_values_iter(rows.iter().map(|_| layer.layer.as_str())).boxed(),
        PrimitiveArray::from_vec(buckets.collect::<Vec<i32>>()).boxed(),
        doubles(|r| r.time).boxed(),
        doubles(|r| r.weight).boxed(),
        PrimitiveArray::from_vec(rows.iter().map(|r| r.rows as i64).collect()).boxed(),
        floats(|r| r.min).boxed(),
        floats(|r| r.max).boxed(),
        vectors(|r| &r.absmax),
        vectors(|r| &r.mean_square),
        binary(rows.iter().map(|r| r.samples.clone())),
        PrimitiveArray::from_vec(of_hessian(layer.hessian_block as i32)).boxed(),
        binary(hessian),
    ]
}

fn binary(values: impl Iterator<Item = Vec<u8>>) -> Box<dyn Array> {
    BinaryArray::<i32>::from_iter_values(values).boxed()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
