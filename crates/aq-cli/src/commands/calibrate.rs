//! `aq calibrate`

use aq_engine::{Calibrated, Result, calibrate, format_size};

use crate::args::CalibrateArgs;
use crate::output;
use crate::progress::Bar;
use crate::signals::Signals;

pub(crate) fn run(args: &CalibrateArgs, signals: &Signals) -> Result<()> {
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or_else(all, usize::from);
    let mut bar = Bar::new(args.quiet || args.json);
    let made = calibrate(&args.samples, &args.output, threads, args.force, &signals.cancel, &mut bar);
    drop(bar);
    let made = made?;
    if args.json {
        output::json(&made.json());
    } else if !args.quiet {
        summary(&made);
    }
    Ok(())
}

fn summary(made: &Calibrated) {
    let row = |l: &aq_engine::CalibratedLayer| {
        let (low, high) = l.range;
        let range = format!("{low:.3} to {high:.3}");
        vec![l.name.clone(), l.cols.to_string(), l.rows.to_string(), l.samples.to_string(), range]
    };
    let rows: Vec<Vec<String>> = made.layers.iter().map(row).collect();
    output::table(&["layer", "inputs", "rows", "rows kept", "range"], &rows);
    output::line(&format!(
        "{}: {} layers, {} timesteps ({}), {}",
        made.output.display(),
        made.layers.len(),
        made.buckets,
        output::printable(&made.time),
        format_size(made.bytes)
    ));
}
