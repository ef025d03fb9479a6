//! Every kernel at every SIMD level of this machine against its plain twin.

mod conversions;
mod exact;
mod fused;
mod golden;
mod products;
mod properties;
mod tester;
