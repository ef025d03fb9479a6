//! Quantization of the inputs of layers: ranges that follow the timestep, and what they buy.
//!
//! The inputs of a layer of a diffusion model change their range while the sampler runs. [`choose`] looks at calibration rows of
//! one layer, step by step, and finds
//!
//! - one static range, by the error that clipping and rounding make together ([`Quantizer`] has the formula);
//! - groups of neighbouring steps with a range each, the cut that errs least by exact dynamic programming ([`optimal_groups`]),
//!   and for comparison groups of equal length ([`uniform_groups`]);
//! - a clip factor for ranges that are taken from each token while the model runs.
//!
//! All four are then measured on the rows. An [`ActivationPlan`] is what a runtime needs of a layer; [`Activations`] holds those of a model
//! and is stored with it as JSON.
//!
//! ```
//! use aq_timeaware::{ActivationOptions, Mode, Step, TimedRows, choose};
//! // Two channels at four times; the values double from time to time.
//! let step = |i: u8| Step {
//!     first: f64::from(i),
//!     last: f64::from(i),
//!     rows: [-1.0, 0.3, 0.5, 0.9].map(|x| x * f32::from(1_u8 << i)).to_vec(),
//! };
//! let rows = TimedRows { cols: 2, steps: (0..4).map(step).collect() };
//! let options = ActivationOptions { bits: 8, mode: Mode::Groups, group_size: 0, groups: 4, uniform: false, shift: true };
//! let choice = choose(&rows, &[1.0, 1.0], &options);
//! assert_eq!(choice.plan.boundaries, [0.5, 1.5, 2.5]);
//! assert!(choice.errors.expect("measured").groups < 0.5 * choice.errors.expect("measured").fixed);
//! ```
#![forbid(unsafe_code)]

mod activation;
mod centers;
mod choose;
mod fit;
mod grouping;
mod histogram;
mod quantizer;
mod range;
mod rows;
mod shift;
mod shifting;

pub use activation::{ActivationError, ActivationPlan, Activations, Mode};
pub use choose::{ActivationOptions, Choice, Errors, choose};
pub use grouping::{Boundaries, optimal_groups, uniform_groups};
pub use quantizer::{Quantizer, Range};
pub use range::RangeTable;
pub use rows::{MAX_STEPS, Step, TimedRows, steps_of};
pub use shift::Shift;
