//! A columnar file that was opened: where the parts of every slab lie, and how they are read.

mod raw;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use aq_core::{SlabParts, StoredTensor, slab_range};

use super::feed::checksum;
use super::rows::Rows;
use super::side::{Sides, split_extra};
use crate::file_bytes::FileBytes;
use crate::{Format, IoError, Result, Source};

/// Bytes that are hashed at a time when a slab is checked without being kept.
const PIECE: usize = 64 << 10;

/// Where a value lies: in the file, or in a compressed page once that is unpacked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Part {
    pub(super) at: u64,
    pub(super) len: u64,
    /// Index of the compressed page that `at` counts in.
    pub(super) page: Option<u32>,
}

/// One row of the file.
#[derive(Debug, Clone)]
pub(super) struct Slab {
    pub(super) start: u64,
    pub(super) rows: u64,
    pub(super) parts: [Part; 4],
    pub(super) xxh3: u64,
}

/// Unpacks compressed page `page` into a buffer.
pub(super) type Unpack = Box<dyn Fn(&FileBytes, u32) -> Result<Vec<u8>> + Send + Sync>;

/// A columnar file.
pub(super) struct Table {
    file: FileBytes,
    format: Format,
    metadata: BTreeMap<String, String>,
    tensors: Vec<StoredTensor>,
    first: Vec<usize>,
    slabs: Vec<Slab>,
    /// Whether a slab's checksum was found right once; partial reads rely on it.
    proven: Vec<AtomicBool>,
    unpack: Unpack,
    sides: Sides,
}

impl Table {
    /// # Errors
    /// When the last tensor is not complete.
    pub(super) fn new(
        file: FileBytes,
        format: Format,
        metadata: BTreeMap<String, String>,
        rows: Rows<'_>,
        unpack: Unpack,
    ) -> Result<Self> {
        rows.end_tensor()?;
        let Rows { tensors, first, slabs, .. } = rows;
        let proven = slabs.iter().map(|_| AtomicBool::new(false)).collect();
        let sides = Sides::new(tensors.len());
        Ok(Self { file, format, metadata, tensors, first, slabs, proven, unpack, sides })
    }

    fn slabs_of(&self, index: usize) -> Range<usize> {
        let end = self.slabs.len();
        let start = self.first.get(index).copied().unwrap_or(end);
        start..self.first.get(index + 1).copied().unwrap_or(end)
    }

    fn fault(&self, index: usize, reason: String) -> IoError {
        let name = self.tensors.get(index).map_or("", |t| t.info.name());
        IoError::tensor(self.file.path(), name, reason)
    }

    fn damaged(&self, index: usize, slab: &Slab) -> IoError {
        self.fault(index, format!("damaged: the checksum of the slab at row {} is wrong", slab.start))
    }

    /// The parts of a stored slab, without a look at the checksum.
    fn parts<'a>(&'a self, slab: &Slab, buffer: &'a mut Vec<u8>) -> Result<SlabParts<'a>> {
        let borrowed = slab.parts.map(|p| match p.page {
            None => self.file.borrow(p.at..p.at.saturating_add(p.len)),
            Some(_) => None,
        });
        let missing = |i: usize| if borrowed[i].is_some() { 0 } else { slab.parts[i].len as usize };
        let lengths = [missing(0), missing(1), missing(2), missing(3)];
        buffer.resize(lengths.iter().sum(), 0);
        let mut rest = buffer.as_mut_slice();
        let mut filled: [&'a [u8]; 4] = [&[]; 4];
        for (i, part) in slab.parts.iter().enumerate() {
            let (head, tail) = rest.split_at_mut(lengths[i]);
            rest = tail;
            if borrowed[i].is_none() {
                self.fill(part, head)?;
            }
            filled[i] = borrowed[i].unwrap_or(head);
        }
        let [codes, scales, offsets, extra] = filled;
        Ok(SlabParts { codes, scales, offsets, extra, ..SlabParts::default() })
    }

    /// The parts of a stored slab whose checksum is right.
    fn proven_parts<'a>(
        &'a self,
        index: usize,
        slab: &Slab,
        buffer: &'a mut Vec<u8>,
    ) -> Result<SlabParts<'a>> {
        let parts = self.parts(slab, buffer)?;
        match checksum(&parts) == slab.xxh3 {
            true => Ok(parts),
            false => Err(self.damaged(index, slab)),
        }
    }

    /// Side data of a tensor, from its first slab.
    fn side(&self, index: usize) -> Result<&[u8]> {
        self.sides.get(index, || {
            let (mut buffer, slab) = (Vec::new(), &self.slabs[self.slabs_of(index).start]);
            let parts = self.proven_parts(index, slab, &mut buffer)?;
            Ok(self.split(index, slab, &parts)?.0.into())
        })
    }

    /// Side data and what the codec needs in the column `extra` of a slab.
    fn split<'a>(&self, index: usize, slab: &Slab, parts: &SlabParts<'a>) -> Result<(&'a [u8], &'a [u8])> {
        split_extra(&self.tensors[index], slab.start, slab.rows, parts).ok_or_else(|| {
            self.fault(index, format!("the side data in the slab at row {} has a wrong length", slab.start))
        })
    }

    fn fill(&self, part: &Part, dst: &mut [u8]) -> Result<()> {
        match part.page {
            _ if dst.is_empty() => Ok(()),
            None => self.file.read_exact_at(part.at, dst),
            Some(page) => {
                let plain = (self.unpack)(&self.file, page)?;
                let at = part.at as usize;
                let value = plain.get(at..at.saturating_add(dst.len()));
                let value = value
                    .ok_or_else(|| IoError::malformed(self.file.path(), "page too short for its value"))?;
                dst.copy_from_slice(value);
                Ok(())
            }
        }
    }
}

impl Source for Table {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn format(&self) -> Format {
        self.format
    }

    fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn stored_bytes(&self, index: usize) -> u64 {
        self.slabs[self.slabs_of(index)].iter().flat_map(|s| s.parts).map(|p| p.len).sum()
    }

    fn read_bytes(&self, index: usize, start: u64, dst: &mut [u8]) -> Result<()> {
        let end = start.saturating_add(dst.len() as u64);
        let size = self.raw_size(index, &(start..end))?;
        let (mut at, mut rest) = (start, dst);
        while !rest.is_empty() {
            let (n, first) = self.find(index, at, size);
            let (slab, part) = (&self.slabs[n], self.slabs[n].parts[0]);
            let within = at - first;
            let take = (part.len - within).min(rest.len() as u64);
            let (head, tail) = rest.split_at_mut(take as usize);
            if take < part.len {
                self.prove(index, n)?;
            }
            self.fill(&Part { at: part.at + within, len: take, page: part.page }, head)?;
            if take == part.len && checksum(&SlabParts { codes: head, ..SlabParts::default() }) != slab.xxh3 {
                return Err(self.damaged(index, slab));
            }
            (at, rest) = (at + take, tail);
        }
        Ok(())
    }

    fn borrow_bytes(&self, index: usize, range: Range<u64>) -> Option<&[u8]> {
        let size = self.raw_size(index, &range).ok()?;
        if range.is_empty() {
            return Some(&[]);
        }
        let (n, first) = self.find(index, range.start, size);
        let part = self.slabs.get(n)?.parts[0];
        if part.page.is_some() || range.end - first > part.len {
            return None;
        }
        let bytes = self.file.borrow(part.at + (range.start - first)..part.at + (range.end - first))?;
        self.prove(index, n).ok()?;
        Some(bytes)
    }

    fn read_slab<'a>(&'a self, index: usize, slab: u64, buffer: &'a mut Vec<u8>) -> Result<SlabParts<'a>> {
        let tensor =
            self.tensors.get(index).ok_or_else(|| self.fault(index, format!("no tensor {index}")))?;
        let slabs = self.slabs_of(index);
        let at =
            usize::try_from(slab).ok().and_then(|s| slabs.start.checked_add(s)).filter(|s| slabs.contains(s));
        let found = at.and_then(|at| self.slabs.get(at));
        let due = match slab < aq_core::slab_count(&tensor.info, &tensor.encoding) {
            true => slab_range(&tensor.info, &tensor.encoding, slab),
            false => return Err(self.fault(index, format!("has no slab {slab}"))),
        };
        let Some(stored) = found.filter(|s| (s.start, s.rows) == due) else {
            // Another program cut this raw tensor in its own way.
            let size = tensor.info.dtype().size() as u64;
            buffer.resize((due.1 * size) as usize, 0);
            self.read_bytes(index, due.0 * size, buffer)?;
            return Ok(SlabParts { codes: buffer, ..SlabParts::default() });
        };
        let side = if tensor.transformed { self.side(index)? } else { &[] };
        let mut parts = self.proven_parts(index, stored, buffer)?;
        if tensor.transformed {
            let extra = self.split(index, stored, &parts)?.1;
            parts = SlabParts { extra, side, row_start: stored.start, ..parts };
        }
        Ok(parts)
    }
}
