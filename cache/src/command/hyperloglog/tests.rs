//! HyperLogLogs: what clients see, how good the estimate is, and that no bytes do harm.

use proptest::prelude::*;

use super::sketch::{self, REGISTERS};
use crate::command::testing::{TestNode, story};

#[test]
fn elements_are_counted_once() {
    story(
        r#"
        PFADD a x y z          => 1
        PFADD a x y            => 0
        PFCOUNT a              => 3
        PFCOUNT a              => 3
        PFADD b z w            => 1
        PFCOUNT a b none       => 4
        PFMERGE c a b          => OK
        PFCOUNT c              => 4
        PFADD new              => 1
        PFADD new              => 0
        PFCOUNT new none       => 0
        SET s text             => OK
        PFADD s x              => -WRONGTYPE Key is not a valid HyperLogLog string value.
        PFCOUNT s              => -WRONGTYPE Key is not a valid HyperLogLog string value.
        "#,
    );
}

/// The bytes that redis-server 7.0.15 has after the same command.
#[test]
fn the_bytes_are_redis_s() {
    story(
        r#"
        PFADD a foo bar        => 1
        GET a                  => "HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\\\xb3\x90Ja\x80X\xe7"
        "#,
    );
}

#[test]
fn a_sketch_can_be_looked_into() {
    story(
        "
        PFADD a x              => 1
        PFDEBUG ENCODING a     => sparse
        PFDEBUG DECODE a       => \"Z:16374 v:2,1 z:9\"
        PFDEBUG TODENSE a      => 1
        PFDEBUG TODENSE a      => 0
        PFDEBUG ENCODING a     => dense
        PFDEBUG DECODE a       => -ERR HLL encoding is not sparse
        PFDEBUG ENCODING none  => -ERR The specified key does not exist
        PFDEBUG OTHER a        => -ERR Unknown PFDEBUG subcommand 'OTHER'
        PFCOUNT a              => 1
        PFSELFTEST             => OK
        ",
    );
}

#[test]
fn the_estimate_stays_within_three_standard_errors() {
    let mut bytes = sketch::empty();
    for number in 1..=100_000u32 {
        let (index, value) = sketch::place(format!("element:{number}").as_bytes());
        sketch::raise(&mut bytes, index, value, 3_000).unwrap();
        if [10, 100, 1_000, 10_000, 100_000].contains(&number) {
            let estimate = sketch::estimate(&sketch::histogram(&bytes).unwrap());
            let error = (estimate as f64 - f64::from(number)).abs() / f64::from(number);
            assert!(error < 0.0244, "{estimate} for {number}");
        }
    }
    assert!(sketch::is_dense(&bytes));
}

#[test]
fn a_broken_sketch_is_told_and_harms_nobody() {
    let mut node = TestNode::new();
    node.story(
        r#"
        SET a "HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x7f" => OK
        PFCOUNT a              => -INVALIDOBJ Corrupted HLL object detected
        PFADD a x              => -INVALIDOBJ Corrupted HLL object detected
        PFMERGE b a            => -INVALIDOBJ Corrupted HLL object detected
        SET a "HYLL\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x7f" => OK
        PFCOUNT a              => -WRONGTYPE Key is not a valid HyperLogLog string value.
        "#,
    );
}

proptest! {
    #[test]
    fn sparse_and_dense_hold_the_same(raises in proptest::collection::vec((0..REGISTERS, 1u8..=32), 0..1_500)) {
        let mut model = vec![0u8; REGISTERS];
        let (mut sparse, mut dense) = (sketch::empty(), sketch::empty());
        sketch::make_dense(&mut dense).unwrap();
        for (index, value) in raises {
            let expected = model[index] < value;
            model[index] = model[index].max(value);
            prop_assert_eq!(sketch::raise(&mut sparse, index, value, 3_000), Ok(expected));
            prop_assert_eq!(sketch::raise(&mut dense, index, value, 3_000), Ok(expected));
        }
        for bytes in [&sparse, &dense] {
            let mut held = vec![0u8; REGISTERS];
            sketch::each(bytes, |first, count, value| held[first..first + count].fill(value)).unwrap();
            prop_assert_eq!(&held, &model);
        }
    }

    #[test]
    fn no_bytes_panic(tail in proptest::collection::vec(any::<u8>(), 0..60), index in 0..REGISTERS) {
        let mut bytes = sketch::empty();
        bytes.truncate(16);
        bytes.extend(tail);
        let _ = sketch::histogram(&bytes).map(|histogram| sketch::estimate(&histogram));
        let _ = sketch::raise(&mut bytes, index, 7, 3_000);
        let _ = sketch::make_dense(&mut bytes);
    }
}
