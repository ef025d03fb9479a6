//! What was written where, read back.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use crate::{IoError, Result};

/// Bytes of a file and their hash as they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Region {
    /// The tensor that lies there; `None` for a header.
    pub(crate) tensor: Option<String>,
    pub(crate) begin: u64,
    pub(crate) bytes: u64,
    pub(crate) xxh3: u64,
}

/// Bytes read at a time.
const BLOCK: usize = 1 << 20;

/// Reads every region back and compares its hash. `stopped` is asked once a MiB.
///
/// # Errors
/// Names the first tensor that differs; [`IoError::Stopped`] when `stopped` says so.
pub(crate) fn check_regions(path: &Path, regions: &[Region], stopped: &dyn Fn() -> bool) -> Result<()> {
    let mut file = BufReader::new(File::open(path).map_err(IoError::os(path))?);
    let mut buffer = vec![0; BLOCK];
    for region in regions {
        file.seek(SeekFrom::Start(region.begin)).map_err(IoError::os(path))?;
        let (mut hash, mut left) = (Xxh3::new(), region.bytes);
        while left > 0 {
            if stopped() {
                return Err(IoError::Stopped { path: path.into() });
            }
            let n = left.min(BLOCK as u64);
            let block = buffer.get_mut(..n as usize).unwrap_or_default();
            file.read_exact(block).map_err(IoError::os(path))?;
            hash.update(block);
            left -= n;
        }
        if hash.digest() != region.xxh3 {
            let fact = "what was read back is not what was written";
            let name = region.tensor.as_deref();
            return Err(
                name.map_or_else(|| IoError::malformed(path, fact), |name| IoError::tensor(path, name, fact))
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_found_and_named() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), b"abcdef").expect("writable");
        let region = |tensor: Option<&str>, begin, bytes: &[u8]| Region {
            tensor: tensor.map(str::to_string),
            begin,
            bytes: bytes.len() as u64,
            xxh3: xxhash_rust::xxh3::xxh3_64(bytes),
        };
        let regions = [region(None, 0, b"ab"), region(Some("w"), 2, b"cdef")];
        check_regions(file.path(), &regions, &|| false).expect("undamaged");
        assert!(matches!(check_regions(file.path(), &regions, &|| true), Err(IoError::Stopped { .. })));
        std::fs::write(file.path(), b"abcdeg").expect("writable");
        let error = check_regions(file.path(), &regions, &|| false).expect_err("damaged");
        assert!(error.to_string().contains("tensor \"w\""), "{error}");
    }
}
