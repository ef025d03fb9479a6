//! Writing to disk while the file still grows.

use std::fs::File;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Bytes written between two syncs.
const STEP: u64 = 32 << 20;

/// Syncs a file in the background every 32 MiB, so that the sync at its end has little left to do.
///
/// Where a second handle or a thread cannot be had it does nothing: the sync at the end is what makes the file durable.
pub(super) struct EarlySync {
    worker: Option<(SyncSender<()>, JoinHandle<io::Result<()>>)>,
    unsynced: u64,
}

impl EarlySync {
    /// Begins for a file that is being written through another handle.
    pub(super) fn new(file: &File) -> Self {
        Self { worker: file.try_clone().ok().and_then(start), unsynced: 0 }
    }

    /// Notes that `bytes` more were written.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.unsynced += bytes;
        if self.unsynced >= STEP
            && let Some((sender, _)) = &self.worker
            && sender.try_send(()).is_ok()
        {
            self.unsynced = 0;
        }
    }

    /// Notes that nothing more will be written. A sync that waits for its turn covers all of it, else one is begun.
    pub(super) fn wrote_all(&mut self) {
        if self.unsynced > 0 {
            self.wrote(STEP);
        }
    }

    /// Waits for the last sync.
    ///
    /// # Errors
    /// What a sync said. The system tells of a lost write once, so this must not be dropped on the floor.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.stop()
    }

    fn stop(&mut self) -> io::Result<()> {
        let Some((sender, thread)) = self.worker.take() else { return Ok(()) };
        drop(sender);
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that syncs the file ended early")))
    }
}

impl Drop for EarlySync {
    fn drop(&mut self) {
        // Only on the way out of a failed run, whose file is removed.
        let _ = self.stop();
    }
}

fn start(file: File) -> Option<(SyncSender<()>, JoinHandle<io::Result<()>>)> {
    let (sender, receiver) = sync_channel(1);
    let sync = move || receiver.iter().try_for_each(|()| file.sync_data());
    let thread = std::thread::Builder::new().name("aq-sync".into()).spawn(sync).ok()?;
    Some((sender, thread))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_is_synced_on_the_way_and_errors_arrive() {
        let mut file = tempfile::tempfile().expect("a temporary file");
        let mut early = EarlySync::new(&file);
        for _ in 0..3 {
            file.write_all(&[1; 1 << 16]).expect("written");
            early.wrote(STEP);
        }
        early.finish().expect("synced");
    }
}
