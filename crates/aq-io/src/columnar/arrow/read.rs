//! The Arrow reader. Everything but the four binary columns is read and checked at once.

use std::path::Path;

use super::buffers::Buffers;
use super::footer;
use crate::columnar::rows::{Row, Rows};
use crate::columnar::table::Table;
use crate::file_bytes::FileBytes;
use crate::{Access, Format, IoError, Result, Source};

/// Opens an Arrow IPC file.
///
/// # Errors
/// When it is not one of ours, is truncated, or any number in it contradicts another.
pub(crate) fn open_arrow(path: &Path, access: Access) -> Result<Box<dyn Source>> {
    let file = FileBytes::open(path, access)?;
    let footer = footer::read(&file)?;
    let mut rows = Rows::new(path);
    for block in footer.blocks {
        read_batch(Buffers::open(&file, block)?, path, &mut rows)?;
    }
    let unpack = Box::new(|file: &FileBytes, _| Err(IoError::malformed(file.path(), "no compressed pages")));
    Ok(Box::new(Table::new(file, Format::Arrow, footer.metadata, rows, unpack)?))
}

fn read_batch(mut columns: Buffers<'_>, path: &Path, rows: &mut Rows<'_>) -> Result<()> {
    // In the order of the schema.
    let tensors = columns.text()?;
    let starts = columns.fixed()?;
    let counts = columns.fixed()?;
    let shapes = columns.lists()?;
    let dtypes = columns.text()?;
    let codecs = columns.text()?;
    let bits = columns.fixed::<1>()?;
    let group_sizes = columns.fixed()?;
    let codes = columns.binary::<8>()?;
    let scales = columns.binary::<4>()?;
    let offsets = columns.binary::<4>()?;
    let extra = columns.binary::<4>()?;
    let hashes = columns.fixed()?;
    let texts = tensors.into_iter().zip(dtypes).zip(codecs).zip(shapes);
    let numbers = starts.into_iter().zip(counts).zip(bits).zip(group_sizes).zip(hashes);
    let parts = codes.into_iter().zip(scales).zip(offsets).zip(extra);
    for ((texts, numbers), (((codes, scales), offsets), extra)) in texts.zip(numbers).zip(parts) {
        let (((tensor, src_dtype), codec), shape) = texts;
        let ((((start, count), [bits]), group_size), hash) = numbers;
        let row = Row {
            tensor,
            row_start: i64::from_le_bytes(start),
            row_count: i64::from_le_bytes(count),
            shape,
            src_dtype,
            codec,
            bits: i64::from(bits),
            group_size: i64::from(i32::from_le_bytes(group_size)),
            xxh3: u64::from_le_bytes(hash),
        };
        rows.push(row.check(path)?, [codes, scales, offsets, extra])?;
    }
    Ok(())
}
