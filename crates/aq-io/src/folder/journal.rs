//! The record of finished parts in a partial folder, one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Part;
use crate::json;
use crate::{IoError, Result};

/// Name of the journal; it goes away with the commit.
pub(super) const JOURNAL: &str = "journal.jsonl";

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    fingerprint: String,
    #[serde(flatten)]
    part: Part,
}

/// The parts of runs with that fingerprint, in the order of their end. Stops at the first line that cannot be read: the
/// run ended while it was written.
pub(super) fn read(folder: &Path, fingerprint: &str) -> Result<Vec<Part>> {
    let bytes = match json::read_bytes(&folder.join(JOURNAL), "journal") {
        Err(IoError::NotFound { .. }) => return Ok(Vec::new()),
        other => other?,
    };
    let lines =
        bytes.split_inclusive(|&b| b == b'\n').map_while(|line| serde_json::from_slice::<Line>(line).ok());
    Ok(lines.take_while(|line| line.fingerprint == fingerprint).map(|line| line.part).collect())
}

/// Begins the journal anew with `parts`.
pub(super) fn start(folder: &Path, fingerprint: &str, parts: &[Part]) -> Result<File> {
    let path = folder.join(JOURNAL);
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW);
    let mut file = options.open(&path).map_err(IoError::os(&path))?;
    for part in parts {
        append(&mut file, folder, fingerprint, part)?;
    }
    Ok(file)
}

/// Records a part that is durable already.
pub(super) fn append(file: &mut File, folder: &Path, fingerprint: &str, part: &Part) -> Result<()> {
    let line = Line { fingerprint: fingerprint.into(), part: part.clone() };
    let path = folder.join(JOURNAL);
    let json = serde_json::to_string(&line).map_err(|e| IoError::os(&path)(e.into()))?;
    file.write_all(format!("{json}\n").as_bytes()).and_then(|()| file.sync_data()).map_err(IoError::os(&path))
}
