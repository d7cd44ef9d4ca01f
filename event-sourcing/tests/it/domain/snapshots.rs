//! Snapshots change how long loading takes, and never what is loaded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use event_sourcing::condition::Expected;
use event_sourcing::error::InvalidName;
use event_sourcing::retention::Retention;
use event_sourcing::snapshot::{Ignored, SNAPSHOT_TYPE, SnapshotUse, Snapshots};
use event_sourcing::testing::Chance;
use event_sourcing::{
    Append, Boundary, Codec, Decider, DomainStore, EventStore, EventStoreExt, EventType,
    MemoryStore, NewEvent, Read, Source, StreamName, Version,
};

use super::bank::{Account, AccountCommand, AccountEvent, AccountState, Refusal};
use super::courses::{Subscribe, Subscription, of};
use super::observed::Observed;
use super::{OPEN, account_with, ask, block_on, deposit, store_with_clock, withdraw};

fn a1() -> StreamName {
    StreamName::new("account-a1").unwrap()
}

fn snapshots_of_a1() -> StreamName {
    StreamName::new("$snapshot-account-account-a1").unwrap()
}

/// What the snapshot came to for a decider on `a1`, and the balance.
fn load_with<D>(store: &impl EventStore, snapshots: &Snapshots) -> (SnapshotUse, u64)
where
    D: Decider<Id = String, State = AccountState>,
{
    let loaded = block_on(store.load_with::<D>("a1", snapshots)).unwrap();
    (loaded.snapshot.unwrap(), loaded.state.balance)
}

#[test]
fn loading_begins_with_the_snapshot_and_reads_the_events_after_it() {
    let store = Observed::default();
    let every_ten = Snapshots::every(10);
    block_on(ask(&store, OPEN()).snapshots(&every_ten)).unwrap();
    for number in 1..=25 {
        let done = block_on(ask(&store, deposit(1)).snapshots(&every_ten)).unwrap();
        assert_eq!(done.state.balance, number);
        let is_due = number == 9 || number == 19;
        assert_eq!(done.written_snapshot.is_some(), is_due, "{number}");
        done.written_snapshot.transpose().unwrap();
    }
    store.reads();
    let (used, balance) = load_with::<Account>(&store, &every_ten);
    assert_eq!((used, balance), (SnapshotUse::Used { events: 20 }, 25));
    // The snapshot, and six events after it.
    assert_eq!(store.reads(), (2, 1 + 6));
    // Only the last one is kept.
    let read = Read::forward(Source::Stream(snapshots_of_a1()));
    let kept = block_on(store.read(read)).unwrap();
    assert_eq!(kept.events.len(), 1);
    assert_eq!(kept.events[0].version, Version(1));
    assert_eq!(kept.events[0].event.event_type.as_str(), SNAPSHOT_TYPE);
}

#[test]
fn a_loading_that_took_long_is_the_last_that_does() {
    let store = Observed::default();
    account_with(&store, &[1, 2, 3]);
    let clock = Arc::new(AtomicU64::new(0));
    let hand = Arc::clone(&clock);
    // Each look at the stopwatch finds that 30 ms have passed.
    let stopwatch = move || Duration::from_millis(hand.fetch_add(30, Ordering::SeqCst));
    let patient = Snapshots::default().or_after(Duration::from_millis(30), stopwatch.clone());
    let hasty = Snapshots::default().or_after(Duration::from_millis(29), stopwatch);
    let done = block_on(ask(&store, deposit(1)).snapshots(&patient)).unwrap();
    assert!(done.written_snapshot.is_none());
    let done = block_on(ask(&store, deposit(1)).snapshots(&hasty)).unwrap();
    done.written_snapshot.unwrap().unwrap();
    assert_eq!(load_with::<Account>(&store, &hasty), (SnapshotUse::Used { events: 6 }, 8));
    // No policy, no snapshot.
    let never = Snapshots::default();
    let done = block_on(store.execute::<Account>(OPEN()).on("a2").snapshots(&never)).unwrap();
    assert_eq!(
        (done.snapshot, done.written_snapshot.is_none()),
        (Some(SnapshotUse::Missing), true)
    );
}

/// The account as the next version of the program has it: what it makes of the same events is another thing.
macro_rules! changed_account {
    ($name:ident, $($change:tt)*) => {
        struct $name;
        impl Decider for $name {
            const NAME: &'static str = "account";
            $($change)*
            type Id = String;
            type State = AccountState;
            type Command = AccountCommand;
            type Event = AccountEvent;
            type Rejection = Refusal;

            fn boundary(id: &String) -> Result<Boundary, InvalidName> {
                Account::boundary(id)
            }

            fn initial(id: &String) -> AccountState {
                Account::initial(id)
            }

            fn evolve(state: &mut AccountState, event: &AccountEvent) {
                Account::evolve(state, event);
            }

            fn decide(
                state: &AccountState,
                command: &AccountCommand,
            ) -> Result<Vec<AccountEvent>, Refusal> {
                Account::decide(state, command)
            }
        }
    };
}

changed_account!(NextAccount, const FOLD_VERSION: u32 = 2;);
changed_account!(CompactAccount, const CODEC: Codec = Codec::Postcard;);

#[test]
fn a_snapshot_of_another_version_is_ignored_older_or_newer() {
    let store = MemoryStore::default();
    account_with(&store, &[100]);
    let always = Snapshots::every(1);
    let ignored = SnapshotUse::Ignored(Ignored::Fingerprint);
    block_on(ask(&store, deposit(1)).snapshots(&always)).unwrap();
    assert_eq!(load_with::<Account>(&store, &always), (SnapshotUse::Used { events: 3 }, 101));
    assert_eq!(load_with::<NextAccount>(&store, &always), (ignored.clone(), 101));
    assert_eq!(load_with::<CompactAccount>(&store, &always), (ignored.clone(), 101));
    let next = store.execute::<NextAccount>(deposit(1)).on("a1").snapshots(&always);
    block_on(next).unwrap().written_snapshot.unwrap().unwrap();
    assert_eq!(load_with::<NextAccount>(&store, &always), (SnapshotUse::Used { events: 4 }, 102));
    assert_eq!(load_with::<Account>(&store, &always), (ignored, 102));
}

#[test]
fn snapshots_in_postcard_work_too_over_events_in_both() {
    let store = MemoryStore::default();
    account_with(&store, &[100]);
    let always = Snapshots::every(1);
    let compact = || store.execute::<CompactAccount>(deposit(1)).on("a1").snapshots(&always);
    block_on(compact()).unwrap();
    let done = block_on(compact()).unwrap();
    assert_eq!((done.snapshot, done.state.balance), (Some(SnapshotUse::Used { events: 3 }), 102));
    assert_eq!(block_on(ask(&store, withdraw(102))).unwrap().state.balance, 0);
}

/// Writes the snapshot of `a1` again with something changed.
fn forge(store: &MemoryStore, change: impl Fn(&mut NewEvent)) {
    let read = Read::backward(Source::Stream(snapshots_of_a1())).count(1);
    let mut event = block_on(store.read(read)).unwrap().events[0].event.clone();
    change(&mut event);
    event.id = event_sourcing::EventId::random();
    block_on(store.append(Append::to(snapshots_of_a1(), Expected::Any, [event]))).unwrap();
}

/// Replaces what the snapshot says of itself.
fn forge_header(store: &MemoryStore, change: impl Fn(&mut serde_json::Value)) {
    forge(store, |event| {
        let mut header = serde_json::from_slice(&event.metadata.custom).unwrap();
        change(&mut header);
        event.metadata.custom = serde_json::to_vec(&header).unwrap().into();
    });
}

#[test]
fn what_a_snapshot_says_of_itself_is_checked() {
    let always = Snapshots::every(1);
    let ignored_after = |change: &dyn Fn(&MemoryStore)| {
        let store = MemoryStore::default();
        account_with(&store, &[100]);
        block_on(ask(&store, deposit(1)).snapshots(&always)).unwrap();
        change(&store);
        let (used, balance) = load_with::<Account>(&store, &always);
        assert_eq!(balance, 101);
        let SnapshotUse::Ignored(why) = used else { panic!("{used:?}") };
        // The next one is sound again.
        block_on(ask(&store, deposit(1)).snapshots(&always)).unwrap();
        let sound = (SnapshotUse::Used { events: 4 }, 102);
        assert_eq!(load_with::<Account>(&store, &always), sound);
        why
    };
    let header = |change: &dyn Fn(&mut serde_json::Value)| {
        ignored_after(&|store| forge_header(store, change))
    };
    assert_eq!(
        ignored_after(&|store| forge(store, |event| event.metadata.custom = "{".into())),
        Ignored::Unreadable
    );
    assert_eq!(
        ignored_after(&|store| forge(store, |event| event.data = "{}".into())),
        Ignored::State
    );
    assert_eq!(header(&|header| header["fingerprint"] = "0".into()), Ignored::Fingerprint);
    assert_eq!(
        header(&|header| header["boundary"] = serde_json::json!({"Stream": "account-a2"})),
        Ignored::Boundary
    );
    assert_eq!(header(&|header| header["seen"] = 1_000.into()), Ignored::Future);
    assert_eq!(header(&|header| header["last"] = 3.into()), Ignored::Future);
    assert_eq!(
        header(&|header| header["homes"] = serde_json::json!({"account-a2": 0})),
        Ignored::Future
    );
}

#[test]
fn a_sample_is_compared_with_a_full_replay_and_what_is_wrong_is_replaced() {
    let store = MemoryStore::default();
    account_with(&store, &[100]);
    let unverified = Snapshots::every(1_000);
    let verified = unverified.clone().verify_sample(1.0);
    block_on(ask(&store, deposit(1)).snapshots(&Snapshots::every(1))).unwrap();
    assert_eq!(load_with::<Account>(&store, &verified), (SnapshotUse::Verified, 101));
    forge(&store, |event| event.data = r#"{"owner":"ada","balance":1000000}"#.into());
    block_on(ask(&store, deposit(1))).unwrap();
    assert_eq!(load_with::<Account>(&store, &unverified).1, 1_000_001);
    let (used, balance) = load_with::<Account>(&store, &verified);
    let SnapshotUse::Wrong { differences } = used else { panic!("{used:?}") };
    assert_eq!(balance, 102);
    assert_eq!(differences.len(), 1);
    assert_eq!(differences[0].to_string(), "/balance: 1000000 → 101");
    let done = block_on(ask(&store, deposit(1)).snapshots(&verified)).unwrap();
    done.written_snapshot.unwrap().unwrap();
    assert_eq!(load_with::<Account>(&store, &unverified), (SnapshotUse::Used { events: 5 }, 103));
}

#[test]
fn a_sample_is_about_as_large_as_asked_for() {
    let store = MemoryStore::default();
    account_with(&store, &[100]);
    block_on(ask(&store, deposit(1)).snapshots(&Snapshots::every(1))).unwrap();
    let sampled = Snapshots::every(1_000).verify_sample(0.25);
    let mut verified = 0;
    for _ in 0..400 {
        verified += u32::from(load_with::<Account>(&store, &sampled).0 == SnapshotUse::Verified);
        block_on(store.execute::<Account>(OPEN()).on(store.head().to_string())).unwrap();
    }
    assert!((60..140).contains(&verified), "{verified} of 400");
}

#[test]
fn a_snapshot_does_not_remember_what_was_truncated() {
    let store = MemoryStore::default();
    account_with(&store, &[100]);
    let always = Snapshots::every(1);
    let load = || load_with::<Account>(&store, &always);
    let opened = || block_on(ask(&store, OPEN()).snapshots(&always)).unwrap();
    let hidden = SnapshotUse::Ignored(Ignored::Hidden);
    block_on(ask(&store, deposit(1)).snapshots(&always)).unwrap();
    let truncate =
        |before| Retention { truncate_before: Some(Version(before)), ..Retention::default() };
    block_on(store.set_retention(a1(), truncate(2))).unwrap();
    assert_eq!(load(), (hidden.clone(), 1));
    assert_eq!(opened().state.balance, 1);
    assert_eq!(load(), (SnapshotUse::Used { events: 2 }, 1));
    block_on(store.delete(a1(), Expected::Any)).unwrap();
    assert_eq!(load(), (hidden, 0));
    assert_eq!(opened().state.balance, 0);
    assert_eq!(load(), (SnapshotUse::Used { events: 1 }, 0));
}

#[test]
fn a_state_made_of_a_query_has_snapshots_as_well() {
    let store = Observed::default();
    let always = Snapshots::every(1);
    for student in ["s1", "s2"] {
        let on = of("c1", student);
        block_on(store.execute::<Subscription>(Subscribe).on(on).snapshots(&always)).unwrap();
    }
    store.reads();
    let loaded = block_on(store.load_with::<Subscription>(of("c1", "s2"), &always)).unwrap();
    assert_eq!((loaded.snapshot, loaded.state.taken), (Some(SnapshotUse::Used { events: 2 }), 2));
    assert_eq!(store.reads(), (2, 1));
    let dcb = StreamName::new("dcb").unwrap();
    let keep_one = Retention { max_count: Some(1), ..Retention::default() };
    block_on(store.set_retention(dcb, keep_one)).unwrap();
    let loaded = block_on(store.load_with::<Subscription>(of("c1", "s2"), &always)).unwrap();
    let hidden = SnapshotUse::Ignored(Ignored::Hidden);
    assert_eq!((loaded.snapshot, loaded.state.taken), (Some(hidden), 1));
}

#[test]
fn an_id_with_a_very_long_name_has_snapshots_too() {
    let store = MemoryStore::default();
    let always = Snapshots::every(1);
    let ids = ["x", "y"].map(|end| "n".repeat(1_000) + end);
    for id in &ids {
        let open = store.execute::<Account>(OPEN()).on(id).snapshots(&always);
        block_on(open).unwrap().written_snapshot.unwrap().unwrap();
    }
    for id in &ids {
        let loaded = block_on(store.load_with::<Account>(id, &always)).unwrap();
        assert_eq!(loaded.snapshot, Some(SnapshotUse::Used { events: 1 }));
    }
}

/// Commands, deletions, limits and time, in any order: by way of snapshots everything is as it is without.
#[test]
fn with_snapshots_every_history_has_the_same_outcome() {
    let mut used = 0;
    for seed in 0..200 {
        let mut chance = Chance::new(seed);
        let (store, clock) = store_with_clock();
        let snapshots = Snapshots::every(1 + chance.below(6));
        for step in 0..60 {
            let story = format!("seed {seed}, step {step}");
            clock.advance(Duration::from_millis(chance.below(1_500)));
            let command = match chance.below(8) {
                0..=3 => deposit(1 + chance.below(100)),
                4 | 5 => withdraw(1 + chance.below(100)),
                6 => OPEN(),
                _ => {
                    let last = block_on(store.stream(a1())).unwrap().map_or(0, |info| info.last.0);
                    let limits = match chance.below(5) {
                        0 => Retention {
                            truncate_before: Some(Version(chance.below(last + 1))),
                            ..Retention::default()
                        },
                        1 => Retention {
                            max_count: Some(1 + chance.below(9)),
                            ..Retention::default()
                        },
                        2 => Retention {
                            max_age: Some(Duration::from_secs(1 + chance.below(9))),
                            ..Retention::default()
                        },
                        _ => Retention::default(),
                    };
                    if chance.below(4) == 0 {
                        let _ = block_on(store.delete(a1(), Expected::Any));
                    } else {
                        // Refused if it would bring back what is hidden.
                        let _ = block_on(store.set_retention(a1(), limits));
                    }
                    continue;
                }
            };
            let before = block_on(store.load::<Account>("a1")).unwrap();
            let expected = Account::decide(&before.state, &command);
            let done = block_on(ask(&*store, command).snapshots(&snapshots));
            match (expected, done) {
                (Ok(events), Ok(done)) => {
                    let mut state = before.state;
                    events.iter().for_each(|event| Account::evolve(&mut state, event));
                    assert_eq!(done.state, state, "{story}");
                }
                (Err(expected), Err(event_sourcing::ExecuteError::Rejected(refusal))) => {
                    assert_eq!(refusal, expected, "{story}");
                }
                (expected, done) => panic!("{story}: {expected:?}, {done:?}"),
            }
            let replayed = block_on(store.load::<Account>("a1")).unwrap();
            let loaded = block_on(store.load_with::<Account>("a1", &snapshots)).unwrap();
            assert_eq!(loaded.state, replayed.state, "{story}: {:?}", loaded.snapshot);
            assert_eq!((loaded.last, loaded.events), (replayed.last, replayed.events), "{story}");
            used += u32::from(matches!(loaded.snapshot, Some(SnapshotUse::Used { .. })));
        }
    }
    assert!(used > 1_000, "snapshots were used {used} times only");
}

#[test]
fn a_type_that_begins_with_a_dollar_is_the_stores_own() {
    // Snapshots are in no query: a decision over everything does not see them.
    let store = MemoryStore::default();
    account_with(&store, &[]);
    block_on(ask(&store, deposit(1)).snapshots(&Snapshots::every(1))).unwrap();
    assert!(EventType::new(SNAPSHOT_TYPE).unwrap().is_system());
    let all = Read::forward(Source::Query(event_sourcing::Query::all()));
    assert_eq!(block_on(store.read(all)).unwrap().events.len(), 2);
}
