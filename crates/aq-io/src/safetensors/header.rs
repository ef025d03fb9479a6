//! The JSON header of a safetensors file, checked more strictly than the format's reference reader does.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use aq_core::{DType, TensorInfo};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::json::{UniqueMap, check_depth, duplicate};
use crate::{IoError, Result};

/// The most tensors of a file, and the most dimensions of a tensor: they bound memory, not models.
const MAX_TENSORS: usize = 1 << 20;
const MAX_DIMENSIONS: usize = 64;

/// A checked header.
#[derive(Debug, PartialEq)]
pub(crate) struct Header {
    /// Tensors in the order of their bytes, which follow one another without a hole from the start of the data.
    pub(crate) tensors: Vec<TensorInfo>,
    /// `__metadata__`.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// An entry as the header states it.
struct Entry {
    info: TensorInfo,
    begin: u64,
    end: u64,
}

/// Parses a header and checks that its tensors cover the `data_len` bytes after it exactly.
///
/// # Errors
/// One sentence that names the file, the tensor where it is about one, and the fact.
pub(crate) fn parse_header(bytes: &[u8], data_len: u64, path: &Path) -> Result<Header> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        IoError::malformed(path, format!("the header is not UTF-8 at byte {}", e.valid_up_to()))
    })?;
    if !text.starts_with('{') {
        return Err(IoError::malformed(path, "the header is not a JSON object"));
    }
    check_depth(bytes, path, "header")?;
    let current = RefCell::new(None);
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed =
        HeaderVisitor { current: &current }.deserialize(&mut json).and_then(|h| json.end().map(|()| h));
    let (mut entries, metadata) = parsed.map_err(|e| match current.take() {
        Some(tensor) => IoError::tensor(path, &tensor, format!("header JSON: {e}")),
        None => IoError::malformed(path, format!("the header is not valid JSON: {e}")),
    })?;
    if let Some(name) = duplicate(entries.iter().map(|e| e.info.name())) {
        return Err(IoError::tensor(path, name, "duplicate name in the header"));
    }
    entries.sort_by_key(|e| (e.begin, e.end));
    check_offsets(&entries, data_len, path)?;
    Ok(Header { tensors: entries.into_iter().map(|e| e.info).collect(), metadata })
}

/// Each tensor begins where the one before it ends, holds what its shape needs, and the last ends with the data.
fn check_offsets(entries: &[Entry], data_len: u64, path: &Path) -> Result<()> {
    let mut next = 0;
    for Entry { info, begin, end } in entries {
        let fault = |fact: String| Err(IoError::tensor(path, info.name(), fact));
        let Some(bytes) = end.checked_sub(*begin) else {
            return fault(format!("data offsets [{begin}, {end}] end before they begin"));
        };
        if *end > data_len {
            return fault(format!(
                "data offsets [{begin}, {end}] are out of range: {data_len} bytes of data follow the header (truncated?)"
            ));
        }
        if bytes != info.bytes() {
            let (shape, dtype, need) = (info.shape(), info.dtype(), info.bytes());
            return fault(format!(
                "shape {shape:?} of {dtype} needs {need} bytes, its data offsets cover {bytes}"
            ));
        }
        if *begin < next {
            return fault(format!(
                "data offsets [{begin}, {end}] overlap another tensor that ends at {next}"
            ));
        }
        if *begin > next {
            return fault(format!("data offsets [{begin}, {end}] leave a hole from {next}"));
        }
        next = *end;
    }
    match data_len - next {
        0 => Ok(()),
        extra => Err(IoError::malformed(
            path,
            format!("{extra} trailing bytes after the last tensor's data offset"),
        )),
    }
}

/// Reads the whole header. `current` holds the tensor whose entry is being read, for messages.
struct HeaderVisitor<'a> {
    current: &'a RefCell<Option<String>>,
}

type RawHeader = (Vec<Entry>, BTreeMap<String, String>);

impl<'de> DeserializeSeed<'de> for HeaderVisitor<'_> {
    type Value = RawHeader;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawHeader, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderVisitor<'_> {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let (mut entries, mut metadata) = (Vec::new(), None);
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                let read = map
                    .next_value::<UniqueMap<String>>()
                    .map_err(|e| in_field("__metadata__ strings", &e))?;
                if metadata.replace(read.0).is_some() {
                    return Err(A::Error::custom("duplicate key \"__metadata__\""));
                }
                continue;
            }
            if entries.len() == MAX_TENSORS {
                return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
            }
            *self.current.borrow_mut() = Some(name.clone());
            entries.push(map.next_value_seed(EntryVisitor { name })?);
            *self.current.borrow_mut() = None;
        }
        Ok((entries, metadata.unwrap_or_default().into_iter().collect()))
    }
}

/// Reads the entry of one tensor.
struct EntryVisitor {
    name: String,
}

impl<'de> DeserializeSeed<'de> for EntryVisitor {
    type Value = Entry;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Entry, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(field) = map.next_key::<String>()? {
            let twice = match field.as_str() {
                "dtype" => {
                    dtype.replace(map.next_value::<String>().map_err(|e| in_field("dtype", &e))?).is_some()
                }
                "shape" => {
                    let list = map.next_value_seed(Numbers { max: MAX_DIMENSIONS });
                    shape.replace(list.map_err(|e| in_field("shape", &e))?).is_some()
                }
                "data_offsets" => {
                    let list = map.next_value_seed(Numbers { max: 2 });
                    offsets.replace(list.map_err(|e| in_field("data_offsets", &e))?).is_some()
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    false
                }
            };
            if twice {
                return Err(A::Error::custom(format!("duplicate field {field:?}")));
            }
        }
        let missing = |field| move || A::Error::custom(format!("{field} is missing"));
        let dtype = dtype.ok_or_else(missing("dtype"))?;
        let dtype = DType::from_name(&dtype)
            .ok_or_else(|| A::Error::custom(format!("dtype {dtype:?} is not supported")))?;
        let shape = shape.ok_or_else(missing("shape"))?;
        let [begin, end] = offsets.ok_or_else(missing("data_offsets"))?[..] else {
            return Err(A::Error::custom("data_offsets must be two numbers"));
        };
        let info = TensorInfo::new(self.name, shape, dtype)
            .map_err(|_| A::Error::custom("the size of the shape overflows: too many elements"))?;
        Ok(Entry { info, begin, end })
    }
}

/// The error with the field it was found in.
fn in_field<E: Error>(field: &str, error: &E) -> E {
    E::custom(format!("{field}: {error}"))
}

/// A list of at most `max` whole numbers.
struct Numbers {
    max: usize,
}

impl<'de> DeserializeSeed<'de> for Numbers {
    type Value = Vec<u64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u64>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Numbers {
    type Value = Vec<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of whole numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u64>, A::Error> {
        let mut numbers = Vec::new();
        while let Some(number) = seq.next_element()? {
            if numbers.len() == self.max {
                return Err(A::Error::custom(format!("more than {} numbers", self.max)));
            }
            numbers.push(number);
        }
        Ok(numbers)
    }
}
