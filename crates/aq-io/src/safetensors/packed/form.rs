//! What the configuration says of one packed layer.

use aq_codec::{Rotation, Side};
use aq_core::{AffineEncoding, BitWidth, DType, GroupSize, OffsetKind, TensorInfo};
use serde::{Deserialize, Serialize};

/// An entry of `layers`. What is as for the whole model, and what there is not, is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LayerForm {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bits: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group_size: Option<u32>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) zero_points: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) exponents: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) smoothing: bool,
    /// Columns that are rotated together; 0 for no rotation.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) rotation: u32,
    /// What the signs of the rotation are drawn from; none for regular ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,
    /// Components of the low-rank part.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) low_rank: u32,
    /// Shape of the weight, where it is not said by the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shape: Option<Vec<u64>>,
    /// Element type that the weight had in the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dtype: Option<DType>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl LayerForm {
    /// That of a written layer.
    pub(crate) fn new(info: &TensorInfo, affine: &AffineEncoding, exponents: bool, side: &Side<'_>) -> Self {
        Self {
            bits: Some(affine.bits.get()),
            group_size: Some(affine.group_size.get()),
            zero_points: affine.offset == OffsetKind::ZeroPoint,
            exponents,
            smoothing: side.smoothing.is_some(),
            rotation: side.rotation.map_or(0, |rotation| rotation.block() as u32),
            seed: side.rotation.and_then(Rotation::seed),
            low_rank: side.low_rank.map_or(0, |part| part.rank() as u32),
            shape: Some(info.shape().to_vec()),
            dtype: Some(info.dtype()),
        }
    }

    /// How the codes are stored, with the numbers of the whole model where it says none; `None` where they are out of range.
    pub(crate) fn encoding(&self, bits: u8, group_size: u32) -> Option<AffineEncoding> {
        let bits =
            BitWidth::new(self.bits.unwrap_or(bits)).ok().filter(|bits| BitWidth::ALL.contains(bits))?;
        let group_size = GroupSize::new(self.group_size.unwrap_or(group_size)).ok()?;
        let offset = if self.zero_points { OffsetKind::ZeroPoint } else { OffsetKind::F16 };
        Some(AffineEncoding { bits, group_size, offset })
    }

    /// Whether there is side data.
    pub(crate) fn is_transformed(&self) -> bool {
        self.smoothing || self.rotation > 0 || self.low_rank > 0
    }

    /// The rotation of rows of `cols` weights; `None` where it cannot be one.
    pub(crate) fn rotation(&self, cols: usize) -> Option<Option<Rotation>> {
        let block = self.rotation as usize;
        match self.seed {
            _ if block == 0 => Some(None),
            Some(seed) => Rotation::with_block(block, cols, seed).map(Some),
            None => Rotation::regular(block, cols).map(Some),
        }
    }
}
