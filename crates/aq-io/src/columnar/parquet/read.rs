//! The Parquet reader. Footer, page headers and small columns are read and checked at once; codes stay on disk.

use std::path::Path;

use parquet_format_safe::RowGroup;

use super::binary::locate;
use super::chunk::Chunk;
use super::footer::{self, MODEL};
use super::page::Page;
use crate::columnar::rows::{CheckedRow, Row, Rows};
use crate::columnar::schema::{CODES, COLUMNS};
use crate::columnar::table::{Table, Unpack};
use crate::file_bytes::FileBytes;
use crate::{Access, Format, IoError, Result, Source};

/// Opens a native Parquet file.
///
/// # Errors
/// When it is not one, is truncated, or any number in it contradicts another.
pub(crate) fn open_parquet(path: &Path, access: Access) -> Result<Box<dyn Source>> {
    let file = FileBytes::open(path, access)?;
    let footer = footer::read(&file, &MODEL)?;
    let (mut rows, mut packed) = (Rows::new(path), Vec::new());
    for group in &footer.file.row_groups {
        read_group(&file, group, footer.at, &mut rows, &mut packed)?;
    }
    let unpack: Unpack = Box::new(move |file, index| {
        let fault = |reason| IoError::malformed(file.path(), reason);
        let page: &Page = packed.get(index as usize).ok_or_else(|| fault("no such page".into()))?;
        page.unpack(file)?.map_err(fault)
    });
    Ok(Box::new(Table::new(file, Format::Parquet, footer.metadata, rows, unpack)?))
}

fn read_group(
    file: &FileBytes,
    group: &RowGroup,
    footer: u64,
    rows: &mut Rows<'_>,
    packed: &mut Vec<Page>,
) -> Result<()> {
    let fault = |reason: String| IoError::malformed(file.path(), reason);
    let count =
        u64::try_from(group.num_rows).map_err(|_| fault("a row group says it has negative rows".into()))?;
    if group.columns.len() != COLUMNS.len() {
        return Err(fault(format!(
            "a row group has {} columns in place of {}",
            group.columns.len(),
            COLUMNS.len()
        )));
    }
    let open = |i: usize| Chunk::open(file, &MODEL, i, &group.columns[i], footer);
    let checked =
        small_columns(open)?.map(|row| row.check(file.path())).collect::<Result<Vec<CheckedRow>>>()?;
    if checked.len() as u64 != count {
        return Err(fault(format!(
            "a row group says it has {count} rows, its columns have {}",
            checked.len()
        )));
    }
    let mut parts = Vec::new();
    for part in 0..4 {
        let limits: Vec<u64> = checked.iter().map(|row| row.limits[part]).collect();
        parts.push(locate(&open(CODES + part)?, &limits, packed)?.into_iter());
    }
    for row in checked {
        // Each of the four columns has exactly one value a row.
        let mut next = |i: usize| parts[i].next().unwrap_or_default();
        let parts = [next(0), next(1), next(2), next(3)];
        rows.push(row, parts)?;
    }
    Ok(())
}

/// The nine small columns, row by row.
fn small_columns<'f>(open: impl Fn(usize) -> Result<Chunk<'f>>) -> Result<impl Iterator<Item = Row>> {
    let tensors = open(0)?.texts()?;
    let count = tensors.len();
    let same = |chunk: Chunk<'f>, values: usize| match values == count {
        true => Ok(()),
        false => Err(chunk.fault(&format!("{values} values in {count} rows"))),
    };
    let long = |i: usize| -> Result<Vec<[u8; 8]>> {
        let chunk = open(i)?;
        let values = chunk.integers()?;
        same(chunk, values.len()).map(|()| values)
    };
    let short = |i: usize| -> Result<Vec<i64>> {
        let chunk = open(i)?;
        let values = chunk.integers()?;
        same(chunk, values.len())
            .map(|()| values.into_iter().map(|b| i64::from(i32::from_le_bytes(b))).collect())
    };
    let text = |i: usize| -> Result<Vec<String>> {
        let chunk = open(i)?;
        let values = chunk.texts()?;
        same(chunk, values.len()).map(|()| values)
    };
    let (starts, counts) = (long(1)?, long(2)?);
    let chunk = open(3)?;
    let shapes = chunk.lists()?;
    same(chunk, shapes.len())?;
    let (dtypes, codecs, bits, group_sizes, hashes) = (text(4)?, text(5)?, short(6)?, short(7)?, long(12)?);
    let integers = starts.into_iter().zip(counts).zip(bits).zip(group_sizes).zip(hashes);
    let texts = tensors.into_iter().zip(dtypes).zip(codecs).zip(shapes);
    Ok(texts.zip(integers).map(
        |((((tensor, src_dtype), codec), shape), ((((start, count), bits), group_size), hash))| Row {
            tensor,
            row_start: i64::from_le_bytes(start),
            row_count: i64::from_le_bytes(count),
            shape,
            src_dtype,
            codec,
            bits,
            group_size,
            xxh3: u64::from_le_bytes(hash),
        },
    ))
}
