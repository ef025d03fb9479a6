//! The chart of errors by depth.

use super::page::Row;
use super::svg::{Canvas, Scale, WIDTH, number, short};

const HEIGHT: f64 = 250.0;
const LEFT: f64 = 58.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 206.0;

/// Weight and output error of every quantized layer in the order of the file, on a logarithmic axis; `None` when no layer has one.
pub(super) fn chart(rows: &[Row]) -> Option<String> {
    let layers: Vec<&Row> = rows.iter().filter(|row| row.kept.is_none()).collect();
    let weight = series(&layers, |row| row.relative_mse);
    let output = series(&layers, |row| row.output_error);
    let logs: Vec<f64> = weight.iter().chain(&output).map(|&(_, e)| e.log10()).collect();
    let low = logs.iter().copied().reduce(f64::min)?;
    let high = logs.iter().copied().reduce(f64::max)?;
    let y = Scale::new([(low - 0.15).min(high - 1.0), high + 0.15], [BOTTOM, TOP]);
    let x = Scale::new([0.0, (layers.len() - 1).max(1) as f64], [LEFT + 10.0, WIDTH - 14.0]);
    let mut canvas = Canvas::new(HEIGHT, "Error of each quantized layer, by depth");
    for decade in y.decades() {
        let at = y.at(f64::from(decade));
        canvas.path("grid", [(LEFT, at), (WIDTH - 6.0, at)].into_iter());
        canvas.text("axis", "end", LEFT - 6.0, at + 4.0, &format!("1e{decade}"));
    }
    canvas.path("frame", [(LEFT, TOP), (LEFT, BOTTOM), (WIDTH - 6.0, BOTTOM)].into_iter());
    for (class, points) in [("weight", &weight), ("output", &output)] {
        let place = |&(i, e): &(usize, f64)| (x.at(i as f64), y.at(e.log10()));
        canvas.path(&format!("line {class}-line"), points.iter().map(place));
        for point in points {
            let (px, py) = place(point);
            let title = format!("{}: {class} error {}", layers[point.0].name, number(point.1));
            match class {
                "weight" => canvas.dot("weight", px, py, &title),
                _ => canvas.bar("output", [px - 2.6, py - 2.6, 5.2, 5.2], &title),
            }
        }
    }
    let ends = [(0, "start", LEFT + 4.0), (layers.len() - 1, "end", WIDTH - 6.0)];
    for (i, anchor, at) in ends.into_iter().take(layers.len()) {
        canvas.text("axis", anchor, at, BOTTOM + 16.0, &short(&layers[i].name, 28));
    }
    canvas.text("axis", "middle", (LEFT + WIDTH) / 2.0, BOTTOM + 34.0, "layer, in the order of the file");
    canvas.upwards(12.0, (TOP + BOTTOM) / 2.0, "squared error / square");
    let entries = [("weight", "weights"), ("output", "layer outputs")];
    canvas.legend(LEFT, 16.0, if output.is_empty() { &entries[..1] } else { &entries[..] });
    Some(canvas.finish())
}

/// Index and value of the layers that have a positive error.
fn series(layers: &[&Row], of: impl Fn(&Row) -> Option<f64>) -> Vec<(usize, f64)> {
    let point = |(i, row): (usize, &&Row)| Some((i, of(row).filter(|e| *e > 0.0 && e.is_finite())?));
    layers.iter().enumerate().filter_map(point).collect()
}
