//! The columns, what their bytes must measure, and which tensors share a row group.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use aq_codec::PartLengths;
use aq_core::{BitWidth, Encoding, StoredTensor, slab_count, slab_range};
use arrow2::datatypes::{DataType, Field, Schema};
use arrow2::io::ipc::write::{default_ipc_fields, schema_to_bytes};

use crate::{IoError, Result};

/// Names of the columns, in the order of the file.
pub(super) const COLUMNS: [&str; 13] = [
    "tensor",
    "row_start",
    "row_count",
    "shape",
    "src_dtype",
    "codec",
    "bits",
    "group_size",
    "codes",
    "scales",
    "offsets",
    "extra",
    "xxh3",
];

/// Index of `codes`; the other three parts follow it.
pub(super) const CODES: usize = 8;

/// Key of the version of the format in a file's metadata.
const VERSION_KEY: &str = "aq.format_version";

/// The version that is written and read.
const VERSION: &str = "1";

/// Who wrote a file.
pub(super) const CREATED_BY: &str = concat!("arrowquant version ", env!("CARGO_PKG_VERSION"));

/// Key under which Parquet readers look for the Arrow schema.
pub(super) const ARROW_SCHEMA_KEY: &str = "ARROW:schema";

/// A tensor whose payload is below this shares a row group.
const SMALL_TENSOR: u64 = 1 << 20;

/// Payload at which a shared row group is full.
const FULL_GROUP: u64 = 4 << 20;

/// The schema in Arrow's terms. Nothing is nullable.
pub(super) fn arrow_schema() -> Schema {
    let item = Field::new("item", DataType::Int64, false);
    let types = [
        DataType::Utf8,
        DataType::Int64,
        DataType::Int64,
        DataType::List(Box::new(item)),
        DataType::Utf8,
        DataType::Utf8,
        DataType::UInt8,
        DataType::Int32,
        DataType::LargeBinary,
        DataType::Binary,
        DataType::Binary,
        DataType::Binary,
        DataType::UInt64,
    ];
    Schema::from(COLUMNS.iter().zip(types).map(|(name, t)| Field::new(*name, t, false)).collect::<Vec<_>>())
}

/// A schema as Parquet files carry it: an Arrow message behind its length, in base 64.
pub(super) fn encoded_schema(schema: &Schema) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let message = schema_to_bytes(schema, &default_ipc_fields(&schema.fields));
    let mut bytes = vec![0xff; 4];
    bytes.extend_from_slice(&(message.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&message);
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0, |w, &b| w << 8 | usize::from(b)) << (8 * (3 - three.len()));
        for i in 0..4 {
            let digit = DIGITS[word >> (18 - 6 * i) & 63];
            text.push(if i <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// Bits and group size as the columns have them.
pub(super) fn numbers(tensor: &StoredTensor) -> (u8, i32) {
    if tensor.encoding == Encoding::Raw {
        return ((tensor.info.dtype().size() * 8) as u8, 0);
    }
    let (bits, group_size) = tensor.encoding.bits_and_group();
    (bits.map_or(0, BitWidth::get), group_size.map_or(0, |g| g.get() as i32))
}

/// The key-values of a file: those given, and the version if it is not among them.
pub(super) fn key_values(metadata: &[(String, String)]) -> Vec<(String, String)> {
    let mut all = metadata.to_vec();
    if !all.iter().any(|(key, _)| key == VERSION_KEY) {
        all.push((VERSION_KEY.into(), VERSION.into()));
    }
    all
}

/// Refuses a file of another version; one that names none was made by another program.
pub(super) fn check_version(path: &Path, metadata: &BTreeMap<String, String>) -> Result<()> {
    match metadata.get(VERSION_KEY) {
        Some(version) if version != VERSION => Err(IoError::unsupported(
            path,
            format!("format version {version:?}; this reader knows version {VERSION}"),
        )),
        _ => Ok(()),
    }
}

/// Lengths of the parts of `rows` rows, without side data. `None` when they pass 64 bits.
pub(super) fn part_lengths(tensor: &StoredTensor, rows: u64) -> Option<PartLengths> {
    aq_codec::part_lengths(&tensor.info, &tensor.encoding, rows)
}

/// First row and number of rows of each slab of the tensors in `group`, with the tensor's index.
pub(super) fn slabs_of(
    tensors: &[StoredTensor],
    group: Range<usize>,
) -> impl Iterator<Item = (usize, u64, (u64, u64))> {
    let chosen = tensors.iter().enumerate().skip(group.start).take(group.len());
    chosen.flat_map(|(t, tensor)| {
        (0..slab_count(&tensor.info, &tensor.encoding))
            .map(move |s| (t, s, slab_range(&tensor.info, &tensor.encoding, s)))
    })
}

/// The tensors of each row group: a large tensor has one for itself, small neighbours share one. A function of
/// the tensors alone.
pub(super) fn groups(tensors: &[StoredTensor]) -> Vec<Range<usize>> {
    let (mut groups, mut start, mut shared) = (Vec::new(), 0, 0u64);
    for (i, tensor) in tensors.iter().enumerate() {
        let lengths = part_lengths(tensor, tensor.encoding.rows(&tensor.info));
        let payload = match lengths {
            Some(PartLengths::Exact([codes, scales, offsets, _])) => {
                codes.saturating_add(scales).saturating_add(offsets)
            }
            // What it will be is not known before it is written; a byte a weight is more than most take.
            Some(PartLengths::AtMost(_)) => tensor.info.elements(),
            None => u64::MAX,
        };
        if payload >= SMALL_TENSOR {
            groups.extend([start..i, i..i + 1]);
        } else {
            shared += payload;
            if shared < FULL_GROUP {
                continue;
            }
            groups.push(start..i + 1);
        }
        (start, shared) = (i + 1, 0);
    }
    groups.push(start..tensors.len());
    groups.retain(|g| !g.is_empty());
    groups
}
