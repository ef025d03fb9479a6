//! Tests of the strategies through the trait, on weights of known distributions.

mod accuracy;
mod codebook;
mod entropy;
mod extremes;
mod gain;
mod ggml;
mod gptq;
mod int8;
mod rotation;
mod rows;
mod sign;
mod smoothing;
mod support;
mod trellis;
mod trellis_feedback;
