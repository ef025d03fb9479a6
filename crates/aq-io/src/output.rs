//! Destinations: which format, and how a result appears in one step.

mod atomic_file;
mod atomic_folder;
mod early_sync;
mod file_sink;
mod statistics_sink;

use std::path::Path;

pub(crate) use atomic_file::sync_folder;
pub use atomic_folder::StagedFolder;
pub(crate) use file_sink::{FileWriter, Out, close, out};
pub use statistics_sink::StatisticsSink;

use crate::columnar::{ArrowSink, ParquetSink};
use crate::folder::FolderSink;
use crate::gguf::GgufSink;
use crate::safetensors::SafetensorsSink;
use crate::{IoError, Result, Sink};

/// Formats that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputFormat {
    /// Native Parquet, one file.
    Parquet,
    /// Arrow IPC, one file.
    Arrow,
    /// Plain tensors in one safetensors file.
    Safetensors,
    /// A folder of native Parquet parts with a manifest; the form that can be resumed.
    Folder,
    /// GGUF: blocks of ggml and plain tensors in one file.
    Gguf,
}

impl OutputFormat {
    /// Every format, in the order in which they are listed to users.
    pub const ALL: [OutputFormat; 5] = [
        OutputFormat::Parquet,
        OutputFormat::Arrow,
        OutputFormat::Safetensors,
        OutputFormat::Folder,
        OutputFormat::Gguf,
    ];

    /// Its name as users type it.
    pub fn name(self) -> &'static str {
        match self {
            OutputFormat::Parquet => "parquet",
            OutputFormat::Arrow => "arrow",
            OutputFormat::Safetensors => "safetensors",
            OutputFormat::Folder => "folder",
            OutputFormat::Gguf => "gguf",
        }
    }

    /// The format of that exact name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.name() == name)
    }

    /// The format that the ending of `path` asks for; no ending or a final `/` is a folder.
    ///
    /// # Errors
    /// [`IoError::Unsupported`] for any other ending.
    pub fn from_path(path: &Path) -> Result<Self> {
        let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") || path.is_dir() {
            return Ok(Self::Folder);
        }
        let Some(ending) = ending else { return Ok(Self::Folder) };
        Self::from_name(&ending).filter(|&f| f != Self::Folder).ok_or_else(|| {
            IoError::unsupported(
                path,
                format!("cannot write the ending .{ending}; use .parquet, .arrow, .gguf, .safetensors, or a final / for a folder"),
            )
        })
    }
}

/// How a destination is treated.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// Replace what is there.
    pub force: bool,
    /// Continue a folder that an earlier run left unfinished.
    pub resume: bool,
    /// What a resumed run must share with the one that began it: input, plan and version in one string.
    pub fingerprint: String,
    /// Keep finished parts of a folder when the run ends early, so that `resume` finds them.
    pub keep_partial: bool,
    /// Metadata for formats that store it at the front of the file (safetensors, GGUF); [`Sink::finish`] serves the others.
    pub header_metadata: Vec<(String, String)>,
}

/// Begins a result beside `path`. The destination is looked at first, and nothing is there until the commit.
///
/// # Errors
/// [`IoError::Exists`] when something is there and `force` is off; [`IoError::Busy`] when another run writes to it;
/// [`IoError::NotFound`] when the folder that should hold it is missing.
pub fn create(path: &Path, format: OutputFormat, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    match format {
        OutputFormat::Parquet => file_sink::create(path, options, |w| ParquetSink::new(w, path)),
        OutputFormat::Arrow => file_sink::create(path, options, |w| ArrowSink::new(w, path)),
        OutputFormat::Safetensors => {
            file_sink::create(path, options, |w| SafetensorsSink::new(w, path, &options.header_metadata))
        }
        OutputFormat::Gguf => {
            file_sink::create(path, options, |w| GgufSink::new(w, path, &options.header_metadata))
        }
        OutputFormat::Folder => Ok(Box::new(FolderSink::create(path, options)?)),
    }
}
