//! The Arrow IPC writer: one record batch per slab, or per run of small tensors.

use std::io::Write;
use std::path::{Path, PathBuf};

use aq_core::StoredTensor;
use arrow_format::ipc::planus::{Builder, WriteAsOffset};
use arrow_format::ipc::{
    Block, Buffer, FieldNode, Footer, Message, MessageHeader, MetadataVersion, RecordBatch,
};
use arrow2::datatypes::Schema;
use arrow2::io::ipc::write::{default_ipc_fields, schema_to_bytes};

use super::batch::Batch;
use super::{ALIGN, MAGIC, footer};
use crate::columnar::feed::pull;
use crate::columnar::schema::{arrow_schema, groups, key_values, slabs_of};
use crate::{IoError, Result, SlabStream};

/// An Arrow IPC file being written to `W`.
pub(crate) struct ArrowSink<W: Write> {
    path: PathBuf,
    writer: W,
    /// Bytes written.
    at: u64,
    blocks: Vec<Block>,
}

impl<W: Write> ArrowSink<W> {
    /// Writes the head of the file. `path` names the file in errors.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn new(writer: W, path: &Path) -> Result<Self> {
        let mut sink = Self { path: path.into(), writer, at: 0, blocks: Vec::new() };
        let schema = arrow_schema();
        sink.put(MAGIC)?;
        sink.put(&[0; 2])?;
        sink.message(&schema_to_bytes(&schema, &default_ipc_fields(&schema.fields)))?;
        Ok(sink)
    }

    /// Writes `tensors`, pulling their slabs in order.
    ///
    /// # Errors
    /// See [`crate::Sink::write`]; also when a slab is not the one that is due.
    pub(crate) fn write(&mut self, tensors: &[StoredTensor], slabs: &mut dyn SlabStream) -> Result<()> {
        for group in groups(tensors) {
            let alone = group.len() == 1;
            let mut batch = Batch::default();
            for (tensor, _, range) in slabs_of(tensors, group) {
                let slab = pull(slabs, &self.path, tensors, tensor, range)?;
                batch.push(&tensors[tensor], range, slab, slabs);
                if alone {
                    self.batch(&batch)?;
                    std::mem::take(&mut batch).release(slabs);
                }
            }
            if !batch.is_empty() {
                self.batch(&batch)?;
                batch.release(slabs);
            }
        }
        Ok(())
    }

    /// Writes the footer and gives the writer back, flushed.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn finish(mut self, metadata: &[(String, String)]) -> Result<W> {
        self.put(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0])?;
        let schema = Schema { metadata: key_values(metadata).into_iter().collect(), ..arrow_schema() };
        let footer = Footer {
            version: MetadataVersion::V5,
            schema: Some(Box::new(footer::schema(&schema))),
            dictionaries: None,
            record_batches: Some(std::mem::take(&mut self.blocks)),
            custom_metadata: None,
        };
        let bytes = flat(&footer);
        self.put(&bytes)?;
        self.put(&(bytes.len() as u32).to_le_bytes())?;
        self.put(MAGIC)?;
        self.writer.flush().map_err(IoError::os(&self.path))?;
        Ok(self.writer)
    }

    fn batch(&mut self, batch: &Batch<'_>) -> Result<()> {
        let body = batch.body();
        let mut end = 0u64;
        let place = |bytes: &std::borrow::Cow<'_, [u8]>| {
            let buffer = Buffer { offset: end as i64, length: bytes.len() as i64 };
            end = (end + bytes.len() as u64).next_multiple_of(ALIGN);
            buffer
        };
        let buffers = body.buffers.iter().map(place).collect();
        let nodes = body.nodes.iter().map(|&n| FieldNode { length: n as i64, null_count: 0 }).collect();
        let length = body.nodes.first().map_or(0, |&n| n as i64);
        let header = RecordBatch { length, nodes: Some(nodes), buffers: Some(buffers), compression: None };
        let message = Message {
            version: MetadataVersion::V5,
            header: Some(MessageHeader::RecordBatch(Box::new(header))),
            body_length: end as i64,
            custom_metadata: None,
        };
        let offset = self.at as i64;
        self.message(&flat(&message))?;
        let meta_data_length = (self.at as i64 - offset) as i32;
        self.blocks.push(Block { offset, meta_data_length, body_length: end as i64 });
        for buffer in &body.buffers {
            self.put(buffer)?;
            self.pad()?;
        }
        Ok(())
    }

    /// Writes the description of a message, padded so that its body is aligned in the file.
    fn message(&mut self, bytes: &[u8]) -> Result<()> {
        let end = (self.at + 8 + bytes.len() as u64).next_multiple_of(ALIGN);
        let length = (end - self.at - 8) as u32;
        self.put(&[0xff; 4])?;
        self.put(&length.to_le_bytes())?;
        self.put(bytes)?;
        self.pad()
    }

    fn pad(&mut self) -> Result<()> {
        let n = self.at.next_multiple_of(ALIGN) - self.at;
        self.put(&[0; ALIGN as usize][..n as usize])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(IoError::os(&self.path))?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

fn flat<T>(root: impl WriteAsOffset<T>) -> Vec<u8> {
    Builder::new().finish(root, None).to_vec()
}
