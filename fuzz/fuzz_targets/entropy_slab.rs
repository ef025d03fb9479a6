#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| aq_codec::fuzzing::entropy_slab(bytes));
