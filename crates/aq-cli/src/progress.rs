//! The progress bar: bytes done, rate, remaining time and the tensor at work. Only on a terminal.

use std::io::IsTerminal;

use aq_engine::Progress;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// Shows progress on stderr.
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
    shown: bool,
    quiet: bool,
}

impl Bar {
    /// A bar that shows only on a terminal and unless `quiet`. Without a terminal long work says a line when it begins.
    pub(crate) fn new(quiet: bool) -> Self {
        Self { bar: None, shown: !quiet && std::io::stderr().is_terminal(), quiet }
    }
}

impl Progress for Bar {
    fn start(&mut self, total_bytes: u64, tensors: usize) {
        if self.shown {
            let style = ProgressStyle::with_template(
                "{bar:28} {percent:>3}%  {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {wide_msg}",
            );
            let bar = ProgressBar::new(total_bytes);
            self.bar = Some(style.map_or(bar.clone(), |s| bar.with_style(s)));
        } else if !self.quiet {
            eprint_line(&format!("quantizing {tensors} tensors, {}", aq_engine::format_size(total_bytes)));
        }
    }

    fn advance(&mut self, source_bytes: u64, tensor: &str) {
        if let Some(bar) = &self.bar {
            bar.inc(source_bytes);
            bar.set_message(output::printable(tensor));
        }
    }

    fn measuring(&mut self, pass: usize, passes: usize) {
        if !self.quiet {
            eprint_line(&format!("measuring the layers, pass {pass} of {passes}"));
        }
    }

    fn searched(&mut self, scored: usize, most: usize, best: f64, start: f64) {
        if !self.quiet {
            eprint_line(&format!(
                "{scored} of {most} plans scored: best {best:.6e}, at the start {start:.6e}"
            ));
        }
    }

    fn warn(&mut self, message: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::warn(message)),
            None => output::warn(message),
        }
    }

    fn verifying(&mut self) {
        if let Some(bar) = &self.bar {
            bar.set_message("reading the result back");
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.finish();
    }
}

fn eprint_line(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}
