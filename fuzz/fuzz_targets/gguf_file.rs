#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| aq_io::fuzzing::gguf_file(bytes));
