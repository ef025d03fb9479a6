//! Which of its candidates each layer of a model gets, when all of them together may take so many bytes.
//!
//! The crate knows nothing of tensors, files or methods. A layer is a list of [`Candidate`]s, each some bytes and an error that is
//! predicted for it; a plan is the index of one candidate for each layer.
//!
//! - [`allocate`] finds the plan of the least sum of errors in a budget, [`fewest_bytes`] the smallest plan in a sum of errors. Both
//!   are exact for all but the largest problems, and say how far from exact they may be ([`Allocation::gap`]).
//! - [`evolve`] goes on from there where errors do not add up: it is handed a score, of any kind, and searches with as
//!   few evaluations of it as it can.
//!
//! ```
//! use aq_search::{Candidate, allocate};
//! let layer = |errors: [f64; 2]| vec![Candidate::new(100, errors[0]), Candidate::new(200, errors[1])];
//! let layers = [layer([0.5, 0.4]), layer([0.9, 0.1]), layer([0.3, 0.2])];
//! let best = allocate(&layers, 400)?;
//! assert_eq!((best.gap(), best.bytes, best.choice), (0.0, 400, vec![0, 1, 0]));
//! # Ok::<(), aq_search::SearchError>(())
//! ```
#![forbid(unsafe_code)]

mod allocate;
mod checkpoint;
mod error;
mod evolve;
mod exact;
mod operators;
mod problem;
mod relaxed;
mod repair;
mod surrogate;

pub use allocate::{Allocation, allocate, fewest_bytes};
pub use checkpoint::{Checkpoint, Evaluated};
pub use error::SearchError;
pub use evolve::{Outcome, Scorer, SearchOptions, StopReason, evolve};
pub use operators::Operator;
pub use problem::{Candidate, Genome, Problem};
