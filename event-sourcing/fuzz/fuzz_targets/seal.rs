//! Seals that are something else.
#![no_main]

use event_sourcing::sim::fuzz::{Change, files};

libfuzzer_sys::fuzz_target!(|bytes: Vec<u8>| files(true, &[Change::Is(bytes)]));
