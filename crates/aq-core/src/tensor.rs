//! What a tensor is, apart from its values.

use serde::{Deserialize, Serialize};

use crate::{CoreError, DType};

/// Name, shape and element type of a tensor.
///
/// As a matrix it has `rows = shape[0]` output rows of `cols = shape[1] * shape[2] * ...` weights; a tensor of
/// rank 0 or 1 is one row.
///
/// ```
/// use aq_core::{DType, TensorInfo};
/// let conv = TensorInfo::new("conv.weight", vec![64, 3, 3, 3], DType::F16)?;
/// assert_eq!((conv.rows(), conv.cols(), conv.elements(), conv.bytes()), (64, 27, 1728, 3456));
/// assert!(TensorInfo::new("huge", vec![1 << 40, 1 << 40], DType::F32).is_err());
/// # Ok::<(), aq_core::CoreError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorInfo {
    name: String,
    shape: Vec<u64>,
    dtype: DType,
    elements: u64,
}

impl TensorInfo {
    /// Checks that the number of bytes fits a signed 64-bit integer, even when one dimension is 0.
    ///
    /// # Errors
    /// [`CoreError::ShapeOverflow`].
    pub fn new(name: impl Into<String>, shape: Vec<u64>, dtype: DType) -> Result<Self, CoreError> {
        let name = name.into();
        let bytes = shape
            .iter()
            .filter(|&&d| d != 0)
            .try_fold(dtype.size() as u64, |n, &d| n.checked_mul(d))
            .filter(|&n| n <= i64::MAX as u64);
        match bytes {
            Some(_) => {
                let elements = shape.iter().product();
                Ok(Self { name, shape, dtype, elements })
            }
            None => Err(CoreError::ShapeOverflow { name, shape }),
        }
    }

    /// Name in the source.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Dimensions, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Element type in the source.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of elements; 1 for a scalar, 0 when a dimension is 0.
    pub fn elements(&self) -> u64 {
        self.elements
    }

    /// Bytes in the source.
    pub fn bytes(&self) -> u64 {
        self.elements * self.dtype.size() as u64
    }

    /// Output rows of the weight matrix; 1 for rank 0 and 1.
    pub fn rows(&self) -> u64 {
        if self.shape.len() < 2 { 1 } else { self.shape[0] }
    }

    /// Weights of one row.
    pub fn cols(&self) -> u64 {
        if self.shape.len() < 2 { self.elements } else { self.shape[1..].iter().product() }
    }

    /// The same tensor under another name.
    pub fn renamed(mut self, name: String) -> Self {
        self.name = name;
        self
    }

    /// The same shape with another element type.
    ///
    /// # Errors
    /// [`CoreError::ShapeOverflow`] when the wider type no longer fits.
    pub fn with_dtype(&self, dtype: DType) -> Result<Self, CoreError> {
        Self::new(self.name.clone(), self.shape.clone(), dtype)
    }
}
