//! Segments with something wrong.
#![no_main]

use event_sourcing::sim::fuzz::{Change, segments};

libfuzzer_sys::fuzz_target!(|changes: Vec<(u32, u8)>| {
    let flip = |(at, bits)| Change::Flip(usize::try_from(at).unwrap_or(usize::MAX), bits);
    let changes: Vec<Change> = changes.into_iter().map(flip).collect();
    if !changes.is_empty() {
        segments(&changes);
    }
});
