//! Layers of signed bytes as ComfyUI and stable-diffusion.cpp read them.
//!
//! ```text
//! <layer>.weight        I8  [rows, cols]   codes: w = code * scale, rotated back where `convrot` says so
//! <layer>.weight_scale  F32 [rows, 1]      a scale a row
//! <layer>.comfy_quant   U8  [length]       {"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": 256}
//! ```
//!
//! They come from the codec `affine` with 8 bits, whole rows as groups and a zero point of 128, as strategies `int8` and `convrot` write it. Columns
//! of a regular rotation change places and signs ([`Rotation::regular_column`]), which changes no value.

mod source;

use aq_codec::{Rotation, power_of_two};
use aq_core::{DType, EncodedRows, Encoding, OffsetKind, StoredTensor, TensorInfo};
use half::f16;

pub(crate) use source::recognise;

use super::layout::{self, Piece};

/// What of the rows a tensor of a layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Codes,
    Scales,
}

/// Columns that are rotated together.
const BLOCK: usize = 256;
/// The zero point of every row.
const ZERO: u8 = 128;

/// The three tensors of a layer.
///
/// # Errors
/// The fact, when it is not stored as such layers are.
pub(super) fn pieces(tensor: &StoredTensor) -> Result<Vec<Piece>, String> {
    let info = &tensor.info;
    let Encoding::Affine(affine) = tensor.encoding else {
        return Err(format!("codec {} does not fit signed bytes with a scale a row", tensor.codec()));
    };
    let whole_rows = affine.group_size.groups(info.cols() as usize) == 1;
    if affine.bits.get() != 8 || affine.offset != OffsetKind::ZeroPoint || !whole_rows {
        return Err(
            "its codes are not signed bytes with a scale a row; quantize with --method convrot".into()
        );
    }
    let layer = info.name().strip_suffix(".weight").filter(|_| info.shape().len() == 2);
    let layer = layer.ok_or("only a matrix whose name ends with .weight can be a layer of signed bytes")?;
    let piece = |name: String, shape, dtype, part| {
        let info = TensorInfo::new(name, shape, dtype).map_err(|e| e.to_string())?;
        Ok::<_, String>(Piece { info, part })
    };
    let text = description(tensor.transformed);
    Ok(vec![
        piece(info.name().into(), info.shape().to_vec(), DType::I8, layout::Part::Comfy(Part::Codes))?,
        piece(
            format!("{layer}.weight_scale"),
            vec![info.rows(), 1],
            DType::F32,
            layout::Part::Comfy(Part::Scales),
        )?,
        piece(
            format!("{layer}.comfy_quant"),
            vec![text.len() as u64],
            DType::U8,
            layout::Part::Fixed(text.into()),
        )?,
    ])
}

fn description(rotated: bool) -> &'static str {
    match rotated {
        true => r#"{"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": 256}"#,
        false => r#"{"format": "int8_tensorwise"}"#,
    }
}

impl Part {
    /// What `rows` of `tensor` add.
    ///
    /// # Errors
    /// The fact, when a zero point is not 128, or the transform is another one.
    pub(super) fn of(self, tensor: &StoredTensor, rows: &EncodedRows) -> Result<Vec<u8>, String> {
        check(tensor, rows)?;
        match self {
            Part::Codes => Ok(codes(tensor, rows)),
            Part::Scales => Ok(scales(rows)),
        }
    }
}

fn check(tensor: &StoredTensor, rows: &EncodedRows) -> Result<(), String> {
    let cols = tensor.info.cols() as usize;
    let complete = rows.codes.len() as u64 == rows.row_count * cols as u64
        && rows.offsets.len() as u64 == rows.row_count
        && rows.scales.len() as u64 == 2 * rows.row_count;
    if !complete || rows.offsets.iter().any(|&zero| zero != ZERO) {
        return Err("its zero points are not those of signed bytes; quantize with --method convrot".into());
    }
    if rows.side.is_empty() {
        return Ok(());
    }
    let side = aq_codec::Side::parse(&rows.side, &tensor.info).map_err(|e| e.to_string())?;
    let regular = aq_codec::Side { rotation: Rotation::regular(BLOCK, cols), ..aq_codec::Side::default() };
    match side == regular {
        true => Ok(()),
        false => Err("it is transformed in a way that ComfyUI does not know".into()),
    }
}

fn codes(tensor: &StoredTensor, rows: &EncodedRows) -> Vec<u8> {
    if !tensor.transformed {
        return rows.codes.iter().map(|code| code ^ ZERO).collect();
    }
    let columns: Vec<(usize, bool)> = (0..BLOCK).map(Rotation::regular_column).collect();
    let mut out = vec![0; rows.codes.len()];
    for (block, out) in rows.codes.chunks(BLOCK).zip(out.chunks_mut(BLOCK)) {
        for (code, &(to, negative)) in block.iter().zip(&columns) {
            let value = code ^ ZERO;
            out[to] = if negative { value.wrapping_neg() } else { value };
        }
    }
    out
}

/// Undoes [`codes`] in place, for codes in whole blocks where they are rotated.
fn turned_back(codes: &mut [u8], rotated: bool) {
    if !rotated {
        return codes.iter_mut().for_each(|code| *code ^= ZERO);
    }
    let columns: Vec<(usize, bool)> = (0..BLOCK).map(Rotation::regular_column).collect();
    let mut block = [0; BLOCK];
    for codes in codes.chunks_exact_mut(BLOCK) {
        block.copy_from_slice(codes);
        for (code, &(from, negative)) in codes.iter_mut().zip(&columns) {
            let value = block[from];
            *code = if negative { value.wrapping_neg() } else { value } ^ ZERO;
        }
    }
}

/// Scales as f32: each is an f16 times a power of two, so none is rounded.
fn scales(rows: &EncodedRows) -> Vec<u8> {
    let halves = rows.scales.as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b).to_f32());
    let exponents = rows.extra.iter().copied().chain(std::iter::repeat(0));
    let values = halves.zip(exponents).map(|(scale, e)| scale * power_of_two(e as i8));
    values.flat_map(f32::to_le_bytes).collect()
}
