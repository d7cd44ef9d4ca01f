//! Requests: the first bytes say how the rest is cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (cuts, stream) = bytes.split_at(bytes.len().min(4));
    distributed_cache::sim::fuzz::requests(stream, cuts);
});
