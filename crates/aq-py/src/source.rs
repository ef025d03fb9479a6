//! Models as Python sees them: names, shapes, stored bytes and weights.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use aq_codec::Side;
use aq_engine::aq_core::{DType, Encoding, SlabParts, StoredTensor, slab_count, slab_range};
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule, PyDict};

use crate::arrow;
use crate::errors::{raised, refused};
use crate::job::{options_of, run};
use crate::mapped::{Place, array};

/// An opened model, or an array that was quantized.
#[pyclass(frozen, module = "arrow_quant._native")]
pub(crate) struct Source {
    model: Arc<dyn aq_engine::Source>,
}

/// Stored parts of a slab: codes, scales, offsets, extra.
type Parts<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);

#[pymethods]
impl Source {
    /// Opens any file or folder that can be read.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let model = py.detach(|| aq_engine::open(&path)).map_err(raised)?;
        Ok(Self { model: model.into() })
    }

    /// Quantizes an array of that element type and shape, given as its bytes, with options as a JSON object.
    #[staticmethod]
    fn quantize(
        py: Python<'_>,
        bytes: PyReadonlyArray1<'_, u8>,
        dtype: &str,
        shape: Vec<u64>,
        options: &str,
    ) -> PyResult<Self> {
        let (options, bytes) = (options_of(options)?, bytes.as_slice()?);
        let dtype =
            DType::from_name(dtype).ok_or_else(|| refused(format!("unknown element type {dtype}")))?;
        let work =
            |cancel: &AtomicBool, _events| aq_engine::quantize_array(bytes, dtype, &shape, options, cancel);
        Ok(Self { model: run(py, work, None)?.into() })
    }

    /// What `aq inspect --json` prints.
    fn inspect(&self) -> String {
        aq_engine::inspect_json(&*self.model).to_string()
    }

    /// Each tensor, in the order of the file.
    fn tensors<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let describe = |(i, tensor)| describe(py, tensor, self.model.stored_bytes(i));
        self.model.tensors().iter().enumerate().map(describe).collect()
    }

    /// The weights of a tensor as f32.
    fn weights<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let elements = self.tensor(index)?.info.elements();
        let read = || {
            let mut out = vec![0.0; elements as usize];
            aq_engine::read_weights(&*self.model, index, &mut out).map(|()| out)
        };
        Ok(PyArray1::from_vec(py, py.detach(read).map_err(raised)?))
    }

    /// The elements of a tensor that is kept, as bytes in one array: those in the file's memory map where it has them in one piece.
    fn raw<'py>(slf: &Bound<'py, Self>, index: usize) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.get();
        let bytes = this.tensor(index)?.info.bytes();
        if let Some(bytes) = this.model.borrow_bytes(index, 0..bytes) {
            return array(slf, Place::of(bytes), &[]);
        }
        let mut copy = vec![0; bytes as usize];
        let read = || this.model.read_bytes(index, 0, &mut copy).map_err(aq_engine::EngineError::from);
        slf.py().detach(read).map_err(raised)?;
        Ok(PyArray1::from_vec(slf.py(), copy).into_any())
    }

    /// The stored parts of a slab of a quantized tensor, checked against their checksum.
    fn slab<'py>(slf: &Bound<'py, Self>, index: usize, slab: u64) -> PyResult<Parts<'py>> {
        let this = slf.get();
        this.quantized(index)?;
        let mut buffer = Vec::new();
        let SlabParts { codes, scales, offsets, extra, .. } = this.parts(index, slab, &mut buffer)?;
        let places = [codes, scales, offsets, extra].map(Place::of);
        let [codes, scales, offsets, extra] = places.map(|place| array(slf, place, &buffer));
        Ok((codes?, scales?, offsets?, extra?))
    }

    /// The capsule `arrow_array_stream` of some tensors.
    fn arrow_stream<'py>(
        &self,
        py: Python<'py>,
        first: usize,
        count: usize,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let end = first.saturating_add(count).min(self.model.tensors().len());
        arrow::stream(py, self.model.clone(), first..end)
    }

    /// The capsules `arrow_schema` and `arrow_array` of one tensor.
    fn arrow_array<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
        self.tensor(index)?;
        arrow::array(py, &self.model, index)
    }

    /// The capsule `arrow_schema`.
    fn arrow_schema<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        arrow::schema_capsule(py, &*self.model)
    }

    /// What is done to the decoded weights of a tensor: `rotation` (block, signs), `smoothing`, `low_rank` (scales, left, right).
    fn side<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyDict>> {
        let info = &self.quantized(index)?.info;
        let mut buffer = Vec::new();
        let parts = self.parts(index, 0, &mut buffer)?;
        let side = Side::parse(parts.side, info).map_err(|e| refused(e.to_string()))?;
        let found = PyDict::new(py);
        if let Some(rotation) = side.rotation {
            let mut signs = Vec::new();
            rotation.signs(info.cols() as usize, &mut signs);
            found.set_item("rotation", (rotation.block(), PyArray1::from_vec(py, signs)))?;
            found.set_item("seed", rotation.seed())?;
        }
        if let Some(smoothing) = side.smoothing {
            found.set_item("smoothing", PyBytes::new(py, smoothing))?;
        }
        if let Some(part) = side.low_rank {
            let bytes = |bytes| PyBytes::new(py, bytes);
            found.set_item("low_rank", (bytes(part.scales), bytes(part.left), bytes(part.right)))?;
        }
        Ok(found)
    }
}

impl Source {
    fn tensor(&self, index: usize) -> PyResult<&StoredTensor> {
        self.model.tensors().get(index).ok_or_else(|| refused(format!("there is no tensor {index}")))
    }

    fn quantized(&self, index: usize) -> PyResult<&StoredTensor> {
        let tensor = self.tensor(index)?;
        match tensor.encoding {
            Encoding::Raw => Err(refused(format!("tensor {:?} is not quantized", tensor.info.name()))),
            _ => Ok(tensor),
        }
    }

    fn parts<'a>(&'a self, index: usize, slab: u64, buffer: &'a mut Vec<u8>) -> PyResult<SlabParts<'a>> {
        let tensor = self.tensor(index)?;
        if slab >= slab_count(&tensor.info, &tensor.encoding) {
            return Err(refused(format!("tensor {:?} has no slab {slab}", tensor.info.name())));
        }
        self.model.read_slab(index, slab, buffer).map_err(|e| raised(e.into()))
    }
}

/// What is known of a tensor without reading it.
fn describe<'py>(py: Python<'py>, tensor: &StoredTensor, bytes: u64) -> PyResult<Bound<'py, PyDict>> {
    let (info, encoding) = (&tensor.info, &tensor.encoding);
    let (bits, group) = encoding.bits_and_group();
    let found = PyDict::new(py);
    found.set_item("name", info.name())?;
    found.set_item("shape", info.shape().to_vec())?;
    found.set_item("src_dtype", info.dtype().name())?;
    found.set_item("codec", tensor.codec())?;
    found.set_item("bits", bits.map(|bits| bits.get()))?;
    found.set_item("group_size", group.map(|group| group.get()))?;
    found.set_item("nbytes", bytes)?;
    let slabs = slab_count(info, encoding);
    let rows: Vec<_> = (0..slabs).map(|slab| slab_range(info, encoding, slab)).collect();
    found.set_item("slabs", rows)?;
    Ok(found)
}

/// The cosine of two arrays of the same length, over all their elements in f64.
#[pyfunction]
pub(crate) fn cosine_similarity(
    py: Python<'_>,
    a: PyReadonlyArray1<'_, f32>,
    b: PyReadonlyArray1<'_, f32>,
) -> PyResult<f64> {
    let (a, b) = (a.as_slice()?, b.as_slice()?);
    if a.len() != b.len() {
        return Err(refused(format!("arrays of {} and {} elements", a.len(), b.len())));
    }
    Ok(py.detach(|| aq_kernels::metric::compare(a, b).cosine()))
}

/// The SIMD level in use.
#[pyfunction]
pub(crate) fn simd_level() -> &'static str {
    aq_engine::simd_level().name()
}
