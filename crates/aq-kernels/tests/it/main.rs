//! Every kernel at every SIMD level of this machine against its plain twin.

mod conversions;
mod exact;
mod golden;
mod properties;
mod tester;
