//! Sets as clients see them.

use std::collections::BTreeSet;

use crate::command::testing::{TestNode, story};

#[test]
fn members_come_and_go() {
    story(
        r#"
        SADD s a b a           => 2
        SADD s b c             => 1
        SCARD s                => 3
        SISMEMBER s a          => 1
        SISMEMBER s x          => 0
        SISMEMBER none x       => 0
        SMISMEMBER s a x c     => [1, 0, 1]
        SMISMEMBER none a x    => [0, 0]
        SMEMBERS s             => ["a", "b", "c"]
        SMEMBERS none          => []
        SREM s a x             => 1
        SREM none a            => 0
        SREM s b c d           => 2
        EXISTS s               => 0
        SCARD s                => 0
        SADD s                 => -ERR wrong number of arguments for 'sadd' command
        "#,
    );
}

#[test]
fn integers_are_members_like_any_other() {
    story(
        r#"
        SADD n 3 -1 20 3       => 3
        SMEMBERS n             => ["-1", "3", "20"]
        SISMEMBER n 03         => 0
        SADD n 03              => 1
        SMEMBERS n             => ["-1", "3", "20", "03"]
        SREM n 3               => 1
        SMEMBERS n             => ["-1", "20", "03"]
        "#,
    );
}

#[test]
fn a_key_of_another_kind_is_refused() {
    let mut node = TestNode::new();
    node.run("SET string 1");
    node.run("SADD s a");
    let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    for command in [
        "SADD string a",
        "SREM string a",
        "SCARD string",
        "SISMEMBER string a",
        "SMISMEMBER string a",
        "SMEMBERS string",
        "SPOP string",
        "SPOP string 0",
        "SRANDMEMBER string",
        "SRANDMEMBER string 1",
        "SMOVE string s a",
        "SMOVE s string a",
        "SINTER none string",
        "SINTER s string",
        "SINTERSTORE d string",
        "SINTERCARD 2 none string",
        "SUNION s string",
        "SUNIONSTORE d s string",
        "SDIFF none string",
        "SDIFFSTORE d none string",
        "SSCAN string 0",
    ] {
        assert_eq!(node.run(command), wrong, "{command}");
    }
    assert_eq!(node.run("SMEMBERS s"), "[\"a\"]");
}

#[test]
fn a_member_moves() {
    story(
        r#"
        SADD a 1 2             => 2
        SMOVE a b 1            => 1
        SMOVE a b 1            => 0
        SMOVE none b 1         => 0
        SET string 1           => OK
        SMOVE none string 1    => 0
        SMOVE a a 2            => 1
        SMOVE a a 9            => 0
        SMOVE a b 2            => 1
        EXISTS a               => 0
        SMEMBERS b             => ["1", "2"]
        "#,
    );
}

#[test]
fn sets_are_combined() {
    story(
        r#"
        SADD a 1 2 3 4         => 4
        SADD b 3 4 5           => 3
        SADD c 4 x             => 2
        SINTER a b             => ["3", "4"]
        SINTER a b c           => ["4"]
        SINTER a none          => []
        SINTER a a             => ["1", "2", "3", "4"]
        SINTERCARD 2 a b       => 2
        SINTERCARD 2 a b LIMIT 1 => 1
        SINTERCARD 2 a b LIMIT 0 => 2
        SINTERCARD 2 a none    => 0
        SINTERCARD 0 a         => -ERR numkeys should be greater than 0
        SINTERCARD x a         => -ERR numkeys should be greater than 0
        SINTERCARD 2 a         => -ERR Number of keys can't be greater than number of args
        SINTERCARD 1 a LIMIT -1 => -ERR LIMIT can't be negative
        SINTERCARD 1 a LIMIT   => -ERR syntax error
        SINTERCARD 1 a b       => -ERR syntax error
        SUNION a b             => ["1", "2", "3", "4", "5"]
        SUNION none            => []
        SDIFF a b              => ["1", "2"]
        SDIFF a b c none       => ["1", "2"]
        SDIFF a a              => []
        SDIFF none a           => []
        SINTERSTORE d a b      => 2
        SMEMBERS d             => ["3", "4"]
        SUNIONSTORE d a b      => 5
        SDIFFSTORE a a b       => 2
        SMEMBERS a             => ["1", "2"]
        SET d text             => OK
        SUNIONSTORE d a        => 2
        SINTERSTORE d a none   => 0
        EXISTS d               => 0
        SDIFFSTORE none none   => 0
        "#,
    );
}

/// The members in a reply, sorted.
fn sorted(reply: &str) -> BTreeSet<String> {
    let inner = reply.trim_matches(['[', ']']);
    inner.split(", ").filter(|it| !it.is_empty()).map(ToOwned::to_owned).collect()
}

#[test]
fn large_sets_are_combined_as_small_ones_are() {
    let mut node = TestNode::new();
    let name = |number: usize| format!("\"m{number}\"");
    for (key, step) in [("two", 2), ("three", 3), ("five", 5)] {
        for number in (0..6_000).step_by(step) {
            node.run(&format!("SADD {key} m{number}"));
        }
    }
    let all = |takes: &dyn Fn(usize) -> bool| -> BTreeSet<String> {
        (0..6_000).filter(|number| takes(*number)).map(name).collect()
    };
    assert_eq!(sorted(&node.run("SINTER two three five")), all(&|it| it % 30 == 0));
    assert_eq!(node.run("SINTERCARD 2 two three"), "1000");
    assert_eq!(node.run("SINTERCARD 2 two three LIMIT 77"), "77");
    assert_eq!(sorted(&node.run("SDIFF two three")), all(&|it| it % 2 == 0 && it % 3 != 0));
    assert_eq!(sorted(&node.run("SDIFF five two")), all(&|it| it % 5 == 0 && it % 2 != 0));
    let union = all(&|it| it % 2 == 0 || it % 5 == 0);
    assert_eq!(sorted(&node.run("SUNION two five")), union);
    assert_eq!(node.run("SUNIONSTORE six two five"), union.len().to_string());
    assert_eq!(sorted(&node.run("SMEMBERS six")), union);
}

#[test]
fn random_members_are_taken_or_shown() {
    story(
        r#"
        SPOP none              => nil
        SPOP none 2            => []
        SPOP none -1           => -ERR value is out of range, must be positive
        SPOP none x            => -ERR value is out of range, must be positive
        SPOP none 1 2          => -ERR syntax error
        SRANDMEMBER none       => nil
        SRANDMEMBER none 3     => []
        SRANDMEMBER none 1 2   => -ERR syntax error
        SRANDMEMBER none x     => -ERR value is not an integer or out of range
        SADD s only            => 1
        SRANDMEMBER s          => "only"
        SRANDMEMBER s 0        => []
        SRANDMEMBER s 7        => ["only"]
        SRANDMEMBER s -3       => ["only", "only", "only"]
        SRANDMEMBER s -9223372036854775808 => -ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807
        SRANDMEMBER s -9223372036854775807 => -ERR value is out of range
        SPOP s 0               => []
        SPOP s                 => "only"
        EXISTS s               => 0
        SADD s a b c           => 3
        SPOP s 9               => ["a", "b", "c"]
        EXISTS s               => 0
        "#,
    );
}

#[test]
fn popping_takes_each_member_once() {
    for count in [10, 200, 2_000] {
        let mut node = TestNode::new();
        for number in 0..count {
            node.run(&format!("SADD s m{number}"));
        }
        let first = sorted(&node.run("SPOP s 7"));
        let one = sorted(&node.run("SPOP s"));
        let rest = sorted(&node.run("SMEMBERS s"));
        assert_eq!((first.len(), one.len(), rest.len()), (7, 1, count - 8));
        let all: BTreeSet<String> = [first, one, rest].into_iter().flatten().collect();
        assert_eq!(all.len(), count);
    }
}

#[test]
fn a_scan_returns_members_that_fit_the_pattern() {
    story(
        r#"
        SADD s one two three   => 3
        SSCAN s 0              => ["0", ["one", "two", "three"]]
        SSCAN s 0 MATCH t*     => ["0", ["two", "three"]]
        SSCAN s 0 MATCH * COUNT 1 => ["0", ["one", "two", "three"]]
        SSCAN none 0           => ["0", []]
        SSCAN s x              => -ERR invalid cursor
        SSCAN s 0 COUNT 0      => -ERR syntax error
        SSCAN s 0 COUNT x      => -ERR value is not an integer or out of range
        SSCAN s 0 COUNT        => -ERR syntax error
        SSCAN s 0 NOVALUES     => -ERR syntax error
        "#,
    );
    let mut node = TestNode::new();
    for number in 0..1_000 {
        node.run(&format!("SADD s m{number}"));
    }
    let (mut cursor, mut seen) = ("0".to_owned(), BTreeSet::new());
    loop {
        let reply = node.run(&format!("SSCAN s {cursor} COUNT 50"));
        let (next, members) = reply[2..].split_once("\", ").unwrap();
        let members = sorted(members.strip_suffix(']').unwrap());
        assert!((50..60).contains(&members.len()) || next == "0");
        seen.extend(members);
        cursor = next.to_owned();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 1_000);
}
