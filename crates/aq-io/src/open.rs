//! Opens whatever a user names.

use std::path::Path;

use crate::file_bytes::FileBytes;
use crate::{Access, IoError, Result, Source, columnar, folder, gguf, index, pipeline, safetensors};

/// Opens a model: a safetensors or GGUF file, a folder of safetensors, or a file or folder that we wrote. Its header is checked here.
///
/// # Errors
/// One sentence that names the file, the tensor where it is about one, and the fact. A diffusers pipeline is refused with
/// the names of its components; open one of those (see [`crate::Pipeline`]).
pub fn open(path: &Path, access: Access) -> Result<Box<dyn Source>> {
    let metadata = std::fs::metadata(path).map_err(IoError::os(path))?;
    if metadata.is_dir() {
        return open_folder(path, access);
    }
    match Kind::of(path)? {
        Kind::Safetensors => safetensors::open(path, access),
        Kind::Parquet => columnar::open_parquet(path, access),
        Kind::Arrow => columnar::open_arrow(path, access),
        Kind::Gguf => gguf::open(path, access),
    }
}

/// Whether `path` is a Parquet file, by its ending or else its first bytes. Folders are none.
///
/// # Errors
/// When it cannot be read, or is of a kind that nothing here reads.
pub fn is_parquet(path: &Path) -> Result<bool> {
    let metadata = std::fs::metadata(path).map_err(IoError::os(path))?;
    Ok(!metadata.is_dir() && matches!(Kind::of(path)?, Kind::Parquet))
}

fn open_folder(path: &Path, access: Access) -> Result<Box<dyn Source>> {
    if folder::is_ours(path) {
        return folder::open(path, access);
    }
    if path.join(pipeline::INDEX).is_file() {
        let pipeline = pipeline::Pipeline::open(path)?;
        let names: Vec<_> =
            pipeline.components.iter().filter(|c| c.has_weights).map(|c| c.name.as_str()).collect();
        let fact = format!("a diffusers pipeline; choose one of its components: {}", names.join(", "));
        return Err(IoError::unsupported(path, fact));
    }
    if path.join(folder::MANIFEST).is_file() && !index::has_weights(path) {
        return folder::open(path, access);
    }
    index::open(path, access)
}

/// Formats of one file.
enum Kind {
    Safetensors,
    Parquet,
    Arrow,
    Gguf,
}

impl Kind {
    /// By the ending, else by the first bytes.
    fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        match ending.as_str() {
            "safetensors" => return Ok(Kind::Safetensors),
            "parquet" => return Ok(Kind::Parquet),
            "arrow" | "feather" | "ipc" => return Ok(Kind::Arrow),
            "gguf" => return Ok(Kind::Gguf),
            "bin" | "pt" | "pth" | "ckpt" | "pkl" => {
                let fact =
                    "pickled checkpoints can run code and are not read; save the model as .safetensors first";
                return Err(IoError::unsupported(path, fact));
            }
            _ => {}
        }
        let file = FileBytes::open(path, Access::Positioned)?;
        let mut start = [0; 9];
        let n = file.len().min(start.len() as u64) as usize;
        file.read_exact_at(0, start.get_mut(..n).unwrap_or_default())?;
        match &start {
            [b'P', b'A', b'R', b'1', ..] => Ok(Kind::Parquet),
            [b'A', b'R', b'R', b'O', b'W', b'1', ..] => Ok(Kind::Arrow),
            [b'G', b'G', b'U', b'F', ..] => Ok(Kind::Gguf),
            [.., b'{'] => Ok(Kind::Safetensors),
            _ => Err(IoError::unsupported(
                path,
                "not a file that can be read: safetensors, GGUF, Parquet or Arrow IPC of ours",
            )),
        }
    }
}
