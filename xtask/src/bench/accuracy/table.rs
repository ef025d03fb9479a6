//! The frontier of each source as a table.

use super::chart::escaped;
use super::point::{Point, Quantity, Section};

const HEADER: [&str; 8] =
    ["method", "asked", "bits/weight", "rel. MSE", "of the bound", "cosine", "output error", "slope"];

impl Section {
    /// The title and a table in Markdown, by bits per weight, its columns aligned for the terminal.
    pub(crate) fn markdown(&self) -> String {
        let rows: Vec<[String; 8]> = std::iter::once(HEADER.map(str::to_owned)).chain(self.rows()).collect();
        let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
        let widths: [usize; 8] = std::array::from_fn(width);
        let line = |row: &[String; 8]| {
            let cells = row.iter().zip(widths).map(|(cell, w)| format!("| {cell:w$} "));
            cells.collect::<String>() + "|\n"
        };
        let rule = line(&widths.map(|w| "-".repeat(w)));
        let body: String = rows[1..].iter().map(line).collect();
        format!("### {}\n\n{}{rule}{body}", self.title, line(&rows[0]))
    }

    /// The header and the rows as HTML.
    pub(crate) fn html_table(&self) -> String {
        let row = |cells: &[String], tag: &str| {
            let cells = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell)));
            format!("<tr>{}</tr>\n", cells.collect::<String>())
        };
        let body: String = self.rows().iter().map(|cells| row(cells, "td")).collect();
        format!("<table>\n{}{body}</table>\n", row(&HEADER.map(str::to_owned), "th"))
    }

    fn rows(&self) -> Vec<[String; 8]> {
        let mut points: Vec<&Point> = self.points.iter().collect();
        points.sort_by(|a, b| a.bits_per_weight.total_cmp(&b.bits_per_weight));
        points.into_iter().map(|point| self.cells(point)).collect()
    }

    fn cells(&self, point: &Point) -> [String; 8] {
        let error = point.error;
        let times = error.relative_mse / self.bound(point.bits_per_weight);
        [
            point.name.clone(),
            point.asked.clone(),
            format!("{:.3}", point.bits_per_weight),
            format!("{:.3e}", error.relative_mse),
            format!("{times:.2} x"),
            format!("{:.5}", error.cosine),
            error.output.map_or_else(|| "-".to_owned(), |output| format!("{output:.3e}")),
            format!("{:.4}", error.slope),
        ]
    }
}

impl Point {
    /// What the chart shows of it.
    pub(crate) fn charted(&self, quantity: Quantity) -> Option<f64> {
        match quantity {
            Quantity::Weights => Some(self.error.relative_mse),
            Quantity::Outputs => self.error.output,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::bench::accuracy::point::example;

    #[test]
    fn rows_are_sorted_and_aligned() {
        let markdown = example().markdown();
        let lines: Vec<&str> = markdown.lines().skip(2).collect();
        assert_eq!(lines.len(), 5);
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{markdown}");
        assert!(lines[2].contains("2.250") && lines[4].contains("ggml <Q4_0>"), "{markdown}");
        assert!(lines[2].contains("| 2.49 x"), "{markdown}");
    }

    #[test]
    fn html_escapes_names() {
        let html = example().html_table();
        assert!(html.contains("ggml &lt;Q4_0&gt;") && html.matches("<tr>").count() == 4);
    }
}
