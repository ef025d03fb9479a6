//! Packed layers as `arrow_quant.diffusers` loads them; `docs/format.md` has the table.
//!
//! ```text
//! <layer>.packed.codes      U8  [rows, bytes]    as slabs have them
//! <layer>.packed.scales     I16 [rows, groups]   the bits of f16
//! <layer>.packed.offsets    I16 [rows, groups]   the bits of f16, or
//! <layer>.packed.zeros      U8  [rows, groups]   a zero point a byte
//! ```
//!
//! They hold the codec `affine`. What else a layer has is known only when its rows are: see [`LateParts`].

mod config;
mod finder;
mod form;
mod late;
mod layer;
mod source;

use std::borrow::Cow;

use aq_codec::{row_bytes, unpack_zero_points};
use aq_core::{AffineEncoding, DType, EncodedRows, Encoding, OffsetKind, StoredTensor, TensorInfo};

pub(crate) use config::{ACTIVATIONS, FILE, LAYOUT, LAYOUT_KEY};
pub use config::{ModelConfig, plain_config};
pub(crate) use form::LayerForm;
pub(crate) use late::{LateParts, LatePiece};
pub(crate) use source::recognise;

use super::layout::{self, Piece};

/// What of the rows a tensor of a layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Codes,
    Scales,
    Offsets,
    Zeros,
}

/// The name of a layer, of its weight's.
pub(crate) fn layer_of(weight: &str) -> Option<&str> {
    weight.strip_suffix(".weight")
}

/// Name of a tensor of a layer.
fn part_name(layer: &str, part: &str) -> String {
    format!("{layer}.packed.{part}")
}

/// The tensors that every packed layer has.
///
/// # Errors
/// The fact, when it cannot be one.
pub(super) fn pieces(tensor: &StoredTensor) -> Result<Vec<Piece>, String> {
    let info = &tensor.info;
    let Encoding::Affine(affine) = tensor.encoding else {
        let codec = tensor.codec();
        return Err(format!("codec {codec} has no packed layout; quantize with ls, gptq, minmax or hqq"));
    };
    let layer = layer_of(info.name()).filter(|_| info.shape().len() >= 2);
    let layer = layer.ok_or(
        "only a tensor of two or more dimensions whose name ends with .weight can be a packed layer",
    )?;
    fixed_parts(layer, info, &affine)?
        .into_iter()
        .map(|(info, part)| Ok(Piece { info, part: layout::Part::Packed(part) }))
        .collect()
}

/// The tensors that every layer of that shape has.
fn fixed_parts(
    layer: &str,
    info: &TensorInfo,
    affine: &AffineEncoding,
) -> Result<Vec<(TensorInfo, Part)>, String> {
    let (rows, row) = (info.rows(), row_bytes(affine, info.cols() as usize));
    let groups = (row.scales / 2) as u64;
    let (name, dtype, offsets) = match affine.offset {
        OffsetKind::F16 => ("offsets", DType::I16, Part::Offsets),
        OffsetKind::ZeroPoint => ("zeros", DType::U8, Part::Zeros),
    };
    let part = |name: &str, cols: u64, dtype, part| {
        let info =
            TensorInfo::new(part_name(layer, name), vec![rows, cols], dtype).map_err(|e| e.to_string())?;
        Ok::<_, String>((info, part))
    };
    Ok(vec![
        part("codes", row.codes as u64, DType::U8, Part::Codes)?,
        part("scales", groups, DType::I16, Part::Scales)?,
        part(name, groups, dtype, offsets)?,
    ])
}

impl Part {
    /// What `rows` of `tensor` add.
    pub(super) fn of<'a>(self, tensor: &StoredTensor, rows: &'a EncodedRows) -> Cow<'a, [u8]> {
        match (self, tensor.encoding) {
            (Part::Codes, _) => Cow::Borrowed(&rows.codes),
            (Part::Scales, _) => Cow::Borrowed(&rows.scales),
            (Part::Zeros, Encoding::Affine(affine)) => {
                let mut zeros = Vec::new();
                unpack_zero_points(&affine, tensor.info.cols() as usize, &rows.offsets, &mut zeros);
                Cow::Owned(zeros)
            }
            (Part::Offsets | Part::Zeros, _) => Cow::Borrowed(&rows.offsets),
        }
    }
}
