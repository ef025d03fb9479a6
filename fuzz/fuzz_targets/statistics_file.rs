#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| aq_io::fuzzing::statistics_file(bytes));
