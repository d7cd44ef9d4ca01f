//! The conformance suite and the comparison with a naive model, run for the store in memory.

use std::sync::Arc;

use event_sourcing::machine::Limits;
use event_sourcing::testing::conformance::{self, Subject};
use event_sourcing::testing::differential;
use event_sourcing::{EventStore, MemoryStore};

/// It cannot be opened again, but the space of hidden events can be taken back.
struct Memory(Arc<MemoryStore>);

impl Subject for Memory {
    fn store(&self) -> Arc<dyn EventStore> {
        Arc::clone(&self.0) as Arc<dyn EventStore>
    }

    fn scavenge(&mut self) {
        self.0.scavenge();
    }
}

#[test]
fn the_store_in_memory_does_what_every_store_must() {
    conformance::run(|clock| Memory(Arc::new(MemoryStore::new(clock, Limits::default()))));
}

#[test]
fn the_store_in_memory_answers_as_the_simplest_one_does() {
    let mut total = differential::Tally::new();
    for seed in 0..60 {
        let tally = differential::run(seed, 400, |clock| {
            Memory(Arc::new(MemoryStore::new(clock, Limits::default())))
        });
        for (kind, count) in tally {
            *total.entry(kind).or_default() += count;
        }
    }
    for kind in [
        "recorded",
        "repeated",
        "conflict",
        "conflict, complete",
        "partly recorded",
        "id reused",
        "key reused",
        "tombstoned",
        "reserved",
        "invalid",
    ] {
        assert!(total.get(kind).is_some_and(|count| *count >= 50), "{kind} is rare: {total:?}");
    }
    assert!(!total.contains_key("failed"), "{total:?}");
}
