//! Regular expressions of filters, and names.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: (&str, &str)| event_sourcing::sim::fuzz::filter(text.0, text.1));
