//! Queries as they come in from outside.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| event_sourcing::sim::fuzz::query(text));
