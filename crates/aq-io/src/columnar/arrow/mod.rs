//! Arrow IPC files. The messages are written and read here, field by field: buffers must be aligned in the file, and
//! nothing a file says may be believed.

mod batch;
mod buffers;
mod footer;
mod read;
mod write;

pub(crate) use read::open_arrow;
pub(crate) use write::ArrowSink;

/// Both ends of a file.
const MAGIC: &[u8; 6] = b"ARROW1";

/// Every buffer begins at a multiple of this in the file.
const ALIGN: u64 = 64;
