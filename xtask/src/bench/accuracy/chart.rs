//! The frontier of a source as a drawing: error against true bits per weight, on a logarithmic axis.

use std::fmt::Write;

use super::point::{Point, Quantity, Section};

const LEFT: f64 = 70.0;
const TOP: f64 = 10.0;
const WIDTH: f64 = 620.0;
const HEIGHT: f64 = 440.0;
const LEGEND: f64 = LEFT + WIDTH + 20.0;
const COLOURS: [&str; 10] = [
    "#0b6e4f", "#c2410c", "#1d4ed8", "#9d174d", "#7c3aed", "#a16207", "#0e7490", "#4d7c0f", "#be123c",
    "#334155",
];
const PEER: &str = "#888";

impl Section {
    /// The chart as SVG. Own methods are lines in colour, peers grey marks, named where no other peer is better at no more
    /// bits; every mark tells its figures when it is pointed at.
    pub(crate) fn chart(&self) -> String {
        let Some(axes) = Axes::around(self) else { return String::new() };
        let names = self.names();
        let legend = 16.0 * (names.len() + self.curves.len() + 2) as f64;
        let height = (TOP + HEIGHT + 40.0).max(legend);
        let mut out = format!("<svg width=\"1020\" height=\"{height:.0}\" role=\"img\">\n");
        axes.grid(&mut out, self.judged_by);
        for (i, curve) in self.curves.iter().enumerate() {
            let dash = if i == 0 { "none" } else { "6 3" };
            out += &axes.line(&curve.points, &format!("stroke=\"#000\" stroke-dasharray=\"{dash}\""));
            let y = 16.0 * (i as f64 + 1.0);
            _ = writeln!(
                out,
                "<line x1=\"{LEGEND}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#000\" stroke-dasharray=\"{dash}\"/>",
                LEGEND + 18.0
            );
            out += &label(LEGEND + 24.0, y + 4.0, &curve.title, "");
        }
        for (i, name) in names.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            out += &axes.method(self, name, colour);
            let y = 16.0 * ((i + self.curves.len()) as f64 + 1.0);
            _ = writeln!(out, "<circle cx=\"{}\" cy=\"{y}\" r=\"4\" fill=\"{colour}\"/>", LEGEND + 9.0);
            out += &label(LEGEND + 24.0, y + 4.0, name, "");
        }
        for peer in self.points.iter().filter(|point| point.is_peer) {
            out += &axes.peer(peer, self.judged_by, self.is_best_peer(peer));
        }
        out + "</svg>\n"
    }

    fn is_best_peer(&self, point: &Point) -> bool {
        let error = |point: &Point| point.charted(self.judged_by).unwrap_or(f64::INFINITY);
        let is_better = |other: &Point| {
            other.is_peer && other.bits_per_weight <= point.bits_per_weight && error(other) < error(point)
        };
        !self.points.iter().any(is_better)
    }

    /// Own methods, each once.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for point in self.points.iter().filter(|point| !point.is_peer) {
            if !names.contains(&&*point.name) {
                names.push(&point.name);
            }
        }
        names
    }
}

/// Where bits and errors lie on the page.
struct Axes {
    bits: (f64, f64),
    /// Powers of ten.
    error: (f64, f64),
}

impl Axes {
    /// All points are on the page; `None` without any.
    fn around(section: &Section) -> Option<Self> {
        let shown = |p: &Point| {
            p.charted(section.judged_by).filter(|e| *e > 0.0).map(|e| (p.bits_per_weight, e.log10()))
        };
        let points: Vec<(f64, f64)> = section.points.iter().filter_map(shown).collect();
        let (first, rest) = points.split_first()?;
        let (mut bits, mut error) = ((first.0, first.0), (first.1, first.1));
        for point in rest {
            bits = (bits.0.min(point.0), bits.1.max(point.0));
            error = (error.0.min(point.1), error.1.max(point.1));
        }
        let bits = (bits.0.floor().max(0.0), bits.1.ceil().max(bits.0.floor() + 1.0));
        Some(Axes { bits, error: (error.0.floor(), error.1.ceil().max(error.0.floor() + 1.0)) })
    }

    fn x(&self, bits: f64) -> f64 {
        LEFT + WIDTH * (bits - self.bits.0) / (self.bits.1 - self.bits.0)
    }

    fn y(&self, error: f64) -> f64 {
        TOP + HEIGHT * (self.error.1 - error.log10()) / (self.error.1 - self.error.0)
    }

    fn holds(&self, (bits, error): (f64, f64)) -> bool {
        let power = error.log10();
        bits >= self.bits.0 && bits <= self.bits.1 && power >= self.error.0 && power <= self.error.1
    }

    fn grid(&self, out: &mut String, quantity: Quantity) {
        let (right, bottom) = (LEFT + WIDTH, TOP + HEIGHT);
        for power in self.error.0 as i32..=self.error.1 as i32 {
            let y = self.y(10_f64.powi(power));
            _ = writeln!(
                out,
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ccc\"/>"
            );
            *out += &label(LEFT - 6.0, y + 4.0, &format!("1e{power}"), " text-anchor=\"end\"");
        }
        for bits in self.bits.0 as i32..=self.bits.1 as i32 {
            let x = self.x(f64::from(bits));
            _ = writeln!(
                out,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#ccc\"/>"
            );
            *out += &label(x, bottom + 16.0, &bits.to_string(), " text-anchor=\"middle\"");
        }
        let what = match quantity {
            Quantity::Weights => "relative squared error of the weights",
            Quantity::Outputs => "relative squared error of the outputs on held-out inputs",
        };
        let text = format!("{what} against true bits per weight");
        *out += &label(LEFT + WIDTH / 2.0, bottom + 34.0, &text, " text-anchor=\"middle\"");
    }

    /// A line through the points that lie on the page.
    fn line(&self, points: &[(f64, f64)], style: &str) -> String {
        let mut path = String::new();
        for &(bits, error) in points.iter().filter(|point| self.holds(**point)) {
            _ = write!(path, "{:.1},{:.1} ", self.x(bits), self.y(error));
        }
        format!("<polyline points=\"{}\" fill=\"none\" {style}/>\n", path.trim_end())
    }

    fn method(&self, section: &Section, name: &str, colour: &str) -> String {
        let own = section.points.iter().filter(|point| !point.is_peer && point.name == name);
        let mut marks: Vec<(f64, f64, &Point)> = own
            .filter_map(|point| Some((point.bits_per_weight, point.charted(section.judged_by)?, point)))
            .collect();
        marks.sort_by(|a, b| a.0.total_cmp(&b.0));
        let points: Vec<(f64, f64)> = marks.iter().map(|mark| (mark.0, mark.1)).collect();
        let circles = marks.iter().map(|(bits, error, point)| {
            let (x, y) = (self.x(*bits), self.y(*error));
            format!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\">{}</circle>\n",
                told(point, *error)
            )
        });
        self.line(&points, &format!("stroke=\"{colour}\"")) + &circles.collect::<String>()
    }

    fn peer(&self, point: &Point, quantity: Quantity, is_named: bool) -> String {
        let Some(error) = point.charted(quantity) else { return String::new() };
        let (x, y, told) = (self.x(point.bits_per_weight), self.y(error), told(point, error));
        let (left, top) = (x - 3.0, y - 3.0);
        let mark = format!(
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"6\" height=\"6\" fill=\"{PEER}\">{told}</rect>\n"
        );
        if !is_named {
            return mark;
        }
        let name = format!("{} {}", point.name.trim_start_matches("ggml "), point.asked);
        mark + &label(
            x - 5.0,
            y + 10.0,
            name.trim(),
            " text-anchor=\"end\" style=\"font-size:9px\" fill=\"#555\"",
        )
    }
}

fn told(point: &Point, error: f64) -> String {
    let text =
        format!("{} {}: {:.3} bits per weight, {error:.3e}", point.name, point.asked, point.bits_per_weight);
    format!("<title>{}</title>", escaped(&text))
}

fn label(x: f64, y: f64, text: &str, style: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\"{style}>{}</text>\n", escaped(text))
}

/// Text for HTML.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::accuracy::point::example;

    #[test]
    fn every_point_is_drawn_within_the_page() {
        let section = example();
        let svg = section.chart();
        // One for each of the two points of ls and one in the legend; a square for the peer.
        assert_eq!((svg.matches("<circle").count(), svg.matches("<rect").count()), (3, 1), "{svg}");
        assert!(svg.contains("ls 2: 2.250 bits per weight, 1.100e-1") && svg.contains("&lt;Q4_0&gt;"));
        let axes = Axes::around(&section).unwrap();
        assert_eq!((axes.bits, axes.error), ((2.0, 5.0), (-3.0, 0.0)));
        assert_eq!((axes.x(2.0), axes.y(1.0), axes.y(1e-3)), (LEFT, TOP, TOP + HEIGHT));
        let mut worse = section.points[2].clone();
        worse.error.relative_mse *= 2.0;
        assert!(section.is_best_peer(&section.points[2]) && !section.is_best_peer(&worse));
        assert!(!axes.holds((6.0, 0.1)) && axes.holds((3.0, 0.1)));
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let mut section = example();
        section.points.clear();
        assert_eq!(section.chart(), "");
    }
}
