//! Names that a file gives to the files beside it.

use std::path::{Component, Path, PathBuf};

use crate::error::Shown;
use crate::{IoError, Result};

/// The path of the regular file `name` of `folder`. `owner` is the file that names it.
///
/// The name must be one plain component, and what it resolves to must lie in the folder; links are followed inside of it, and
/// into the `blobs` of the Hugging Face cache that the folder belongs to.
pub(crate) fn resolve(folder: &Path, name: &str, owner: &Path) -> Result<PathBuf> {
    let shown = Shown::name(name);
    if !is_plain(name) {
        return Err(IoError::malformed(
            owner,
            format!("the path of file \"{shown}\" is not allowed: not a plain file name"),
        ));
    }
    let path = folder.join(name);
    let target = path.canonicalize().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            IoError::not_found(owner, format!("file \"{shown}\" is missing: no such file"))
        }
        _ => IoError::os(&path)(e),
    })?;
    let home = folder.canonicalize().map_err(IoError::os(folder))?;
    if !is_inside(&target, &home) {
        return Err(IoError::malformed(
            owner,
            format!("the path of file \"{shown}\" leads outside of the folder"),
        ));
    }
    match target.is_file() {
        true => Ok(path),
        false => Err(IoError::malformed(owner, format!("file \"{shown}\" is not a regular file"))),
    }
}

/// One plain component: no separator of any system, not `.` or `..`, no drive.
pub(crate) fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let one =
        matches!(components.next(), Some(Component::Normal(c)) if c == name) && components.next().is_none();
    one && !name.contains(['/', '\\', ':', '\0'])
}

/// Whether the resolved path `target` lies in the resolved folder `home` or in the cache that it belongs to.
pub(crate) fn is_inside(target: &Path, home: &Path) -> bool {
    target.starts_with(home) || blobs(home).is_some_and(|blobs| target.starts_with(blobs))
}

/// The `blobs` folder of the cache entry whose `snapshots` hold `folder`.
fn blobs(folder: &Path) -> Option<PathBuf> {
    let snapshots = folder.ancestors().find(|a| a.file_name().is_some_and(|n| n == "snapshots"))?;
    snapshots.parent()?.join("blobs").canonicalize().ok()
}

/// Names of the entries of a folder, in order. Names that are not Unicode cannot be meant and are left out.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(IoError::os(folder))? {
        names.extend(entry.map_err(IoError::os(folder))?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn only_plain_names_pass() {
        for good in ["a", "model-00001-of-00002.safetensors", "..a", "模型.safetensors"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in ["", ".", "..", "/a", "a/b", "a/", "./a", "../a", "a\\b", "C:a", "a\0b"] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
