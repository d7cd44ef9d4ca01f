//! Records of the log.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| event_sourcing::sim::fuzz::record(bytes));
