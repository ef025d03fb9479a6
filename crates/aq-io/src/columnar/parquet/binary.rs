//! The four binary columns: where their values lie. The values themselves stay on disk.

use super::chunk::{Chunk, split_value};
use super::page::{MAX_PAGE, Page};
use crate::Result;
use crate::columnar::table::Part;

/// Finds the values of a binary column, of which row `i` may have `limits[i]` bytes. Compressed pages are added to `packed`.
///
/// # Errors
/// When a page or a value is larger than its rows allow, or their numbers differ.
pub(super) fn locate(chunk: &Chunk<'_>, limits: &[u64], packed: &mut Vec<Page>) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for page in &chunk.pages {
        if !matches!(page.levels, None | Some((0, 0))) {
            return Err(chunk.fault("levels in a page of a required column"));
        }
        let rows = usize::try_from(page.values)
            .ok()
            .and_then(|n| limits.get(parts.len()..parts.len().checked_add(n)?));
        let rows = rows.ok_or_else(|| chunk.fault("more values than rows"))?;
        let limit = rows.iter().fold(0u64, |sum, n| sum.saturating_add(*n).saturating_add(4));
        if page.plain > limit {
            return Err(chunk.fault(&format!(
                "a page of {} values says it has a size of {} bytes, but the shapes allow {limit}",
                page.values, page.plain
            )));
        }
        if page.is_plain() {
            in_file(chunk, page, &mut parts)?;
        } else {
            in_page(chunk, page, packed, &mut parts)?;
        }
    }
    match parts.len() == limits.len() {
        true => Ok(parts),
        false => Err(chunk.fault(&format!("{} values in {} rows", parts.len(), limits.len()))),
    }
}

fn in_file(chunk: &Chunk<'_>, page: &Page, parts: &mut Vec<Part>) -> Result<()> {
    let (mut at, end) = (page.body, page.body + page.stored);
    for _ in 0..page.values {
        let mut prefix = [0; 4];
        if end - at < 4 {
            return Err(chunk.fault("a page ends inside the length of a value"));
        }
        chunk.file.read_exact_at(at, &mut prefix)?;
        let len = u64::from(u32::from_le_bytes(prefix));
        at += 4;
        if len > end - at {
            return Err(chunk
                .fault(&format!("a value says it has a length of {len} bytes, past the end of its page")));
        }
        parts.push(Part { at, len, page: None });
        at += len;
    }
    if at == end { Ok(()) } else { Err(chunk.fault("bytes are left over in a page")) }
}

fn in_page(chunk: &Chunk<'_>, page: &Page, packed: &mut Vec<Page>, parts: &mut Vec<Part>) -> Result<()> {
    let index = u32::try_from(packed.len()).map_err(|_| chunk.fault("too many pages"))?;
    packed.push(*page);
    if page.values == 1 && page.plain >= 4 && page.plain <= MAX_PAGE {
        // Not unpacked to look at the length alone: there is nothing else in the page, and the checksum covers the rest.
        parts.push(Part { at: 4, len: page.plain - 4, page: Some(index) });
        return Ok(());
    }
    let bytes = chunk.unpack(page, MAX_PAGE)?;
    let mut rest = bytes.as_slice();
    for _ in 0..page.values {
        let value =
            split_value(&mut rest).ok_or_else(|| chunk.fault("a value passes the end of its page"))?;
        let at = (bytes.len() - rest.len() - value.len()) as u64;
        parts.push(Part { at, len: value.len() as u64, page: Some(index) });
    }
    if rest.is_empty() { Ok(()) } else { Err(chunk.fault("bytes are left over in a page")) }
}
