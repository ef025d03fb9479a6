//! Tests of the strategies through the trait, on weights of known distributions.

mod accuracy;
mod entropy;
mod codebook;
mod extremes;
mod gain;
mod gptq;
mod rows;
mod support;
mod trellis;
