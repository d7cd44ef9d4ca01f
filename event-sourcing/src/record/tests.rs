use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;

fn name() -> impl Strategy<Value = String> {
    "[a-zåß$:€-]{1,20}"
}

fn content_types() -> impl Strategy<Value = ContentType> {
    prop_oneof![
        Just(ContentType::Json),
        Just(ContentType::Bytes),
        Just(ContentType::Postcard),
        Just(ContentType::Bincode),
        "[a-z/]{0,30}".prop_map(|text| ContentType::Other(text.into())),
    ]
}

fn text() -> impl Strategy<Value = Option<Box<str>>> {
    option::of(".{0,20}".prop_map(Into::into))
}

prop_compose! {
    fn events()(
        id in any::<u128>(), event_type in name(), schema in any::<u32>(), content_type in content_types(),
        data in vec(any::<u8>(), 0..300), custom in vec(any::<u8>(), 0..20),
        (correlation, causation, user) in (text(), text(), text()), labels in btree_set(name(), 0..6),
    ) -> NewEvent {
        NewEvent {
            id: EventId(Uuid::from_u128(id)),
            event_type: EventType::new(event_type).unwrap(),
            schema,
            content_type,
            data: data.into(),
            metadata: Metadata { correlation, causation, user, custom: custom.into() },
            labels: labels.into_iter().map(|label| Label::new(label).unwrap()).collect(),
        }
    }
}

prop_compose! {
    fn recorded()(
        event in events(), stream in name(), position in 1..u64::MAX, version in any::<u64>(),
        timestamp in any::<u64>(), index in 0..5000_u32, more in 1..5000_u32,
    ) -> Recorded {
        let index = u32::try_from(u64::from(index).min(position - 1)).unwrap();
        Recorded {
            position: Position(position),
            stream: StreamName::new(stream).unwrap(),
            version: Version(version % position),
            timestamp: Timestamp(timestamp),
            place: AppendPlace { index, count: index + more },
            event,
        }
    }
}

fn key() -> impl Strategy<Value = Option<IdempotencyKey>> {
    option::of(".{1,20}".prop_map(|key| IdempotencyKey(key.into())))
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(recorded in recorded(), key in key()) {
        let encoded = Bytes::from(encode(&recorded, key.as_ref()));
        let decoded = decode(&encoded).unwrap();
        prop_assert_eq!(decoded.key, key);
        match decoded.entry {
            Entry::Event(event) => prop_assert_eq!(&*event, &recorded),
            Entry::Scavenged(_) => prop_assert!(false, "it is an event"),
        }
    }

    #[test]
    fn a_stub_keeps_what_it_is_for(recorded in recorded(), key in key()) {
        let leaf = leaf_hash(&encode(&recorded, key.as_ref()));
        let stub = Stub::of(&recorded, leaf);
        let decoded = decode(&Bytes::from(encode_stub(&stub, key.as_ref()))).unwrap();
        prop_assert_eq!(decoded.key, key);
        prop_assert_eq!(decoded.entry.content(), content_digest(&recorded.event));
        prop_assert_eq!(decoded.entry.id(), recorded.event.id);
        match decoded.entry {
            Entry::Event(_) => prop_assert!(false, "it is a stub"),
            Entry::Scavenged(decoded) => prop_assert_eq!(decoded, stub),
        }
    }

    /// Whatever can be decoded is in its one form: nobody can make two records of one event, and so two leaves.
    #[test]
    fn bytes_have_one_meaning_and_a_meaning_has_one_form(
        recorded in recorded(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut bytes = encode(&recorded, None);
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = byte;
        }
        let bytes = Bytes::from(bytes);
        if let Ok(Decoded { entry, key }) = decode(&bytes) {
            prop_assert!(!cut, "a record that was cut is none");
            let again = match entry {
                Entry::Event(event) => encode(&event, key.as_ref()),
                Entry::Scavenged(stub) => encode_stub(&stub, key.as_ref()),
            };
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_quietly(bytes in vec(any::<u8>(), 0..100)) {
        let mut framed = vec![FORMAT, KIND_EVENT];
        framed.extend(&bytes);
        let _ = decode(&Bytes::from(bytes));
        let _ = decode(&Bytes::from(framed));
    }
}

#[test]
fn the_digest_is_of_what_an_event_says_and_of_nothing_else() {
    let event = |data: &'static str| NewEvent::json(EventType::new("t").unwrap(), data);
    let label = |name| Label::new(name).unwrap();
    let said = content_digest(&event("1").label(label("a")).label(label("b")));
    let metadata = Metadata { user: Some("u".into()), ..Metadata::default() };
    let again = NewEvent { metadata, ..event("1").label(label("b")).label(label("a")) };
    assert_eq!(said, content_digest(&again.label(label("a"))));
    for other in [
        event("2").label(label("a")).label(label("b")),
        event("1").label(label("ab")),
        event("1").label(label("a")),
        NewEvent { schema: 2, ..event("1").label(label("a")).label(label("b")) },
        NewEvent::bytes(EventType::new("t").unwrap(), "1").label(label("a")).label(label("b")),
        NewEvent::json(EventType::new("u").unwrap(), "1").label(label("a")).label(label("b")),
    ] {
        assert_ne!(said, content_digest(&other), "{other:?}");
    }
}

/// The bytes of one event, so that a change of the format is seen here first.
#[test]
fn the_format_has_not_changed() {
    let event = NewEvent {
        id: EventId(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10)),
        event_type: EventType::new("account.opened").unwrap(),
        schema: 2,
        content_type: ContentType::Json,
        data: "{}".into(),
        metadata: Metadata { user: Some("ada".into()), ..Metadata::default() },
        labels: vec![Label::new("a:1").unwrap()],
    };
    let recorded = Recorded {
        position: Position(300),
        stream: StreamName::new("account-1").unwrap(),
        version: Version(7),
        timestamp: Timestamp(1_000_000),
        place: AppendPlace { index: 0, count: 1 },
        event,
    };
    let key = IdempotencyKey("k".into());
    let expected = [
        &[1, 0, 0xac, 2, 7, 0xc0, 0x84, 0x3d, 0, 1][..],
        &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
        b"\x09account-1",
        &[0b1001, 2],
        b"\x0eaccount.opened",
        &[0, 1],
        b"\x03a:1\x01k\x03ada\x00\x02{}",
    ];
    assert_eq!(encode(&recorded, Some(&key)), expected.concat());
}
