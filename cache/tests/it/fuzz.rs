//! Bytes from nowhere, and valid input with something wrong: the functions that the fuzz targets call, with drawn input.

use distributed_cache::sim::fuzz::{requests, restore};
use proptest::prelude::*;

/// One change to some bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(usize, u8),
    Cut(usize),
    Insert(usize, Vec<u8>),
    Repeat(usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = 0..4_000usize;
    prop_oneof![
        (at.clone(), any::<u8>()).prop_map(|(at, by)| Mutation::Flip(at, by)),
        at.clone().prop_map(Mutation::Cut),
        (at.clone(), prop::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (at.clone(), at).prop_map(|(from, to)| Mutation::Repeat(from, to)),
    ]
}

fn mutated(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        let length = bytes.len();
        if length == 0 {
            break;
        }
        match mutation {
            Mutation::Flip(at, by) => bytes[at % length] ^= by,
            Mutation::Cut(at) => bytes.truncate(at % length),
            Mutation::Insert(at, more) => {
                let at = at % length;
                bytes.splice(at..at, more.iter().copied());
            }
            Mutation::Repeat(from, to) => {
                let (from, to) = (from % length, to % length);
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.extend(part);
            }
        }
    }
    bytes
}

/// Requests as a client sends them, arrays and lines.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::collection::vec(any::<u8>(), 0..40);
    let array = prop::collection::vec(word, 0..6).prop_map(|words| {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend(format!("${}\r\n", word.len()).into_bytes());
            bytes.extend(word);
            bytes.extend(b"\r\n");
        }
        bytes
    });
    let line = "[a-z \"'\\\\x0-9]{0,60}\r?\n".prop_map(String::into_bytes);
    let lengths = prop_oneof![Just(i64::MAX), Just(i64::MIN), Just(-1), Just(536_870_912), 0..9i64];
    let declared = (prop_oneof![Just('*'), Just('$')], lengths)
        .prop_map(|(kind, length)| format!("{kind}{length}\r\n").into_bytes());
    prop::collection::vec(prop_oneof![4 => array, 2 => line, 1 => declared], 0..8)
        .prop_map(|parts| parts.concat())
}

/// What lies between the head of a payload and its checksum.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let element = (prop::collection::vec(any::<u8>(), 0..12), 0u8..6, any::<u64>(), 0u8..20);
    (0u8..6, prop::collection::vec(element, 0..200)).prop_map(|(kind, elements)| {
        let mut bytes = vec![kind];
        let push = |bytes: &mut Vec<u8>, text: &[u8]| {
            bytes.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
            bytes.extend(text);
        };
        for (text, same, number, odd) in elements {
            let text = if same == 0 { b"same".to_vec() } else { text };
            push(&mut bytes, &text);
            let score = f64::from(u32::try_from(number >> 40).unwrap()).to_bits();
            let number = if odd == 0 { number } else { score };
            match kind {
                3 => bytes.extend(number.to_le_bytes()),
                4 => {
                    push(&mut bytes, b"value");
                    let deadline = if odd < 15 { 0 } else { 1_700_000_000_000 + (number >> 30) };
                    bytes.extend(deadline.to_le_bytes());
                }
                _ => {}
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn any_bytes_are_requests_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..2_000),
        cuts in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        requests(&bytes, &cuts);
    }

    #[test]
    fn requests_with_something_wrong_do_no_harm(
        bytes in stream(),
        mutations in prop::collection::vec(mutation(), 0..4),
        cuts in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        requests(&mutated(bytes, &mutations), &cuts);
    }

    #[test]
    fn payloads_with_something_wrong_do_no_harm(
        bytes in content(),
        mutations in prop::collection::vec(mutation(), 0..4),
    ) {
        restore(&mutated(bytes, &mutations));
    }

    #[test]
    fn any_bytes_are_a_payload_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        restore(&bytes);
    }
}
