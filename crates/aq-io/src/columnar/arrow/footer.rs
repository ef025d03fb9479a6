//! The footer of an Arrow file: where it lies, its schema and its blocks.

use std::collections::BTreeMap;

use arrow_format::ipc::planus::{self, ReadAsRoot};
use arrow_format::ipc::{Endianness, FieldRef, FooterRef, KeyValue, SchemaRef, TypeRef};
use arrow2::datatypes::Schema;
use arrow2::io::ipc::write::{default_ipc_fields, schema_to_bytes};

use super::MAGIC;
use crate::columnar::schema::{COLUMNS, arrow_schema, check_version};
use crate::file_bytes::FileBytes;
use crate::{IoError, Result};

/// The longest footer that is read.
const MAX_FOOTER: u64 = 64 << 20;

/// What a file's footer says.
pub(super) struct Footer {
    pub(super) metadata: BTreeMap<String, String>,
    /// Offset, length of the description, and length of the body of each record batch; all within the file.
    pub(super) blocks: Vec<(u64, u64, u64)>,
}

/// The schema as a footer holds it.
pub(super) fn schema(schema: &Schema) -> arrow_format::ipc::Schema {
    use arrow_format::ipc::{Message, MessageHeader, MessageRef};
    // arrow2 hands out a schema only inside a message.
    let bytes = schema_to_bytes(schema, &default_ipc_fields(&schema.fields));
    let message = MessageRef::read_as_root(&bytes).and_then(Message::try_from);
    let mut schema = match message.ok().and_then(|m| m.header) {
        Some(MessageHeader::Schema(schema)) => *schema,
        _ => unreachable!("arrow2 writes a schema message"),
    };
    if let Some(pairs) = &mut schema.custom_metadata {
        pairs.sort_by(|a: &KeyValue, b: &KeyValue| a.key.cmp(&b.key));
    }
    schema
}

/// Reads the footer.
///
/// # Errors
/// When the file is not an Arrow file, is truncated, or has other columns.
pub(super) fn read(file: &FileBytes) -> Result<Footer> {
    let fault = |reason: String| IoError::malformed(file.path(), reason);
    let len = file.len();
    if len < 18 {
        return Err(fault(format!("too small for an Arrow file: {len} bytes, no footer")));
    }
    let (mut head, mut tail) = ([0; 6], [0; 10]);
    file.read_exact_at(0, &mut head)?;
    file.read_exact_at(len - 10, &mut tail)?;
    let [a, b, c, d, magic @ ..] = tail;
    if head != *MAGIC || magic != *MAGIC {
        return Err(fault("not an Arrow file, or truncated: the magic number is missing".into()));
    }
    let footer = u64::from(u32::from_le_bytes([a, b, c, d]));
    if footer == 0 || footer > len - 18 || footer > MAX_FOOTER {
        return Err(fault(format!("the footer length says {footer} bytes in an Arrow file of {len}")));
    }
    let at = len - 10 - footer;
    let mut bytes = vec![0; footer as usize];
    file.read_exact_at(at, &mut bytes)?;
    let parsed = parse(&bytes).map_err(|e| fault(format!("the Arrow footer is corrupt: {e}")))?;
    let (blocks, metadata) =
        parsed.map_err(|e| fault(format!("other columns than a quantized model has: {e}")))?;
    check_version(file.path(), &metadata)?;
    let inside = |&(offset, meta, body): &(i64, i32, i64)| {
        let (offset, meta, body) =
            (u64::try_from(offset).ok()?, u64::try_from(meta).ok()?, u64::try_from(body).ok()?);
        let end = offset.checked_add(meta)?.checked_add(body)?;
        (offset >= 8 && end <= at).then_some((offset, meta, body))
    };
    let blocks = blocks.iter().map(inside).collect::<Option<Vec<_>>>();
    Ok(Footer {
        blocks: blocks.ok_or_else(|| fault("a record batch lies outside the file".into()))?,
        metadata,
    })
}

type Parsed = (Vec<(i64, i32, i64)>, BTreeMap<String, String>);

fn parse(bytes: &[u8]) -> planus::Result<std::result::Result<Parsed, String>> {
    let footer = FooterRef::read_as_root(bytes)?;
    let Some(schema) = footer.schema()? else { return Ok(Err("the schema is missing".into())) };
    if let Err(reason) = check_schema(&schema)? {
        return Ok(Err(reason));
    }
    if footer.dictionaries()?.is_some_and(|d| !d.is_empty()) {
        return Ok(Err("a column has a dictionary".into()));
    }
    let mut metadata = BTreeMap::new();
    for pair in schema.custom_metadata()?.into_iter().flatten() {
        let pair = pair?;
        metadata
            .insert(pair.key()?.unwrap_or_default().to_owned(), pair.value()?.unwrap_or_default().to_owned());
    }
    let blocks = footer.record_batches()?.into_iter().flatten();
    let blocks = blocks.map(|b| (b.offset(), b.meta_data_length(), b.body_length())).collect();
    Ok(Ok((blocks, metadata)))
}

fn check_schema(schema: &SchemaRef<'_>) -> planus::Result<std::result::Result<(), String>> {
    if schema.endianness()? != Endianness::Little {
        return Ok(Err("the columns are big-endian".into()));
    }
    let fields = schema.fields()?.map_or(Vec::new(), |f| f.into_iter().collect());
    if fields.len() != COLUMNS.len() {
        return Ok(Err(format!("the schema has {} columns, expected {}", fields.len(), COLUMNS.len())));
    }
    for (field, expected) in fields.into_iter().zip(arrow_schema().fields) {
        let field = field?;
        let name = field.name()?.unwrap_or_default();
        if name != expected.name
            || kind(&field)? != named(&expected.data_type)
            || field.dictionary()?.is_some()
        {
            return Ok(Err(format!(
                "schema column {name:?} is not the {:?} of the right type",
                expected.name
            )));
        }
    }
    Ok(Ok(()))
}

/// A field's type in words; empty for one that no column has.
fn kind(field: &FieldRef<'_>) -> planus::Result<&'static str> {
    Ok(match field.type_()? {
        Some(TypeRef::Utf8(_)) => "utf8",
        Some(TypeRef::Binary(_)) => "binary",
        Some(TypeRef::LargeBinary(_)) => "large binary",
        Some(TypeRef::Int(int)) => match (int.bit_width()?, int.is_signed()?) {
            (64, true) => "i64",
            (64, false) => "u64",
            (32, true) => "i32",
            (8, false) => "u8",
            _ => "",
        },
        Some(TypeRef::List(_)) => {
            let mut children = field.children()?.into_iter().flatten();
            match (children.next(), children.next()) {
                (Some(child), None) => match child?.type_()? {
                    Some(TypeRef::Int(int)) if (int.bit_width()?, int.is_signed()?) == (64, true) => "list",
                    _ => "",
                },
                _ => "",
            }
        }
        _ => "",
    })
}

fn named(data_type: &arrow2::datatypes::DataType) -> &'static str {
    use arrow2::datatypes::DataType;
    match data_type {
        DataType::Utf8 => "utf8",
        DataType::Binary => "binary",
        DataType::LargeBinary => "large binary",
        DataType::Int64 => "i64",
        DataType::UInt64 => "u64",
        DataType::Int32 => "i32",
        DataType::UInt8 => "u8",
        _ => "list",
    }
}
