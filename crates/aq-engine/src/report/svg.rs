//! Drawing: a canvas of one size, scales, axes and text, all as inline SVG without colours of its own: classes get theirs from the page.

use std::fmt::Write;

/// Width of every chart, in units that are about a pixel on a phone.
pub(super) const WIDTH: f64 = 440.0;

/// A chart on its way to text.
pub(super) struct Canvas {
    body: String,
    height: f64,
    label: String,
}

impl Canvas {
    /// An empty canvas; `label` says what it shows to who cannot see it.
    pub(super) fn new(height: f64, label: &str) -> Self {
        Self { body: String::new(), height, label: escaped(label) }
    }

    /// A rectangle with a title that appears under the pointer; `title` may be empty.
    pub(super) fn bar(&mut self, class: &str, [x, y, w, h]: [f64; 4], title: &str) {
        let _ = write!(
            self.body,
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{w:.1}" height="{h:.1}""#
        );
        self.close("rect", title);
    }

    /// A dot.
    pub(super) fn dot(&mut self, class: &str, x: f64, y: f64, title: &str) {
        let _ = write!(self.body, r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="3""#);
        self.close("circle", title);
    }

    /// A line through points.
    pub(super) fn path(&mut self, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(self.body, r#"<polyline class="{class}" points="{}"/>"#, points.join(" "));
    }

    /// Text; `anchor` is start, middle or end.
    pub(super) fn text(&mut self, class: &str, anchor: &str, x: f64, y: f64, text: &str) {
        let text = escaped(text);
        let _ = writeln!(
            self.body,
            r#"<text class="{class}" text-anchor="{anchor}" x="{x:.1}" y="{y:.1}">{text}</text>"#
        );
    }

    /// Text that reads upwards, centred at a point.
    pub(super) fn upwards(&mut self, x: f64, y: f64, text: &str) {
        let text = escaped(text);
        let at = format!("{x:.1} {y:.1}");
        let _ = writeln!(
            self.body,
            r#"<text class="axis" text-anchor="middle" transform="translate({at}) rotate(-90)">{text}</text>"#
        );
    }

    /// Entries of a legend from `x` on at height `y`.
    pub(super) fn legend(&mut self, mut x: f64, y: f64, entries: &[(&str, &str)]) {
        for (class, name) in entries {
            self.bar(class, [x, y - 9.0, 10.0, 10.0], "");
            self.text("axis", "start", x + 15.0, y, name);
            x += 27.0 + 6.6 * name.len() as f64;
        }
    }

    /// The whole chart.
    pub(super) fn finish(self) -> String {
        let Self { body, height, label } = self;
        format!("<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{label}\">\n{body}</svg>")
    }

    fn close(&mut self, element: &str, title: &str) {
        let _ = match title {
            "" => writeln!(self.body, "/>"),
            title => writeln!(self.body, "><title>{}</title></{element}>", escaped(title)),
        };
    }
}

/// From values to places on an axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Values `low..high` lie at `from..to`.
    pub(super) fn new([low, high]: [f64; 2], [from, to]: [f64; 2]) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self { low, high, from, to }
    }

    /// Where a value lies; values beyond the ends lie at the ends.
    pub(super) fn at(self, value: f64) -> f64 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.from + share * (self.to - self.from)
    }

    /// The whole powers of ten of a scale of logarithms, at most six of them.
    pub(super) fn decades(self) -> impl Iterator<Item = i32> {
        let (low, high) = (self.low.ceil() as i32, self.high.floor() as i32);
        let step = ((high - low) / 6 + 1).max(1);
        (low..=high).step_by(step as usize)
    }
}

/// `text` with what has a meaning in HTML replaced.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// `name` cut in the middle to at most `most` characters.
pub(super) fn short(name: &str, most: usize) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= most {
        return name.into();
    }
    let (front, back) = (most / 3, most - most / 3 - 1);
    let end = &letters[letters.len() - back..];
    letters[..front].iter().chain(std::iter::once(&'…')).chain(end).collect()
}

/// A small number for people: three digits, with an exponent where it has one.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        v if (0.001..10_000.0).contains(&v) => {
            let digits = (2 - v.log10().floor() as i32).clamp(0, 5) as usize;
            format!("{value:.digits$}")
        }
        _ => format!("{value:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_text() {
        let mut canvas = Canvas::new(10.0, "a \"b\"");
        canvas.bar("x", [0.0; 4], "</title><script>");
        let svg = canvas.finish();
        assert!(
            !svg.contains("<script") && svg.contains("&lt;script&gt;") && svg.contains("a &quot;b&quot;")
        );
    }

    #[test]
    fn names_and_numbers_are_cut_for_people() {
        assert_eq!(short("blocks.0.attn.qkv.weight", 12), "bloc….weight");
        assert_eq!(short("模型", 12), "模型");
        let numbers = [0.0, 1.0, 0.01234, 123.4, 0.0001, 3e7].map(number);
        assert_eq!(numbers, ["0", "1.00", "0.0123", "123", "1.00e-4", "3.00e7"]);
    }

    #[test]
    fn scales_clamp_and_count_decades() {
        let scale = Scale::new([-4.2, -0.9], [100.0, 0.0]);
        assert_eq!((scale.at(-9.0), scale.at(0.0)), (100.0, 0.0));
        assert_eq!(scale.decades().collect::<Vec<_>>(), [-4, -3, -2, -1]);
        assert!(Scale::new([2.0, 2.0], [0.0, 1.0]).at(2.0).is_finite());
    }
}
