//! Why a search did not begin or go on.

/// Why a search did not begin or go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SearchError {
    /// A layer without candidates.
    #[error("layer {layer} has no candidates")]
    NoCandidates {
        /// Index of the layer.
        layer: usize,
    },
    /// A predicted error that is negative, infinite or NaN.
    #[error("candidate {candidate} of layer {layer} has an error of {error}")]
    Error {
        /// Index of the layer.
        layer: usize,
        /// Index of the candidate.
        candidate: usize,
        /// What was given.
        error: f64,
    },
    /// No plan is small enough.
    #[error("the smallest plan takes {least} bytes, more than the {budget} there are")]
    Budget {
        /// Bytes of the smallest plan.
        least: u64,
        /// Bytes that were allowed.
        budget: u64,
    },
    /// No plan is good enough.
    #[error("the best plan has an error of {least}, more than the {limit} that is allowed")]
    Limit {
        /// Error of the best plan.
        least: f64,
        /// Error that was allowed.
        limit: f64,
    },
    /// A checkpoint of another search.
    #[error("the checkpoint is not one of this search: {0}")]
    Checkpoint(String),
    /// A scorer that gave too few or too many scores.
    #[error("{got} scores were given for {asked} plans")]
    Scores {
        /// Plans that were to be scored.
        asked: usize,
        /// Scores that came back.
        got: usize,
    },
}
