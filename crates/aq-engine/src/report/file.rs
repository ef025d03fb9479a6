//! The file that a report is written to.

use std::path::{Path, PathBuf};

use aq_io::IoError;
use serde_json::Value;

use super::page::Page;
use crate::{EngineError, Result};

/// Where a report goes, and in which form; an earlier report there is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportFile {
    path: PathBuf,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Html,
    Markdown,
    Json,
}

impl ReportFile {
    /// The form follows the ending: `.html`, `.md` or `.json`.
    ///
    /// # Errors
    /// [`EngineError::Usage`] for any other ending, [`EngineError::Io`] when the folder that should hold it is missing.
    ///
    /// ```
    /// use aq_engine::ReportFile;
    /// assert!(ReportFile::new("report.html".into()).is_ok());
    /// assert_eq!(ReportFile::new("report.pdf".into()).map_err(|e| e.exit_code()), Err(2));
    /// ```
    pub fn new(path: PathBuf) -> Result<Self> {
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let form = match ending.as_str() {
            "html" | "htm" => Form::Html,
            "md" => Form::Markdown,
            "json" => Form::Json,
            _ => {
                let shown = path.display();
                return Err(EngineError::Usage(format!("{shown}: a report ends with .html, .md or .json")));
            }
        };
        match folder(&path).is_dir() {
            true => Ok(Self { path, form }),
            false => Err(IoError::not_found(&path, "the folder that should hold it does not exist").into()),
        }
    }

    /// Writes the report: `page` for people, `json` for programs. It appears complete or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, page: &Page, json: &Value) -> Result<()> {
        let text = match self.form {
            Form::Html => page.html()?,
            Form::Markdown => page.markdown()?,
            Form::Json => format!("{json:#}\n"),
        };
        let saved = tempfile::NamedTempFile::new_in(folder(&self.path)).and_then(|mut file| {
            std::io::Write::write_all(&mut file, text.as_bytes())?;
            readable_by_all(&file)?;
            file.persist(&self.path).map_err(|e| e.error).map(drop)
        });
        Ok(saved.map_err(IoError::os(&self.path))?)
    }
}

/// Temporary files are for their owner alone; a report is as other files.
#[cfg(unix)]
fn readable_by_all(file: &tempfile::NamedTempFile) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable_by_all(_: &tempfile::NamedTempFile) -> std::io::Result<()> {
    Ok(())
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
