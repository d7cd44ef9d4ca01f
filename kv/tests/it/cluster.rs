//! Many machines and one log; one machine and many readers.

use bytes::Bytes;
use lattice_kv::{KvError, KvMachine, Limits, RangeRequest, SortOrder, SortTarget};
use proptest::prelude::*;
use raft_consensus::state_machine::DurableStateMachine;

use crate::replica::{Replica, everything};

/// Keys that take many slices to read.
const KEYS: i64 = 2_000;

fn numbered(number: i64) -> Bytes {
    Bytes::from(format!("key-{number:06}"))
}

fn filled() -> Replica {
    let mut replica = Replica::default();
    for number in 0..KEYS {
        replica.put(numbered(number), "value");
    }
    replica
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any bytes may be committed. Two replicas answer alike and end alike, and nobody panics.
    #[test]
    fn equal_logs_make_equal_states(
        log in prop::collection::vec(
            prop_oneof![
                (any::<u8>(), any::<u8>()).prop_map(|(key, value)| command(key, value)),
                prop::collection::vec(0_u8..4, 0..20).prop_map(|tail| [&[1], &tail[..]].concat()),
            ],
            0..60,
        ),
    ) {
        let (mut one, mut two) = (Replica::default(), Replica::default());
        for bytes in log {
            prop_assert_eq!(one.run_bytes(bytes.clone().into()), two.run_bytes(bytes.into()));
            prop_assert_eq!(one.reader().hash(), two.reader().hash());
        }
    }
}

/// A put by few keys, or a delete.
fn command(key: u8, value: u8) -> Vec<u8> {
    let key = key % 5 + b'a';
    match value % 4 {
        0 => vec![1, 2, value % 100, 1, 1, key, 1, key + 1],
        _ => vec![1, 1, value % 100, 1, 0, 1, key, 1, value],
    }
}

#[test]
fn unequal_logs_make_unequal_hashes() {
    let hash_after = |puts: &[(&'static str, &'static str)]| {
        let mut replica = Replica::default();
        for (key, value) in puts {
            replica.put(*key, *value);
        }
        replica.reader().hash()
    };
    let hash = hash_after(&[("a", "1"), ("b", "2")]);
    assert_eq!(hash, hash_after(&[("a", "1"), ("b", "2")]));
    let other_order = hash_after(&[("b", "2"), ("a", "1")]);
    assert_eq!((hash.applied, hash.revision), (other_order.applied, other_order.revision));
    assert_ne!(hash.hash, other_order.hash);
    assert_ne!(hash.hash, hash_after(&[("a", "1"), ("b", "3")]).hash);
}

#[test]
fn a_long_read_is_whole_and_pages_fit_together() {
    let replica = filled();
    let reader = replica.reader();
    let all = reader.range(&everything()).unwrap();
    assert_eq!((all.count, all.more), (KEYS, false));
    let mut pages = Vec::new();
    let mut key = Bytes::from_static(b"\0");
    loop {
        let request = RangeRequest { key: key.clone(), limit: 700, ..everything() };
        let page = reader.range(&request).unwrap();
        let last = page.kvs.last().expect("each page has keys").key.clone();
        pages.extend(page.kvs);
        if !page.more {
            break;
        }
        key = [&last[..], b"\0"].concat().into();
    }
    assert_eq!(pages, all.kvs);
}

/// The commonest sorted read: the newest or oldest key of a prefix. It holds few keys at any time.
#[test]
fn the_best_of_many_keys_fit_where_all_of_them_do_not() {
    let mut replica = Replica {
        machine: KvMachine::new(Limits { response_bytes_max: 4_000, ..Limits::default() }),
    };
    for number in 0..KEYS {
        replica.put(numbered(number * 7 % KEYS), "value");
    }
    let reader = replica.reader();
    assert_eq!(reader.range(&everything()), Err(KvError::ResponseTooLarge));
    for (sort_order, first) in [(SortOrder::Descend, KEYS + 1), (SortOrder::Ascend, 2)] {
        let sort_target = SortTarget::Mod;
        let request = RangeRequest { limit: 3, sort_order, sort_target, ..everything() };
        let response = reader.range(&request).unwrap();
        let found: Vec<i64> = response.kvs.iter().map(|kv| kv.mod_revision).collect();
        let step = if sort_order == SortOrder::Ascend { 1 } else { -1 };
        assert_eq!(found, [first, first + step, first + 2 * step]);
        assert_eq!((response.more, response.count), (true, KEYS));
    }
}

/// One key is written at each revision and none is deleted, so a state of revision r has r - 1
/// keys. A read whose slices saw different revisions would count wrong.
#[test]
fn reads_beside_writes_see_one_revision() {
    let mut replica = Replica::default();
    let reader = replica.reader();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let reader = reader.clone();
                scope.spawn(move || {
                    let mut last = 1;
                    while last <= KEYS {
                        let response = reader.range(&everything()).unwrap();
                        assert_eq!(response.count, response.revision - 1);
                        assert!(response.revision >= last, "revisions do not go back");
                        last = response.revision;
                    }
                })
            })
            .collect();
        // Backwards, so that writes land in front of where a read is and behind it.
        for number in 0..KEYS {
            replica.put(numbered(number * 7 % KEYS), "value");
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn a_batch_of_entries_gets_its_replies_in_order() {
    use raft_consensus::state_machine::Committed;
    use raft_consensus::types::{EntryId, LogIndex, Term};

    let mut machine: KvMachine = KvMachine::default();
    let entry = |index, command: Option<Vec<u8>>| Committed {
        id: EntryId::new(Term(1), LogIndex(index)),
        session: None,
        command: command.map(Bytes::from),
    };
    let run = [
        entry(1, None),
        entry(2, Some(command(0, 1))),
        entry(3, Some(b"\x01garbage".to_vec())),
        entry(4, None),
        entry(5, Some(command(1, 1))),
    ];
    let mut replies = Vec::new();
    machine.apply(&run, &mut replies).unwrap();
    let revisions: Vec<Option<i64>> = replies
        .into_iter()
        .map(|reply| Some(lattice_kv::Outcome::decode(reply.ok()?).unwrap().revision))
        .collect();
    assert_eq!(revisions, [Some(2), None, Some(3)]);
    assert_eq!(machine.applied().index, LogIndex(5));
}
