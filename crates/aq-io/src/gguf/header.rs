//! The header of a GGUF file: metadata, then name, shape, type and place of each tensor. Checked as strictly as ggml does, and more.

use std::collections::BTreeMap;

use aq_core::{Encoding, GgmlType, MAX_ROW_WEIGHTS, StoredTensor, TensorInfo};

use super::PLAIN;
use super::cursor::Cursor;
use super::value::{self, MAX_METADATA, Value};
use crate::file_bytes::FileBytes;
use crate::json::duplicate;
use crate::{IoError, Result};

/// Dimensions of a tensor; the format has no more.
const MAX_DIMENSIONS: u32 = 4;

/// Architectures whose files have a convolution of five dimensions, as `fix_5d_tensors.py` of ComfyUI-GGUF adds it.
pub(super) const FIVE_DIMENSIONS: [&str; 2] = ["hyvid", "wan"];

/// The most entries of either list: they bound memory, not models.
const MAX_ENTRIES: u64 = 1 << 20;

/// The least bytes of an entry of the metadata and of a tensor.
const LEAST_PAIR: u64 = 8 + 4 + 1;
const LEAST_TENSOR: u64 = 8 + 4 + 4 + 8;

/// The longest key or name.
const MAX_NAME: u64 = 1 << 16;

/// In front of the name of a tensor: the key of the shape it had before it was laid out in rows of another length.
pub(super) const ORIGINAL_SHAPE: &str = "comfy.gguf.orig_shape.";

/// A checked header.
pub(super) struct Header {
    /// Tensors in the order of their bytes.
    pub(super) tensors: Vec<StoredTensor>,
    /// Where each begins in the file.
    pub(super) starts: Vec<u64>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Reads and checks the header of `file`.
///
/// # Errors
/// One sentence that names the file, the tensor where it is about one, and the fact.
pub(super) fn read(file: &FileBytes) -> Result<Header> {
    let mut cursor = Cursor::new(file);
    check_version(&mut cursor, file)?;
    let tensor_count = count(&mut cursor, LEAST_TENSOR, "tensors")?;
    let pair_count = count(&mut cursor, LEAST_PAIR, "keys")?;
    let metadata = read_metadata(&mut cursor, pair_count)?;
    let alignment = alignment(&metadata, &cursor)?;
    if let Some(parts) =
        metadata.get("split.count").filter(|parts| !["0", "1"].contains(&parts.text.as_str()))
    {
        let fact = format!("one of {} parts of a GGUF file; join them first", parts.text);
        return Err(IoError::unsupported(file.path(), fact));
    }
    let most = match metadata.get("general.architecture") {
        Some(name) if FIVE_DIMENSIONS.contains(&name.text.as_str()) => MAX_DIMENSIONS + 1,
        _ => MAX_DIMENSIONS,
    };
    let entries =
        (0..tensor_count).map(|_| Entry::read(&mut cursor, file, most)).collect::<Result<Vec<_>>>()?;
    if let Some(name) = duplicate(entries.iter().map(|e| e.stored.info.name())) {
        return Err(IoError::tensor(file.path(), name, "duplicate name in the header"));
    }
    let starts = place(&entries, cursor.at(), alignment, file)?;
    let tensors =
        entries.into_iter().map(|e| e.with_original_shape(&metadata, file)).collect::<Result<_>>()?;
    let metadata = metadata.into_iter().map(|(key, value)| (key, value.text)).collect();
    Ok(Header { tensors, starts, metadata })
}

fn check_version(cursor: &mut Cursor<'_>, file: &FileBytes) -> Result<()> {
    if cursor.array::<4>("the magic of a GGUF file")? != *b"GGUF" {
        return Err(cursor.fault("it does not begin with the magic of a GGUF file"));
    }
    match cursor.u32("the version")? {
        2 | 3 => Ok(()),
        1 => Err(IoError::unsupported(file.path(), "GGUF version 1 is not supported")),
        version if version.swap_bytes() <= 3 && version != 0 => {
            Err(IoError::unsupported(file.path(), "big-endian GGUF files are not supported"))
        }
        version => Err(cursor.fault(format!("unknown GGUF version {version}"))),
    }
}

/// A number of entries that the rest of the file can hold.
fn count(cursor: &mut Cursor<'_>, least: u64, what: &str) -> Result<u64> {
    let count = cursor.u64(&format!("the count of {what}"))?;
    if count > MAX_ENTRIES || count.saturating_mul(least) > cursor.rest() {
        let fact = format!(
            "a count of {count} {what} exceeds what the {} bytes of the file can hold",
            cursor.rest()
        );
        return Err(cursor.fault(fact));
    }
    Ok(count)
}

fn read_metadata(cursor: &mut Cursor<'_>, count: u64) -> Result<BTreeMap<String, Value>> {
    let (mut metadata, mut bytes) = (BTreeMap::new(), 0);
    for _ in 0..count {
        let key = cursor.string(MAX_NAME, "a key")?;
        let value = value::read(cursor, &key)?;
        bytes += key.len() + value.text.len();
        if bytes > MAX_METADATA {
            return Err(cursor.fault(format!("the metadata exceeds {MAX_METADATA} bytes")));
        }
        if metadata.contains_key(&key) {
            return Err(cursor.fault(format!("duplicate key {key:?}")));
        }
        metadata.insert(key, value);
    }
    Ok(metadata)
}

fn alignment(metadata: &BTreeMap<String, Value>, cursor: &Cursor<'_>) -> Result<u64> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(32) };
    let number = value.text.parse::<u64>().ok().filter(|n| n.is_power_of_two() && *n <= 1 << 20);
    number.ok_or_else(|| cursor.fault(format!("an alignment of {} is no power of two", value.text)))
}

/// A tensor as the header states it.
struct Entry {
    stored: StoredTensor,
    offset: u64,
    bytes: u64,
}

impl Entry {
    fn read(cursor: &mut Cursor<'_>, file: &FileBytes, most: u32) -> Result<Self> {
        let name = cursor.string(MAX_NAME, "the name of a tensor")?;
        let fault = |fact: String| IoError::tensor(file.path(), &name, fact);
        let rank = cursor.u32("the number of dimensions")?;
        if rank > most {
            return Err(fault(format!("a shape of {rank} dimensions exceeds the {most} of the format")));
        }
        let mut shape = (0..rank).map(|_| cursor.u64("a dimension")).collect::<Result<Vec<_>>>()?;
        shape.reverse();
        let (id, offset) = (cursor.u32("the type of a tensor")?, cursor.u64("the offset of a tensor")?);
        let quantized = GgmlType::from_id(id).map(Encoding::Ggml);
        let plain = PLAIN.into_iter().find(|(plain, _)| *plain == id).map(|(_, dtype)| dtype);
        let encoding = match (quantized, plain) {
            (Some(encoding), _) => encoding,
            (None, Some(_)) => Encoding::Raw,
            (None, None) => {
                return Err(IoError::tensor(file.path(), &name, format!("ggml type {id} is not supported")));
            }
        };
        let last = shape.last().copied().unwrap_or(1);
        if let Encoding::Ggml(kind) = encoding
            && !last.is_multiple_of(kind.block_weights() as u64)
        {
            return Err(fault(format!(
                "the shape {shape:?} of {kind} has rows of {last}, no multiple of {} elements",
                kind.block_weights()
            )));
        }
        let info = TensorInfo::new(name.clone(), shape, plain.unwrap_or(aq_core::DType::F32))
            .map_err(|_| fault("the size of the shape overflows: too many elements".into()))?;
        if encoding != Encoding::Raw && info.cols() > MAX_ROW_WEIGHTS {
            return Err(fault(format!("rows of {} weights are too long", info.cols())));
        }
        let bytes = aq_codec::encoded_bytes(&info, &encoding);
        Ok(Self { stored: StoredTensor::new(info, encoding), offset, bytes })
    }

    /// The tensor in the shape that the metadata says it had, where its rows are then whole blocks still.
    fn with_original_shape(
        self,
        metadata: &BTreeMap<String, Value>,
        file: &FileBytes,
    ) -> Result<StoredTensor> {
        let StoredTensor { info, encoding, .. } = self.stored;
        let Some(value) = metadata.get(&format!("{ORIGINAL_SHAPE}{}", info.name())) else {
            return Ok(StoredTensor::new(info, encoding));
        };
        let original =
            value.numbers.clone().and_then(|shape| TensorInfo::new(info.name(), shape, info.dtype()).ok());
        let original =
            original.filter(|original| original.elements() == info.elements()).ok_or_else(|| {
                let fact = format!(
                    "the shape {} that it had has not the elements of {:?}",
                    value.text,
                    info.shape()
                );
                IoError::tensor(file.path(), info.name(), fact)
            })?;
        let whole = match encoding {
            Encoding::Ggml(kind) => {
                kind.row_bytes(original.cols()).is_some() && original.cols() <= MAX_ROW_WEIGHTS
            }
            _ => true,
        };
        Ok(StoredTensor::new(if whole { original } else { info }, encoding))
    }
}

/// Where tensors begin: each at the first multiple of the alignment behind the one before, and nothing but padding after the last.
fn place(entries: &[Entry], header: u64, alignment: u64, file: &FileBytes) -> Result<Vec<u64>> {
    let data = header.next_multiple_of(alignment);
    let (mut next, mut end, mut starts) = (data, header, Vec::with_capacity(entries.len()));
    for Entry { stored, offset, bytes } in entries {
        let fault = |fact: String| Err(IoError::tensor(file.path(), stored.info.name(), fact));
        if !offset.is_multiple_of(alignment) {
            return fault(format!("the offset {offset} is no multiple of the alignment {alignment}"));
        }
        let last = data.checked_add(*offset).and_then(|start| start.checked_add(*bytes));
        let Some(last) = last.filter(|&last| last <= file.len()) else {
            return fault(format!("{bytes} bytes at the offset {offset} end beyond the file (truncated?)"));
        };
        match (data + offset).cmp(&next) {
            std::cmp::Ordering::Less => return fault(format!("the offset {offset} overlaps another tensor")),
            std::cmp::Ordering::Greater => {
                return fault(format!("the offset {offset} leaves a hole from {}", next - data));
            }
            std::cmp::Ordering::Equal => {}
        }
        starts.push(data + offset);
        (next, end) = (last.next_multiple_of(alignment), last);
    }
    match file.len() > end.next_multiple_of(alignment) {
        true => Err(IoError::malformed(
            file.path(),
            format!("{} trailing bytes after the last tensor", file.len() - end),
        )),
        false => Ok(starts),
    }
}
