//! What the choice of ranges buys on layers with known inputs.

mod drift;
mod shift;
