//! Reads a result back: every checksum, shape and stream.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use aq_core::{Encoding, StoredTensor};
use aq_io::{Access, IoError, Source};
use rayon::prelude::*;

use crate::blocks::TensorQuality;
use crate::compare::Pair;
use crate::slab::TensorTask;
use crate::{EngineError, Result};

/// What was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Tensors.
    pub tensors: usize,
    /// Slabs whose checksum was recomputed.
    pub slabs: u64,
    /// Bytes of codes and side data.
    pub bytes: u64,
}

/// Checks every slab of a file or folder of ours: its checksum, and that its parts decode.
///
/// # Errors
/// The first damage found, by tensor and row; [`EngineError::Io`] when the file is not one of ours.
pub fn verify(path: &Path, cancel: &AtomicBool) -> Result<Verified> {
    let source = aq_io::open(path, Access::Positioned)?;
    if source.format() == aq_io::Format::Folder {
        aq_io::verify_folder(path)?;
    }
    if source.format() == aq_io::Format::Diffusers {
        verify_checksums(path, cancel)?;
    }
    crate::activations(&*source)?;
    verify_slabs(&*source, cancel)
}

/// Compares the tensors of safetensors files with the checksums that these have.
fn verify_checksums(path: &Path, cancel: &AtomicBool) -> Result<()> {
    match aq_io::verify_checksums(path, &|| cancel.load(Ordering::Relaxed)) {
        Err(IoError::Stopped { .. }) => Err(EngineError::Interrupted),
        checked => Ok(checked?),
    }
}

fn verify_slabs(source: &dyn Source, cancel: &AtomicBool) -> Result<Verified> {
    let slabs: Vec<(usize, u64)> = source
        .tensors()
        .iter()
        .enumerate()
        .flat_map(|(i, t)| (0..aq_core::slab_count(&t.info, &t.encoding)).map(move |s| (i, s)))
        .collect();
    let check = |buffer: &mut Vec<u8>, &(i, slab): &(usize, u64)| {
        if cancel.load(Ordering::Relaxed) {
            return Err(EngineError::Interrupted);
        }
        check_slab(source, i, slab, buffer)
    };
    let bytes = slabs.par_iter().map_init(Vec::new, check).sum::<Result<u64>>()?;
    Ok(Verified { tensors: source.tensors().len(), slabs: slabs.len() as u64, bytes })
}

fn check_slab(source: &dyn Source, index: usize, slab: u64, buffer: &mut Vec<u8>) -> Result<u64> {
    let stored = &source.tensors()[index];
    let parts = source.read_slab(index, slab, buffer)?;
    if stored.encoding != Encoding::Raw {
        let (_, count) = aq_core::slab_range(&stored.info, &stored.encoding, slab);
        aq_codec::check(&stored.encoding, &stored.info, parts, count).map_err(|e| EngineError::Verify {
            path: source.path().into(),
            reason: format!("tensor {:?}, slab {slab}: {e}", stored.info.name()),
        })?;
    }
    let side = if slab == 0 { parts.side.len() as u64 } else { 0 };
    let stored_parts = [parts.codes, parts.scales, parts.offsets, parts.extra];
    Ok(stored_parts.iter().map(|part| part.len() as u64).sum::<u64>() + side + stored.side_head())
}

/// Checks a result before it is moved into place: what was meant to be written is there and undamaged.
pub(crate) fn verify_path(path: &Path, expected: &[StoredTensor], cancel: &AtomicBool) -> Result<()> {
    let source = aq_io::open(path, Access::Positioned)?;
    let expected: Vec<_> = expected.iter().map(|t| aq_io::read_back(source.format(), t)).collect();
    if source.tensors() != expected {
        let reason = "the tensors read back differ from those written".to_string();
        return Err(EngineError::Verify { path: path.into(), reason });
    }
    verify_slabs(&*source, cancel).map(|_| ())
}

/// Measures the tensors that an earlier run already wrote to `parts`, as the loop would have.
pub(crate) fn measure_parts(
    parts: &[PathBuf],
    tasks: &[TensorTask<'_>],
    cancel: &AtomicBool,
) -> Result<Vec<TensorQuality>> {
    let mut quality = Vec::with_capacity(tasks.len());
    for part in parts {
        let written = aq_io::open(part, Access::Positioned)?;
        for index in 0..written.tensors().len() {
            let Some(task) = tasks.get(quality.len()) else { break };
            let bytes = written.stored_bytes(index);
            let mut measured = TensorQuality { bytes, encoded_bytes: bytes, ..TensorQuality::default() };
            if task.stored.encoding != Encoding::Raw {
                let pair = Pair { a: task.source, i: task.index, b: &*written, j: index };
                let of_both = pair.compare(&task.held_out()?, cancel)?;
                (measured.comparison, measured.output) = (of_both.comparison, of_both.output);
            }
            quality.push(measured);
        }
    }
    Ok(quality)
}
