//! Tests of the crate from outside, one module a subject.

mod damage;
mod gguf;
mod index;
mod output;
mod packed;
mod pipeline;
mod safetensors_read;
mod safetensors_write;
mod support;
