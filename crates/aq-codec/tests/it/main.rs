//! Tests of the codecs through their public functions.

mod affine;
mod codebook;
mod damage;
mod element;
mod entropy;
mod entropy_case;
mod entropy_damage;
mod ggml;
mod side;
mod sign;
mod trellis;
