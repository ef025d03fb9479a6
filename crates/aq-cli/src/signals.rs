//! Ctrl-C and SIGTERM: the first one asks the job to stop and clean up, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

/// Whether the job should stop, and which signal said so.
pub(crate) struct Signals {
    /// Set when the job should stop.
    pub(crate) cancel: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
}

impl Signals {
    /// Installs the handlers; where that is not possible signals keep their default effect.
    pub(crate) fn install() -> Self {
        let (cancel, terminated) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        for (signal, code) in [(SIGINT, 130), (SIGTERM, 143)] {
            let second = signal_hook::flag::register_conditional_shutdown(signal, code, cancel.clone());
            let first = signal_hook::flag::register(signal, cancel.clone());
            if second.is_err() || first.is_err() {
                crate::output::warn("signals are not handled on this system");
            }
        }
        if signal_hook::flag::register(SIGTERM, terminated.clone()).is_err() {
            crate::output::warn("signals are not handled on this system");
        }
        Self { cancel, terminated }
    }

    /// 143 instead of 130 when it was SIGTERM that interrupted.
    pub(crate) fn exit_code(&self, code: u8) -> u8 {
        if code == 130 && self.terminated.load(Ordering::Relaxed) { 143 } else { code }
    }
}
