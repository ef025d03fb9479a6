//! The buffers of one record batch, each inside the body, and what the columns hold in them.

use std::collections::VecDeque;

use arrow_format::ipc::planus::{self, ReadAsRoot};
use arrow_format::ipc::{MessageHeaderRef, MessageRef, RecordBatchRef};

use crate::columnar::table::Part;
use crate::file_bytes::FileBytes;
use crate::{IoError, Result};

/// The longest description of a record batch; a batch has 35 buffers.
const MAX_MESSAGE: u64 = 64 << 10;

const NODES: usize = 14;
const BUFFERS: usize = 35;
/// The child of `shape` among the nodes.
const CHILD: usize = 4;

/// The buffers that have not been taken yet, in the order of the schema.
pub(super) struct Buffers<'f> {
    file: &'f FileBytes,
    pub(super) rows: usize,
    dims: usize,
    /// First byte in the file and length.
    left: VecDeque<(u64, u64)>,
}

impl<'f> Buffers<'f> {
    /// Reads the description of the record batch at `block`.
    ///
    /// # Errors
    /// When it is not one, is compressed or has nulls, or a buffer lies outside the body.
    pub(super) fn open(file: &'f FileBytes, (offset, meta, body): (u64, u64, u64)) -> Result<Self> {
        let fault = |reason: &str| {
            IoError::malformed(file.path(), format!("record batch at byte {offset}: {reason}"))
        };
        if !(8..=MAX_MESSAGE).contains(&meta) {
            return Err(fault(&format!("its description has a length of {meta} bytes")));
        }
        let mut bytes = vec![0; meta as usize];
        file.read_exact_at(offset, &mut bytes)?;
        let message = match bytes.split_first_chunk::<8>() {
            Some(([0xff, 0xff, 0xff, 0xff, len @ ..], rest))
                if u64::from(u32::from_le_bytes(*len)) == meta - 8 =>
            {
                rest
            }
            _ => return Err(fault("its length differs from the footer's")),
        };
        let parsed = parse(message).map_err(|e| fault(&format!("corrupt: {e}")))?;
        let (rows, nodes, buffers) = parsed.map_err(|e| fault(&e))?;
        let Ok(rows) = usize::try_from(rows) else { return Err(fault("it says it has negative rows")) };
        let wrong =
            |(i, &(length, nulls)): (usize, &(i64, i64))| nulls != 0 || i != CHILD && length != rows as i64;
        if nodes.len() != NODES || buffers.len() != BUFFERS || nodes.iter().enumerate().any(wrong) {
            return Err(fault("its columns have other row counts or nulls, or it has other buffers"));
        }
        let dims = nodes.get(CHILD).and_then(|n| usize::try_from(n.0).ok());
        let place = |(at, len): (i64, i64)| {
            let (at, len) = (u64::try_from(at).ok()?, u64::try_from(len).ok()?);
            let end = at.checked_add(len)?;
            (end <= body).then_some((offset + meta + at, len))
        };
        let left: Option<VecDeque<_>> = buffers.into_iter().map(place).collect();
        match (left, dims) {
            (Some(left), Some(dims)) => Ok(Self { file, rows, dims, left }),
            _ => Err(fault("a buffer passes the end of the body")),
        }
    }

    fn fault(&self, reason: &str) -> IoError {
        IoError::malformed(self.file.path(), format!("a record batch: {reason}"))
    }

    /// The next column's buffers after its validity, which is absent or says nothing as there are no nulls.
    fn take<const N: usize>(&mut self) -> Result<[(u64, u64); N]> {
        self.left.pop_front();
        let mut all = [(0, 0); N];
        for buffer in &mut all {
            *buffer = self.left.pop_front().ok_or_else(|| self.fault("a buffer is missing"))?;
        }
        Ok(all)
    }

    fn numbers<const N: usize>(&self, buffer: (u64, u64), count: usize) -> Result<Vec<[u8; N]>> {
        let bytes = count.checked_mul(N).filter(|&n| n as u64 <= buffer.1);
        let mut values = vec![0; bytes.ok_or_else(|| self.fault("a buffer is shorter than its column"))?];
        self.file.read_exact_at(buffer.0, &mut values)?;
        Ok(values.as_chunks::<N>().0.to_vec())
    }

    /// Start and length of each of `rows` values in a buffer of `len` elements.
    fn ranges<const N: usize>(&self, buffer: (u64, u64), len: u64) -> Result<Vec<(u64, u64)>> {
        let count = if self.rows == 0 { 0 } else { self.rows + 1 };
        let ends: Vec<u64> = self
            .numbers::<N>(buffer, count)?
            .iter()
            .map(|bytes| {
                // Negative ends become larger than any buffer.
                let mut wide = [if bytes[N - 1] & 0x80 == 0 { 0 } else { 0xff }; 8];
                wide[..N].copy_from_slice(bytes);
                u64::from_le_bytes(wide)
            })
            .collect();
        let ranges = ends.windows(2).map(|w| match w {
            &[start, end] if start <= end && end <= len => Some((start, end - start)),
            _ => None,
        });
        ranges
            .collect::<Option<_>>()
            .ok_or_else(|| self.fault("the offsets of a column pass the end of its values"))
    }

    /// The next column, of `N`-byte values.
    pub(super) fn fixed<const N: usize>(&mut self) -> Result<Vec<[u8; N]>> {
        let [values] = self.take()?;
        self.numbers(values, self.rows)
    }

    /// The next column, of text.
    pub(super) fn text(&mut self) -> Result<Vec<String>> {
        let [ends, data] = self.take()?;
        let ranges = self.ranges::<4>(ends, data.1)?;
        let (start, end) = match (ranges.first(), ranges.last()) {
            (Some(first), Some(last)) => (first.0, last.0 + last.1),
            _ => (0, 0),
        };
        let mut bytes = vec![0; (end - start) as usize];
        self.file.read_exact_at(data.0 + start, &mut bytes)?;
        let mut rest = bytes.as_slice();
        let mut next = |len: u64| {
            let (value, tail) = rest.split_at_checked(len as usize)?;
            rest = tail;
            std::str::from_utf8(value).ok().map(str::to_owned)
        };
        let values = ranges.iter().map(|&(_, len)| next(len)).collect::<Option<_>>();
        values.ok_or_else(|| self.fault("text that is not UTF-8"))
    }

    /// The next column, of lists of 64-bit integers.
    pub(super) fn lists(&mut self) -> Result<Vec<Vec<i64>>> {
        let [ends] = self.take()?;
        let [values] = self.take()?;
        let ranges = self.ranges::<4>(ends, self.dims as u64)?;
        let values = self.numbers::<8>(values, self.dims)?;
        let list = |&(start, len): &(u64, u64)| {
            let list = values.get(start as usize..(start + len) as usize)?;
            Some(list.iter().map(|b| i64::from_le_bytes(*b)).collect())
        };
        ranges
            .iter()
            .map(list)
            .collect::<Option<_>>()
            .ok_or_else(|| self.fault("a list passes the end of its values"))
    }

    /// The next column, of byte strings whose ends take `N` bytes: where they lie.
    pub(super) fn binary<const N: usize>(&mut self) -> Result<Vec<Part>> {
        let [ends, data] = self.take()?;
        let ranges = self.ranges::<N>(ends, data.1)?;
        Ok(ranges.into_iter().map(|(start, len)| Part { at: data.0 + start, len, page: None }).collect())
    }
}

type Parsed = (i64, Vec<(i64, i64)>, Vec<(i64, i64)>);

fn parse(bytes: &[u8]) -> planus::Result<std::result::Result<Parsed, String>> {
    let Some(MessageHeaderRef::RecordBatch(batch)) = MessageRef::read_as_root(bytes)?.header()? else {
        return Ok(Err("another kind of message".into()));
    };
    if batch.compression()?.is_some() {
        return Ok(Err("compressed batches are not read; write it uncompressed".into()));
    }
    pieces(&batch).map(Ok)
}

fn pieces(batch: &RecordBatchRef<'_>) -> planus::Result<Parsed> {
    let nodes = batch.nodes()?.into_iter().flatten().take(NODES + 1);
    let buffers = batch.buffers()?.into_iter().flatten().take(BUFFERS + 1);
    let nodes = nodes.map(|n| (n.length(), n.null_count())).collect();
    Ok((batch.length()?, nodes, buffers.map(|b| (b.offset(), b.length())).collect()))
}
