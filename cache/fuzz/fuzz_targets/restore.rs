//! Payloads of `RESTORE`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| distributed_cache::sim::fuzz::restore(bytes));
