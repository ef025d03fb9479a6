//! Destinations: which format, and how a result appears in one step.

mod atomic_file;
mod atomic_folder;
mod early_sync;
mod file_sink;
mod files;
mod pending_folder;
mod region;
mod statistics_sink;

use std::path::Path;

use aq_core::StoredTensor;

pub(crate) use atomic_file::sync_folder;
pub use atomic_folder::StagedFolder;
pub(crate) use file_sink::{FileWriter, Out, close, out};
pub(crate) use files::files;
pub(crate) use pending_folder::PendingFolder;
pub(crate) use region::{Region, check_regions};
pub use statistics_sink::StatisticsSink;

use crate::columnar::{ArrowSink, ParquetSink};
use crate::folder::FolderSink;
use crate::gguf::GgufSink;
use crate::safetensors::{Form, ModelConfig, SafetensorsSink, ShardsSink};
use crate::{IoError, Result, Sink};

/// Formats that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputFormat {
    /// Native Parquet, one file.
    Parquet,
    /// Arrow IPC, one file.
    Arrow,
    /// Plain tensors in one safetensors file, or in a folder of shards.
    Safetensors,
    /// Layers of signed bytes in safetensors as ComfyUI reads them.
    Comfy,
    /// A folder of packed layers in safetensors, which diffusers loads with our backend.
    Diffusers,
    /// A folder of native Parquet parts with a manifest; the form that can be resumed.
    Folder,
    /// GGUF: blocks of ggml and plain tensors in one file.
    Gguf,
}

impl OutputFormat {
    /// Every format, in the order in which they are listed to users.
    pub const ALL: [OutputFormat; 7] = [
        OutputFormat::Parquet,
        OutputFormat::Arrow,
        OutputFormat::Safetensors,
        OutputFormat::Comfy,
        OutputFormat::Diffusers,
        OutputFormat::Folder,
        OutputFormat::Gguf,
    ];

    /// Its name as users type it.
    pub fn name(self) -> &'static str {
        match self {
            OutputFormat::Parquet => "parquet",
            OutputFormat::Arrow => "arrow",
            OutputFormat::Safetensors => "safetensors",
            OutputFormat::Comfy => "comfy",
            OutputFormat::Diffusers => "diffusers",
            OutputFormat::Folder => "folder",
            OutputFormat::Gguf => "gguf",
        }
    }

    /// Bytes that a tensor takes in the file where that depends on its shape alone; `None` for formats that store slabs, and for a tensor
    /// that the format cannot hold.
    pub fn tensor_bytes(self, tensor: &StoredTensor) -> Option<u64> {
        self.form()?.bytes(tensor)
    }

    /// Whether tensors that were quantized are dequantized on the way to the file.
    pub fn is_plain(self) -> bool {
        self == Self::Safetensors
    }

    /// Why an encoded tensor cannot be stored in this format; `None` when it can, dequantized where the format [is plain](Self::is_plain).
    pub fn refusal(self, tensor: &StoredTensor) -> Option<String> {
        let form = self.form().filter(|_| !self.is_plain())?;
        form.pieces(tensor).err()
    }

    /// Whether `path` becomes a folder in this format.
    pub fn is_folder(self, path: &Path) -> bool {
        match self {
            Self::Folder | Self::Diffusers => true,
            Self::Safetensors | Self::Comfy => is_folder(path),
            Self::Parquet | Self::Arrow | Self::Gguf => false,
        }
    }

    fn form(self) -> Option<Form> {
        match self {
            Self::Safetensors => Some(Form::Plain),
            Self::Comfy => Some(Form::Comfy),
            Self::Diffusers => Some(Form::Packed),
            _ => None,
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
        if is_folder(path) {
            return Ok(Self::Folder);
        }
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        Self::from_name(&ending).filter(|f| ![Self::Folder, Self::Comfy, Self::Diffusers].contains(f)).ok_or_else(|| {
            IoError::unsupported(
                path,
                format!("cannot write the ending .{ending}; use .parquet, .arrow, .gguf, .safetensors, or a final / for a folder"),
            )
        })
    }
}

/// Whether `path` means a folder: it has a final `/` or no ending, or is one.
fn is_folder(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/") || path.is_dir() || path.extension().is_none()
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
    /// What the names of safetensors files in a folder begin with; `None` for `model`.
    pub stem: Option<String>,
    /// The most bytes of tensors of a safetensors file in a folder of several; `None` for 10 GB.
    pub shard_bytes: Option<u64>,
    /// The configuration of the model, to which a diffusers folder adds what its packed layers are.
    pub config: Option<ModelConfig>,
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
        OutputFormat::Safetensors => create_safetensors(path, Form::Plain, options),
        OutputFormat::Comfy => create_safetensors(path, Form::Comfy, options),
        OutputFormat::Diffusers => Ok(Box::new(ShardsSink::create(path, Form::Packed, options)?)),
        OutputFormat::Gguf => {
            file_sink::create(path, options, |w| GgufSink::new(w, path, &options.header_metadata))
        }
        OutputFormat::Folder => Ok(Box::new(FolderSink::create(path, options)?)),
    }
}

fn create_safetensors(path: &Path, form: Form, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    if is_folder(path) {
        return Ok(Box::new(ShardsSink::create(path, form, options)?));
    }
    file_sink::create(path, options, |w| SafetensorsSink::new(w, path, form, &options.header_metadata))
}
