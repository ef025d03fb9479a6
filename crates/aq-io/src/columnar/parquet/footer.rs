//! The footer: its place, its size, its schema and its key-values.

use std::collections::BTreeMap;

use parquet_format_safe::thrift::protocol::TCompactInputProtocol;
use parquet_format_safe::{ColumnChunk, FieldRepetitionType, FileMetaData, SchemaElement, Type};

use crate::columnar::schema::{ARROW_SCHEMA_KEY, COLUMNS, check_version};
use crate::file_bytes::FileBytes;
use crate::{IoError, Result};

const MAGIC: &[u8; 4] = b"PAR1";

/// The longest footer that is read.
const MAX_FOOTER: u64 = 64 << 20;

/// The columns that a kind of file has, all required.
pub(super) struct Layout {
    /// What such a file holds.
    pub(super) what: &'static str,
    pub(super) names: &'static [&'static str],
    /// Physical type of each column's leaf.
    pub(super) types: &'static [Type],
    /// The column that holds lists, if one does.
    pub(super) list: Option<usize>,
}

/// The columns of a model.
#[rustfmt::skip]
pub(super) const MODEL: Layout = Layout {
    what: "a quantized model",
    names: &COLUMNS,
    types: &[
        Type::BYTE_ARRAY, Type::INT64, Type::INT64, Type::INT64, Type::BYTE_ARRAY, Type::BYTE_ARRAY, Type::INT32,
        Type::INT32, Type::BYTE_ARRAY, Type::BYTE_ARRAY, Type::BYTE_ARRAY, Type::BYTE_ARRAY, Type::INT64,
    ],
    list: Some(3),
};

/// A footer whose schema is ours.
pub(super) struct Footer {
    pub(super) file: FileMetaData,
    /// Where it begins: pages must end before it.
    pub(super) at: u64,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Reads the footer.
///
/// # Errors
/// When the file is not a Parquet file, is truncated, or has other columns.
pub(super) fn read(file: &FileBytes, layout: &Layout) -> Result<Footer> {
    let fault = |reason: String| IoError::malformed(file.path(), reason);
    let len = file.len();
    if len < 12 {
        return Err(fault(format!("too small for a Parquet file: {len} bytes, no footer")));
    }
    let (mut head, mut tail) = ([0; 4], [0; 8]);
    file.read_exact_at(0, &mut head)?;
    file.read_exact_at(len - 8, &mut tail)?;
    let [a, b, c, d, magic @ ..] = tail;
    if head != *MAGIC || magic != *MAGIC {
        return Err(fault("not a Parquet file, or truncated: the magic number is missing".into()));
    }
    let footer = u64::from(u32::from_le_bytes([a, b, c, d]));
    if footer == 0 || footer > len - 12 || footer > MAX_FOOTER {
        return Err(fault(format!("the footer length says {footer} bytes in a Parquet file of {len}")));
    }
    let at = len - 8 - footer;
    let mut bytes = vec![0; footer as usize];
    file.read_exact_at(at, &mut bytes)?;
    let budget = bytes.len() + (64 << 10);
    require_room(budget)
        .map_err(|e| fault(format!("the footer of {footer} bytes may need too much memory: {e}")))?;
    let parsed =
        FileMetaData::read_from_in_protocol(&mut TCompactInputProtocol::new(bytes.as_slice(), budget))
            .map_err(|e| fault(format!("the Parquet footer is corrupt: {e}")))?;
    check_schema(&parsed.schema, layout)
        .map_err(|e| fault(format!("other columns than {} has: {e}", layout.what)))?;
    let pairs = parsed.key_value_metadata.iter().flatten();
    let metadata: BTreeMap<_, _> = pairs
        .filter(|kv| kv.key != ARROW_SCHEMA_KEY)
        .map(|kv| (kv.key.clone(), kv.value.clone().unwrap_or_default()))
        .collect();
    check_version(file.path(), &metadata)?;
    check_rows(file, &parsed)?;
    Ok(Footer { file: parsed, at, metadata })
}

/// The thrift reader reserves a list on the word of its length, of which it counts 8 bytes an element against `budget`.
/// Asks for the most that can become, so that a lie is an error here and not the end of the process there.
fn require_room(budget: usize) -> std::result::Result<(), std::collections::TryReserveError> {
    Vec::<u8>::new().try_reserve_exact(budget / 8 * size_of::<ColumnChunk>())
}

/// The rows of a file are those of its row groups, and no more than it has bytes.
fn check_rows(file: &FileBytes, footer: &FileMetaData) -> Result<()> {
    let sum = footer.row_groups.iter().try_fold(0i64, |sum, g| sum.checked_add(g.num_rows.max(-1)));
    let total = footer.num_rows;
    if total < 0 || sum != Some(total) || total as u64 > file.len() {
        let reason = format!("the footer says {total} rows, which its row groups do not have");
        return Err(IoError::malformed(file.path(), reason));
    }
    Ok(())
}

/// Compares the flattened tree with the columns of `layout`, the names inside a list excepted.
fn check_schema(elements: &[SchemaElement], layout: &Layout) -> std::result::Result<(), String> {
    let mut rest = elements.iter();
    let root = rest.next().ok_or("the schema is empty")?;
    let columns = root.num_children.unwrap_or(0);
    if columns != layout.names.len() as i32 {
        return Err(format!("the schema has {columns} columns, expected {}", layout.names.len()));
    }
    let mut take = |name: Option<&str>, t: Option<Type>, repetition, children: Option<i32>| {
        let expected = name.unwrap_or("list<int64>");
        let element = rest.next().ok_or_else(|| format!("column {expected:?} is missing"))?;
        let same = name.is_none_or(|n| n == element.name)
            && element.type_ == t
            && element.repetition_type == Some(repetition)
            && element.num_children.unwrap_or(0) == children.unwrap_or(0);
        let wrong =
            || format!("schema column {:?} is not the required {expected:?} of the right type", element.name);
        if same { Ok(()) } else { Err(wrong()) }
    };
    for (i, (&name, &leaf)) in layout.names.iter().zip(layout.types).enumerate() {
        if layout.list == Some(i) {
            take(Some(name), None, FieldRepetitionType::REQUIRED, Some(1))?;
            take(None, None, FieldRepetitionType::REPEATED, Some(1))?;
            take(None, Some(leaf), FieldRepetitionType::REQUIRED, None)?;
        } else {
            take(Some(name), Some(leaf), FieldRepetitionType::REQUIRED, None)?;
        }
    }
    match rest.next() {
        Some(extra) => Err(format!("the schema has a column {:?} too many", extra.name)),
        None => Ok(()),
    }
}
