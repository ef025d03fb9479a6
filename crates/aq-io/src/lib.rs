//! Model files in and out. No mathematics beyond reading numbers, no strategies.
//!
//! [`open`] gives a [`Source`] for any file or folder we read; [`create`] gives a [`Sink`] for any we write. A sink writes
//! beside its destination and the result appears there only when [`PendingOutput::commit`] is called.
#![deny(unsafe_code)]

mod columnar;
mod error;
mod file_bytes;
mod folder;
#[doc(hidden)]
pub mod fuzzing;
mod gguf;
mod index;
mod joined;
mod json;
mod member;
mod mmap;
mod open;
mod output;
mod pipeline;
mod safetensors;
mod sink;
mod source;

pub use columnar::{
    BucketStatistics, LayerStatistics, SlabRow, StatisticsFile, StoredBucket, StoredLayer, slab_row,
};
pub use error::{IoError, Result};
pub use folder::verify_folder;
pub use gguf::read_back;
pub use open::{is_parquet, open};
pub use output::{CreateOptions, OutputFormat, StagedFolder, StatisticsSink, create};
pub use pipeline::{Component, Pipeline};
pub use safetensors::{ModelConfig, TOOL, plain_config, verify_checksums};
pub use sink::{PendingOutput, Resumed, Sink, SlabStream};
pub use source::{Access, Format, Source};
