//! A folder being written, part by part.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use aq_core::StoredTensor;
use serde_json::{Map, Value, json};

use super::{FORMAT_VERSION, MANIFEST, PART_WEIGHTS, Part, SCHEMA, journal, part_ranges};
use crate::columnar::ParquetSink;
use crate::output::{CreateOptions, FileWriter, Out, PendingFolder, StagedFolder, close, out, sync_folder};
use crate::sink::PartStream;
use crate::{IoError, PendingOutput, Result, Resumed, Sink, SlabStream};

/// Writes parts into a staged folder and records each one that is durable.
pub(crate) struct FolderSink {
    folder: StagedFolder,
    options: CreateOptions,
    part_weights: u64,
    parts: Vec<Part>,
}

impl FolderSink {
    /// A sink for the folder `destination`.
    pub(crate) fn create(destination: &Path, options: &CreateOptions) -> Result<Self> {
        let mut folder = StagedFolder::create(destination, options)?;
        folder.keep_when_dropped(options.resume && options.keep_partial);
        Ok(Self { folder, options: options.clone(), part_weights: PART_WEIGHTS, parts: Vec::new() })
    }

    #[cfg(test)]
    pub(super) fn with_part_weights(mut self, weights: u64) -> Self {
        self.part_weights = weights;
        self
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// How many of the recorded parts are still what the journal says and what these tensors ask for.
    fn intact(&self, recorded: &[Part], ranges: &[Range<usize>]) -> usize {
        let is_intact = |(number, (part, range)): (usize, (&Part, &Range<usize>))| {
            let planned = part.file == part_name(number) && part.tensors == range.len();
            planned && part.matches(&self.path(&part.file)).unwrap_or(false)
        };
        recorded.iter().zip(ranges).enumerate().take_while(|&pair| is_intact(pair)).count()
    }

    /// Removes what is in the folder and not a kept part.
    fn remove_strays(&self) -> Result<()> {
        for name in crate::member::names(self.folder.path())? {
            if self.parts.iter().all(|part| part.file != name) {
                let path = self.path(&name);
                std::fs::remove_file(&path).map_err(IoError::os(&path))?;
            }
        }
        Ok(())
    }

    /// Writes one part and makes it durable.
    fn write_part(
        &self,
        number: usize,
        tensors: &[StoredTensor],
        first: usize,
        slabs: &mut dyn SlabStream,
    ) -> Result<Part> {
        let name = part_name(number);
        let path = self.path(&name);
        let file = File::create(&path).map_err(IoError::os(&path))?;
        let mut sink = ParquetSink::<Out>::new(out(file, true), &path)?;
        sink.write(tensors, &mut PartStream { slabs, first })?;
        let written = close(FileWriter::finish(sink, &[])?).map_err(IoError::os(&path))?;
        written.file.sync_all().map_err(IoError::os(&path))?;
        sync_folder(self.folder.path())?;
        Ok(Part::new(name, written.bytes, &written.hash, tensors.len()))
    }

    /// Writes the manifest and makes it durable; returns its bytes.
    fn write_manifest(&self, metadata: &[(String, String)]) -> Result<u64> {
        let metadata: Map<String, Value> = metadata.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        let manifest = json!({
            "schema": SCHEMA, "format_version": FORMAT_VERSION, "metadata": metadata,
            "parts": self.parts.iter().map(|p| json!(p)).collect::<Vec<_>>(),
        });
        let path = self.path(MANIFEST);
        let text = format!("{manifest:#}\n");
        let mut file = File::create(&path).map_err(IoError::os(&path))?;
        std::io::Write::write_all(&mut file, text.as_bytes()).map_err(IoError::os(&path))?;
        file.sync_all().map_err(IoError::os(&path))?;
        Ok(text.len() as u64)
    }
}

fn part_name(number: usize) -> String {
    format!("part-{number:05}.parquet")
}

impl Sink for FolderSink {
    fn resume(&mut self, tensors: &[StoredTensor]) -> Result<Resumed> {
        if !self.options.resume {
            return Ok(Resumed::default());
        }
        let mut recorded = journal::read(self.folder.path(), &self.options.fingerprint)?;
        let ranges = part_ranges(tensors, self.part_weights);
        recorded.truncate(self.intact(&recorded, &ranges));
        self.parts = recorded;
        let last = self.parts.len().checked_sub(1).and_then(|last| ranges.get(last));
        let parts = self.parts.iter().map(|part| self.path(&part.file)).collect();
        Ok(Resumed { tensors: last.map_or(0, |range| range.end), parts })
    }

    fn write(&mut self, tensors: &[StoredTensor], slabs: &mut dyn SlabStream) -> Result<()> {
        self.remove_strays()?;
        let (folder, fingerprint) = (self.folder.path().to_path_buf(), self.options.fingerprint.clone());
        let mut journal = journal::start(&folder, &fingerprint, &self.parts)?;
        let done = self.parts.len();
        for (number, range) in part_ranges(tensors, self.part_weights).into_iter().enumerate().skip(done) {
            let first = range.start;
            let part = self.write_part(number, tensors.get(range).unwrap_or_default(), first, slabs)?;
            journal::append(&mut journal, &folder, &fingerprint, &part)?;
            self.parts.push(part);
            self.folder.keep_when_dropped(self.options.keep_partial);
        }
        Ok(())
    }

    fn finish(self: Box<Self>, metadata: &[(String, String)]) -> Result<Box<dyn PendingOutput>> {
        let bytes = self.write_manifest(metadata)? + self.parts.iter().map(|p| p.bytes).sum::<u64>();
        // Nothing is left to resume: the result is complete and only its name is missing.
        Ok(Box::new(PendingFolder::new(self.folder, bytes).with_scaffold(journal::JOURNAL)))
    }
}
