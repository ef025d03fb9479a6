//! Every kernel at every SIMD level of this machine against its plain twin.

mod codebook;
mod conversions;
mod exact;
mod feedback;
mod fused;
mod golden;
mod hessian;
mod products;
mod properties;
mod rans;
mod tester;
mod trellis;
