//! Bits as clients see them, and against a model that does one bit at a time.

use proptest::prelude::*;

use super::{Asked, all, bit_at, count, first};
use crate::command::testing::{TestNode, show, story};

/// Two bytes to one.
type Combine = fn(u8, u8) -> u8;

#[test]
fn strings_of_any_lengths_are_combined_as_bytes_are() {
    let mut node = TestNode::new();
    let lengths = [0, 1, 7, 8, 9, 16, 31, 100];
    let string = |length: usize, factor: usize| -> Vec<u8> {
        (0..length).map(|at| u8::try_from(at * factor % 256).unwrap()).collect()
    };
    for left in lengths {
        for right in lengths {
            let (one, other) = (string(left, 37), string(right, 101));
            node.run("DEL l r");
            node.call(&[b"APPEND", b"l", &one]);
            node.call(&[b"APPEND", b"r", &other]);
            let operations: [(&[u8], Combine); 3] =
                [(b"AND", |a, b| a & b), (b"OR", |a, b| a | b), (b"XOR", |a, b| a ^ b)];
            for (name, of) in operations {
                let at = |bytes: &[u8], at: usize| bytes.get(at).copied().unwrap_or(0);
                let whole = 0..left.max(right);
                let wanted: Vec<u8> = whole.map(|it| of(at(&one, it), at(&other, it))).collect();
                node.call(&[b"BITOP", name, b"d", b"l", b"r"]);
                let mut reply = format!("${}\r\n", wanted.len()).into_bytes();
                reply.extend(&wanted);
                reply.extend(b"\r\n");
                let reply = if wanted.is_empty() { b"$-1\r\n".to_vec() } else { reply };
                assert_eq!(node.call(&[b"GET", b"d"]), reply);
            }
        }
    }
}

#[test]
fn single_bits() {
    story(
        r#"
        SETBIT b 7 1           => 0
        GET b                  => "\x01"
        SETBIT b 7 1           => 1
        SETBIT b 9 1           => 0
        GET b                  => "\x01@"
        GETBIT b 9             => 1
        GETBIT b 1000000       => 0
        GETBIT none 0          => 0
        SETBIT b -1 1          => -ERR bit offset is not an integer or out of range
        SETBIT b 4294967296 1  => -ERR bit offset is not an integer or out of range
        SETBIT b 1 2           => -ERR bit is not an integer or out of range
        SETBIT b x 1           => -ERR bit offset is not an integer or out of range
        SETBIT zero 8 0        => 0
        GET zero               => "\x00\x00"
        "#,
    );
}

#[test]
fn counting_and_finding() {
    story(
        r#"
        SET b foobar           => OK
        BITCOUNT b             => 26
        BITCOUNT b 0 0         => 4
        BITCOUNT b 1 1 BYTE    => 6
        BITCOUNT b 5 30 BIT    => 17
        BITCOUNT b -2 -1       => 7
        BITCOUNT b -1 -2       => 0
        BITCOUNT b 0           => -ERR syntax error
        BITCOUNT b 0 1 BITS    => -ERR syntax error
        BITCOUNT b 0 x         => -ERR value is not an integer or out of range
        BITCOUNT none          => 0
        SET b "\xff\xf0\x00"   => OK
        BITPOS b 0             => 12
        BITPOS b 1 2           => -1
        BITPOS b 0 0 0         => -1
        BITPOS b 1 7 15 BIT    => 7
        BITPOS b 0 7 15 BIT    => 12
        BITPOS b 2             => -ERR The bit argument must be 1 or 0.
        BITPOS none 0          => 0
        BITPOS none 1          => -1
        SET b "\xff"           => OK
        BITPOS b 0             => 8
        BITPOS b 0 0           => 8
        BITPOS b 0 0 -1        => -1
        SET b ""               => OK
        BITPOS b 0             => -1
        "#,
    );
}

#[test]
fn whole_strings_are_combined() {
    story(
        r#"
        MSET a "\xf0\x0f" b "\x3c" => OK
        BITOP AND d a b        => 2
        GET d                  => "0\x00"
        BITOP OR d a b none    => 2
        GET d                  => "\xfc\x0f"
        BITOP XOR d a b        => 2
        GET d                  => "\xcc\x0f"
        BITOP NOT d a          => 2
        GET d                  => "\x0f\xf0"
        BITOP NOT d a b        => -ERR BITOP NOT must be called with a single source key.
        BITOP NAND d a         => -ERR syntax error
        BITOP AND d none       => 0
        EXISTS d               => 0
        "#,
    );
}

#[test]
fn fields_of_any_width() {
    story(
        r#"
        BITFIELD f SET u8 0 255 GET i8 0 => [0, -1]
        BITFIELD f SET i5 #1 -7 GET i5 5 GET u5 5 => [-4, -7, 25]
        BITFIELD f INCRBY u2 100 1 OVERFLOW SAT INCRBY u2 102 5 => [1, 3]
        BITFIELD f INCRBY u2 100 3 OVERFLOW FAIL INCRBY u2 102 5 GET u2 102 => [0, nil, 3]
        BITFIELD f SET i64 200 -9223372036854775808 => [0]
        BITFIELD f INCRBY i64 200 -1 => [9223372036854775807]
        BITFIELD f OVERFLOW SAT INCRBY i64 200 1 => [9223372036854775807]
        BITFIELD f SET u8 0 -1 => [254]
        BITFIELD f GET u64 0   => -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.
        BITFIELD f GET u8 -1   => -ERR bit offset is not an integer or out of range
        BITFIELD f GET u8 #9223372036854775807 => -ERR bit offset is not an integer or out of range
        BITFIELD f OVERFLOW X  => -ERR Invalid OVERFLOW type specified
        BITFIELD f SET u8 0    => -ERR syntax error
        BITFIELD_RO f GET u8 0 => [255]
        BITFIELD_RO f SET u8 0 1 => -ERR BITFIELD_RO only supports the GET subcommand
        BITFIELD none GET u8 0 => [0]
        EXISTS none            => 0
        BITFIELD f             => []
        "#,
    );
}

fn asked() -> impl Strategy<Value = Asked> {
    (-30i64..30, proptest::option::of(-30i64..30), any::<bool>())
        .prop_map(|(start, end, bits)| Asked { start, end, bits: bits && end.is_some() })
}

proptest! {
    #[test]
    fn ranges_count_and_find_what_one_bit_at_a_time_does(
        bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(255), any::<u8>()], 0..40),
        asked in asked(),
    ) {
        let Some(range) = asked.within(bytes.len()).or_else(|| all(bytes.len())) else { return Ok(()) };
        let ones = range.clone().filter(|at| bit_at(&bytes, *at) == 1).count();
        prop_assert_eq!(count(&bytes, &range), i64::try_from(ones).unwrap());
        for bit in [0, 1] {
            let expected = range.clone().find(|at| bit_at(&bytes, *at) == bit);
            prop_assert_eq!(first(&bytes, &range, bit), expected);
        }
    }

    #[test]
    fn a_field_holds_what_was_set_and_leaves_its_neighbours_alone(
        before in proptest::collection::vec(any::<u8>(), 24),
        offset in 0usize..120,
        bits in 1u32..=64,
        value: i64,
    ) {
        let mut node = TestNode::new();
        node.call(&[b"SET", b"f", &before]);
        let kind = format!("i{bits}");
        let (at, text) = (offset.to_string(), value.to_string());
        node.call(&[b"BITFIELD", b"f", b"SET", kind.as_bytes(), at.as_bytes(), text.as_bytes()]);
        let width = usize::try_from(bits).unwrap();
        let mut expected = before.clone();
        for index in 0..width {
            let place = offset + index;
            let bit = u8::from(value >> (width - 1 - index) & 1 == 1);
            let byte = &mut expected[place / 8];
            *byte = *byte & !(128 >> (place % 8)) | bit << (7 - place % 8);
        }
        let held = node.call(&[b"GET", b"f"]);
        prop_assert_eq!(show(&held), format!("\"{}\"", expected.escape_ascii()));
    }
}
