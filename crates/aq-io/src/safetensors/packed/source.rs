//! Packed layers, read: each is seen as one encoded tensor.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use aq_codec::{LowRank, Rotation, RowBytes, Side, pack_zero_points, row_bytes};
use aq_core::{AffineEncoding, DType, Encoding, SlabParts, StoredTensor, TensorInfo, slab_range};

use super::super::checksums::CHECKSUMS;
use super::{ACTIVATIONS, LAYOUT_KEY, LayerForm, config, fixed_parts, late::signs, part_name};
use crate::{Format, IoError, Result, Source};

/// A model some of whose tensors make up layers.
struct PackedSource {
    file: Box<dyn Source>,
    tensors: Vec<StoredTensor>,
    parts: Vec<Part>,
    metadata: BTreeMap<String, String>,
}

/// What a tensor is made of.
enum Part {
    /// The tensor of the file with that index.
    Plain(usize),
    Layer(Layer),
}

/// The indices of a layer's tensors in the file.
#[derive(Debug)]
struct Layer {
    affine: AffineEncoding,
    row: RowBytes,
    codes: usize,
    scales: usize,
    offsets: usize,
    exponents: Option<usize>,
    smoothing: Option<usize>,
    low_rank: Option<[usize; 3]>,
    rotation: Option<Rotation>,
    bytes: u64,
}

/// `file`, with the tensors of each packed layer as one, where the configuration in `folder` says that there are such. A layer that the
/// configuration has and the file has not is an error in a `whole` model.
///
/// # Errors
/// When a layer is not what the configuration says, or that cannot be read.
pub(crate) fn recognise(file: Box<dyn Source>, folder: &Path, whole: bool) -> Result<Box<dyn Source>> {
    let is_codes = |t: &StoredTensor| t.info.name().ends_with(".packed.codes");
    if !file.tensors().iter().any(is_codes) {
        return Ok(file);
    }
    let Some((path, said)) = config::read(folder)? else { return Ok(file) };
    let mut metadata = file.metadata().clone();
    metadata.retain(|key, _| ![LAYOUT_KEY, CHECKSUMS].contains(&key.as_str()));
    metadata.extend(said.activations.map(|a| (ACTIVATIONS.to_string(), a.to_string())));
    let finder =
        Finder { file: &*file, path: &path, index: index(&*file), usual: (said.bits, said.group_size) };
    let (mut layers, mut taken) = (HashMap::new(), vec![false; file.tensors().len()]);
    for (name, form) in &said.layers {
        if !whole && !finder.index.contains_key(part_name(name, "codes").as_str()) {
            continue;
        }
        let (stored, layer) = finder.layer(name, form)?;
        layer.indices().for_each(|i| taken[i] = true);
        finder.index.get(part_name(name, "signs").as_str()).into_iter().for_each(|&i| taken[i] = true);
        layers.insert(layer.codes, (stored, layer));
    }
    let (mut tensors, mut parts) = (Vec::new(), Vec::new());
    for (i, tensor) in file.tensors().iter().enumerate() {
        if let Some((stored, layer)) = layers.remove(&i) {
            tensors.push(stored);
            parts.push(Part::Layer(layer));
        } else if !taken[i] {
            tensors.push(tensor.clone());
            parts.push(Part::Plain(i));
        }
    }
    Ok(Box::new(PackedSource { file, tensors, parts, metadata }))
}

fn index(file: &dyn Source) -> HashMap<String, usize> {
    file.tensors().iter().enumerate().map(|(i, t)| (t.info.name().to_string(), i)).collect()
}

/// Looks for the tensors of layers.
struct Finder<'a> {
    file: &'a dyn Source,
    /// The configuration.
    path: &'a Path,
    index: HashMap<String, usize>,
    /// Bits and group size of layers that say none.
    usual: (u8, u32),
}

impl Finder<'_> {
    fn layer(&self, name: &str, form: &serde_json::Value) -> Result<(StoredTensor, Layer)> {
        let fault =
            |fact: &str| IoError::tensor(self.path, name, format!("a layer cannot be packed so: {fact}"));
        let form: LayerForm = serde_json::from_value(form.clone()).map_err(|e| fault(&e.to_string()))?;
        let affine = form.encoding(self.usual.0, self.usual.1).ok_or_else(|| fault("bits or group size"))?;
        let info = self.weight(name, &form, &affine)?;
        let cols = info.cols() as usize;
        let mut found = Vec::new();
        for (part, _) in fixed_parts(name, &info, &affine).map_err(|fact| fault(&fact))? {
            found.push(self.find(part)?);
        }
        let rotation = form.rotation(cols).ok_or_else(|| fault("its rotation does not fit"))?;
        let (rows, cols, rank) = (info.rows(), info.cols(), u64::from(form.low_rank));
        let part = |is_there: bool, part: &str, shape: &[u64], dtype| {
            let info = TensorInfo::new(part_name(name, part), shape.to_vec(), dtype);
            is_there.then(|| self.find(info.map_err(|e| fault(&e.to_string()))?)).transpose()
        };
        let exponents = part(form.exponents, "exponents", &[rows], DType::I8)?;
        let smoothing = part(form.smoothing, "smoothing", &[cols], DType::I16)?;
        let of_rotation = part(form.rotation > 0, "signs", &[cols], DType::I8)?;
        let low_rank = [
            part(rank > 0, "part", &[rank], DType::I32)?,
            part(rank > 0, "left", &[rows, rank], DType::I8)?,
            part(rank > 0, "right", &[rank, cols], DType::I8)?,
        ];
        if let (Some(index), Some(rotation)) = (of_rotation, rotation) {
            self.check_signs(name, index, rotation, cols)?;
        }
        let low_rank = if let [Some(part), Some(left), Some(right)] = low_rank {
            Some([part, left, right])
        } else {
            None
        };
        let row = row_bytes(&affine, cols as usize);
        let &[codes, scales, offsets] = found.as_slice() else { return Err(fault("parts are missing")) };
        let mut layer =
            Layer { affine, row, codes, scales, offsets, exponents, smoothing, low_rank, rotation, bytes: 0 };
        layer.bytes = layer.indices().chain(of_rotation).map(|i| self.file.stored_bytes(i)).sum();
        Ok((
            StoredTensor { info, encoding: Encoding::Affine(affine), transformed: form.is_transformed() },
            layer,
        ))
    }

    /// The weight of a layer. Where its shape is not said it is a matrix, with as many columns as the codes of a row can be.
    fn weight(&self, name: &str, form: &LayerForm, affine: &AffineEncoding) -> Result<TensorInfo> {
        let codes = part_name(name, "codes");
        let missing =
            || IoError::tensor(self.path, &codes, "missing: quantization_config says that it is there");
        let shape = self.file.tensors()[*self.index.get(&codes).ok_or_else(missing)?].info.shape();
        let matrix = || match *shape {
            [rows, bytes] => vec![rows, bytes.saturating_mul(8) / u64::from(affine.bits.get())],
            _ => Vec::new(),
        };
        let shape = form.shape.clone().unwrap_or_else(matrix);
        let info = TensorInfo::new(format!("{name}.weight"), shape, form.dtype.unwrap_or(DType::F32)).ok();
        let fits = |info: &TensorInfo| {
            info.shape().len() >= 2 && info.elements() > 0 && info.cols() <= aq_core::MAX_ROW_WEIGHTS
        };
        info.filter(fits).ok_or_else(|| IoError::tensor(self.path, name, "a layer cannot have this shape"))
    }

    /// The index of the tensor `due`.
    fn find(&self, due: TensorInfo) -> Result<usize> {
        let fault = |fact: String| IoError::tensor(self.path, due.name(), fact);
        let index = self.index.get(due.name()).copied();
        let index =
            index.ok_or_else(|| fault("missing: quantization_config says that it is there".into()))?;
        let found = &self.file.tensors()[index].info;
        if *found != due {
            let (dtype, shape) = (found.dtype(), found.shape());
            return Err(fault(format!(
                "{dtype} of shape {shape:?}; quantization_config says {} of {:?}",
                due.dtype(),
                due.shape()
            )));
        }
        Ok(index)
    }

    fn check_signs(&self, name: &str, index: usize, rotation: Rotation, cols: u64) -> Result<()> {
        let mut stored = vec![0; cols as usize];
        self.file.read_bytes(index, 0, &mut stored)?;
        match stored == signs(rotation, cols as usize) {
            true => Ok(()),
            false => {
                Err(IoError::tensor(self.path, &part_name(name, "signs"), "not those that its seed gives"))
            }
        }
    }
}

impl Layer {
    /// The tensors that are read.
    fn indices(&self) -> impl Iterator<Item = usize> + '_ {
        let always = [self.codes, self.scales, self.offsets].into_iter();
        always.chain(self.exponents).chain(self.smoothing).chain(self.low_rank.into_iter().flatten())
    }

    /// The side data as slabs have it.
    fn side(&self, file: &dyn Source) -> Result<Vec<u8>> {
        let all = |index: usize| {
            let mut bytes = vec![0; file.stored_bytes(index) as usize];
            file.read_bytes(index, 0, &mut bytes).map(|()| bytes)
        };
        let smoothing = self.smoothing.map(all).transpose()?;
        let low_rank = self
            .low_rank
            .map(|[part, left, right]| Ok::<_, IoError>([all(part)?, all(left)?, all(right)?]))
            .transpose()?;
        let low_rank = low_rank.as_ref().map(|[scales, left, right]| LowRank { scales, left, right });
        Ok(Side { rotation: self.rotation, smoothing: smoothing.as_deref(), low_rank }.bytes())
    }
}

/// Appends `rows` rows of `bytes` bytes from row `first` of tensor `index` on to `buffer`.
fn append(
    file: &dyn Source,
    index: usize,
    (first, rows): (u64, u64),
    bytes: usize,
    buffer: &mut Vec<u8>,
) -> Result<()> {
    let (start, bytes) = (buffer.len(), bytes as u64);
    buffer.resize(start + (rows * bytes) as usize, 0);
    file.read_bytes(index, first * bytes, buffer.get_mut(start..).unwrap_or_default())
}

impl PackedSource {
    /// The rows of a layer: codes, where they cannot be borrowed, scales, offsets, exponents and side data one after the other, and where each
    /// of them ends.
    fn read_layer(
        &self,
        stored: &StoredTensor,
        layer: &Layer,
        rows: (u64, u64),
        buffer: &mut Vec<u8>,
    ) -> Result<[usize; 5]> {
        let (file, cols) = (&*self.file, stored.info.cols() as usize);
        buffer.clear();
        if self.borrowed_codes(layer, rows).is_none() {
            append(file, layer.codes, rows, layer.row.codes, buffer)?;
        }
        let codes = buffer.len();
        append(file, layer.scales, rows, layer.row.scales, buffer)?;
        let scales = buffer.len();
        if layer.affine.offset == aq_core::OffsetKind::F16 {
            append(file, layer.offsets, rows, layer.row.offsets, buffer)?;
        } else {
            let mut zeros = Vec::new();
            append(file, layer.offsets, rows, layer.row.scales / 2, &mut zeros)?;
            if !pack_zero_points(&layer.affine, cols, &zeros, buffer) {
                return Err(IoError::tensor(
                    self.path(),
                    stored.info.name(),
                    "a zero point is above the largest code",
                ));
            }
        }
        let offsets = buffer.len();
        if let Some(exponents) = layer.exponents {
            append(file, exponents, rows, 1, buffer)?;
            if buffer.get(offsets..).unwrap_or_default().iter().all(|&e| e == 0) {
                buffer.truncate(offsets);
            }
        }
        let extra = buffer.len();
        buffer.extend(layer.side(file)?);
        Ok([codes, scales, offsets, extra, buffer.len()])
    }

    fn borrowed_codes(&self, layer: &Layer, (first, count): (u64, u64)) -> Option<&[u8]> {
        let bytes = layer.row.codes as u64;
        self.file.borrow_bytes(layer.codes, first * bytes..(first + count) * bytes)
    }
}

impl Source for PackedSource {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn format(&self) -> Format {
        Format::Diffusers
    }

    fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn stored_bytes(&self, index: usize) -> u64 {
        match self.parts.get(index) {
            Some(Part::Plain(i)) => self.file.stored_bytes(*i),
            Some(Part::Layer(layer)) => layer.bytes,
            None => 0,
        }
    }

    fn read_bytes(&self, index: usize, start: u64, dst: &mut [u8]) -> Result<()> {
        match self.parts.get(index) {
            Some(Part::Plain(i)) => self.file.read_bytes(*i, start, dst),
            _ => Err(IoError::unsupported(self.path(), "packed codes are no plain elements")),
        }
    }

    fn borrow_bytes(&self, index: usize, range: Range<u64>) -> Option<&[u8]> {
        match self.parts.get(index)? {
            Part::Plain(i) => self.file.borrow_bytes(*i, range),
            Part::Layer(_) => None,
        }
    }

    fn read_slab<'a>(&'a self, index: usize, slab: u64, buffer: &'a mut Vec<u8>) -> Result<SlabParts<'a>> {
        let (Some(part), Some(stored)) = (self.parts.get(index), self.tensors.get(index)) else {
            return Err(IoError::malformed(self.path(), format!("there is no tensor {index}")));
        };
        let (row_start, count) = slab_range(&stored.info, &stored.encoding, slab);
        match part {
            Part::Plain(i) => {
                buffer.clear();
                append(&*self.file, *i, (row_start, count), stored.info.dtype().size(), buffer)?;
                Ok(SlabParts { codes: buffer, row_start, ..SlabParts::default() })
            }
            Part::Layer(layer) => {
                let [codes, scales, offsets, extra, side] =
                    self.read_layer(stored, layer, (row_start, count), buffer)?;
                let part = |range: Range<usize>| buffer.get(range).unwrap_or_default();
                Ok(SlabParts {
                    codes: self.borrowed_codes(layer, (row_start, count)).unwrap_or_else(|| part(0..codes)),
                    scales: part(codes..scales),
                    offsets: part(scales..offsets),
                    extra: part(offsets..extra),
                    side: part(extra..side),
                    row_start,
                })
            }
        }
    }
}
