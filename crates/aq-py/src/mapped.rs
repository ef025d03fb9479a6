//! Bytes of a memory map as numpy arrays and Arrow buffers.

use std::ops::Range;
use std::sync::Arc;

use numpy::PyArray1;
use numpy::ndarray::ArrayView1;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrow::Buffer;
use crate::source::Source;

/// Where some bytes lie, without holding on to them.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    start: *const u8,
    len: usize,
}

impl Place {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { start: bytes.as_ptr(), len: bytes.len() }
    }

    pub(crate) fn start(self) -> *const u8 {
        self.start
    }

    fn is_in(self, buffer: &Range<*const u8>) -> bool {
        self.len == 0 || buffer.contains(&self.start)
    }
}

/// Bytes that the model of `owner` gave for a call with `buffer`, as a read-only array: a copy of those in `buffer`, the others in
/// place. The array keeps `owner` alive.
#[expect(unsafe_code, reason = "no lifetime can say that an array keeps its model alive")]
pub(crate) fn array<'py>(
    owner: &Bound<'py, Source>,
    place: Place,
    buffer: &[u8],
) -> PyResult<Bound<'py, PyAny>> {
    let py = owner.py();
    let Place { start, len } = place;
    let array = if place.is_in(&buffer.as_ptr_range()) {
        let first = (start as usize).wrapping_sub(buffer.as_ptr() as usize);
        PyArray1::from_slice(py, buffer.get(first..first + len).unwrap_or_default())
    } else {
        // SAFETY: a source lends bytes of the buffer it was handed or of itself. These are not in the buffer, so they live
        // as long as the model, which `owner` holds and never changes, and `owner` is the base of the array. They are only read:
        // the flag below is set before anybody sees the array, and numpy does not let it be taken back from an array
        // whose base is no buffer.
        unsafe {
            let view = ArrayView1::from_shape_ptr(len, start);
            PyArray1::borrow_from_array(&view, owner.clone().into_any())
        }
    };
    let read_only = PyDict::new(py);
    read_only.set_item("write", false)?;
    array.call_method("setflags", (), Some(&read_only))?;
    Ok(array.into_any())
}

/// Bytes that `model` gave for a call with `read`, as an Arrow buffer: a copy of those in `read`, the others in place. The buffer keeps
/// the model alive.
pub(crate) fn buffer(model: &Arc<dyn aq_engine::Source>, place: Place, read: &[u8]) -> Buffer {
    let Place { start, len } = place;
    if place.is_in(&read.as_ptr_range()) {
        let first = (start as usize).wrapping_sub(read.as_ptr() as usize);
        return Buffer::copy(read.get(first..first + len).unwrap_or_default());
    }
    Buffer::Borrowed { place, _model: model.clone() }
}
