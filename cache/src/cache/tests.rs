//! The embedded cache: time is moved by hand, threads meet at barriers.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Barrier, mpsc};
use std::task::{Context, Poll, Waker};

use std::convert::Infallible;

use super::*;
use crate::types::UnixMillis;

#[derive(Debug)]
struct HandClock(AtomicU64);

impl HandClock {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_700_000_000_000)))
    }

    fn pass(&self, milliseconds: u64) {
        self.0.fetch_add(milliseconds, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Now {
        let ms = self.0.load(Ordering::SeqCst);
        Now { unix: UnixMillis(ms), monotonic_us: ms * 1000 }
    }

    fn wall_us(&self) -> u64 {
        self.now().monotonic_us
    }
}

fn cache() -> (Cache, Arc<HandClock>) {
    let clock = HandClock::new();
    (Cache::builder().clock(clock.clone()).build(), clock)
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn found(text: &str) -> Loaded {
    Ok(Some(text.as_bytes().to_vec()))
}

/// A loader that must not run.
fn unwanted() -> Loaded {
    panic!("nothing is to be loaded")
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_value_is_gone_at_its_deadline() {
    let (cache, clock) = cache();
    cache.set_for(b"k", b"v", millis(100)).unwrap();
    assert_eq!(cache.ttl(b"k"), Some(Some(millis(100))));
    clock.pass(99);
    assert_eq!(cache.get(b"k").as_deref(), Some(&b"v"[..]));
    clock.pass(1);
    assert_eq!(cache.get(b"k"), None);
    assert_eq!(cache.counters().misses_expired, 1);
}

#[test]
fn expiry_and_eviction_are_told_outside_of_locks() {
    let clock = HandClock::new();
    let (heard, told) = mpsc::channel();
    let again: Arc<Mutex<Option<Cache>>> = Arc::default();
    let inside = Arc::clone(&again);
    let cache = Cache::builder()
        .clock(clock.clone())
        .on_removal(move |key, removal| {
            // Using the cache from within would never end if a lock were held.
            let cache = inside.lock().unwrap().clone();
            if let Some(cache) = cache {
                assert!(!cache.contains(key));
            }
            heard.send((key.to_vec(), removal)).unwrap();
        })
        .build();
    *again.lock().unwrap() = Some(cache.clone());
    for key in 0..100u32 {
        cache.set_for(&key.to_be_bytes(), b"v", millis(50)).unwrap();
    }
    clock.pass(200);
    while cache.advance(1000) {}
    let expired: Vec<_> = told.try_iter().collect();
    assert_eq!(expired.len(), 100);
    assert!(expired.iter().all(|(_, removal)| *removal == Removal::Expired));
    assert!(cache.is_empty());
    *again.lock().unwrap() = None;
}

#[test]
fn what_is_used_stays_at_the_memory_limit() {
    let clock = HandClock::new();
    let cache = Cache::builder().clock(clock).memory_limit(8 << 20).build();
    let value = vec![7; 1000];
    for round in 0..40_000u32 {
        cache.set(&round.to_be_bytes(), &value).unwrap();
        let _used = cache.get(&(round % 100).to_be_bytes());
    }
    let kept = (0..100u32).filter(|key| cache.contains(&key.to_be_bytes())).count();
    assert!(kept > 90, "{kept} of 100");
    assert!(cache.counters().evicted > 30_000);
    assert!(cache.statistics().memory.used <= 8 << 20);
}

#[test]
fn nothing_gives_way_without_a_policy() {
    let cache = Cache::builder().memory_limit(4 << 20).policy(Policy::NoEviction).build();
    let value = vec![7; 10_000];
    let full = (0..1_000u32).find_map(|key| cache.set(&key.to_be_bytes(), &value).err());
    assert!(matches!(full, Some(Error::Full)));
    assert!(matches!(cache.set(b"k", &vec![0; 4 << 20]), Err(Error::TooLarge { .. })));
    assert!(cache.get(&0u32.to_be_bytes()).is_some());
}

#[test]
fn of_many_threads_one_loads() {
    let (cache, _) = cache();
    let loads = AtomicUsize::new(0);
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                let value = cache.get_or_load(b"k", &Load::default(), || {
                    loads.fetch_add(1, Ordering::SeqCst);
                    // The others come while this one loads: each either waits already or will find the value.
                    std::thread::yield_now();
                    found("v")
                });
                assert_eq!(value.unwrap().as_deref(), Some(&b"v"[..]));
            });
        }
    });
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    assert_eq!(cache.statistics().loads, 1);
}

#[test]
fn a_loader_that_fails_lets_the_next_try() {
    let (cache, _) = cache();
    let (begun, wait_for_begin) = mpsc::channel();
    let (go_on, wait_for_go) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            cache.get_or_load(b"k", &Load::default(), move || {
                begun.send(()).unwrap();
                wait_for_go.recv().unwrap();
                Err::<Option<Vec<u8>>, &str>("broken")
            })
        });
        wait_for_begin.recv().unwrap();
        let second = scope.spawn(|| {
            cache.get_or_load(b"k", &Load::default(), || Ok::<_, &str>(Some(b"mine".to_vec())))
        });
        while cache.statistics().waits == 0 {
            std::thread::yield_now();
        }
        go_on.send(()).unwrap();
        assert_eq!(first.join().unwrap(), Err("broken"), "its own error");
        assert_eq!(second.join().unwrap().unwrap().as_deref(), Some(&b"mine"[..]));
    });
    assert_eq!((cache.statistics().loads, cache.statistics().loads_failed), (2, 1));
}

#[test]
fn a_loader_that_panics_lets_the_next_try() {
    let (cache, _) = cache();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cache.get_or_load(b"k", &Load::default(), || -> Loaded { panic!("a loader's own trouble") })
    }));
    assert!(panicked.is_err());
    let value = cache.get_or_load(b"k", &Load::default(), || found("v")).unwrap();
    assert_eq!(value.as_deref(), Some(&b"v"[..]));
    assert_eq!(cache.statistics().loads_failed, 1);
}

#[test]
fn a_future_that_is_dropped_lets_the_next_load() {
    let (cache, _) = cache();
    let how = Load::default();
    let mut first = Box::pin(cache.get_or_load_async(b"k", &how, std::future::pending::<Loaded>));
    assert!(poll_once(first.as_mut()).is_pending());
    let second = cache.get_or_load_async(b"k", &how, || async { found("second") });
    let mut second = pin!(second);
    assert!(poll_once(second.as_mut()).is_pending(), "the first is loading");
    drop(first);
    let Poll::Ready(value) = poll_once(second) else { panic!("nobody else is loading") };
    assert_eq!(value.unwrap().as_deref(), Some(&b"second"[..]));
}

#[test]
fn followers_are_woken_with_the_leaders_value() {
    let (cache, _) = cache();
    let how = Load::default();
    let (send, receive) = mpsc::channel::<Vec<u8>>();
    let load = || {
        std::future::poll_fn(|_| match receive.try_recv() {
            Ok(value) => Poll::Ready(Ok::<_, Infallible>(Some(value))),
            Err(_) => Poll::Pending,
        })
    };
    let mut leader = pin!(cache.get_or_load_async(b"k", &how, load));
    assert!(poll_once(leader.as_mut()).is_pending());
    let mut follower = pin!(cache.get_or_load_async(b"k", &how, || async { unwanted() }));
    assert!(poll_once(follower.as_mut()).is_pending());
    send.send(b"v".to_vec()).unwrap();
    assert!(poll_once(leader.as_mut()).is_ready());
    let Poll::Ready(value) = poll_once(follower) else { panic!("the leader has landed") };
    assert_eq!(value.unwrap().as_deref(), Some(&b"v"[..]));
}

#[test]
fn a_stale_value_is_loaded_anew_by_one_while_others_have_it() {
    let (cache, clock) = cache();
    let how = Load::for_ttl(millis(100)).stale(millis(50));
    cache.get_or_load(b"k", &how, || found("old")).unwrap();
    clock.pass(99);
    assert_eq!(cache.get_or_load(b"k", &how, unwanted).unwrap().as_deref(), Some(&b"old"[..]));
    clock.pass(1);
    let fresh = cache.get_or_load(b"k", &how, || {
        let meanwhile = cache.get_or_load(b"k", &how, unwanted).unwrap();
        assert_eq!(meanwhile.as_deref(), Some(&b"old"[..]), "while another one loads");
        found("new")
    });
    assert_eq!(fresh.unwrap().as_deref(), Some(&b"new"[..]));
    clock.pass(120);
    let kept = cache.get_or_load(b"k", &how, || Err::<Option<Vec<u8>>, &str>("down"));
    assert_eq!(kept.unwrap().as_deref(), Some(&b"new"[..]), "better than an error");
    clock.pass(30);
    let gone = cache.get_or_load(b"k", &how, || Err::<Option<Vec<u8>>, &str>("down"));
    assert_eq!(gone, Err("down"), "at the end of its stale time it is gone");
}

#[test]
fn what_is_not_there_is_not_asked_for_again_for_a_while() {
    let (cache, clock) = cache();
    let how = Load::default().negative_ttl(millis(100));
    let nothing = || -> Loaded { Ok(None) };
    assert_eq!(cache.get_or_load(b"k", &how, nothing).unwrap(), None);
    assert_eq!(cache.get_or_load(b"k", &how, unwanted).unwrap(), None);
    assert_eq!(cache.len(), 0);
    clock.pass(100);
    assert!(cache.get_or_load(b"k", &how, || found("v")).unwrap().is_some());
    cache.delete(b"k");
    assert_eq!(cache.get_or_load(b"k", &how, nothing).unwrap(), None);
    cache.set(b"k", b"set").unwrap();
    assert_eq!(cache.get_or_load(b"k", &how, unwanted).unwrap().as_deref(), Some(&b"set"[..]));
    cache.delete(b"k");
    assert!(cache.get_or_load(b"k", &how, || found("v")).unwrap().is_some(), "a set forgets it");
}

#[test]
fn prefixes_and_tags_invalidate_what_they_name() {
    let (cache, _) = cache();
    for key in 0..3_000u32 {
        cache.set(format!("a:{key}").as_bytes(), b"v").unwrap();
        cache.set(format!("b:{key}").as_bytes(), b"v").unwrap();
    }
    assert_eq!(cache.invalidate_prefix(b"a:"), 3_000);
    assert_eq!(cache.len(), 3_000);
    cache.set_tagged(b"x", b"v", None, &["red", "round"]).unwrap();
    cache.set_tagged(b"y", b"v", None, &["red"]).unwrap();
    cache.set_tagged(b"z", b"v", None, &["round"]).unwrap();
    assert_eq!(cache.invalidate_tag("red"), 2);
    assert!(!cache.contains(b"x") && !cache.contains(b"y") && cache.contains(b"z"));
    assert_eq!(cache.invalidate_tag("red"), 0);
    assert_eq!(cache.invalidate_tag("round"), 1);
    assert_eq!(cache.statistics().tag_bytes, 0);
}

#[test]
fn the_index_of_tags_keeps_its_bound_and_misses_nothing() {
    let cache = Cache::builder().tag_bytes(20_000).build();
    for key in 0..2_000u32 {
        let tag = if key % 3 == 0 { "large" } else { "small" };
        cache.set_tagged(&key.to_be_bytes(), b"v", None, &[tag]).unwrap();
        assert!(cache.statistics().tag_bytes <= 20_000);
    }
    cache.invalidate_tag("large");
    cache.invalidate_tag("small");
    assert!(cache.is_empty(), "{} keys escaped their tags", cache.len());
}

#[test]
fn what_is_invalidated_while_it_is_loaded_is_not_kept() {
    for case in 0..3 {
        let (cache, _) = cache();
        let how = Load::default().tag("t");
        let value = cache.get_or_load(b"user:1", &how, || {
            match case {
                0 => assert!(!cache.delete(b"user:1")),
                1 => assert_eq!(cache.invalidate_prefix(b"user:"), 0),
                _ => assert_eq!(cache.invalidate_tag("t"), 0),
            }
            found("out of date")
        });
        assert_eq!(value.unwrap().as_deref(), Some(&b"out of date"[..]));
        assert!(!cache.contains(b"user:1"), "case {case}");
    }
}

#[test]
fn typed_values_come_back_as_they_were() {
    let (cache, _) = cache();
    let points = cache.typed::<(i32, String)>("point");
    points.set("a", &(7, "seven".to_owned()), None).unwrap();
    assert_eq!(points.get("a").unwrap(), Some((7, "seven".to_owned())));
    let loaded =
        points.get_or_load("b", &Load::default(), || Ok::<_, Error>(Some((8, "eight".to_owned()))));
    assert_eq!(loaded.unwrap(), Some((8, "eight".to_owned())));
    cache.set(b"point:c", b"").unwrap();
    assert!(matches!(points.get("c"), Err(Error::Codec(_))));
    assert_eq!(points.clear(), 3);
}
