//! Values of the metadata.

use super::cursor::Cursor;
use crate::Result;

/// Arrays of more elements are only counted.
const SHOWN: u64 = 64;

/// The most bytes of all values together.
pub(super) const MAX_METADATA: usize = 256 << 20;

/// A value as text, and the numbers of a short array of whole ones.
pub(super) struct Value {
    pub(super) text: String,
    pub(super) numbers: Option<Vec<u64>>,
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self { text, numbers: None }
    }
}

/// The numbers of types.
mod id {
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
}

/// Reads the value of `key`: the number of its type and what that type has.
pub(super) fn read(cursor: &mut Cursor<'_>, key: &str) -> Result<Value> {
    let kind = cursor.u32("the type of a value")?;
    match kind {
        id::ARRAY => read_array(cursor, key),
        id::STRING => Ok(cursor.string(u64::MAX, &format!("the value of {key:?}"))?.into()),
        _ => read_number(cursor, kind, key).map(Value::from),
    }
}

/// Bytes of a number; `None` for what is none.
fn size(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn read_number(cursor: &mut Cursor<'_>, kind: u32, key: &str) -> Result<String> {
    let what = "a number";
    Ok(match kind {
        0 => u8::from_le_bytes(cursor.array(what)?).to_string(),
        1 => i8::from_le_bytes(cursor.array(what)?).to_string(),
        2 => u16::from_le_bytes(cursor.array(what)?).to_string(),
        3 => i16::from_le_bytes(cursor.array(what)?).to_string(),
        4 => cursor.u32(what)?.to_string(),
        5 => i32::from_le_bytes(cursor.array(what)?).to_string(),
        6 => f32::from_le_bytes(cursor.array(what)?).to_string(),
        7 => (u8::from_le_bytes(cursor.array(what)?) != 0).to_string(),
        10 => cursor.u64(what)?.to_string(),
        11 => i64::from_le_bytes(cursor.array(what)?).to_string(),
        12 => f64::from_le_bytes(cursor.array(what)?).to_string(),
        _ => return Err(cursor.fault(format!("the value of {key:?} has the unknown type {kind}"))),
    })
}

/// An array: the type of its elements, their number, the elements.
fn read_array(cursor: &mut Cursor<'_>, key: &str) -> Result<Value> {
    let (kind, count) = (cursor.u32("the type of an array")?, cursor.u64("the length of an array")?);
    let least = match kind {
        id::STRING => 8,
        id::ARRAY => return Err(cursor.fault(format!("the value of {key:?} has the type array of arrays"))),
        _ => size(kind).ok_or_else(|| {
            cursor.fault(format!("the value of {key:?} is an array of the unknown type {kind}"))
        })?,
    };
    let bytes = count.checked_mul(least).filter(|&bytes| bytes <= cursor.rest()).ok_or_else(|| {
        cursor.fault(format!("truncated: the value of {key:?} has a count of {count} elements"))
    })?;
    if count > SHOWN {
        match kind {
            id::STRING => (0..count).try_for_each(|_| cursor.skip_string("an element of an array"))?,
            _ => cursor.skip(bytes, "an array")?,
        }
        return Ok(format!("{count} elements").into());
    }
    let element = |_: u64| -> Result<String> {
        match kind {
            id::STRING => Ok(format!("{:?}", cursor.string(u64::MAX, "an element of an array")?)),
            _ => read_number(cursor, kind, key),
        }
    };
    let elements = (0..count).map(element).collect::<Result<Vec<_>>>()?;
    let numbers = elements.iter().map(|e| e.parse().ok()).collect();
    Ok(Value { text: format!("[{}]", elements.join(", ")), numbers })
}
