//! Plain tensors read as another element type.

use aq_core::{CoreError, DType, TensorInfo};
use aq_io::Source;

use crate::overlay::{Overlay, View, read_elements};

/// A source with casts to F32, F16 or BF16.
pub(crate) type Recast<'a> = Overlay<'a, DType>;

impl View for DType {
    fn shown(&self, stored: &TensorInfo) -> Result<TensorInfo, CoreError> {
        stored.with_dtype(*self)
    }

    fn read(&self, source: &dyn Source, index: usize, start: u64, dst: &mut [u8]) -> aq_io::Result<()> {
        // From half of a unit in the last place above it on, numbers round to infinity.
        let too_large = |v: &&f32| *self == DType::F16 && v.is_finite() && v.abs() >= 65520.0;
        read_elements((source, index), *self, start, dst, |_, values| match values.iter().find(too_large) {
            Some(value) => Err(format!("holds {value}, which is too large for F16")),
            None => Ok(()),
        })
    }
}
