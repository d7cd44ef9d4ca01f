//! A hundred callers miss one key at once, and one of them loads it. Then it goes stale, and nobody waits.
//!
//! `cargo run -p distributed-cache --example stampede`
#![expect(clippy::print_stdout, reason = "an example that prints what happens")]
#![expect(clippy::disallowed_methods, reason = "its database takes its time")]

use std::error::Error;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use distributed_cache::cache::{Cache, Load, Loaded};

const CALLERS: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let cache = Cache::builder().build();
    let how = Load::for_ttl(Duration::from_millis(200)).stale(Duration::from_secs(60));
    let loads = AtomicU32::new(0);
    let slow_query = || -> Loaded {
        let number = loads.fetch_add(1, Ordering::SeqCst) + 1;
        // A database that takes its time.
        thread::sleep(Duration::from_millis(50));
        Ok(Some(format!("answer {number}").into_bytes()))
    };

    let all_at_once = |expected: &[&str]| {
        let start = Barrier::new(CALLERS);
        thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    start.wait();
                    let Ok(value) = cache.get_or_load(b"report", &how, slow_query);
                    let value = String::from_utf8(value.unwrap_or_default()).unwrap_or_default();
                    assert!(expected.contains(&value.as_str()), "{value}");
                });
            }
        });
    };

    all_at_once(&["answer 1"]);
    println!("{CALLERS} callers missed, {} loaded", loads.load(Ordering::SeqCst));
    assert_eq!(loads.load(Ordering::SeqCst), 1);

    thread::sleep(Duration::from_millis(250));
    all_at_once(&["answer 1", "answer 2"]);
    println!(
        "stale: {} loads in all, the others had the stale answer at once",
        loads.load(Ordering::SeqCst)
    );
    assert_eq!(loads.load(Ordering::SeqCst), 2);
    assert_eq!(cache.get(b"report").as_deref(), Some(&b"answer 2"[..]));
    Ok(())
}
