//! The two columnar formats: native Parquet and Arrow IPC. One row is one slab.
//!
//! Only this module names arrow2, parquet2 and the crates below them; none of their types leaves it. [`schema`] says what
//! the columns are, [`feed`] checks what is written, [`rows`] checks what was read, and [`table`] serves it.

mod arrow;
mod feed;
mod parquet;
mod rows;
mod schema;
mod side;
mod slab_row;
mod statistics;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use arrow::{ArrowSink, open_arrow};
pub use parquet::StatisticsFile;
pub(crate) use parquet::{ParquetSink, StatisticsWriter, open_parquet};
pub use slab_row::{SlabRow, slab_row};
pub use statistics::{BucketStatistics, LayerStatistics, StoredBucket, StoredLayer};
