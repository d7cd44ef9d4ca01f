//! Values that live for a while: gone at the millisecond of their deadline, and reported when their memory comes back.
//!
//! `cargo run -p distributed-cache --example ttl`
#![expect(clippy::print_stdout, reason = "an example that prints what happens")]

use std::error::Error;
use std::sync::mpsc;
use std::time::Duration;

use distributed_cache::cache::{Cache, Removal};

fn main() -> Result<(), Box<dyn Error>> {
    let (removed, removals) = mpsc::channel();
    let cache = Cache::builder()
        .background()
        .on_removal(move |key, cause| {
            let _listener_may_be_gone = removed.send((key.to_vec(), cause));
        })
        .build();

    let ttl = Duration::from_millis(50);
    cache.set_for(b"session:1", b"alice", ttl)?;
    cache.set(b"settings", b"for ever")?;
    let left = cache.ttl(b"session:1").flatten().unwrap_or_default();
    println!("session:1 lives for {left:?} more");
    assert!(left <= ttl);

    // The background thread reports it; reading it would never have returned a value past its deadline.
    let (key, cause) = removals.recv_timeout(Duration::from_secs(10))?;
    println!("{} is gone: {cause:?}", String::from_utf8_lossy(&key));
    assert_eq!((key.as_slice(), cause), (&b"session:1"[..], Removal::Expired));
    assert_eq!(cache.get(b"session:1"), None);
    assert_eq!(cache.ttl(b"settings"), Some(None), "no deadline");

    let counters = cache.counters();
    println!(
        "expired {}, at most {} ms late; misses because of that: {}",
        counters.expired, counters.expiry_lag_max_ms, counters.misses_expired
    );
    assert_eq!((counters.expired, counters.misses_expired), (1, 1));
    Ok(())
}
