//! Which tensors a safetensors file holds, and where.

use std::borrow::Cow;
use std::path::Path;

use aq_core::{EncodedRows, Encoding, StoredTensor, TensorInfo};
use serde_json::{Map, Value, json};

use super::comfy;
use crate::json::duplicate;
use crate::{IoError, Result};

/// How tensors of a model become tensors of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One plain tensor each; the model holds no encoded ones.
    Plain,
    /// Layers of signed bytes as ComfyUI names and stores them, the others plain.
    Comfy,
}

/// One tensor of a file: a part of a tensor of the model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    pub(crate) info: TensorInfo,
    pub(crate) part: Part,
}

/// What of the encoded rows a piece holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    /// The elements of a tensor that is kept or dequantized.
    Elements,
    /// Codes and scales of signed bytes.
    Comfy(comfy::Part),
    /// The same bytes whatever the rows, written with the first of them.
    Fixed(Vec<u8>),
}

impl Form {
    /// The tensors of the file that hold `tensor`.
    ///
    /// # Errors
    /// The fact, when this form cannot hold it.
    pub(crate) fn pieces(self, tensor: &StoredTensor) -> Result<Vec<Piece>, String> {
        if tensor.info.name() == "__metadata__" {
            return Err("a tensor cannot have this name in safetensors".into());
        }
        match (self, tensor.encoding) {
            (_, Encoding::Raw) => Ok(vec![Piece { info: tensor.info.clone(), part: Part::Elements }]),
            (Form::Plain, _) => Err("safetensors holds plain tensors only".into()),
            (Form::Comfy, _) => comfy::pieces(tensor),
        }
    }

    /// Bytes that `tensor` takes in a file; `None` when this form cannot hold it.
    pub(crate) fn bytes(self, tensor: &StoredTensor) -> Option<u64> {
        Some(self.pieces(tensor).ok()?.iter().map(|piece| piece.info.bytes()).sum())
    }
}

impl Part {
    /// What `rows` of `tensor` add to the piece; `first` says whether they are the first rows.
    ///
    /// # Errors
    /// The fact, when the rows are not what the form holds.
    pub(crate) fn of<'a>(
        &'a self,
        tensor: &StoredTensor,
        rows: &'a EncodedRows,
        first: bool,
    ) -> Result<Cow<'a, [u8]>, String> {
        match self {
            Part::Elements => Ok(Cow::Borrowed(&rows.codes)),
            Part::Comfy(part) => part.of(tensor, rows).map(Cow::Owned),
            Part::Fixed(bytes) => Ok(Cow::Borrowed(if first { bytes } else { &[] })),
        }
    }
}

/// A piece and where its bytes begin in the file.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) piece: Piece,
    pub(crate) begin: u64,
}

/// The header of a file, and the places of each tensor of the model.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Length and JSON, padded so that the data begins at a multiple of 8.
    pub(crate) header: Vec<u8>,
    pub(crate) places: Vec<Vec<Place>>,
}

impl Layout {
    /// Lays out a file: the widest elements come first, so that every tensor lies at a multiple of its elements' size, and else the order
    /// stays.
    ///
    /// # Errors
    /// [`IoError::Tensor`] for a tensor that the form cannot hold, or a name that comes twice.
    pub(crate) fn new(
        path: &Path,
        tensors: &[StoredTensor],
        form: Form,
        metadata: &[(String, String)],
    ) -> Result<Self> {
        let pieces_of =
            |t: &StoredTensor| form.pieces(t).map_err(|fact| IoError::tensor(path, t.info.name(), fact));
        let pieces = tensors.iter().map(pieces_of).collect::<Result<Vec<_>>>()?;
        if let Some(name) = duplicate(pieces.iter().flatten().map(|p| p.info.name())) {
            return Err(IoError::tensor(path, name, "duplicate name"));
        }
        let mut order: Vec<(usize, usize)> =
            (0..pieces.len()).flat_map(|t| (0..pieces[t].len()).map(move |p| (t, p))).collect();
        order.sort_by_key(|&(t, p)| std::cmp::Reverse(pieces[t][p].info.dtype().size()));
        let mut places: Vec<Vec<Place>> = pieces.into_iter().map(unplaced).collect();
        let mut end = 0u64;
        for &(t, p) in &order {
            let place = &mut places[t][p];
            place.begin = end;
            end = end.checked_add(place.piece.info.bytes()).ok_or_else(|| {
                IoError::tensor(path, place.piece.info.name(), "the file would be too large")
            })?;
        }
        let header = header(order.iter().map(|&(t, p)| &places[t][p]), metadata);
        places.iter_mut().flatten().for_each(|place| place.begin += header.len() as u64);
        Ok(Self { header, places })
    }
}

fn unplaced(pieces: Vec<Piece>) -> Vec<Place> {
    pieces.into_iter().map(|piece| Place { piece, begin: 0 }).collect()
}

fn header<'a>(places: impl Iterator<Item = &'a Place>, metadata: &[(String, String)]) -> Vec<u8> {
    let metadata: Map<String, Value> = metadata.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    let mut header = Map::from_iter([("__metadata__".to_string(), Value::Object(metadata))]);
    for Place { piece: Piece { info, .. }, begin } in places {
        let offsets = [*begin, begin + info.bytes()];
        let entry = json!({"dtype": info.dtype().name(), "shape": info.shape(), "data_offsets": offsets});
        header.insert(info.name().into(), entry);
    }
    let mut json = Value::Object(header).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    [&(json.len() as u64).to_le_bytes(), json.as_slice()].concat()
}
