//! A tensor with the way it is stored.

use crate::{Encoding, TensorInfo};

/// A tensor with the way it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Name, shape and the element type it had in the source.
    pub info: TensorInfo,
    /// How its values are stored.
    pub encoding: Encoding,
    /// Whether it has side data that says what is done to the decoded values: a rotation, smoothing, a low-rank part.
    pub transformed: bool,
}

/// What the name of the codec ends with for a tensor with side data.
const TRANSFORMED: &str = "+transform";

impl StoredTensor {
    /// A tensor without side data.
    pub fn new(info: TensorInfo, encoding: Encoding) -> Self {
        Self { info, encoding, transformed: false }
    }

    /// Name of the codec in files, which readers that know no side data do not know.
    ///
    /// ```
    /// use aq_core::{DType, Encoding, StoredTensor, TensorInfo};
    /// let plain = StoredTensor::new(TensorInfo::new("w", vec![2, 64], DType::F32)?, Encoding::Entropy);
    /// assert_eq!(plain.codec(), "entropy");
    /// let rotated = StoredTensor { transformed: true, ..plain };
    /// assert_eq!(rotated.codec(), "entropy+transform");
    /// assert_eq!(StoredTensor::split_codec("entropy+transform"), ("entropy", true));
    /// # Ok::<(), aq_core::CoreError>(())
    /// ```
    pub fn codec(&self) -> &'static str {
        match self.encoding {
            encoding if !self.transformed => encoding.codec(),
            Encoding::Raw => "raw+transform",
            Encoding::Affine(_) => "affine+transform",
            Encoding::Codebook(_) => "codebook+transform",
            Encoding::Sign(_) => "sign+transform",
            Encoding::Entropy => "entropy+transform",
            Encoding::Trellis(_) => "trellis+transform",
            Encoding::Ggml(kind) => kind.transformed_codec(),
        }
    }

    /// The codec of a name in a file, and whether the tensor has side data.
    pub fn split_codec(name: &str) -> (&str, bool) {
        name.strip_suffix(TRANSFORMED).map_or((name, false), |codec| (codec, true))
    }

    /// Bytes in front of the side data of each slab, which say how long it is.
    pub fn side_head(&self) -> u64 {
        if self.transformed { 4 } else { 0 }
    }
}
