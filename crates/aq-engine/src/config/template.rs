//! The configuration file that `aq init` writes.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use aq_io::IoError;

use super::keys::{KEYS, Key};
use crate::Result;
use crate::profile::Profile;

const HEAD: &str = "\
# Configuration of ArrowQuant: aq quantize MODEL -o OUT --config aq.yaml
#
# Every key is optional. A line such as #key: value is the default, or an example where it says so; take away the # to change it.
# Defaults give way to the profile, the profile to this file, this file to variables (AQ_BITS=3), and these to options (--bits 3).
";

/// Columns of a comment.
const WIDTH: usize = 110;

/// A commented configuration with every key and its default for `profile`.
///
/// ```
/// let text = aq_engine::config_template(aq_engine::Profile::Edge);
/// assert!(text.contains("\nprofile: edge\n") && text.contains("\n#bits: 2\n"));
/// ```
pub fn config_template(profile: Profile) -> String {
    let mut text = HEAD.to_string();
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            text += &format!("\n# ---- {section} ----\n");
        }
        text += &entry(key, profile);
    }
    text
}

fn entry(key: &Key, profile: Profile) -> String {
    let mut help = key.help.to_string();
    if !key.aliases.is_empty() {
        help += &format!(" Also read as {}.", key.aliases.join(", "));
    }
    let name = key.name;
    let line = match (key.default)(profile) {
        Some(value) if name == "profile" => format!("{name}: {value}\n"),
        Some(value) => format!("#{name}: {value}\n"),
        None => format!("# For example:\n#{name}: {}\n", key.example),
    };
    format!("\n{}{line}", comment(&help))
}

/// `text` in lines that begin with a #.
fn comment(text: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in text.split_whitespace() {
        if lines.last().is_some_and(|line| line.len() + 1 + word.len() > WIDTH) {
            lines.push("#".into());
        }
        if let Some(line) = lines.last_mut() {
            *line += &format!(" {word}");
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

/// Writes `text` to a file that is not there yet, or in place of one with `force`.
///
/// # Errors
/// [`IoError::Exists`], or what the operating system says.
pub fn write_new_file(path: &Path, text: &str, force: bool) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(force).truncate(force).create_new(!force);
    let mut file = options.open(path).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => IoError::Exists { path: path.into() },
        _ => IoError::os(path)(e),
    })?;
    Ok(file.write_all(text.as_bytes()).map_err(IoError::os(path))?)
}
