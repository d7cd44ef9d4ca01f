//! The cache as a library: typed values, tags, a memory limit, statistics, and how long a hit takes.
//!
//! `cargo run --release -p distributed-cache --example embedded`
#![expect(clippy::print_stdout, reason = "an example that prints what happens")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use distributed_cache::cache::{Cache, Load};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
}

const KEYS: u32 = 100_000;
const HITS: u32 = 2_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let cache = Cache::builder().memory_limit(256 << 20).build();

    let users = cache.typed::<User>("user");
    let how = Load::for_ttl(Duration::from_secs(60)).tag("team:blue");
    let load =
        || Ok::<_, distributed_cache::cache::Error>(Some(User { id: 7, name: "Ada".into() }));
    let ada = users.get_or_load("7", &how, load)?;
    println!("loaded {ada:?}");
    assert_eq!(users.get("7")?, ada);
    assert_eq!(cache.invalidate_tag("team:blue"), 1);
    assert_eq!(users.get("7")?, None);

    for key in 0..KEYS {
        cache.set(format!("item:{key}").as_bytes(), &[7; 64])?;
    }
    let keys: Vec<String> = (0..KEYS).map(|key| format!("item:{key}")).collect();
    let start = Instant::now();
    let mut at = 0;
    for _ in 0..HITS {
        // A step that visits all keys, without order.
        at = (at + 48_271) % keys.len();
        let length = cache.get_with(keys[at].as_bytes(), <[u8]>::len);
        assert_eq!(black_box(length), Some(64));
    }
    println!("a hit takes {} ns ({KEYS} keys)", (start.elapsed() / HITS).as_nanos());

    let statistics = cache.statistics();
    let counters = statistics.store.counters;
    println!("{} hits, {} misses, {} keys", counters.hits, counters.misses(), statistics.keys);
    for ratio in &statistics.store.prefixes {
        let prefix = String::from_utf8_lossy(&ratio.prefix).into_owned();
        println!("prefix {prefix:?}: {:.1} % hits", 100.0 * ratio.ratio());
    }
    assert_eq!(counters.hits, u64::from(HITS) + 1);
    assert_eq!(cache.invalidate_prefix(b"item:"), usize::try_from(KEYS)?);
    assert!(cache.is_empty());
    Ok(())
}
