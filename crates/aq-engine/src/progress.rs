//! What a running job tells the outside.

/// Receives the progress of a job, on the thread that writes the output. Every method does nothing by default.
pub trait Progress {
    /// Work begins: source bytes to read and tensors to write.
    fn start(&mut self, _total_bytes: u64, _tensors: usize) {}

    /// `source_bytes` more were read, encoded and written; `tensor` is the one being worked on.
    fn advance(&mut self, _source_bytes: u64, _tensor: &str) {}

    /// Something the user should know at once, in one sentence.
    fn warn(&mut self, _message: &str) {}

    /// Layers are measured, before anything is decided; pass `pass` of `passes`.
    fn measuring(&mut self, _pass: usize, _passes: usize) {}

    /// A search has scored `scored` plans of at most `most`; the best score, and that of the plan it began with.
    fn searched(&mut self, _scored: usize, _most: usize, _best: f64, _start: f64) {}

    /// The result is written and is being read back.
    fn verifying(&mut self) {}

    /// No more work.
    fn finish(&mut self) {}
}

/// Says nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {}
