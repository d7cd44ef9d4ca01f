use super::*;
use crate::batch::{Batch, Encode};
use writing::pad;

const PLACE: Place = Place { journal: 7 << 64 | 9, segment: 3, offset: 64 };

fn header(kind: FrameKind, count: u32) -> FrameHeader {
    FrameHeader {
        kind,
        count,
        previous: 5,
        sequence: 11,
        first: 21,
        durable_end: 10,
        state_sequence: 4,
        truncation_sequence: 3,
        truncated_to: 19,
    }
}

fn sample() -> Vec<u8> {
    let batch = Batch {
        truncate_from: Some(21),
        first: 21,
        items: vec![&b"one"[..], b"", b"three"],
        state: Some(b"state".to_vec()),
        ..Batch::default()
    };
    let mut bytes = Vec::new();
    put_batch(&mut bytes, PLACE, header(FrameKind::Batch, 3), &batch);
    assert_eq!(to_u64(bytes.len()), batch_frame_length(&batch));
    bytes
}

#[test]
fn a_batch_reads_back() {
    let bytes = sample();
    let frame = Frame::read(&bytes, PLACE).unwrap();
    assert_eq!(frame.header, header(FrameKind::Batch, 3));
    let Body::Batch(body) = frame.body else { panic!("not a batch") };
    assert!(body.truncates() && !body.restarts());
    assert_eq!(body.state, Some(&b"state"[..]));
    let items = [&b"one"[..], b"", b"three"].map(Some);
    for skipped in 0..=items.len() {
        assert_eq!(body.items(skipped).collect::<Vec<_>>(), items[skipped..]);
    }
    assert_eq!(body.lost(21, 1000), []);
}

#[test]
fn checkpoints_and_marks_read_back() {
    for state in [None, Some(&b""[..]), Some(&b"hard state"[..])] {
        let mut bytes = Vec::new();
        put_checkpoint(&mut bytes, PLACE, header(FrameKind::Checkpoint, 0), 2, 17, state);
        assert_eq!(to_u64(bytes.len()), checkpoint_length(state));
        let frame = Frame::read(&bytes, PLACE).unwrap();
        let Body::Checkpoint { first_segment: 2, start: 17, state: found } = frame.body else {
            panic!("not that checkpoint")
        };
        assert_eq!(found, state);
    }
    let mut bytes = Vec::new();
    put_mark(&mut bytes, PLACE, header(FrameKind::Mark, 0), 2);
    assert_eq!(to_u64(bytes.len()), MARK_LENGTH);
    let frame = Frame::read(&bytes, PLACE).unwrap();
    assert!(matches!(frame.body, Body::Mark { first_segment: 2 }));
}

/// What a frame that stands at 1000 has lost.
fn lost(bytes: &[u8]) -> Option<Vec<LostItems>> {
    let frame = Frame::read(bytes, PLACE)?;
    let Body::Batch(body) = frame.body else { panic!("not a batch") };
    Some(body.lost(frame.header.first, 1000 + to_u64(bytes.len())))
}

#[test]
fn a_flipped_bit_costs_one_item_or_the_frame() {
    let bytes = sample();
    // Header, flags, lengths and checksums, and the state.
    let head = FRAME_HEADER + 8 + 3 * ITEM_ENTRY + 5;
    for bit in 0..bytes.len() * 8 {
        let mut spoilt = bytes.clone();
        spoilt[bit / 8] ^= 1 << (bit % 8);
        let (positions, bytes) = match bit / 8 {
            at if at < head => {
                assert_eq!(lost(&spoilt), None, "bit {bit}");
                continue;
            }
            at if at < head + 3 => (21..22, head..head + 3),
            _ => (23..24, head + 3..head + 8),
        };
        let bytes = 1000 + to_u64(bytes.start)..1000 + to_u64(bytes.end);
        assert_eq!(lost(&spoilt), Some(vec![LostItems { positions, bytes }]), "bit {bit}");
    }
}

/// Says a length, and has another one.
struct Liar(usize);

impl Encode for Liar {
    fn encoded_length(&self) -> usize {
        self.0
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"four");
    }
}

#[test]
#[should_panic(expected = "an item is as long as it said")]
fn an_item_of_another_length_than_it_said_is_no_item() {
    // The lengths of both together are right.
    let batch = Batch { items: vec![Liar(3), Liar(5)], ..Batch::default() };
    put_batch(&mut Vec::new(), PLACE, header(FrameKind::Batch, 2), &batch);
}

#[test]
fn lost_items_that_follow_on_each_other_are_told_together() {
    let batch = Batch { items: vec![b"abcdefg"; 9], ..Batch::default() };
    let mut bytes = Vec::new();
    put_batch(&mut bytes, PLACE, header(FrameKind::Batch, 9), &batch);
    let begin = FRAME_HEADER + 8 + 9 * ITEM_ENTRY;
    for item in [0, 3, 4, 8] {
        bytes[begin + item * 7] ^= 1;
    }
    let lost: Vec<_> = lost(&bytes).unwrap().into_iter().map(|lost| lost.positions).collect();
    assert_eq!(lost, [21..22, 24..26, 29..30]);
}

#[test]
fn a_frame_of_version_1_is_read_and_is_lost_as_a_whole() {
    // The same batch, as version 1 wrote it.
    let new = sample();
    let mut old = new[..FRAME_HEADER + 8].to_vec();
    for entry in new[FRAME_HEADER + 8..][..3 * ITEM_ENTRY].chunks_exact(ITEM_ENTRY) {
        old.extend_from_slice(&entry[..4]);
    }
    old.extend_from_slice(b"stateonethree");
    pad(&mut old);
    old[12] = 1;
    let body_length = length_u32(old.len() - FRAME_HEADER);
    old[8..12].copy_from_slice(&body_length.to_le_bytes());
    let crc = checksum(&old, PLACE);
    old[4..8].copy_from_slice(&crc.to_le_bytes());
    let Body::Batch(body) = Frame::read(&old, PLACE).unwrap().body else { panic!("no batch") };
    assert_eq!(body.items(1).collect::<Vec<_>>(), [Some(&b""[..]), Some(b"three")]);
    assert_eq!(body.state, Some(&b"state"[..]));
    for bit in 0..old.len() * 8 {
        let mut spoilt = old.clone();
        spoilt[bit / 8] ^= 1 << (bit % 8);
        assert!(Frame::read(&spoilt, PLACE).is_none(), "bit {bit}");
    }
}

#[test]
fn a_frame_is_valid_only_in_its_place() {
    let bytes = sample();
    let elsewhere = [
        Place { journal: 8 << 64 | 9, ..PLACE },
        Place { journal: 7 << 64 | 8, ..PLACE },
        Place { segment: 4, ..PLACE },
        Place { offset: 72, ..PLACE },
    ];
    for place in elsewhere {
        assert!(Frame::read(&bytes, place).is_none(), "{place:?}");
    }
}

#[test]
fn zeros_are_no_frame_and_no_length_is_trusted() {
    for length in 0..200 {
        assert!(Frame::read(&vec![0; length], PLACE).is_none());
    }
    // A body that lies about its lengths, under a checksum that is right.
    let head = FRAME_HEADER + 8 + 3 * ITEM_ENTRY + 5;
    for (offset, value) in [(4, u32::MAX), (8, u32::MAX), (8, 11), (0, 64)] {
        let mut bytes = sample();
        bytes[FRAME_HEADER + offset..][..4].copy_from_slice(&u32::to_le_bytes(value));
        let crc = checksum(&bytes[..head], PLACE);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        assert!(Frame::read(&bytes, PLACE).is_none(), "{value} at {offset}");
    }
    let mut bytes = sample();
    bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    let crc = checksum(&bytes[..head], PLACE);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    assert!(Frame::read(&bytes, PLACE).is_none());
}
