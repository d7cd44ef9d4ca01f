//! Index files that are something else.
#![no_main]

use event_sourcing::sim::fuzz::{Change, files};

libfuzzer_sys::fuzz_target!(|bytes: Vec<u8>| files(false, &[Change::Is(bytes)]));
