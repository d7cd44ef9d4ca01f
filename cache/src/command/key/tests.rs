//! Keys, whatever they hold.

use crate::command::testing::{START_MS, TestNode, story};

#[test]
fn keys_are_counted_typed_and_deleted() {
    story(
        "
        MSET a 1 b 2           => OK
        EXISTS a a b c         => 3
        TYPE a                 => string
        TYPE c                 => none
        TOUCH a b c            => 2
        DEL a c                => 1
        UNLINK b               => 1
        EXISTS a b             => 0
        OBJECT ENCODING a      => nil
        OBJECT REFCOUNT a      => nil
        SET a 1                => OK
        OBJECT ENCODING a      => \"int\"
        OBJECT REFCOUNT a      => 1
        SET a text             => OK
        OBJECT ENCODING a      => \"embstr\"
        OBJECT IDLETIME a      => 0
        WAIT 0 100             => 0
        WAIT 0 -1              => -ERR timeout is negative
        ",
    );
}

#[test]
fn a_deadline_may_be_set_moved_told_and_removed() {
    let later = START_MS + 100_000;
    let later_seconds = later / 1_000;
    story(&format!(
        "
        SET a 1                => OK
        TTL a                  => -1
        TTL none               => -2
        PEXPIRETIME none       => -2
        EXPIRE none 10         => 0
        EXPIRE a 10            => 1
        PTTL a                 => 10000
        wait 600
        TTL a                  => 9
        wait 9399
        EXISTS a               => 1
        wait 1
        EXISTS a               => 0
        SET a 1                => OK
        PEXPIREAT a {later}    => 1
        EXPIRETIME a           => {later_seconds}
        PEXPIRETIME a          => {later}
        PERSIST a              => 1
        PERSIST a              => 0
        EXPIREAT a {later_seconds} => 1
        PEXPIRETIME a          => {later}
        EXPIRE a -1            => 1
        EXISTS a               => 0
        "
    ));
}

#[test]
fn a_condition_decides_whether_a_deadline_is_set() {
    story(
        "
        SET a 1                => OK
        EXPIRE a 100 XX        => 0
        EXPIRE a 100 GT        => 0
        EXPIRE a 100 NX        => 1
        EXPIRE a 200 NX        => 0
        EXPIRE a 100 GT        => 0
        EXPIRE a 200 GT        => 1
        EXPIRE a 300 LT        => 0
        EXPIRE a 100 XX LT     => 1
        TTL a                  => 100
        PERSIST a              => 1
        EXPIRE a 100 LT        => 1
        EXPIRE a 1 NX XX       => -ERR NX and XX, GT or LT options at the same time are not compatible
        EXPIRE a 1 GT LT       => -ERR GT and LT options at the same time are not compatible
        EXPIRE a 1 AB          => -ERR Unsupported option AB
        EXPIRE a x             => -ERR value is not an integer or out of range
        EXPIRE a 9223372036854775807 => -ERR invalid expire time in 'expire' command
        EXPIRE a -9223372036854775808 => -ERR invalid expire time in 'expire' command
        PEXPIRE a 9223372036854770000 => -ERR invalid expire time in 'pexpire' command
        EXPIREAT a 9223372036854775 => 1
        ",
    );
}

#[test]
fn values_move_with_their_deadline() {
    story(
        "
        SET a 1 EX 100         => OK
        SET b 2                => OK
        RENAME a b             => OK
        TTL b                  => 100
        EXISTS a               => 0
        RENAME a b             => -ERR no such key
        RENAME b b             => OK
        RENAMENX b b           => 0
        RENAMENX b c           => 1
        SET d 1                => OK
        RENAMENX c d           => 0
        COPY c d               => 0
        COPY c d REPLACE       => 1
        GET d                  => \"1\"
        TTL d                  => 100
        COPY c c               => -ERR source and destination objects are the same
        COPY c c DB 3          => 1
        COPY c x DB 16         => -ERR DB index is out of range
        COPY none x            => 0
        MOVE d 3               => 1
        EXISTS d               => 0
        MOVE c 3               => 0
        MOVE c 0               => -ERR source and destination objects are the same
        MOVE c 99              => -ERR DB index is out of range
        SELECT 3               => OK
        GET d                  => \"1\"
        TTL c                  => 100
        ",
    );
}

/// Lets time pass as a node does that tends its shards, if less often.
fn tend(node: &mut TestNode, seconds: u64) {
    for _ in 0..seconds / 4 {
        node.clock.advance_ms(4_000);
        for shard in 0..crate::store::SHARDS {
            node.engine.advance(shard, 100);
        }
    }
}

#[test]
fn idle_times_do_not_begin_anew() {
    let mut node = TestNode::new();
    node.run("SET a 1");
    tend(&mut node, 3_000);
    assert_eq!(node.run("OBJECT IDLETIME a"), "3000");
    for _ in 0..30 {
        tend(&mut node, 600);
        let idle: u64 = node.run("OBJECT IDLETIME a").parse().unwrap();
        assert!((3_072..3_700).contains(&idle), "{idle}");
    }
    node.run("GET a");
    assert_eq!(node.run("OBJECT IDLETIME a"), "0");
}

#[test]
fn what_is_not_used_for_an_hour_is_used_least() {
    let mut node = TestNode::new();
    node.run("CONFIG SET maxmemory-policy allkeys-lfu");
    node.run("SET a 1");
    for _ in 0..1_000 {
        node.run("GET a");
    }
    let before: u64 = node.run("OBJECT FREQ a").parse().unwrap();
    assert!((1..60).contains(&before), "{before}");
    tend(&mut node, 3_600);
    assert_eq!(node.run("OBJECT FREQ a"), "0");
}
