//! Tensors as Arrow record batches, handed over by the PyCapsule interface: the columns of docs/format.md.

mod abi;

use std::ffi::CStr;
use std::ops::Range;
use std::sync::Arc;

use aq_engine::aq_core::slab_count;
use aq_engine::{EngineError, SlabRow, Source, slab_row};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

pub(crate) use self::abi::Buffer;
use self::abi::{ArrowArray, ArrowArrayStream, ArrowSchema, Batches};
use crate::errors::raised;
use crate::mapped::{Place, buffer};

/// Names and types of the columns.
const COLUMNS: [(&str, &CStr); 13] = [
    ("tensor", c"u"),
    ("row_start", c"l"),
    ("row_count", c"l"),
    ("shape", c"+l"),
    ("src_dtype", c"u"),
    ("codec", c"u"),
    ("bits", c"C"),
    ("group_size", c"i"),
    ("codes", c"Z"),
    ("scales", c"z"),
    ("offsets", c"z"),
    ("extra", c"z"),
    ("xxh3", c"L"),
];

/// The schema of every batch, with the metadata of the model.
fn schema(model: &dyn Source) -> ArrowSchema {
    let column = |(name, format): &(&str, &'static CStr)| {
        let item = || ArrowSchema::new(c"l", "item", Vec::new(), &[]);
        let children = if *name == "shape" { vec![item()] } else { Vec::new() };
        ArrowSchema::new(format, name, children, &[])
    };
    let metadata: Vec<_> =
        model.metadata().iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    ArrowSchema::new(c"+s", "", COLUMNS.iter().map(column).collect(), &metadata)
}

/// A batch for each slab of some tensors, made when it is asked for.
struct Slabs {
    model: Arc<dyn Source>,
    tensors: Range<usize>,
    slab: u64,
}

impl Batches for Slabs {
    fn schema(&self) -> ArrowSchema {
        schema(&*self.model)
    }

    fn next_batch(&mut self) -> Option<Result<ArrowArray, String>> {
        let index = self.tensors.clone().next()?;
        let stored = &self.model.tensors()[index];
        let slab = self.slab;
        self.slab += 1;
        if self.slab == slab_count(&stored.info, &stored.encoding) {
            (self.tensors.start, self.slab) = (index + 1, 0);
        }
        Some(batch(&self.model, index, slab..slab + 1).map_err(|error| error.to_string()))
    }
}

/// Rows `slabs` of tensor `index` as a struct. The codes of a single one are not copied; those of several lie in one buffer, as Arrow
/// has it.
fn batch(model: &Arc<dyn Source>, index: usize, slabs: Range<u64>) -> Result<ArrowArray, EngineError> {
    let mut rooms: Vec<Vec<u8>> = slabs.clone().map(|_| Vec::new()).collect();
    let rows = slabs.zip(&mut rooms).map(|(slab, room)| slab_row(&**model, index, slab, room));
    let rows: Vec<SlabRow<'_>> = rows.collect::<Result<_, _>>()?;
    let lengths = offsets(rows.iter().map(|row| row.codes.len()), i64::to_ne_bytes);
    let place = match &rows[..] {
        [row] => Ok(Place::of(row.codes)),
        rows => Err(Buffer::copy(&rows.iter().flat_map(|row| row.codes).copied().collect::<Vec<_>>())),
    };
    let mut columns = vec![
        binary(&rows, |row| row.tensor.info.name().as_bytes()),
        numbers(&rows, |row| (row.row_start as i64).to_ne_bytes()),
        numbers(&rows, |row| (row.row_count as i64).to_ne_bytes()),
        shapes(&rows),
        binary(&rows, |row| row.tensor.info.dtype().name().as_bytes()),
        binary(&rows, |row| row.tensor.codec().as_bytes()),
        numbers(&rows, |row| row.bits.to_ne_bytes()),
        numbers(&rows, |row| row.group_size.to_ne_bytes()),
        binary(&rows, |row| row.scales),
        binary(&rows, |row| row.offsets),
        binary(&rows, |row| &row.extra),
        numbers(&rows, |row| row.xxh3.to_ne_bytes()),
    ];
    let count = rows.len();
    drop(rows);
    let codes = match (place, &rooms[..]) {
        (Ok(place), [room]) => buffer(model, place, room),
        (Ok(_), _) => Buffer::copy(&[]),
        (Err(joined), _) => joined,
    };
    columns.insert(8, ArrowArray::new(count, vec![lengths, codes], Vec::new()));
    Ok(ArrowArray::new(count, Vec::new(), columns))
}

/// A column of numbers, given as their bytes.
fn numbers<const N: usize>(rows: &[SlabRow<'_>], of: impl Fn(&SlabRow<'_>) -> [u8; N]) -> ArrowArray {
    let bytes: Vec<u8> = rows.iter().flat_map(of).collect();
    ArrowArray::new(rows.len(), vec![Buffer::copy(&bytes)], Vec::new())
}

/// A column of byte strings, or of texts.
fn binary<'a>(rows: &'a [SlabRow<'_>], of: impl Fn(&'a SlabRow<'_>) -> &'a [u8]) -> ArrowArray {
    let values: Vec<&[u8]> = rows.iter().map(of).collect();
    let offsets = offsets(values.iter().map(|value| value.len()), |end| (end as i32).to_ne_bytes());
    ArrowArray::new(rows.len(), vec![offsets, Buffer::copy(&values.concat())], Vec::new())
}

fn shapes(rows: &[SlabRow<'_>]) -> ArrowArray {
    let shapes = rows.iter().map(|row| row.tensor.info.shape());
    let offsets = offsets(shapes.clone().map(<[u64]>::len), |end| (end as i32).to_ne_bytes());
    let sizes: Vec<u8> = shapes.clone().flatten().flat_map(|size| size.to_ne_bytes()).collect();
    let item = ArrowArray::new(sizes.len() / 8, vec![Buffer::copy(&sizes)], Vec::new());
    ArrowArray::new(rows.len(), vec![offsets], vec![item])
}

/// Where values of these lengths end when they follow one another, with 0 in front.
fn offsets<const N: usize>(lengths: impl Iterator<Item = usize>, bytes: fn(i64) -> [u8; N]) -> Buffer {
    let ends = lengths.scan(0, |end, length| {
        *end += length as i64;
        Some(*end)
    });
    let ends: Vec<u8> = std::iter::once(0).chain(ends).flat_map(bytes).collect();
    Buffer::copy(&ends)
}

/// The capsule `arrow_array_stream` of some tensors: a batch for each slab.
pub(crate) fn stream(
    py: Python<'_>,
    model: Arc<dyn Source>,
    tensors: Range<usize>,
) -> PyResult<Bound<'_, PyCapsule>> {
    let slabs = Slabs { model, tensors, slab: 0 };
    PyCapsule::new_with_value(py, ArrowArrayStream::new(Box::new(slabs)), c"arrow_array_stream")
}

/// The capsules `arrow_schema` and `arrow_array` of one tensor: a struct with a row for each slab.
pub(crate) fn array<'py>(
    py: Python<'py>,
    model: &Arc<dyn Source>,
    index: usize,
) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
    let stored = &model.tensors()[index];
    let slabs = 0..slab_count(&stored.info, &stored.encoding);
    let array = py.detach(|| batch(model, index, slabs)).map_err(raised)?;
    Ok((schema_capsule(py, &**model)?, PyCapsule::new_with_value(py, array, c"arrow_array")?))
}

/// The capsule `arrow_schema` of a model.
pub(crate) fn schema_capsule<'py>(py: Python<'py>, model: &dyn Source) -> PyResult<Bound<'py, PyCapsule>> {
    PyCapsule::new_with_value(py, schema(model), c"arrow_schema")
}
