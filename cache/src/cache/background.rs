//! The thread that sees to expiry, if the cache was asked for one.
#![expect(clippy::disallowed_methods, reason = "the one thread of the embedded cache")]

use std::sync::Weak;
use std::thread;
use std::time::Duration;

use super::Inner;

const PAUSE: Duration = Duration::from_millis(10);

/// The most keys that are removed from one shard before others may have its lock.
const BUDGET: usize = 1024;

/// Starts it. It ends by itself after the last handle of the cache was dropped. Should the system have no thread to give, the
/// cache works without: nothing is served late, but memory comes back only as keys are met.
pub(super) fn start(cache: Weak<Inner>) {
    let work = move || {
        while let Some(cache) = cache.upgrade() {
            let more = cache.advance(BUDGET);
            drop(cache);
            if !more {
                thread::sleep(PAUSE);
            }
        }
    };
    let _without = thread::Builder::new().name("cache-expiry".to_owned()).spawn(work);
}
