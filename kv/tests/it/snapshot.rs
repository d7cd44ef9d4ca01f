//! Snapshots: equal after a round trip, whatever is written meanwhile; refused whole when anything
//! is wrong with them.

use bytes::Bytes;
use lattice_kv::{MemberAttributes, Operation, RangeRequest, SnapshotError};
use raft_consensus::state_machine::{DurableStateMachine, Part};
use raft_consensus::types::{EntryId, LogIndex, NodeId, Term};

use crate::replica::{Replica, everything};

/// A little of everything.
fn small() -> Replica {
    let mut replica = Replica::default();
    replica.put("a", "1");
    replica.put("b", "2");
    replica.put("a", "3");
    replica.delete("a", "c");
    replica.put("b", "4");
    let member = MemberAttributes {
        id: NodeId(1),
        name: "one".into(),
        peer_urls: vec!["http://p".into()],
        client_urls: vec!["http://c".into()],
    };
    replica.run(Operation::PublishMember(member)).unwrap();
    replica
}

/// Several parts: 12 MiB of values, one key with many of them.
fn large() -> Replica {
    let mut replica = Replica::default();
    let value = Bytes::from(vec![7; 300 << 10]);
    for number in 0..20 {
        replica.put(format!("key-{number:02}"), value.clone());
        replica.put("key-10", value.clone());
    }
    replica
}

fn assert_equal(one: &Replica, two: &Replica) {
    assert_eq!(one.reader().hash(), two.reader().hash());
    assert_eq!(one.reader().size(), two.reader().size());
    assert_eq!(one.reader().members(), two.reader().members());
    for revision in 0..=one.reader().revision() {
        let request = RangeRequest { revision, ..everything() };
        assert_eq!(one.reader().range(&request), two.reader().range(&request), "at {revision}");
    }
}

#[test]
fn a_restored_replica_equals_its_source_and_goes_on_like_it() {
    for mut source in [Replica::default(), small(), large()] {
        let mut restored = Replica::default();
        let applied = source.machine.applied().index.0;
        // The term of a state of no entries is zero: give both the same place in the log.
        if applied == 0 {
            source.restore(0, &source.snapshot()).unwrap();
        }
        restored.restore(applied, &source.snapshot()).unwrap();
        assert_equal(&source, &restored);
        for replica in [&mut source, &mut restored] {
            replica.put("a", "again");
            replica.delete("b", "");
        }
        assert_equal(&source, &restored);
    }
}

#[test]
fn parts_are_of_moderate_size_and_have_names_of_their_own() {
    let parts = large().snapshot();
    assert!(parts.len() >= 4, "a head and 12 MiB: {} parts", parts.len());
    for part in &parts {
        assert!(part.data.len() <= (4 << 20) + (301 << 10), "{} bytes", part.data.len());
    }
    let names: std::collections::BTreeSet<&str> =
        parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names.len(), parts.len());
}

/// Parts that did not change are neither sent nor written again.
#[test]
fn a_write_leaves_most_parts_as_they_were() {
    let mut replica = Replica::default();
    let value = Bytes::from(vec![7; 16 << 10]);
    for number in 0..1_000 {
        replica.put(format!("key-{number:04}"), value.clone());
    }
    let before: std::collections::BTreeSet<Bytes> =
        replica.snapshot().into_iter().map(|part| part.data).collect();
    replica.put("key-0001-and-a-half", "new");
    replica.put("key-0500", "other");
    let parts = replica.snapshot();
    assert!(parts.len() >= 8, "16 MiB: {} parts", parts.len());
    let new = parts.iter().filter(|part| !before.contains(&part.data)).count();
    assert!(
        new <= 4,
        "{new} of {} parts are new: the head, and one or two at each write",
        parts.len()
    );
}

/// The view is of the moment at which it was taken, however much is written and deleted before its
/// last part is read.
#[test]
fn what_is_written_while_a_view_is_read_is_not_in_it() {
    let mut source = large();
    let before = source.reader().hash();
    let mut view = source.machine.view().unwrap().unwrap();
    let mut parts = Vec::new();
    let mut round = 0;
    while let Some(part) = view.next_part().unwrap() {
        parts.push(part);
        round += 1;
        source.put("aaa-first", "new");
        source.put("key-10", "new");
        source.put(format!("key-{round:02}-and-a-half"), "new");
        source.delete("key-05", "key-15");
        source.put("zzz-last", "new");
    }
    assert!(round >= 4, "writes fell between the parts");
    assert_ne!(source.reader().hash().hash, before.hash);
    let mut restored = Replica::default();
    restored.restore(before.applied.index.0, &parts).unwrap();
    assert_eq!(restored.reader().hash(), before);
}

/// A reader and a view that began before a restore stay with the state that they began with.
#[test]
fn a_restore_does_not_disturb_a_view_on_its_way() {
    let mut replica = large();
    let before = replica.reader().hash();
    let reader = replica.reader();
    let mut view = replica.machine.view().unwrap().unwrap();
    let mut parts = vec![view.next_part().unwrap().unwrap()];
    let other = small();
    replica.restore(50, &other.snapshot()).unwrap();
    assert_eq!(
        reader.hash().hash,
        other.reader().hash().hash,
        "the old reader reads the new state"
    );
    assert_eq!(reader.applied(), EntryId::new(Term(1), LogIndex(50)));
    replica.put("a", "after the restore");
    while let Some(part) = view.next_part().unwrap() {
        parts.push(part);
    }
    let mut restored = Replica::default();
    restored.restore(before.applied.index.0, &parts).unwrap();
    assert_eq!(restored.reader().hash(), before);
}

/// Tries to restore parts that are not as they were written; the state stays as it was.
fn assert_refused(parts: &[Part], what: &str) -> SnapshotError {
    let mut replica = Replica::default();
    replica.put("here", "before");
    let before = replica.reader().hash();
    let error = replica.restore(9, parts).expect_err(what);
    assert_eq!(replica.reader().hash(), before, "{what}: all or nothing");
    replica.put("here", "still works");
    *error.downcast().expect("a SnapshotError")
}

#[test]
fn every_cut_and_every_flipped_bit_is_noticed() {
    let parts = small().snapshot();
    assert_eq!(parts.len(), 2);
    for place in 0..parts.len() {
        let data = &parts[place].data;
        let with = |data: Bytes| {
            let mut parts = parts.clone();
            parts[place].data = data;
            parts
        };
        for cut in 0..data.len() {
            assert_refused(&with(data.slice(..cut)), "a cut");
        }
        for at in 0..data.len() {
            for bit in 0..8 {
                let mut garbled = data.to_vec();
                garbled[at] ^= 1 << bit;
                assert_refused(&with(garbled.into()), &format!("bit {bit} of byte {at}"));
            }
        }
    }
}

#[test]
fn parts_that_are_missing_repeated_or_out_of_order_are_noticed() {
    let parts = large().snapshot();
    for place in 0..parts.len() {
        let mut missing = parts.clone();
        missing.remove(place);
        assert_refused(&missing, "a part is missing");
        let mut repeated = parts.clone();
        repeated.insert(place, parts[place].clone());
        assert_refused(&repeated, "a part is repeated");
        if place > 0 {
            let mut swapped = parts.clone();
            swapped.swap(place - 1, place);
            assert_refused(&swapped, "two parts are swapped");
        }
    }
    assert!(matches!(assert_refused(&[], "no parts"), SnapshotError::Empty));
}

#[test]
fn parts_of_two_snapshots_do_not_mix() {
    let mut source = small();
    let older = source.snapshot();
    source.put("c", "5");
    let newer = source.snapshot();
    for mixed in [[older[0].clone(), newer[1].clone()], [newer[0].clone(), older[1].clone()]] {
        assert_refused(&mixed, "parts of two snapshots");
    }
}

#[test]
fn a_snapshot_of_a_newer_build_is_told_from_garbage() {
    let mut parts = small().snapshot();
    let mut data = parts[0].data.to_vec();
    data[0] += 1;
    parts[0].data = data.into();
    let error = assert_refused(&parts, "a newer version");
    assert!(matches!(error, SnapshotError::UnknownVersion { version: 2, .. }), "{error}");
}

/// Builds to come must read this: version 1 stays as it is.
#[test]
fn version_1_has_these_bytes() {
    let parts = small().snapshot();
    let head = b"\x01\x01\x06\x06\x02\x06\x06";
    assert_eq!(parts[0].name, "head");
    assert_eq!(parts[0].data[..head.len()], head[..]);
    let members = b"\x01\x01\x03one\x01\x08http://p\x01\x08http://c";
    assert!(parts[0].data.ends_with(members));
    let versions = b"\x01\x02\
        \x01\x01a\x02\x02\x00\x02\x01\x00\x011\x02\x04\x00\x02\x02\x00\x013\x03\x05\x00\
        \x01\x01b\x02\x03\x00\x03\x01\x00\x012\x03\x05\x01\x02\x06\x00\x06\x01\x00\x014";
    assert_eq!(parts[1].name, "versions-1");
    assert_eq!(parts[1].data, versions[..]);
}
