//! Why a job did not finish.

use std::path::PathBuf;

use aq_core::StrategyError;
use aq_io::IoError;

/// Result of this crate.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// Why a job did not finish. [`EngineError::exit_code`] gives the process status of each kind.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A combination of options that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// An option or configuration value that is malformed.
    #[error("{0}")]
    Config(String),
    /// A file is wrong, missing or cannot be written.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A weight that cannot be quantized.
    #[error("{}: tensor {tensor:?}: {reason}", path.display())]
    Tensor {
        /// The model.
        path: PathBuf,
        /// Tensor name.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// A strategy refused a layer.
    #[error(transparent)]
    Strategy(#[from] StrategyError),
    /// What scores plans did not.
    #[error("fitness {fitness:?}: {reason}")]
    Fitness {
        /// The fitness.
        fitness: String,
        /// What went wrong.
        reason: String,
    },
    /// The quality gate was not met.
    #[error("{0}")]
    Quality(String),
    /// The memory limit is too small.
    #[error("{0}")]
    Memory(String),
    /// The result that was read back is not what was written.
    #[error("{}: verification failed: {reason}", path.display())]
    Verify {
        /// The file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// A bug in this program.
    #[error("internal error: {0}; please report it")]
    Internal(String),
}

impl EngineError {
    /// The exit status that programs rely on: 1 failed, 2 usage, 3 input missing or not supported, 4 malformed input or
    /// configuration, 5 quality gate, 6 memory limit or disk full, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Config(_) | Self::Tensor { .. } => 4,
            Self::Quality(_) => 5,
            Self::Memory(_) => 6,
            Self::Interrupted => 130,
            Self::Strategy(_) | Self::Fitness { .. } | Self::Verify { .. } | Self::Internal(_) => 1,
            Self::Io(e) => match e {
                IoError::NotFound { .. } | IoError::Unsupported { .. } => 3,
                IoError::Malformed { .. } | IoError::Tensor { .. } => 4,
                IoError::Os { source, .. } if out_of_space(source) => 6,
                _ => 1,
            },
        }
    }
}

fn out_of_space(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{OutOfMemory, QuotaExceeded, StorageFull};
    matches!(e.kind(), StorageFull | QuotaExceeded | OutOfMemory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_exit_code() {
        let os =
            |kind: std::io::ErrorKind| EngineError::Io(IoError::Os { path: "f".into(), source: kind.into() });
        let cases = [
            (EngineError::Usage("u".into()), 2),
            (EngineError::Config("c".into()), 4),
            (EngineError::Io(IoError::NotFound { path: "f".into(), reason: "r".into() }), 3),
            (EngineError::Io(IoError::malformed("f".as_ref(), "r")), 4),
            (EngineError::Io(IoError::Exists { path: "f".into() }), 1),
            (os(std::io::ErrorKind::StorageFull), 6),
            (os(std::io::ErrorKind::PermissionDenied), 1),
            (EngineError::Quality("q".into()), 5),
            (EngineError::Memory("m".into()), 6),
            (EngineError::Interrupted, 130),
        ];
        for (error, code) in cases {
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }
}
