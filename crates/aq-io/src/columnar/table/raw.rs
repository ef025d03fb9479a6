//! Tensors that are kept: any run of their bytes, whatever slabs it lies in.

use std::ops::Range;
use std::sync::atomic::Ordering;

use aq_core::Encoding;
use xxhash_rust::xxh3::Xxh3;

use super::{PIECE, Table};
use crate::Result;

impl Table {
    /// Checks the checksum of the `raw` slab `at`, once.
    pub(super) fn prove(&self, index: usize, at: usize) -> Result<()> {
        if self.proven[at].load(Ordering::Relaxed) {
            return Ok(());
        }
        let slab = &self.slabs[at];
        let part = slab.parts[0];
        let mut hash = Xxh3::new();
        if part.page.is_some() {
            let mut all = vec![0; part.len as usize];
            self.fill(&part, &mut all)?;
            hash.update(&all);
        } else {
            let mut piece = vec![0; PIECE];
            let mut done = 0;
            while done < part.len {
                let n = (part.len - done).min(PIECE as u64) as usize;
                self.file.read_exact_at(part.at + done, &mut piece[..n])?;
                hash.update(&piece[..n]);
                done += n as u64;
            }
        }
        if hash.digest() != slab.xxh3 {
            return Err(self.damaged(index, slab));
        }
        self.proven[at].store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Bytes of one element of a `raw` tensor that holds `range`.
    pub(super) fn raw_size(&self, index: usize, range: &Range<u64>) -> Result<u64> {
        match self.tensors.get(index) {
            Some(t)
                if t.encoding == Encoding::Raw && range.start <= range.end && range.end <= t.info.bytes() =>
            {
                Ok(t.info.dtype().size() as u64)
            }
            Some(t) if t.encoding == Encoding::Raw => {
                Err(self.fault(index, format!("has no bytes {range:?}")))
            }
            _ => Err(self.fault(index, "is not raw".into())),
        }
    }

    /// The slab that holds byte `start` of a `raw` tensor, and the first byte of that slab.
    pub(super) fn find(&self, index: usize, start: u64, size: u64) -> (usize, u64) {
        let slabs = self.slabs_of(index);
        let stored = &self.slabs[slabs.clone()];
        let n = stored.partition_point(|s| s.start * size <= start).saturating_sub(1);
        (slabs.start + n, stored.get(n).map_or(0, |s| s.start * size))
    }
}
