//! The engine from outside: what a job writes, and what it leaves behind when it fails.

mod activations;
mod calibration;
mod failure;
mod gate;
mod invariance;
mod model;
mod pipeline;
mod resume;
mod rotation;
mod statistics;
mod target;
mod time_weights;
