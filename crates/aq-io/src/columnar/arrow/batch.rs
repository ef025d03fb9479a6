//! The rows of one record batch and their buffers, in the order of the schema.

use std::borrow::Cow;

use aq_core::{EncodedRows, StoredTensor};

use crate::SlabStream;
use crate::columnar::feed::checksum;
use crate::columnar::schema::numbers;

/// Slabs that are written together.
#[derive(Default)]
pub(super) struct Batch<'t> {
    rows: Vec<(&'t StoredTensor, (u64, u64))>,
    /// The parts of all slabs, one after the other.
    parts: EncodedRows,
    /// Where each slab's parts end in `parts`.
    ends: [Vec<u64>; 4],
    hashes: Vec<u64>,
}

/// A buffer, and the columns' lengths.
pub(super) struct Body<'a> {
    /// Rows, then values of the list's child, in the order of the fields.
    pub(super) nodes: Vec<usize>,
    pub(super) buffers: Vec<Cow<'a, [u8]>>,
}

impl<'t> Batch<'t> {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a slab. The first one's buffers are kept until [`Batch::release`]; later ones are copied.
    pub(super) fn push(
        &mut self,
        tensor: &'t StoredTensor,
        range: (u64, u64),
        slab: EncodedRows,
        slabs: &mut dyn SlabStream,
    ) {
        self.hashes.push(checksum(&slab.parts()));
        if self.is_empty() {
            self.parts = slab;
        } else {
            self.parts.codes.extend_from_slice(&slab.codes);
            self.parts.scales.extend_from_slice(&slab.scales);
            self.parts.offsets.extend_from_slice(&slab.offsets);
            self.parts.extra.extend_from_slice(&slab.extra);
            slabs.recycle(slab);
        }
        self.rows.push((tensor, range));
        let parts = self.parts.parts();
        for (ends, part) in self.ends.iter_mut().zip([parts.codes, parts.scales, parts.offsets, parts.extra])
        {
            ends.push(part.len() as u64);
        }
    }

    /// Gives the kept buffers back.
    pub(super) fn release(self, slabs: &mut dyn SlabStream) {
        if !self.is_empty() {
            slabs.recycle(self.parts);
        }
    }

    /// All buffers; those of the parts are borrowed.
    pub(super) fn body(&self) -> Body<'_> {
        let n = self.rows.len();
        let shapes = self.rows.iter().map(|(t, _)| t.info.shape());
        let dims: usize = shapes.clone().map(<[u64]>::len).sum();
        let mut body = Body { nodes: vec![n, n, n, n, dims], buffers: Vec::new() };
        body.nodes.extend([n; 9]);
        body.text(self.rows.iter().map(|(t, _)| t.info.name()));
        body.fixed(self.rows.iter().map(|(_, r)| r.0.to_le_bytes()));
        body.fixed(self.rows.iter().map(|(_, r)| r.1.to_le_bytes()));
        body.offsets(shapes.clone().map(<[u64]>::len));
        body.fixed(shapes.flatten().map(|d| d.to_le_bytes()));
        body.text(self.rows.iter().map(|(t, _)| t.info.dtype().name()));
        body.text(self.rows.iter().map(|(t, _)| t.codec()));
        body.fixed(self.rows.iter().map(|(t, _)| [numbers(t).0]));
        body.fixed(self.rows.iter().map(|(t, _)| numbers(t).1.to_le_bytes()));
        let [codes, scales, offsets, extra] = &self.ends;
        let wide = std::iter::once(&0).chain(codes).flat_map(|e| e.to_le_bytes()).collect();
        body.buffers.extend([Cow::default(), Cow::Owned(wide), Cow::Borrowed(&self.parts.codes[..])]);
        for (ends, part) in
            [(scales, &self.parts.scales), (offsets, &self.parts.offsets), (extra, &self.parts.extra)]
        {
            // A batch holds little more than 4 MiB, so four bytes are enough.
            let narrow = std::iter::once(&0).chain(ends).flat_map(|&e| (e as u32).to_le_bytes()).collect();
            body.buffers.extend([Cow::default(), Cow::Owned(narrow), Cow::Borrowed(&part[..])]);
        }
        body.fixed(self.hashes.iter().map(|h| h.to_le_bytes()));
        body
    }
}

impl Body<'_> {
    /// An absent validity buffer and the values.
    fn fixed<const N: usize>(&mut self, values: impl Iterator<Item = [u8; N]>) {
        self.buffers.extend([Cow::default(), Cow::Owned(values.flatten().collect())]);
    }

    /// An absent validity buffer and the ends of values of these lengths.
    fn offsets(&mut self, lengths: impl Iterator<Item = usize>) {
        let mut end = 0u32;
        let mut bytes = end.to_le_bytes().to_vec();
        for len in lengths {
            end += len as u32;
            bytes.extend_from_slice(&end.to_le_bytes());
        }
        self.buffers.extend([Cow::default(), Cow::Owned(bytes)]);
    }

    fn text<'s>(&mut self, values: impl Iterator<Item = &'s str> + Clone) {
        self.offsets(values.clone().map(str::len));
        self.buffers.push(Cow::Owned(values.flat_map(str::bytes).collect()));
    }
}
