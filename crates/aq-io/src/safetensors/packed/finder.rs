//! Finds the tensors of packed layers in a file, and checks them against what its configuration says.

use std::collections::HashMap;
use std::path::Path;

use aq_codec::{Rotation, row_bytes};
use aq_core::{AffineEncoding, DType, Encoding, StoredTensor, TensorInfo};

use super::layer::Layer;
use super::{LayerForm, fixed_parts, late::signs, part_name};
use crate::{IoError, Result, Source};

/// Looks for the tensors of layers.
pub(super) struct Finder<'a> {
    pub(super) file: &'a dyn Source,
    /// The configuration.
    pub(super) path: &'a Path,
    pub(super) index: HashMap<String, usize>,
    /// Bits and group size of layers that say none.
    pub(super) usual: (u8, u32),
}

impl Finder<'_> {
    /// The weight of the layer `name`, of which the configuration says `form`, and where its parts are.
    ///
    /// # Errors
    /// When they are not what it says.
    pub(super) fn layer(&self, name: &str, form: &serde_json::Value) -> Result<(StoredTensor, Layer)> {
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
