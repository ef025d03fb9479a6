//! Native Parquet: written with parquet2's file writer, read with readers of our own over its parts.

mod binary;
mod chunk;
mod footer;
mod levels;
mod page;
mod pages;
mod read;
mod statistics_read;
mod statistics_write;
mod write;

pub(crate) use read::open_parquet;
pub use statistics_read::StatisticsFile;
pub(crate) use statistics_write::StatisticsWriter;
pub(crate) use write::ParquetSink;
