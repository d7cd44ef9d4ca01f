use lattice_journal::MemoryDisk;
use lattice_sim::SimDisk;

use super::manifest::PartDigest;
use super::*;
use crate::state_machine::Part;
use crate::types::{NodeId, StoreId, Term};

const DIRECTORY: &str = "/data/group-0/snapshots";

fn id(index: u64) -> EntryId {
    EntryId::new(Term(3), LogIndex(index))
}

fn members() -> Membership {
    let mut members = Membership::founding([NodeId(1), NodeId(2)]);
    members.bind(NodeId(2), StoreId(77));
    members
}

fn parts(seed: u8) -> Vec<Part> {
    let part = |name: &str, data: Vec<u8>| Part { name: name.to_owned(), data: data.into() };
    let keys = (0..40).map(|byte| byte ^ seed).collect();
    let attic = vec![0xa5; 30];
    vec![
        part("keys", keys),
        part("empty", Vec::new()),
        part("attic", attic),
        part("leases", vec![seed; 7]),
    ]
}

fn open(disk: &(impl Disk + Clone), latest: Option<&SnapshotMeta>) -> SnapshotStore {
    SnapshotStore::open(Arc::new(disk.clone()), Path::new(DIRECTORY), latest).unwrap()
}

fn write(store: &SnapshotStore, index: u64, seed: u8) -> Result<SnapshotMeta, SnapshotError> {
    let mut writer = store.begin(id(index), &members());
    for part in parts(seed) {
        writer.part(&part)?;
    }
    writer.finish()
}

fn parts_of(store: &SnapshotStore, meta: &SnapshotMeta) -> Result<Vec<Part>, SnapshotError> {
    let mut reader = store.open_parts(meta)?;
    let mut found = Vec::new();
    while let Some(part) = reader.next_part()? {
        found.push(part);
    }
    Ok(found)
}

/// A store with one snapshot.
fn written() -> (MemoryDisk, SnapshotStore, SnapshotMeta) {
    let disk = MemoryDisk::new();
    let store = open(&disk, None);
    let meta = write(&store, 9, 1).unwrap();
    (disk, store, meta)
}

fn names(store: &SnapshotStore) -> Vec<String> {
    store.files.names().unwrap()
}

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

fn part_path(data: &[u8]) -> PathBuf {
    path(&format!("{}.part", PartDigest::of(data)))
}

/// Sends pieces of at most `length` bytes, as a leader would, until the snapshot is complete or `pieces` were sent. Returns
/// the answer to the last, and the bytes that were sent.
fn send(
    source: &SnapshotStore,
    target: &SnapshotStore,
    meta: &SnapshotMeta,
    length: usize,
    pieces: usize,
) -> Result<(Received, usize), SnapshotError> {
    let (mut next, mut sent) = (0, 0);
    let mut received = Received { next, is_complete: false, is_busy: false };
    for _ in 0..pieces {
        let data = source.read(meta, next, length).unwrap();
        sent += data.len();
        received = target.receive(meta, next, &data)?;
        while received.is_busy {
            received = target.receive(meta, received.next, &[])?;
        }
        if received.is_complete {
            break;
        }
        next = received.next;
    }
    Ok((received, sent))
}

#[test]
fn what_was_written_is_read() {
    let (disk, store, meta) = written();
    assert_eq!(meta.last, id(9));
    assert_eq!(parts_of(&store, &meta).unwrap(), parts(1));
    assert_eq!(parts_of(&open(&disk, Some(&meta)), &meta).unwrap(), parts(1), "reopened");
    let manifest = disk.content(path(&names(&store)[0])).unwrap();
    assert_eq!(meta.size, u64::try_from(manifest.len()).unwrap() + 77);
}

#[test]
fn pieces_end_where_the_manifest_and_where_each_part_ends() {
    let (disk, store, meta) = written();
    let manifest = disk.content(path(&names(&store)[0])).unwrap();
    let start = u64::try_from(manifest.len()).unwrap();
    let read = |offset, length| store.read(&meta, offset, length).unwrap();
    assert_eq!(read(0, usize::MAX), manifest);
    assert_eq!(read(5, 10), manifest[5..15]);
    assert_eq!(read(start, 1_000), parts(1)[0].data);
    assert_eq!(read(start + 1, 2), parts(1)[0].data[1..3]);
    assert_eq!(read(start + 40, 1_000), parts(1)[2].data, "the empty part has no place");
    assert_eq!(read(start + 70, 1_000), parts(1)[3].data);
    assert!(read(meta.size, 10).is_empty());
    assert!(read(u64::MAX, 10).is_empty());
    assert_eq!(store.counts().bytes_sent, start + 10 + 40 + 2 + 30 + 7);
}

#[test]
fn every_flipped_bit_and_every_cut_of_every_file_is_found() {
    let (disk, store, meta) = written();
    let files = names(&store);
    assert_eq!(files.len(), 4, "a manifest and three parts");
    for name in files {
        let bytes = disk.content(path(&name)).unwrap();
        let is_corrupt = |what: &str| match store.verify(&meta) {
            Err(SnapshotError::Corrupt { .. }) => {}
            other => panic!("{name}: {what}: {other:?}"),
        };
        for position in 0..bytes.len() {
            for bit in 0..8 {
                disk.corrupt(path(&name), position, 1 << bit).unwrap();
                is_corrupt(&format!("bit {bit} of byte {position}"));
                disk.corrupt(path(&name), position, 1 << bit).unwrap();
            }
            disk.set_content(path(&name), &bytes[..position]);
            is_corrupt(&format!("cut at {position}"));
            disk.set_content(path(&name), bytes.clone());
        }
        disk.remove(&path(&name)).unwrap();
        assert!(store.verify(&meta).is_err(), "{name} is gone");
        disk.set_content(path(&name), bytes);
        store.verify(&meta).unwrap();
    }
}

#[test]
fn a_snapshot_of_version_1_is_refused_by_its_version() {
    let (disk, store, meta) = written();
    let name = names(&store).remove(0);
    disk.corrupt(path(&name), 8, 2 ^ 1).unwrap();
    let error = store.verify(&meta).unwrap_err().to_string();
    assert!(error.contains("its version is not one that this program knows"), "{error}");
}

#[test]
fn parts_that_do_not_fit_the_format_are_refused() {
    let store = open(&MemoryDisk::new(), None);
    let part = |name: String, length| Part { name, data: vec![0; length].into() };
    for refused in
        [part("a".into(), 1), part("n".repeat(1025), 0), part("b".into(), (64 << 20) + 1)]
    {
        let mut writer = store.begin(id(1), &members());
        writer.part(&part("a".into(), 1)).unwrap();
        assert!(matches!(writer.part(&refused), Err(SnapshotError::Part { .. })));
    }
    store.remove_unneeded().unwrap();
    assert_eq!(names(&store), Vec::<String>::new(), "nothing is left behind");
}

#[test]
fn a_part_that_is_here_is_not_written_again() {
    let (_, store, _) = written();
    let before = store.counts();
    assert_eq!((before.bytes_written, before.bytes_reused), (77, 0));
    let meta = write(&store, 12, 2).unwrap();
    let after = store.counts();
    assert_eq!((after.bytes_written, after.bytes_reused), (77 + 47, 30));
    assert_eq!(parts_of(&store, &meta).unwrap(), parts(2));
    assert_eq!(names(&store).len(), 2 + 3 + 2, "two manifests, and the attic once");
}

#[test]
fn a_damaged_part_is_written_again_and_heals_older_snapshots() {
    let (disk, store, meta) = written();
    disk.corrupt(part_path(&[0xa5; 30]), 3, 1).unwrap();
    assert!(store.verify(&meta).is_err());
    write(&store, 12, 2).unwrap();
    assert_eq!(store.counts().bytes_reused, 0);
    store.verify(&meta).unwrap();
}

#[test]
fn a_damaged_part_is_not_sent() {
    let (disk, store, meta) = written();
    disk.corrupt(part_path(&[0xa5; 30]), 3, 1).unwrap();
    let attic = meta.size - 37;
    let result = store.read(&meta, attic, 100);
    assert!(matches!(result, Err(SnapshotError::Corrupt { .. })), "{result:?}");
    assert_eq!(store.read(&meta, attic + 30, 100).unwrap().len(), 7, "others are");
}

#[test]
fn old_snapshots_go_with_their_parts_and_a_newer_one_is_no_more_than_parts_after_a_start() {
    let disk = MemoryDisk::new();
    let store = open(&disk, None);
    let metas: Vec<_> =
        [(5, 1), (9, 2), (12, 3)].map(|(index, seed)| write(&store, index, seed).unwrap()).into();
    assert_eq!(names(&store).len(), 3 + 3 * 2 + 1);
    store.retain(metas[1].last.index).unwrap();
    assert_eq!(store.list().unwrap(), [id(9), id(12)]);
    assert_eq!(names(&store).len(), 2 + 2 * 2 + 1);
    disk.set_content(path("0.tmp"), "half");
    disk.set_content(path("README"), "not ours");
    let store = open(&disk, Some(&metas[1]));
    assert_eq!(store.list().unwrap(), [id(9)]);
    assert_eq!(
        names(&store).len(),
        1 + 3 + 1 + 3,
        "the stranger stays, and what a leader may go on with"
    );
    store.verify(&metas[1]).unwrap();
    assert!(matches!(store.verify(&metas[2]), Err(SnapshotError::Missing { .. })));
}

#[test]
fn a_part_that_is_being_read_is_not_swept_away() {
    let (_, store, meta) = written();
    let mut reader = store.open_parts(&meta).unwrap();
    write(&store, 12, 2).unwrap();
    store.retain(LogIndex(12)).unwrap();
    for part in parts(1) {
        assert_eq!(reader.next_part().unwrap(), Some(part));
    }
    drop(reader);
    let newer = write(&store, 13, 3).unwrap();
    store.retain(LogIndex(13)).unwrap();
    assert_eq!(names(&store).len(), 1 + 3, "then it goes with the next sweep");
    store.verify(&newer).unwrap();
}

#[test]
fn with_a_manifest_that_cannot_be_read_no_part_goes() {
    let (disk, store, meta) = written();
    let name = names(&store).remove(0);
    disk.corrupt(path(&name), 20, 1).unwrap();
    open(&disk, Some(&meta));
    disk.corrupt(path(&name), 20, 1).unwrap();
    open(&disk, Some(&meta)).verify(&meta).unwrap();
}

// Receiving.

#[test]
fn a_snapshot_arrives_in_pieces_and_a_misplaced_piece_does_no_harm() {
    let (_, source, meta) = written();
    let store = open(&MemoryDisk::new(), None);
    let start = meta.size - 77;
    let piece = |offset, length| source.read(&meta, offset, length).unwrap();
    let next = |offset, length| {
        let received = store.receive(&meta, offset, &piece(offset, length)).unwrap();
        assert!(!received.is_complete && !received.is_busy);
        received.next
    };
    assert_eq!(next(20, 40), 0, "nothing was begun");
    assert_eq!(next(0, 50), 50);
    assert_eq!(next(60, 10), 50, "a gap");
    assert_eq!(next(40, 20), 50, "a repetition");
    assert_eq!(next(50, 0), 50, "an empty piece");
    assert_eq!(next(0, 10), 50, "the offer again");
    assert_eq!(next(50, 10_000), start);
    assert_eq!(next(start, 10), start + 10);
    assert_eq!(next(0, 10), start + 10, "the offer again");
    assert_eq!(next(start + 10, 100), start + 40);
    assert_eq!(next(start, 10), start + 40, "a repetition");
    assert!(matches!(store.verify(&meta), Err(SnapshotError::Missing { .. })));
    assert_eq!(next(start + 40, 100), start + 70);
    let received = store.receive(&meta, start + 70, &piece(start + 70, 100)).unwrap();
    assert_eq!(received, Received { next: meta.size, is_complete: true, is_busy: false });
    assert_eq!(parts_of(&store, &meta).unwrap(), parts(1));
    assert_eq!(names(&store).len(), 1 + 3);
    assert_eq!(store.counts().bytes_received, meta.size);
    let again = send(&source, &store, &meta, 10_000, 1).unwrap();
    assert!(again.0.is_complete, "it is here already: the manifest is enough");
}

#[test]
fn only_what_the_receiver_lacks_travels() {
    let (_, source, _) = written();
    let newer = write(&source, 20, 2).unwrap();
    let store = open(&MemoryDisk::new(), None);
    write(&store, 7, 3).unwrap();
    let (received, sent) = send(&source, &store, &newer, 1_000, 100).unwrap();
    assert!(received.is_complete);
    assert_eq!(u64::try_from(sent).unwrap(), newer.size - 30, "all but the attic");
    assert_eq!(store.counts().bytes_kept, 30);
    assert_eq!(parts_of(&store, &newer).unwrap(), parts(2));
}

#[test]
fn a_part_of_the_same_name_and_length_is_not_taken_for_another() {
    let (_, source, meta) = written();
    let store = open(&MemoryDisk::new(), None);
    write(&store, 7, 3).unwrap();
    send(&source, &store, &meta, 1_000, 100).unwrap();
    assert_eq!(parts_of(&store, &meta).unwrap(), parts(1));
}

#[test]
fn what_came_before_a_restart_does_not_travel_again_whoever_sends() {
    let (_, source, meta) = written();
    // Another leader's snapshot of a later entry has the same keys, in other company.
    let other = open(&MemoryDisk::new(), None);
    let mut writer = other.begin(id(30), &members());
    for part in parts(1).into_iter().skip(2).chain(parts(1).into_iter().take(1)) {
        writer.part(&part).unwrap();
    }
    let later = writer.finish().unwrap();
    for (sender, offered) in [(&source, &meta), (&other, &later)] {
        let disk = MemoryDisk::new();
        let store = open(&disk, None);
        // The manifest, the keys, and half of the attic.
        let (received, _) = send(&source, &store, &meta, 1_000, 2).unwrap();
        store.receive(&meta, received.next, &[0xa5; 15]).unwrap();
        drop(store);
        let store = open(&disk, None);
        let (received, sent) = send(sender, &store, offered, 1_000, 100).unwrap();
        assert!(received.is_complete);
        assert_eq!(u64::try_from(sent).unwrap(), offered.size - 40, "all but the keys");
        assert_eq!(store.counts().bytes_resumed, 40);
        assert_eq!(parts_of(&store, offered).unwrap(), parts_of(sender, offered).unwrap());
        assert_eq!(names(&store).len(), 1 + 3);
    }
}

#[test]
fn a_part_that_came_before_and_rotted_travels_again() {
    let (_, source, meta) = written();
    let disk = MemoryDisk::new();
    send(&source, &open(&disk, None), &meta, 1_000, 3).unwrap();
    disk.corrupt(part_path(&parts(1)[0].data), 1, 1).unwrap();
    let store = open(&disk, None);
    let (received, _) = send(&source, &store, &meta, 1_000, 100).unwrap();
    assert!(received.is_complete);
    assert_eq!(store.counts().bytes_resumed, 30);
    store.verify(&meta).unwrap();
}

#[test]
fn parts_of_a_snapshot_that_is_offered_no_more_go() {
    let (_, source, first) = written();
    let second = write(&source, 20, 2).unwrap();
    let disk = MemoryDisk::new();
    let store = open(&disk, None);
    send(&source, &store, &first, 1_000, 3).unwrap();
    assert_eq!(names(&store).len(), 1 + 2, "a manifest, the keys and the attic");
    send(&source, &store, &second, 1_000, 1).unwrap();
    assert_eq!(names(&store).len(), 1 + 1, "another manifest, and the attic");
    assert_eq!(store.receive(&first, first.size - 7, &[1; 7]).unwrap().next, 0);
    let own = write(&store, 25, 3).unwrap();
    store.retain(own.last.index).unwrap();
    assert_eq!(names(&store).len(), 1 + 3, "our own is later");
    send(&source, &store, &second, 1_000, 2).unwrap();
    drop(store);
    let store = open(&disk, Some(&own));
    assert_eq!(names(&store).len(), 1 + 3, "nor does a start keep it");
}

#[test]
fn a_part_with_a_wrong_digest_is_asked_for_once_more_and_then_when_the_snapshot_is_offered_anew() {
    let (_, source, meta) = written();
    let store = open(&MemoryDisk::new(), None);
    let start = meta.size - 77;
    let (received, _) = send(&source, &store, &meta, 1_000, 1).unwrap();
    assert_eq!(received.next, start);
    let wrong = [7; 40];
    assert_eq!(store.receive(&meta, start, &wrong[..20]).unwrap().next, start + 20);
    assert_eq!(store.receive(&meta, start + 20, &wrong[20..]).unwrap().next, start, "once more");
    let right = source.read(&meta, start, 100).unwrap();
    assert_eq!(store.receive(&meta, start, &right).unwrap().next, start + 40, "it came right");
    let attic = start + 40;
    assert_eq!(
        store.receive(&meta, attic, &[7; 30]).unwrap().next,
        attic,
        "each part has two tries"
    );
    let error = store.receive(&meta, attic, &[7; 30]).unwrap_err();
    assert!(matches!(error, SnapshotError::Corrupt { .. }) && !error.is_fatal(), "{error}");
    assert_eq!(names(&store).len(), 1 + 1, "the manifest and the keys stay");
    assert_eq!(store.receive(&meta, attic, &[7; 30]).unwrap().next, 0, "it is refused");
    let (received, sent) = send(&source, &store, &meta, 1_000, 100).unwrap();
    assert!(received.is_complete);
    assert_eq!(u64::try_from(sent).unwrap(), meta.size - 40, "all but the keys");
    store.verify(&meta).unwrap();
}

#[test]
fn what_is_not_what_was_offered_is_refused() {
    let (disk, source, meta) = written();
    let manifest = disk.content(path(&names(&source)[0])).unwrap();
    let refused = |meta: &SnapshotMeta, bytes: &[u8]| {
        let store = open(&MemoryDisk::new(), None);
        let result = store.receive(meta, 0, bytes);
        assert!(matches!(result, Err(SnapshotError::Corrupt { .. })), "{result:?}");
        assert_eq!(names(&store), Vec::<String>::new());
        assert_eq!(store.receive(meta, 8, bytes).unwrap().next, 0, "until it is offered anew");
    };
    let mut damaged = manifest.clone();
    damaged[70] ^= 4;
    refused(&meta, &damaged);
    refused(&meta, &[manifest.as_slice(), &[0]].concat());
    refused(&meta, b"LATTSNAP\x01\0\0\0\x20\0\0\0");
    refused(&meta, b"something else altogether");
    refused(&SnapshotMeta { size: meta.size - 1, ..meta.clone() }, &manifest);
    refused(&SnapshotMeta { size: 10, ..meta.clone() }, &manifest[..10]);
    refused(&SnapshotMeta { last: id(10), ..meta.clone() }, &manifest);
    refused(&SnapshotMeta { membership: Membership::default(), ..meta.clone() }, &manifest);
    refused(&SnapshotMeta { checksum: 1, ..meta.clone() }, &manifest);
}

#[test]
fn a_piece_that_is_longer_than_its_part_is_refused() {
    let (_, source, meta) = written();
    let store = open(&MemoryDisk::new(), None);
    send(&source, &store, &meta, 1_000, 1).unwrap();
    let result = store.receive(&meta, meta.size - 77, &[0; 41]);
    assert!(matches!(result, Err(SnapshotError::Corrupt { .. })), "{result:?}");
}

#[test]
fn a_length_that_is_a_lie_costs_one_step_of_space() {
    let disk = SimDisk::new(1);
    let store = open(&disk, None);
    let digest = PartDigest::of(b"what it should be");
    let part = manifest::Listed { name: "all".to_owned(), size: 64 << 20, digest };
    let (lie, bytes) = Manifest::encode(id(1), members(), vec![part]);
    let received = store.receive(&lie.meta(), 0, &bytes).unwrap();
    store.receive(&lie.meta(), received.next, b"first piece").unwrap();
    assert!(disk.used() <= 9 << 20, "{} bytes", disk.used());
}

#[test]
fn a_call_reads_a_bounded_amount_of_what_is_here() {
    let disk = MemoryDisk::new();
    let store = open(&disk, None);
    let large = |seed: u8| Part { name: seed.to_string(), data: vec![seed; 6 << 20].into() };
    let mut writer = store.begin(id(1), &members());
    (0..5).for_each(|seed| writer.part(&large(seed)).unwrap());
    writer.finish().unwrap();
    let source = open(&MemoryDisk::new(), None);
    let mut writer = source.begin(id(9), &members());
    (0..6).for_each(|seed| writer.part(&large(seed)).unwrap());
    let meta = writer.finish().unwrap();
    let manifest = source.read(&meta, 0, 10_000).unwrap();
    let received = store.receive(&meta, 0, &manifest).unwrap();
    let start = u64::try_from(manifest.len()).unwrap();
    assert_eq!((received.next, received.is_busy), (start + (18 << 20), true));
    let elsewhere = store.receive(&meta, 0, &manifest).unwrap();
    assert_eq!((elsewhere.next, elsewhere.is_busy), (start + (18 << 20), false));
    let received = store.receive(&meta, received.next, &[]).unwrap();
    assert_eq!((received.next, received.is_busy), (start + (30 << 20), false));
    assert_eq!(store.counts().bytes_kept, 30 << 20);
}

#[test]
fn a_full_disk_is_no_fatal_error_and_leaves_nothing_behind() {
    let (_, source, meta) = written();
    let disk = SimDisk::new(1);
    let store = open(&disk, None);
    for room in [10, 600] {
        disk.set_capacity(Some(disk.used() + room));
        for error in [
            send(&source, &store, &meta, 1_000, 100).unwrap_err(),
            write(&store, 9, 1).unwrap_err(),
        ] {
            assert!(matches!(&error, SnapshotError::NoSpace { .. }), "{error}");
            assert!(!error.is_fatal());
        }
        disk.set_capacity(None);
        store.remove_unneeded().unwrap();
        assert_eq!(names(&store), Vec::<String>::new());
    }
    assert!(send(&source, &store, &meta, 1_000, 100).unwrap().0.is_complete);
}

#[test]
fn a_manifest_that_was_sent_is_not_taken_for_whole_later() {
    let (disk, store, meta) = written();
    let name = names(&store).remove(0);
    let manifest = store.read(&meta, 0, 10_000).unwrap();
    disk.corrupt(path(&name), 70, 1).unwrap();
    assert_eq!(store.read(&meta, 0, 10_000).unwrap(), manifest, "as it was when it was compared");
    let error = open(&disk, Some(&meta)).read(&meta, 64, 10_000).unwrap_err();
    assert!(matches!(error, SnapshotError::Corrupt { .. }), "{error}");
}

#[test]
fn two_writers_in_a_directory_never_take_the_same_temporary_name() {
    let disk = MemoryDisk::new();
    let (one, other) = (open(&disk, None), open(&disk, None));
    let listed = |name: &str| {
        let digest = PartDigest::of(name.as_bytes());
        manifest::Listed { name: name.to_owned(), size: 3, digest }
    };
    let mut first = files::PartFile::create(&one.files, &listed("one")).unwrap();
    let mut second = files::PartFile::create(&other.files, &listed("two")).unwrap();
    // A node that starts now removes what both have begun, and begins something itself.
    let next = open(&disk, None);
    let mut third = files::PartFile::create(&next.files, &listed("six")).unwrap();
    first.write(b"one").unwrap();
    second.write(b"two").unwrap();
    third.write(b"six").unwrap();
    assert!(first.finish().is_err() && second.finish().is_err(), "theirs are gone");
    assert!(third.finish().unwrap());
    assert!(next.files.holds(&listed("six")));
}

#[test]
fn a_stale_manifest_on_a_bad_sector_keeps_no_node_from_starting() {
    let (_, source, _) = written();
    let later = write(&source, 20, 2).unwrap();
    let disk = SimDisk::new(1);
    let store = open(&disk, None);
    let own = write(&store, 9, 1).unwrap();
    send(&source, &store, &later, 1_000, 2).unwrap();
    let incoming = names(&store).into_iter().find(|name| name.ends_with(INCOMING)).unwrap();
    disk.fail_reads(&path(&incoming), 0..64).unwrap();
    store.remove_unneeded().unwrap();
    assert_eq!(names(&store).len(), 1 + 3 + 1 + 1, "nobody knows what is needed");
    drop(store);
    let store = open(&disk, Some(&own));
    assert_eq!(names(&store).len(), 1 + 3);
    store.verify(&own).unwrap();
}

#[test]
fn a_failed_sync_is_fatal() {
    for sync in 1..=4 {
        let disk = SimDisk::new(1);
        let store = open(&disk, None);
        disk.fail_sync_at(sync);
        assert!(write(&store, 9, 1).unwrap_err().is_fatal());
        assert_eq!(store.list().unwrap(), []);
    }
}

/// Runs `work` on a disk that dies at its nth call, for every n until it gets through; `work` says what it made.
/// After each death the old snapshot must be whole, and the new one must be whole or gone. `again` is done after the crash, and
/// must get through.
fn for_each_crash(
    work: impl Fn(&SnapshotStore) -> Result<SnapshotMeta, SnapshotError>,
    again: impl Fn(&SnapshotStore),
) {
    for calls in 0.. {
        assert!(calls < 300, "the work never ends");
        let mut got_through = false;
        for seed in 0..8 {
            let disk = SimDisk::new(seed);
            let old = write(&open(&disk, None), 5, 1).unwrap();
            let store = open(&disk, Some(&old));
            disk.crash_after_calls(calls);
            let result = work(&store);
            got_through = result.is_ok();
            drop(store);
            disk.crash();
            // The log's record of it may have become durable before the crash, or not.
            let new = result.as_ref().ok().filter(|_| seed % 2 == 0);
            let latest = new.unwrap_or(&old);
            let store = open(&disk, Some(latest));
            store.verify(latest).unwrap();
            assert_eq!(store.list().unwrap(), [latest.last], "crash at call {calls}, seed {seed}");
            let is_needed =
                |name: &String| name.ends_with(".part") || parse_name(name, SNAPSHOT).is_some();
            let others: Vec<_> =
                names(&store).into_iter().filter(|name| !is_needed(name)).collect();
            assert!(others.len() <= 1, "{others:?}");
            assert!(others.iter().all(|name| parse_name(name, INCOMING).is_some()), "{others:?}");
            again(&store);
        }
        if got_through {
            break;
        }
    }
}

#[test]
fn a_crash_at_any_call_of_writing_keeps_the_old_snapshot() {
    for_each_crash(
        |store| write(store, 9, 2),
        |store| {
            let meta = write(store, 10, 4).unwrap();
            store.verify(&meta).unwrap();
            store.retain(meta.last.index).unwrap();
            assert_eq!(names(store).len(), 1 + 3, "nothing is left of it, or of the old one");
        },
    );
}

#[test]
fn a_crash_at_any_call_of_receiving_keeps_the_old_snapshot_and_the_transfer_goes_on() {
    let source = open(&MemoryDisk::new(), None);
    let meta = write(&source, 9, 2).unwrap();
    for_each_crash(
        |store| send(&source, store, &meta, 64, 100).map(|_| meta.clone()),
        |store| {
            assert!(send(&source, store, &meta, 64, 100).unwrap().0.is_complete);
            store.verify(&meta).unwrap();
        },
    );
}

#[test]
fn a_finished_snapshot_survives_a_crash() {
    for seed in 0..16 {
        let disk = SimDisk::new(seed);
        let meta = write(&open(&disk, None), 9, 2).unwrap();
        disk.crash();
        open(&disk, Some(&meta)).verify(&meta).unwrap();
    }
}

/// The format is what `docs/formats.md` draws: these bytes must stay readable.
#[test]
fn the_manifest_of_version_2_has_these_bytes() {
    let (disk, store, _) = written();
    let name = names(&store).remove(0);
    let bytes = disk.content(path(&name)).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(format!("{name}\n{hex}\n"), include_str!("golden/manifest-2.txt"));
}
