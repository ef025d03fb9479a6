//! What can be wrong with a file.

use std::fmt::{self, Display, Write as _};
use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T, E = IoError> = std::result::Result<T, E>;

/// What is wrong with which file or tensor. Messages are one sentence; control characters are escaped and long names cut.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// The path is not there, or holds nothing we can read.
    #[error("{}: {}", Shown::path(path), Shown::reason(reason))]
    NotFound {
        /// File or folder.
        path: PathBuf,
        /// What was looked for.
        reason: String,
    },
    /// A format or feature that is not supported.
    #[error("{}: {}", Shown::path(path), Shown::reason(reason))]
    Unsupported {
        /// File or folder.
        path: PathBuf,
        /// What is not supported.
        reason: String,
    },
    /// The content contradicts its format.
    #[error("{}: {}", Shown::path(path), Shown::reason(reason))]
    Malformed {
        /// File.
        path: PathBuf,
        /// The fact.
        reason: String,
    },
    /// A tensor that contradicts its format.
    #[error("{}: tensor \"{}\": {}", Shown::path(path), Shown::name(tensor), Shown::reason(reason))]
    Tensor {
        /// File.
        path: PathBuf,
        /// Tensor name.
        tensor: String,
        /// The fact.
        reason: String,
    },
    /// The operating system said no.
    #[error("{}: {source}", Shown::path(path))]
    Os {
        /// File or folder.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The destination is there already and may not be replaced.
    #[error("{} already exists; use --force to replace it", Shown::path(path))]
    Exists {
        /// Destination.
        path: PathBuf,
    },
    /// Another run writes to the same destination.
    #[error("{}: another run is writing to it", Shown::path(path))]
    Busy {
        /// Destination.
        path: PathBuf,
    },
    /// The stream of slabs ended early: whoever feeds the sink stopped and knows why.
    #[error("{}: writing was stopped", Shown::path(path))]
    Stopped {
        /// Destination.
        path: PathBuf,
    },
}

impl IoError {
    /// A [`IoError::Malformed`].
    pub fn malformed(path: &Path, reason: impl Into<String>) -> Self {
        Self::Malformed { path: path.into(), reason: reason.into() }
    }

    /// A [`IoError::Tensor`].
    pub fn tensor(path: &Path, tensor: &str, reason: impl Into<String>) -> Self {
        Self::Tensor { path: path.into(), tensor: tensor.into(), reason: reason.into() }
    }

    /// A [`IoError::Unsupported`].
    pub fn unsupported(path: &Path, reason: impl Into<String>) -> Self {
        Self::Unsupported { path: path.into(), reason: reason.into() }
    }

    /// A [`IoError::NotFound`].
    pub fn not_found(path: &Path, reason: impl Into<String>) -> Self {
        Self::NotFound { path: path.into(), reason: reason.into() }
    }

    /// A closure that turns an operating-system error on `path` into ours.
    pub fn os(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| match source.kind() {
            std::io::ErrorKind::NotFound => Self::NotFound { path, reason: "no such file or folder".into() },
            _ => Self::Os { path, source },
        }
    }
}

/// A text from outside as it may appear in a message: control and direction characters escaped, cut at `max` characters.
pub(crate) struct Shown<T> {
    text: T,
    max: usize,
}

impl<'a> Shown<std::borrow::Cow<'a, str>> {
    /// A path, never cut.
    pub(crate) fn path(path: &'a Path) -> Self {
        Self { text: path.to_string_lossy(), max: usize::MAX }
    }

    /// A name that a file holds.
    pub(crate) fn name(name: &'a str) -> Self {
        Self { text: name.into(), max: 120 }
    }

    /// A sentence that may quote a file.
    pub(crate) fn reason(reason: &'a str) -> Self {
        Self { text: reason.into(), max: 500 }
    }
}

impl<T: AsRef<str>> Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, c) in self.text.as_ref().chars().enumerate() {
            match c {
                _ if i >= self.max => return f.write_str("..."),
                '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    Display::fmt(&c.escape_unicode(), f)?;
                }
                c if c.is_control() => Display::fmt(&c.escape_default(), f)?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_printable_line() {
        let error = IoError::tensor(Path::new("a\nb"), &"x\u{1b}[31m".repeat(99), "fact\r\n\u{202e}");
        let message = error.to_string();
        assert!(message.starts_with("a\\nb: tensor \"x\\u{1b}[31m"), "{message}");
        assert!(message.ends_with("...\": fact\\r\\n\\u{202e}"), "{message}");
        assert!(!message.contains(char::is_control));
    }
}
