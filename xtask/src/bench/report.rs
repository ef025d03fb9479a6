//! Results for people: a table in Markdown, and a page with charts that needs no other file.

use std::fmt::Write;

use serde_json::Value;

use super::accuracy::{Section, escaped};
use super::case::Case;

/// What a report shows.
pub(crate) struct Results<'a> {
    pub(crate) host: &'a Value,
    pub(crate) notes: &'a [String],
    /// Timings.
    pub(crate) cases: &'a [Case],
    /// Accuracies.
    pub(crate) sections: &'a [Section],
}

const HEADER: [&str; 6] = ["suite", "case", "measured (min to max)", "unit", "baseline", "ratio"];

impl Results<'_> {
    /// The host, the notes and one table.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::from("# Benchmark results\n\n");
        for (key, value) in self.host.as_object().into_iter().flatten() {
            out += &format!("- {key}: {}\n", plain(value));
        }
        out += "\n";
        self.notes.iter().for_each(|note| out += &format!("- {note}\n"));
        for section in self.sections {
            out += &format!("\n{}", section.markdown());
        }
        if !self.cases.is_empty() {
            out += "\nMedians. A ratio above 1 is better than the baseline, which was measured in the same run.\n\n";
            out += &table(self.cases);
        }
        out
    }

    /// The same with a chart for each suite, drawn inline.
    pub(crate) fn html(&self) -> String {
        let mut out = String::from(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Benchmark results</title>\n\
             <style>body{font:14px sans-serif;margin:2em;max-width:70em}td,th{padding:2px 8px;text-align:left}\
             svg text{font:12px sans-serif}</style>\n<h1>Benchmark results</h1>\n<ul>\n",
        );
        for (key, value) in self.host.as_object().into_iter().flatten() {
            out += &format!("<li>{}: {}</li>\n", escaped(key), escaped(&plain(value)));
        }
        self.notes.iter().for_each(|note| out += &format!("<li>{}</li>\n", escaped(note)));
        out += "</ul>\n";
        for section in self.sections {
            out += &format!("<h2>{}</h2>\n{}", escaped(&section.title), section.chart());
            out += &format!("<details><summary>figures</summary>\n{}</details>\n", section.html_table());
        }
        if !self.cases.is_empty() {
            out += &timings(self.cases);
        }
        out + "</html>\n"
    }
}

/// A chart for each suite, and one table.
fn timings(cases: &[Case]) -> String {
    let mut out = String::from(
        "<p>Medians. A bar to the right of 1 is better than the baseline, which was measured in the same run. The \
         axis is logarithmic.</p>\n",
    );
    for group in cases.chunk_by(|a, b| a.suite == b.suite) {
        out += &format!("<h2>{}</h2>\n{}", escaped(&group[0].suite), chart(group));
    }
    out += "<h2>All figures</h2>\n<table>\n";
    let row = |row: &[String; 6], tag: &str| {
        let cells = row.iter().map(|c| format!("<{tag}>{}</{tag}>", escaped(c)));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    out += &row(&HEADER.map(str::to_owned), "th");
    cases.iter().for_each(|case| out += &row(&cells(case), "td"));
    out + "</table>\n"
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A Markdown table of all cases, its columns aligned for the terminal.
pub(crate) fn table(cases: &[Case]) -> String {
    let mut rows = vec![HEADER.map(str::to_owned)];
    rows.extend(cases.iter().map(cells));
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    rows.insert(1, widths.map(|w| "-".repeat(w)));
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, w)| format!("| {cell:w$} "));
        out += &(cells.collect::<String>() + "|\n");
    }
    out
}

fn cells(case: &Case) -> [String; 6] {
    [
        case.suite.clone(),
        label(case),
        format!("{} ({} to {})", short(case.own.value), short(case.own.min), short(case.own.max)),
        case.unit.clone(),
        format!("{} {}", case.baseline, short(case.base.value)),
        short(case.ratio),
    ]
}

fn label(case: &Case) -> String {
    let params = case.params.iter().map(|(key, value)| format!(" {key}={}", plain(value)));
    case.name.clone() + &params.collect::<String>()
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        v if v >= 0.9995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

const LEFT: f64 = 380.0;
const WIDTH: f64 = 420.0;
const ROW: f64 = 18.0;

/// One bar a case, from ratio 1 to its own.
fn chart(cases: &[Case]) -> String {
    let drawable: Vec<&Case> = cases.iter().filter(|c| c.ratio.is_finite() && c.ratio > 0.0).collect();
    let bound = |f: fn(f64, f64) -> f64| drawable.iter().map(|c| c.ratio.log10()).fold(0.0, f);
    let (low, high) = (bound(f64::min).floor(), bound(f64::max).ceil().max(1.0));
    let x = |ratio: f64| LEFT + WIDTH * (ratio.log10() - low) / (high - low);
    let height = ROW * (drawable.len() as f64 + 2.0);
    let mut out = format!("<svg width=\"880\" height=\"{height}\" role=\"img\">\n");
    for power in low as i32..=high as i32 {
        let at = x(10_f64.powi(power));
        let colour = if power == 0 { "#000" } else { "#ccc" };
        _ = writeln!(
            out,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"18\" y2=\"{height}\" stroke=\"{colour}\"/>"
        );
        _ = writeln!(
            out,
            "<text x=\"{at:.1}\" y=\"13\" text-anchor=\"middle\">{}</text>",
            10_f64.powi(power)
        );
    }
    for (i, case) in drawable.iter().enumerate() {
        let y = ROW * (i as f64 + 1.2);
        let (from, to) = (x(1.0).min(x(case.ratio)), x(1.0).max(x(case.ratio)));
        let colour = if case.ratio >= 1.0 { "#2a7f62" } else { "#b5651d" };
        let name = escaped(&format!("{}, {}", label(case), case.baseline));
        _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            LEFT - 8.0,
            y + 12.0
        );
        _ = writeln!(
            out,
            "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"13\" fill=\"{colour}\"/>",
            to - from
        );
        _ = writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", to + 4.0, y + 11.0, short(case.ratio));
    }
    out + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bench::case::example;

    #[test]
    fn columns_line_up() {
        let table = table(&[example("ls", 4.0), example("minmax", 1234.0)]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{table}");
        assert!(lines[3].contains("| 1234 (1234 to 1234)") && lines[3].contains("| 617 "), "{table}");
    }

    #[test]
    fn a_page_stands_alone_and_escapes_names() {
        let cases = [example("a<b", 4.0), example("slow", 0.02)];
        let notes = ["no numpy".to_owned()];
        let results = Results { host: &json!({"cpu": "x"}), notes: &notes, cases: &cases, sections: &[] };
        let html = results.html();
        assert!(html.contains("a&lt;b") && !html.contains("a<b") && html.contains("cp &amp; fsync"));
        assert_eq!(html.matches("<rect").count(), 2);
        assert!(!html.contains("http") && !html.contains("NaN"));
        assert!(results.markdown().contains("- no numpy\n"));
    }

    #[test]
    fn three_digits_are_kept() {
        assert_eq!([0.01234, 1.234, 12.34, 1234.5].map(short), ["0.012", "1.23", "12.3", "1234"]);
    }
}
