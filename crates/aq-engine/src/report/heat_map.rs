//! The heat map of output errors by layer and time.

use super::details::ErrorsByTime;
use super::svg::{Canvas, WIDTH, number, short};

/// The most rows and columns of cells; neighbours share one where there are more.
const MOST: [usize; 2] = [60, 40];
/// Shades, from the smallest error to the largest.
const SHADES: usize = 8;
const LEFT: f64 = 150.0;
const TOP: f64 = 6.0;

/// Layers from top to bottom, times from left to right; the shade is the error on a logarithmic scale.
pub(super) fn chart(errors: &ErrorsByTime) -> Option<String> {
    let rows = joined(errors.layers.len(), MOST[0]);
    let cols = joined(errors.times.len(), MOST[1]);
    let cell = |row: &[usize], col: &[usize]| {
        let all = row.iter().flat_map(|&i| col.iter().map(move |&j| errors.layers[i].1[j]));
        let finite: Vec<f64> = all.filter(|e| e.is_finite()).collect();
        finite.iter().sum::<f64>() / finite.len().max(1) as f64
    };
    let cells: Vec<Vec<f64>> = rows.iter().map(|r| cols.iter().map(|c| cell(r, c)).collect()).collect();
    let positive = || cells.iter().flatten().copied().filter(|&e| e > 0.0);
    let (low, high) = (positive().reduce(f64::min)?, positive().reduce(f64::max)?);
    let height = if rows.len() > 36 { 9.0 } else { 14.0 };
    let width = (WIDTH - LEFT - 6.0) / cols.len() as f64;
    let bottom = TOP + height * rows.len() as f64;
    let mut canvas = Canvas::new(bottom + 66.0, "Output error of each layer at each time");
    for (i, (row, values)) in rows.iter().zip(&cells).enumerate() {
        let y = TOP + i as f64 * height;
        let name = errors.layers[row[0]].0.as_str();
        if height > 10.0 || i % 2 == 0 {
            canvas.text("axis small", "end", LEFT - 5.0, y + height - 2.5, &short(name, 24));
        }
        for (j, (col, &error)) in cols.iter().zip(values).enumerate() {
            let time = errors.times[col[0]];
            let title = format!("{name}, {} {}: {}", errors.time, number(time), number(error));
            let at = [LEFT + j as f64 * width, y, width - 0.6, height - 0.8];
            canvas.bar(&format!("cell q{}", shade(error, low, high)), at, &title);
        }
    }
    let (first, last) = (errors.times[0], errors.times[errors.times.len() - 1]);
    canvas.text("axis", "start", LEFT, bottom + 14.0, &number(first));
    canvas.text("axis", "end", WIDTH - 6.0, bottom + 14.0, &number(last));
    let axis = match errors.time.as_str() {
        "mask_ratio" => "mask ratio",
        "sigma" => "sigma",
        _ => "timestep t",
    };
    canvas.text("axis", "middle", (LEFT + WIDTH) / 2.0, bottom + 14.0, axis);
    legend(&mut canvas, bottom + 40.0, low, high);
    Some(canvas.finish())
}

fn legend(canvas: &mut Canvas, y: f64, low: f64, high: f64) {
    canvas.text("axis", "end", LEFT - 5.0, y + 10.0, &format!("error {}", number(low)));
    for shade in 0..SHADES {
        canvas.bar(&format!("cell q{shade}"), [LEFT + shade as f64 * 22.0, y, 22.0, 12.0], "");
    }
    canvas.text("axis", "start", LEFT + SHADES as f64 * 22.0 + 5.0, y + 10.0, &number(high));
}

/// The shade of an error between `low` and `high`.
fn shade(error: f64, low: f64, high: f64) -> usize {
    if error <= low || high <= low {
        return 0;
    }
    let share = (error / low).ln() / (high / low).ln();
    ((share * SHADES as f64) as usize).min(SHADES - 1)
}

/// `count` neighbours in at most `most` groups.
fn joined(count: usize, most: usize) -> Vec<Vec<usize>> {
    let groups = count.min(most);
    (0..groups).map(|i| (i * count / groups..(i + 1) * count / groups).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_and_time_has_a_cell() {
        for (layers, times, cells) in [(3, 5, 15), (1, 2, 2), (200, 100, 60 * 40)] {
            let errors = ErrorsByTime {
                time: "t".into(),
                times: (0..times).map(f64::from).collect(),
                layers: (0..layers)
                    .map(|i| (format!("l{i}"), vec![0.1 + f64::from(i); times as usize]))
                    .collect(),
            };
            let svg = chart(&errors).expect("some errors");
            assert_eq!(svg.matches("class=\"cell").count(), cells + SHADES);
        }
        assert_eq!([0.5, 1.0, 10.0, 99.0, 100.0].map(|e| shade(e, 1.0, 100.0)), [0, 0, 4, 7, 7]);
    }
}
