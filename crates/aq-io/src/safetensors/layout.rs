//! Which tensors a safetensors file holds, and where.

use std::borrow::Cow;
use std::path::Path;

use aq_core::{EncodedRows, Encoding, StoredTensor, TensorInfo};
use serde_json::{Map, Value, json};

use super::checksums::{self, CHECKSUMS};
use super::packed::LateParts;
use super::{LENGTH_BYTES, comfy, packed};
use crate::json::duplicate;
use crate::{IoError, Result};

/// How tensors of a model become tensors of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One plain tensor each; the model holds no encoded ones.
    Plain,
    /// Layers of signed bytes as ComfyUI names and stores them, the others plain.
    Comfy,
    /// Packed layers of codec `affine` as our backend in diffusers loads them, the others plain.
    Packed,
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
    /// What of packed rows.
    Packed(packed::Part),
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
            (Form::Packed, _) => packed::pieces(tensor),
        }
    }

    /// Whether a file has checksums of its tensors.
    pub(crate) fn is_checksummed(self) -> bool {
        self == Form::Packed
    }

    /// `metadata` with room for the checksums.
    fn longest(
        self,
        metadata: &[(String, String)],
        places: &[Vec<Place>],
        late: &[TensorInfo],
    ) -> Vec<(String, String)> {
        let most = places.iter().map(Vec::len).sum::<usize>() + late.len();
        let room =
            self.is_checksummed().then(|| (CHECKSUMS.to_string(), checksums::text((0..most).map(|_| 0))));
        metadata.iter().cloned().chain(room).collect()
    }

    /// Tensors that the file may hold besides, at their largest: whether it does the rows say.
    fn late(self, tensors: &[StoredTensor]) -> Vec<TensorInfo> {
        match self {
            Form::Packed => tensors.iter().flat_map(LateParts::largest).collect(),
            _ => Vec::new(),
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
            Part::Packed(part) => Ok(part.of(tensor, rows)),
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

/// Where the tensors of a file lie that are known before the first is written. In front is room for the header, which is written last, and for
/// late pieces of wide elements.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) places: Vec<Vec<Place>>,
    /// Where the first of them begins.
    pub(crate) start: u64,
    /// Where the last of them ends.
    pub(crate) end: u64,
}

/// A tensor of a file and where it begins.
pub(crate) type Entry<'a> = (&'a TensorInfo, u64);

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
        let late = form.late(tensors);
        let names = pieces.iter().flatten().map(|p| &p.info).chain(&late);
        if let Some(name) = duplicate(names.map(TensorInfo::name)) {
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
        let start = room(&places, &late, &form.longest(metadata, &places, &late), end);
        places.iter_mut().flatten().for_each(|place| place.begin += start);
        Ok(Self { places, start, end: end + start })
    }
}

fn unplaced(pieces: Vec<Piece>) -> Vec<Place> {
    pieces.into_iter().map(|piece| Place { piece, begin: 0 }).collect()
}

/// Bytes of the longest header, with the wide ones of the late pieces behind it: of the header alone where there are none.
fn room(places: &[Vec<Place>], late: &[TensorInfo], metadata: &[(String, String)], end: u64) -> u64 {
    let known = places.iter().flatten().map(|place| (&place.piece.info, place.begin));
    let bytes =
        |wide: bool| late.iter().filter(|info| is_wide(info) == wide).map(TensorInfo::bytes).sum::<u64>();
    let last = end.saturating_add(bytes(true)).saturating_add(bytes(false));
    // Offsets have the most digits at the end; where nothing is late they are as they will be.
    let longest: Vec<Entry<'_>> = match late {
        [] => known.collect(),
        _ => known.chain(late.iter().map(|info| (info, 0))).map(|(info, _)| (info, last)).collect(),
    };
    header(&longest, 0, metadata, 0).len() as u64 + bytes(true).next_multiple_of(8)
}

/// Whether a late piece lies in front of the others, at a multiple of its elements' size.
pub(crate) fn is_wide(info: &TensorInfo) -> bool {
    info.dtype().size() > 1
}

/// Length and JSON of the header of `entries`, whose first byte is at `base`, filled with spaces to `bytes` bytes, else to a multiple of 8.
pub(crate) fn header(entries: &[Entry<'_>], base: u64, metadata: &[(String, String)], bytes: u64) -> Vec<u8> {
    let metadata: Map<String, Value> = metadata.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    let mut header = Map::from_iter([("__metadata__".to_string(), Value::Object(metadata))]);
    for (info, begin) in entries {
        let begin = begin.saturating_sub(base);
        let offsets = [begin, begin.saturating_add(info.bytes())];
        let entry = json!({"dtype": info.dtype().name(), "shape": info.shape(), "data_offsets": offsets});
        header.insert(info.name().into(), entry);
    }
    let mut json = Value::Object(header).to_string().into_bytes();
    let length = (bytes as usize).saturating_sub(LENGTH_BYTES as usize).max(json.len());
    json.resize(if bytes == 0 { length.next_multiple_of(8) } else { length }, b' ');
    [&(json.len() as u64).to_le_bytes(), json.as_slice()].concat()
}
