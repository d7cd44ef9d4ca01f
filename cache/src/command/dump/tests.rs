//! What is dumped comes back, and no payload does harm.

use crc32c::crc32c;
use proptest::prelude::*;

use super::format::{Damage, read, write};
use crate::command::testing::{START_MS, TestNode, show, story};
use crate::types::UnixMillis;

const NOW: UnixMillis = UnixMillis(START_MS);

/// One value of each kind, small and large.
fn populated() -> (TestNode, Vec<&'static str>) {
    let mut node = TestNode::new();
    node.run("SET string \"a \\x00 b\"");
    node.run("SET empty \"\"");
    node.run("RPUSH list a b \"\" c");
    node.run("SADD set x y z");
    node.run("SADD integers 1 2 300000");
    node.run("ZADD zset 1.5 a -inf b 3 c");
    node.run("HSET hash f v g w");
    for number in 0..600 {
        node.run(&format!("RPUSH large:list element:{number}"));
        node.run(&format!("SADD large:set member:{number}"));
        node.run(&format!("ZADD large:zset {number} member:{number}"));
        node.run(&format!("HSET large:hash field:{number} value:{number}"));
    }
    let keys = vec![
        "string",
        "empty",
        "list",
        "set",
        "integers",
        "zset",
        "hash",
        "large:list",
        "large:set",
        "large:zset",
        "large:hash",
    ];
    (node, keys)
}

fn dump(node: &mut TestNode, key: &str) -> Vec<u8> {
    let reply = node.call(&[b"DUMP", key.as_bytes()]);
    let start = reply.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    reply[start..reply.len() - 2].to_vec()
}

#[test]
fn what_is_dumped_comes_back() {
    let (mut node, keys) = populated();
    for key in keys {
        let payload = dump(&mut node, key);
        let reply = node.call(&[b"RESTORE", b"copy", b"0", &payload, b"REPLACE"]);
        assert_eq!(show(&reply), "OK", "{key}");
        assert_eq!(node.run("TYPE copy"), node.run(&format!("TYPE {key}")));
        let contents =
            |node: &mut TestNode, key: &str| match node.run(&format!("TYPE {key}")).as_str() {
                "string" => node.run(&format!("GET {key}")),
                "list" => node.run(&format!("LRANGE {key} 0 -1")),
                "set" => node.run(&format!("SORT {key} ALPHA")),
                "zset" => node.run(&format!("ZRANGE {key} 0 -1 WITHSCORES")),
                _ => {
                    node.run(&format!("HLEN {key}"))
                        + &node.run(&format!("HMGET {key} f g field:7 field:599"))
                }
            };
        assert_eq!(contents(&mut node, "copy"), contents(&mut node, key), "{key}");
    }
}

#[test]
fn restoring_follows_its_options() {
    let mut node = TestNode::new();
    node.run("SET a x");
    let payload = dump(&mut node, "a");
    let mut restore = |rest: &[&str]| {
        let mut arguments: Vec<&[u8]> = vec![b"RESTORE", b"b", rest[0].as_bytes(), &payload];
        arguments.extend(rest[1..].iter().map(|word| word.as_bytes()));
        let reply = show(&node.call(&arguments));
        (reply, node.run("PTTL b"))
    };
    let later = (START_MS + 7_000).to_string();
    let past = (START_MS - 1).to_string();
    for (arguments, reply, ttl) in [
        (&["0"][..], "OK", "-1"),
        (&["0"], "-BUSYKEY Target key name already exists.", "-1"),
        (&["5000", "REPLACE"], "OK", "5000"),
        (&[&later, "REPLACE", "ABSTTL"], "OK", "7000"),
        (&["-1", "REPLACE"], "-ERR Invalid TTL value, must be >= 0", "7000"),
        (&["x", "REPLACE"], "-ERR value is not an integer or out of range", "7000"),
        (&["0", "REPLACE", "IDLETIME", "10"], "OK", "-1"),
        (
            &["0", "REPLACE", "FREQ", "256"],
            "-ERR Invalid FREQ value, must be >= 0 and <= 255",
            "-1",
        ),
        (&["0", "REPLACE", "FREQ", "1", "IDLETIME", "1"], "-ERR syntax error", "-1"),
        (&[&past, "ABSTTL", "REPLACE"], "OK", "-2"),
    ] {
        assert_eq!(restore(arguments), (reply.to_owned(), ttl.to_owned()), "{arguments:?}");
    }
    let mut noted = |options: [&[u8]; 3], question: &str| {
        let arguments: Vec<&[u8]> =
            [&[b"RESTORE".as_slice(), b"b", b"0", &payload], &options[..]].concat();
        assert_eq!(show(&node.call(&arguments)), "OK");
        node.run(question)
    };
    assert_eq!(noted([b"REPLACE", b"IDLETIME", b"1000"], "OBJECT IDLETIME b"), "1000");
    assert_eq!(noted([b"REPLACE", b"FREQ", b"9"], "CONFIG SET maxmemory-policy allkeys-lfu"), "OK");
    assert_eq!(noted([b"REPLACE", b"FREQ", b"100"], "OBJECT FREQ b"), "100");
    story(
        "
        DUMP none              => nil
        RESTORE a 0 garbage    => -ERR DUMP payload version or checksum are wrong
        RESTORE a 0 \"\"       => -ERR DUMP payload version or checksum are wrong
        ",
    );
}

/// A payload with a right checksum around `content`.
fn sealed(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut payload = b"LDMP\x01".to_vec();
    payload.push(kind);
    payload.extend_from_slice(content);
    let checksum = crc32c(&payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
    payload
}

#[test]
fn content_that_makes_no_sense_is_refused_behind_a_right_checksum() {
    let member = |text: &str| {
        let mut bytes = u32::try_from(text.len()).unwrap().to_le_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes
    };
    let score = |value: f64| value.to_bits().to_le_bytes().to_vec();
    for (kind, content) in [
        (1, vec![]),
        (2, vec![]),
        (3, vec![]),
        (4, vec![]),
        (5, vec![]),
        (255, member("x")),
        (1, vec![1, 0, 0]),
        (1, vec![255, 255, 255, 255, b'x']),
        (2, [member("x"), member("x")].concat()),
        (3, member("x")),
        (3, [member("x"), score(f64::NAN)].concat()),
        (3, [member("x"), score(1.0), member("x"), score(2.0)].concat()),
        (4, member("x")),
        (4, [member("x"), member("y")].concat()),
        (4, [member("x"), member("y"), vec![0; 8], member("x"), member("y"), vec![0; 8]].concat()),
    ] {
        let result = read(&sealed(kind, &content), NOW);
        assert!(matches!(result, Err(Damage::Content)), "kind {kind}: {content:?}");
    }
    let mut other_version = sealed(0, b"x");
    other_version[4] = 2;
    assert!(matches!(read(&other_version, NOW), Err(Damage::Envelope)));
}

#[test]
fn fields_that_have_expired_are_left_out() {
    let field = |name: &str, deadline: u64| {
        let mut bytes = u32::try_from(name.len()).unwrap().to_le_bytes().to_vec();
        bytes.extend_from_slice(name.as_bytes());
        [bytes.clone(), bytes, deadline.to_le_bytes().to_vec()].concat()
    };
    let both = [field("over", NOW.0), field("later", NOW.0 + 1), field("ever", 0)].concat();
    let value = read(&sealed(4, &both), NOW).unwrap().unwrap();
    let again = write(&value.view());
    let crate::value::View::Hash(hash) = value.view() else { panic!("it is a hash") };
    assert_eq!(hash.len(), 2);
    assert_eq!(hash.find(b"later").unwrap().deadline, Some(UnixMillis(NOW.0 + 1)));
    assert!(read(&again, NOW).unwrap().is_some());
    assert!(read(&sealed(4, &field("over", 1)), NOW).unwrap().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Content that was changed at random, with the checksum made right again: refused, or read as something that can be dumped.
    #[test]
    fn no_payload_panics(
        kind in 0u8..6,
        names in proptest::collection::vec("[a-c]{0,3}", 0..6),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in 0usize..8,
    ) {
        let mut content = Vec::new();
        for name in names {
            content.extend_from_slice(&u32::try_from(name.len()).unwrap().to_le_bytes());
            content.extend_from_slice(name.as_bytes());
            if kind == 3 {
                content.extend_from_slice(&1.5f64.to_bits().to_le_bytes());
            }
            if kind == 4 {
                content.extend_from_slice(&[1, 0, 0, 0, b'v', 0, 0, 0, 0, 0, 0, 0, 0]);
            }
        }
        for (index, byte) in changes {
            if !content.is_empty() {
                let at = index.index(content.len());
                content[at] = byte;
            }
        }
        content.truncate(content.len().saturating_sub(cut));
        if let Ok(Some(value)) = read(&sealed(kind, &content), NOW) {
            let again = write(&value.view());
            prop_assert!(matches!(read(&again, NOW), Ok(Some(_))));
        }
    }

    #[test]
    fn damage_is_seen(at in any::<prop::sample::Index>(), change in 1u8..) {
        let mut payload = sealed(0, b"some text that is long enough");
        let at = at.index(payload.len());
        payload[at] ^= change;
        prop_assert!(matches!(read(&payload, NOW), Err(Damage::Envelope)));
    }
}
