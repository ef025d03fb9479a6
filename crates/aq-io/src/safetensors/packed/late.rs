//! What of a packed layer is known only when its rows are.
//!
//! ```text
//! <layer>.packed.smoothing  I16 [cols]           the bits of f16
//! <layer>.packed.part       I32 [rank]           the bits of the f32 scales of the low-rank part
//! <layer>.packed.exponents  I8  [rows]           where one of them is not 0
//! <layer>.packed.signs      I8  [cols]           1 or -1 for each column of a rotation
//! <layer>.packed.left       I8  [rows, rank]     the low-rank part
//! <layer>.packed.right      I8  [rank, cols]
//! ```

use aq_codec::{MAX_RANK, Rotation, Side};
use aq_core::{AffineEncoding, DType, EncodedRows, Encoding, StoredTensor, TensorInfo};

use super::{LayerForm, part_name};

/// A tensor of the file and its bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LatePiece {
    pub(crate) info: TensorInfo,
    pub(crate) bytes: Vec<u8>,
}

/// Gathers what comes with the rows of a layer.
#[derive(Debug, Default)]
pub(crate) struct LateParts {
    exponents: Vec<u8>,
    side: Vec<u8>,
}

impl LateParts {
    /// Takes what `rows`, the next ones, have.
    pub(crate) fn add(&mut self, rows: &EncodedRows) {
        if self.side.is_empty() {
            self.side.extend_from_slice(&rows.side);
        }
        self.exponents.extend_from_slice(&rows.extra);
        if rows.extra.is_empty() {
            self.exponents.resize(self.exponents.len() + rows.row_count as usize, 0);
        }
    }

    /// The form and the tensors of the layer, once all rows were taken.
    ///
    /// # Errors
    /// The fact, when the side data is not that of such a tensor.
    pub(crate) fn finish(
        self,
        layer: &str,
        tensor: &StoredTensor,
        affine: &AffineEncoding,
    ) -> Result<(LayerForm, Vec<LatePiece>), String> {
        let info = &tensor.info;
        let side = Side::parse(&self.side, info).map_err(|e| e.to_string())?;
        let exponents = self.exponents.iter().any(|&e| e != 0);
        let form = LayerForm::new(info, affine, exponents, &side);
        let mut pieces = Vec::new();
        let mut push = |name: &str, shape: Vec<u64>, dtype, bytes: Vec<u8>| {
            let info = TensorInfo::new(part_name(layer, name), shape, dtype).map_err(|e| e.to_string())?;
            pieces.push(LatePiece { info, bytes });
            Ok::<_, String>(())
        };
        let (rows, cols) = (info.rows(), info.cols());
        if let Some(smoothing) = side.smoothing {
            push("smoothing", vec![cols], DType::I16, smoothing.to_vec())?;
        }
        if exponents {
            push("exponents", vec![rows], DType::I8, self.exponents)?;
        }
        if let Some(rotation) = side.rotation {
            push("signs", vec![cols], DType::I8, signs(rotation, cols as usize))?;
        }
        if let Some(part) = side.low_rank {
            let rank = part.rank() as u64;
            push("part", vec![rank], DType::I32, part.scales.to_vec())?;
            push("left", vec![rows, rank], DType::I8, part.left.to_vec())?;
            push("right", vec![rank, cols], DType::I8, part.right.to_vec())?;
        }
        Ok((form, pieces))
    }

    /// Every tensor that may come, at its largest.
    pub(crate) fn largest(tensor: &StoredTensor) -> Vec<TensorInfo> {
        let (Encoding::Affine(_), Some(layer)) = (tensor.encoding, super::layer_of(tensor.info.name()))
        else {
            return Vec::new();
        };
        let (rows, cols, rank) = (tensor.info.rows(), tensor.info.cols(), MAX_RANK as u64);
        let mut parts = vec![("exponents", vec![rows], DType::I8)];
        if tensor.transformed {
            parts.extend([
                ("smoothing", vec![cols], DType::I16),
                ("signs", vec![cols], DType::I8),
                ("part", vec![rank], DType::I32),
            ]);
            parts.extend([("left", vec![rows, rank], DType::I8), ("right", vec![rank, cols], DType::I8)]);
        }
        parts
            .into_iter()
            .filter_map(|(name, shape, dtype)| TensorInfo::new(part_name(layer, name), shape, dtype).ok())
            .collect()
    }
}

/// The sign of each column.
pub(super) fn signs(rotation: Rotation, cols: usize) -> Vec<u8> {
    let mut signs = Vec::new();
    rotation.signs(cols, &mut signs);
    signs.iter().map(|&sign| sign as i8 as u8).collect()
}
