//! A folder of safetensors files: one, or shards with an index.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use aq_core::StoredTensor;
use serde_json::{Map, Value, json};

use super::SafetensorsSink;
use super::layout::Form;
use super::packed::{ACTIVATIONS, FILE, LAYOUT, LAYOUT_KEY, LayerForm};
use crate::output::{
    CreateOptions, FileWriter, Out, PendingFolder, Region, StagedFolder, close, files, out, sync_folder,
};
use crate::sink::PartStream;
use crate::{IoError, PendingOutput, Result, Sink, SlabStream};

/// Writes shards into a staged folder.
pub(crate) struct ShardsSink {
    folder: StagedFolder,
    form: Form,
    options: CreateOptions,
    shards: Vec<Shard>,
    /// Packed layers.
    layers: Vec<(String, LayerForm)>,
}

/// One file that was written.
struct Shard {
    name: String,
    bytes: u64,
    regions: Vec<Region>,
}

/// Bytes of a shard where the options do not say: what diffusers takes.
const SHARD_BYTES: u64 = 10_000_000_000;

impl ShardsSink {
    /// A sink for the folder `destination`.
    pub(crate) fn create(destination: &Path, form: Form, options: &CreateOptions) -> Result<Self> {
        let folder = StagedFolder::create(destination, options)?;
        let mut options = options.clone();
        if form == Form::Packed {
            // The configuration has them.
            options.header_metadata.retain(|(key, _)| key != ACTIVATIONS);
            options.header_metadata.push((LAYOUT_KEY.into(), LAYOUT.to_string()));
        }
        let (shards, layers) = Default::default();
        Ok(Self { folder, form, options, shards, layers })
    }

    fn write_shard(
        &mut self,
        name: String,
        tensors: &[StoredTensor],
        first: usize,
        slabs: &mut dyn SlabStream,
    ) -> Result<Shard> {
        let path = self.folder.path().join(&name);
        let file = File::create(&path).map_err(IoError::os(&path))?;
        let metadata = &self.options.header_metadata;
        let mut sink = SafetensorsSink::<Out>::new(out(file, false), &path, self.form, metadata)?;
        sink.write(tensors, &mut PartStream { slabs, first })?;
        let regions = sink.regions();
        self.layers.extend_from_slice(sink.layers());
        let written = close(FileWriter::finish(sink, &[])?).map_err(IoError::os(&path))?;
        written.file.sync_all().map_err(IoError::os(&path))?;
        Ok(Shard { name, bytes: written.bytes, regions })
    }

    /// Writes the index of several shards; returns its bytes.
    fn write_index(&self) -> Result<u64> {
        if self.shards.len() < 2 {
            return Ok(0);
        }
        let path = self.folder.path().join(format!("{}.safetensors.index.json", self.stem()));
        let pairs = self.shards.iter().flat_map(|shard| shard.tensors().map(|(name, _)| (name, &shard.name)));
        let weight_map: Map<String, Value> = pairs.map(|(name, file)| (name.into(), json!(file))).collect();
        let total: u64 = self.shards.iter().flat_map(Shard::tensors).map(|(_, bytes)| bytes).sum();
        let text = format!("{:#}\n", json!({"metadata": {"total_size": total}, "weight_map": weight_map}));
        let mut file = File::create(&path).map_err(IoError::os(&path))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(IoError::os(&path))?;
        Ok(text.len() as u64)
    }

    /// Writes the configuration that describes packed layers; returns its bytes.
    fn write_config(&self, metadata: &[(String, String)]) -> Result<u64> {
        if self.form != Form::Packed {
            return Ok(0);
        }
        let activations = metadata.iter().find(|(key, _)| key == ACTIVATIONS).map(|(_, text)| text.as_str());
        let config = self.options.config.clone().unwrap_or_default();
        let text = config.with_layers(&self.layers, activations)?;
        self.folder.add_file(FILE, text.as_bytes())?;
        Ok(text.len() as u64)
    }

    fn stem(&self) -> &str {
        self.options.stem.as_deref().unwrap_or("model")
    }
}

impl Shard {
    /// Names and bytes of its tensors.
    fn tensors(&self) -> impl Iterator<Item = (&str, u64)> {
        self.regions.iter().filter_map(|region| Some((region.tensor.as_deref()?, region.bytes)))
    }
}

impl Sink for ShardsSink {
    fn write(&mut self, tensors: &[StoredTensor], slabs: &mut dyn SlabStream) -> Result<()> {
        let limit = self.options.shard_bytes.unwrap_or(SHARD_BYTES);
        let mut ranges = files(tensors, limit, |tensor| self.form.bytes(tensor).unwrap_or(0));
        if ranges.is_empty() {
            ranges.push(0..0);
        }
        let count = ranges.len();
        for (number, range) in ranges.into_iter().enumerate() {
            let name = match count {
                1 => format!("{}.safetensors", self.stem()),
                _ => format!("{}-{:05}-of-{count:05}.safetensors", self.stem(), number + 1),
            };
            let first = range.start;
            let shard = self.write_shard(name, tensors.get(range).unwrap_or_default(), first, slabs)?;
            self.shards.push(shard);
        }
        Ok(())
    }

    fn finish(self: Box<Self>, metadata: &[(String, String)]) -> Result<Box<dyn PendingOutput>> {
        let beside = self.write_index()? + self.write_config(metadata)?;
        let bytes = beside + self.shards.iter().map(|shard| shard.bytes).sum::<u64>();
        sync_folder(self.folder.path())?;
        let regions = self.shards.into_iter().map(|shard| (shard.name, shard.regions)).collect();
        Ok(Box::new(PendingFolder::new(self.folder, bytes).with_regions(regions)))
    }
}
