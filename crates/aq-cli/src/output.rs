//! Printing that survives a closed pipe and hostile names.

use std::io::Write;

use console::style;
use serde_json::Value;

/// Prints bytes on stdout as they are; a closed stdout is not an error.
pub(crate) fn bytes(bytes: &[u8]) {
    let _ = std::io::stdout().lock().write_all(bytes);
}

/// Prints a line on stdout; a closed stdout is not an error.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints one JSON object on stdout.
pub(crate) fn json(value: &Value) {
    line(&serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Prints a warning on stderr.
pub(crate) fn warn(message: &str) {
    let _ = writeln!(
        std::io::stderr(),
        "{}: {}",
        style("warning").yellow().bold().for_stderr(),
        printable(message)
    );
}

/// Prints an error on stderr.
pub(crate) fn error(error: &dyn std::error::Error) {
    let _ = writeln!(
        std::io::stderr(),
        "{}: {}",
        style("error").red().bold().for_stderr(),
        printable(&error.to_string())
    );
}

/// `text` with control characters escaped and cut at 2,000 characters.
pub(crate) fn printable(text: &str) -> String {
    let escape = |c: char| match c {
        '\n' => " ".to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().take(2000).map(escape).collect()
}

/// A table: the first column left-aligned, the others right-aligned; no header when `header` is empty.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) {
    let columns = header.len().max(rows.first().map_or(0, Vec::len));
    let width = |c: usize| {
        let cells = rows.iter().filter_map(|r| r.get(c)).map(|t| console::measure_text_width(t));
        cells.chain(header.get(c).map(|h| h.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let row = |cells: Vec<String>| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(i, (cell, &w))| {
            let side = if i == 0 { console::Alignment::Left } else { console::Alignment::Right };
            console::pad_str(cell, w, side, None).into_owned()
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    if !header.is_empty() {
        line(&style(row(header.iter().map(ToString::to_string).collect())).bold().to_string());
    }
    for cells in rows {
        line(&row(cells.iter().map(|c| printable(c)).collect()));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(super::printable("a\u{1b}[31m\nb\0"), "a\\u{1b}[31m b\\u{0}");
        assert_eq!(super::printable(&"x".repeat(5000)).len(), 2000);
    }
}
