//! Sizes as users type them.

use crate::{EngineError, Result};

/// Reads `512MiB`, `4G`, `1.9GB`, `65536`: `K M G T` and `KiB MiB GiB TiB` are powers of 1024, `KB MB GB TB` of 1000.
///
/// # Errors
/// [`EngineError::Config`] naming the text.
///
/// ```
/// assert_eq!(aq_engine::parse_size("64MiB")?, 64 << 20);
/// assert_eq!(aq_engine::parse_size("1.5GB")?, 1_500_000_000);
/// assert!(aq_engine::parse_size("lots").is_err());
/// # Ok::<(), aq_engine::EngineError>(())
/// ```
pub fn parse_size(text: &str) -> Result<u64> {
    let bad = || EngineError::Config(format!("{text:?} is not a size such as 512MiB, 4G or 1.9GB"));
    let text_trimmed = text.trim();
    let digits = text_trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text_trimmed.len());
    let (number, unit) = text_trimmed.split_at(digits);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1024.0 * 1024.0,
        "g" | "gib" => 1024f64.powi(3),
        "t" | "tib" => 1024f64.powi(4),
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        _ => return Err(bad()),
    };
    let bytes = number * factor;
    if !(1.0..9.0e18).contains(&bytes) {
        return Err(bad());
    }
    Ok(bytes.round() as u64)
}

/// A size for people: `512 B`, `1.5 KiB`, `2.25 GiB`.
pub fn format_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.2} {}", UNITS[unit]),
    }
}
