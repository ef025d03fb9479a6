//! Checksums of the tensors of a safetensors file, in its metadata.

use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use super::open_shard;
use crate::{Access, IoError, Result, Source};

/// Key of the metadata: 16 hexadecimal digits for each tensor, XXH3 of its bytes, in the order of the bytes.
pub(crate) const CHECKSUMS: &str = "aq.xxh3";

/// Bytes read at a time.
const BLOCK: u64 = 1 << 20;

/// The value of the key.
pub(crate) fn text(digests: impl Iterator<Item = u64>) -> String {
    digests.map(|digest| format!("{digest:016x}")).collect()
}

/// Reads the safetensors file `path`, or those of the folder `path`, and compares every tensor with its checksum. Files without checksums pass.
/// `stopped` is asked once a MiB.
///
/// # Errors
/// Names the first tensor that differs; [`IoError::Stopped`] when `stopped` says so.
pub fn verify_checksums(path: &Path, stopped: &dyn Fn() -> bool) -> Result<()> {
    if !path.is_dir() {
        return verify_file(path, stopped);
    }
    let names = crate::member::names(path)?;
    let mut files = names.iter().filter(|name| name.ends_with(".safetensors") && !name.starts_with('.'));
    files.try_for_each(|name| verify_file(&path.join(name), stopped))
}

fn verify_file(path: &Path, stopped: &dyn Fn() -> bool) -> Result<()> {
    let file = open_shard(path, Access::Positioned)?;
    let Some(due) = file.metadata().get(CHECKSUMS) else { return Ok(()) };
    if due.len() != 16 * file.tensors().len() || !due.is_ascii() {
        return Err(IoError::malformed(path, format!("{CHECKSUMS} does not have 16 digits for each tensor")));
    }
    for (index, tensor) in file.tensors().iter().enumerate() {
        let digest = digest(&*file, index, stopped)?;
        if due.get(16 * index..16 * (index + 1)) != Some(&format!("{digest:016x}")) {
            return Err(IoError::tensor(path, tensor.info.name(), "damaged: its checksum does not match"));
        }
    }
    Ok(())
}

fn digest(file: &dyn Source, index: usize, stopped: &dyn Fn() -> bool) -> Result<u64> {
    let (bytes, mut hash, mut buffer) = (file.stored_bytes(index), Xxh3::new(), Vec::new());
    for start in (0..bytes).step_by(BLOCK as usize) {
        if stopped() {
            return Err(IoError::Stopped { path: file.path().into() });
        }
        buffer.resize(BLOCK.min(bytes - start) as usize, 0);
        file.read_bytes(index, start, &mut buffer)?;
        hash.update(&buffer);
    }
    Ok(hash.digest())
}
