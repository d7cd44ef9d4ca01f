//! Strings as clients see them.

use crate::command::testing::{START_MS, TestNode, story};

#[test]
fn a_string_is_what_was_set_last() {
    story(
        r#"
        GET a                  => nil
        SET a hello            => OK
        GET a                  => "hello"
        SET a ""               => OK
        GET a                  => ""
        SET                    => -ERR wrong number of arguments for 'set' command
        SET a b c              => -ERR syntax error
        MSET a 1 b 2           => OK
        MSET a 1 b             => -ERR wrong number of arguments for 'mset' command
        MGET a b c             => ["1", "2", nil]
        MSETNX b 1 d 2         => 0
        MSETNX c 1 d 2         => 1
        GETSET a new           => "1"
        GETDEL a               => "new"
        GETDEL a               => nil
        SETNX a 1              => 1
        SETNX a 2              => 0
        "#,
    );
}

#[test]
fn a_condition_decides_whether_a_string_is_set() {
    story(
        r#"
        SET a 1 XX             => nil
        SET a 1 NX             => OK
        SET a 2 NX             => nil
        SET a 2 NX GET         => "1"
        SET b 2 NX GET         => nil
        GET b                  => "2"
        SET a 2 XX GET         => "1"
        SET a 2 NX XX          => -ERR syntax error
        SET a 3 IFEQ 1         => nil
        SET a 3 IFEQ 2         => OK
        SET a 4 IFEQ 1 GET     => "3"
        SET none 4 IFEQ 1      => nil
        SET a 4 IFEQ           => -ERR syntax error
        SET a 4 IFEQ 3 NX      => -ERR syntax error
        "#,
    );
}

#[test]
fn a_value_is_gone_at_its_deadline() {
    let at = START_MS + 5_000;
    let at_seconds = START_MS / 1_000 + 7;
    story(&format!(
        r#"
        SET a 1 EX 2           => OK
        wait 1999
        GET a                  => "1"
        wait 1
        GET a                  => nil
        SET a 1 PXAT {at}      => OK
        PTTL a                 => 3000
        SET a 2 KEEPTTL        => OK
        PTTL a                 => 3000
        GETEX a EXAT {at_seconds} => "2"
        TTL a                  => 5
        GETEX a PERSIST        => "2"
        TTL a                  => -1
        GETEX a PX 100 EX 1    => -ERR syntax error
        SET a 1 EX 0           => -ERR invalid expire time in 'set' command
        SET a 1 EX x           => -ERR value is not an integer or out of range
        SET a 1 EX 9223372036854775807 => -ERR invalid expire time in 'set' command
        SET a 1 PX 9223372036854775807 => -ERR invalid expire time in 'set' command
        SET a 1 EX 5 KEEPTTL   => -ERR syntax error
        SETEX a -1 x           => -ERR invalid expire time in 'setex' command
        PSETEX a 0 x           => -ERR invalid expire time in 'psetex' command
        SETEX a 10 x           => OK
        TTL a                  => 10
        SET a 1                => OK
        TTL a                  => -1
        "#
    ));
}

#[test]
fn counters_count_and_refuse_what_is_no_number() {
    story(
        r#"
        INCR n                 => 1
        INCRBY n 41            => 42
        DECR n                 => 41
        DECRBY n 50            => -9
        SET n 9223372036854775807 => OK
        INCR n                 => -ERR increment or decrement would overflow
        DECRBY n -9223372036854775808 => -ERR decrement would overflow
        SET n " 1"             => OK
        INCR n                 => -ERR value is not an integer or out of range
        SET n ""               => OK
        INCR n                 => -ERR value is not an integer or out of range
        INCRBY m x             => -ERR value is not an integer or out of range
        SET f 3.0e3            => OK
        INCRBYFLOAT f 200      => "3200"
        INCRBYFLOAT f -0.1     => "3199.89999999999999991"
        INCRBYFLOAT g 1.5      => "1.5"
        INCRBYFLOAT g abc      => -ERR value is not a valid float
        INCRBYFLOAT g inf      => -ERR increment would produce NaN or Infinity
        "#,
    );
}

#[test]
fn a_counter_keeps_its_deadline() {
    story(
        "
        SET n 1 EX 10          => OK
        INCR n                 => 2
        APPEND n 0             => 2
        INCRBYFLOAT n 1.5      => \"21.5\"
        SETRANGE n 0 3         => 4
        TTL n                  => 10
        ",
    );
}

#[test]
fn parts_of_strings() {
    story(
        r#"
        APPEND a foo           => 3
        APPEND a bar           => 6
        STRLEN a               => 6
        STRLEN none            => 0
        GETRANGE a 0 2         => "foo"
        GETRANGE a -3 -1       => "bar"
        SUBSTR a 4 100         => "ar"
        GETRANGE a -1 -5       => ""
        GETRANGE a 5 3         => ""
        GETRANGE none 0 -1     => ""
        GETRANGE a -9223372036854775808 9223372036854775807 => "foobar"
        SETRANGE a 8 x         => 9
        GET a                  => "foobar\x00\x00x"
        SETRANGE a -1 x        => -ERR offset is out of range
        SETRANGE a 536870912 x => -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        SETRANGE a 9223372036854775807 x => -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        SETRANGE none 0 ""     => 0
        EXISTS none            => 0
        SETRANGE none 0 xy     => 2
        "#,
    );
}

#[test]
fn common_subsequences() {
    story(
        r#"
        MSET a ohmytext b mynewtext => OK
        LCS a b                => "mytext"
        LCS a b LEN            => 6
        LCS a b IDX            => ["matches", [[[4, 7], [5, 8]], [[2, 3], [0, 1]]], "len", 6]
        LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN => ["matches", [[[4, 7], [5, 8], 4]], "len", 6]
        LCS a none             => ""
        LCS a b LEN IDX        => -ERR If you want both the length and indexes, please just use IDX.
        LCS a b MINMATCHLEN    => -ERR syntax error
        "#,
    );
}

#[test]
fn only_the_holder_of_the_token_releases_or_extends() {
    story(
        "
        SET lock mine NX PX 1000 => OK
        PEXPIREIFEQ lock other 9000 => 0
        PTTL lock              => 1000
        PEXPIREIFEQ lock mine 9000 => 1
        PTTL lock              => 9000
        DELIFEQ lock other     => 0
        DELIFEQ lock mine      => 1
        DELIFEQ lock mine      => 0
        SET lock mine          => OK
        PEXPIREIFEQ lock mine -1 => 1
        EXISTS lock            => 0
        ",
    );
}

#[test]
fn a_string_is_at_most_a_sixteenth_of_the_limit() {
    let mut node = TestNode::new();
    node.engine.store.set_limit(16 << 20);
    node.story(
        "
        SETRANGE a 1048575 x   => 1048576
        APPEND a x             => -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        ",
    );
}
