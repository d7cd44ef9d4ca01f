//! Hashes as clients see them.

use std::collections::BTreeSet;

use crate::command::testing::{START_MS, TestNode, story};
use crate::resp::Protocol;

#[test]
fn fields_come_and_go() {
    story(
        r#"
        HSET h a 1 b 2         => 2
        HSET h b 3 c 4         => 1
        HSET h b               => -ERR wrong number of arguments for 'hset' command
        HSET h b 1 c           => -ERR wrong number of arguments for 'hset' command
        HMSET h b 1 c          => -ERR wrong number of arguments for 'hmset' command
        HMSET h d 5            => OK
        HGET h b               => "3"
        HGET h x               => nil
        HGET none x            => nil
        HMGET h a x d          => ["1", nil, "5"]
        HMGET none a           => [nil]
        HGETALL h              => ["a", "1", "b", "3", "c", "4", "d", "5"]
        HGETALL none           => []
        HKEYS h                => ["a", "b", "c", "d"]
        HVALS h                => ["1", "3", "4", "5"]
        HKEYS none             => []
        HLEN h                 => 4
        HLEN none              => 0
        HSTRLEN h a            => 1
        HSTRLEN h x            => 0
        HEXISTS h a            => 1
        HEXISTS h x            => 0
        HEXISTS none x         => 0
        HSETNX h a 9           => 0
        HSETNX h e 9           => 1
        HDEL h a x e           => 2
        HDEL none a            => 0
        HDEL h b c d d         => 3
        EXISTS h               => 0
        "#,
    );
}

#[test]
fn replies_have_their_shapes_in_resp3() {
    let mut node = TestNode::new();
    node.session.protocol = Protocol::Resp3;
    node.story(
        r#"
        HSET h a 1             => 1
        HGETALL h              => {"a": "1"}
        HGETALL none           => {}
        HKEYS h                => ["a"]
        HRANDFIELD h 1         => ["a"]
        HRANDFIELD h 2 WITHVALUES => [["a", "1"]]
        HRANDFIELD h -2 WITHVALUES => [["a", "1"], ["a", "1"]]
        SADD s x               => 1
        SMEMBERS s             => ~["x"]
        SUNION s               => ~["x"]
        SRANDMEMBER s 1        => ["x"]
        SPOP s 1               => ~["x"]
        SPOP s                 => nil
        "#,
    );
}

#[test]
fn a_key_of_another_kind_is_refused() {
    let mut node = TestNode::new();
    node.run("SET string 1");
    let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    for command in [
        "HSET string a 1",
        "HMSET string a 1",
        "HSETNX string a 1",
        "HGET string a",
        "HMGET string a",
        "HGETALL string",
        "HKEYS string",
        "HVALS string",
        "HDEL string a",
        "HLEN string",
        "HSTRLEN string a",
        "HEXISTS string a",
        "HINCRBY string a 1",
        "HINCRBYFLOAT string a 1",
        "HRANDFIELD string",
        "HRANDFIELD string 1",
        "HSCAN string 0",
        "HEXPIRE string 1 FIELDS 1 a",
        "HEXPIRE string x FIELDS 1 a",
        "HTTL string FIELDS 1 a",
        "HTTL string FIELDS x a",
        "HPERSIST string FIELDS 1 a",
        "HGETDEL string FIELDS 1 a",
        "HGETEX string FIELDS 1 a",
        "HSETEX string FIELDS 1 a b",
    ] {
        assert_eq!(node.run(command), wrong, "{command}");
    }
}

#[test]
fn numbers_in_fields_are_added_to() {
    story(
        r#"
        HINCRBY h n 5          => 5
        HINCRBY h n -7         => -2
        HGET h n               => "-2"
        HINCRBY h n x          => -ERR value is not an integer or out of range
        HSET h t text m 9223372036854775807 s " 1" => 3
        HINCRBY h t 1          => -ERR hash value is not an integer
        HINCRBY h s 1          => -ERR hash value is not an integer
        HINCRBY h m 1          => -ERR increment or decrement would overflow
        HINCRBYFLOAT h f 1.5   => "1.5"
        HINCRBYFLOAT h f 0.1   => "1.6"
        HINCRBYFLOAT h n 1     => "-1"
        HINCRBYFLOAT h t 1     => -ERR hash value is not a float
        HINCRBYFLOAT h f x     => -ERR value is not a valid float
        HINCRBYFLOAT h f inf   => -ERR value is NaN or Infinity
        HSET h i inf           => 1
        HINCRBYFLOAT h i 1     => -ERR increment would produce NaN or Infinity
        HINCRBY new f x        => -ERR value is not an integer or out of range
        EXISTS new             => 0
        "#,
    );
}

#[test]
fn random_fields_are_shown() {
    story(
        r#"
        HRANDFIELD none        => nil
        HRANDFIELD none 2      => []
        HRANDFIELD none 2 WITHVALUES => []
        HSET h a 1             => 1
        HRANDFIELD h           => "a"
        HRANDFIELD h 0         => []
        HRANDFIELD h 5         => ["a"]
        HRANDFIELD h 5 WITHVALUES => ["a", "1"]
        HRANDFIELD h -3        => ["a", "a", "a"]
        HRANDFIELD h -2 withvalues => ["a", "1", "a", "1"]
        HRANDFIELD h x         => -ERR value is not an integer or out of range
        HRANDFIELD h 1 VALUES  => -ERR syntax error
        HRANDFIELD h 1 WITHVALUES 1 => -ERR syntax error
        HRANDFIELD h -9223372036854770000 WITHVALUES => -ERR value is out of range
        HRANDFIELD h -9223372036854775808 => -ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807
        "#,
    );
}

#[test]
fn a_scan_returns_fields_that_fit_the_pattern() {
    story(
        r#"
        HSET h one 1 two 2     => 2
        HSCAN h 0              => ["0", ["one", "1", "two", "2"]]
        HSCAN h 0 MATCH t* COUNT 5 => ["0", ["two", "2"]]
        HSCAN h 0 NOVALUES     => ["0", ["one", "two"]]
        HSCAN none 0           => ["0", []]
        HSCAN h abc            => -ERR invalid cursor
        HSCAN h 0 COUNT        => -ERR syntax error
        "#,
    );
}

#[test]
fn a_field_is_gone_at_its_deadline() {
    let (at, at_seconds) = (START_MS + 5_000, START_MS / 1_000 + 9);
    story(&format!(
        r#"
        HSET h a 1 b 2 c 3 d 4 => 4
        HEXPIRE h 2 FIELDS 2 a x => [1, -2]
        HPEXPIRE h 3500 FIELDS 1 b => [1]
        HPEXPIREAT h {at} FIELDS 1 c => [1]
        HEXPIREAT h {at_seconds} FIELDS 1 d => [1]
        HTTL h FIELDS 5 a b c d x => [2, 4, 5, 9, -2]
        HPTTL h FIELDS 2 a b   => [2000, 3500]
        HPEXPIRETIME h FIELDS 1 c => [{at}]
        HEXPIRETIME h FIELDS 1 d => [{at_seconds}]
        wait 1999
        HLEN h                 => 4
        wait 1
        HGET h a               => nil
        HLEN h                 => 3
        HEXISTS h a            => 0
        HMGET h a b            => [nil, "2"]
        HSETNX h a again       => 1
        HTTL h FIELDS 1 a      => [-1]
        wait 1500
        HINCRBY h b 1          => 1
        HTTL h FIELDS 1 b      => [-1]
        HDEL h a b             => 2
        HPERSIST h FIELDS 4 c d a x => [1, 1, -2, -2]
        HPERSIST h FIELDS 1 c  => [-1]
        wait 100000
        HLEN h                 => 2
        "#
    ));
}

#[test]
fn a_hash_goes_with_its_last_field() {
    story(
        r#"
        HSETEX h PX 100 FIELDS 2 a 1 b 2 => 1
        wait 99
        EXISTS h               => 1
        TYPE h                 => hash
        wait 1
        EXISTS h               => 0
        TYPE h                 => none
        HLEN h                 => 0
        HTTL h FIELDS 1 a      => [-2]
        SADD h now-a-set       => 1
        HSET other f 1         => 1
        HEXPIRE other 0 FIELDS 1 f => [2]
        EXISTS other           => 0
        "#,
    );
}

#[test]
fn a_condition_decides_whether_a_deadline_is_set() {
    story(
        r#"
        HSET h a 1 b 2         => 2
        HEXPIRE h 10 XX FIELDS 2 a b => [0, 0]
        HEXPIRE h 10 GT FIELDS 1 a => [0]
        HEXPIRE h 10 LT FIELDS 1 a => [1]
        HEXPIRE h 20 NX FIELDS 2 a b => [0, 1]
        HEXPIRE h 15 GT FIELDS 2 a b => [1, 0]
        HEXPIRE h 18 LT FIELDS 2 a b => [0, 1]
        HEXPIRE h 30 xx FIELDS 2 a b => [1, 1]
        HTTL h FIELDS 2 a b    => [30, 30]
        HEXPIRE h 0 LT FIELDS 1 a => [2]
        HEXISTS h a            => 0
        "#,
    );
}

#[test]
fn arguments_of_deadlines_are_refused_as_redis_does() {
    story(
        r#"
        HSET h a 1             => 1
        HEXPIRE h x FIELDS 1 a => -ERR value is not an integer or out of range
        HEXPIRE h -1 FIELDS 1 a => -ERR invalid expire time, must be >= 0
        HEXPIRE h 9223372036854775807 FIELDS 1 a => -ERR invalid expire time in 'hexpire' command
        HPEXPIREAT h 70368744177664 FIELDS 1 a => -ERR invalid expire time in 'hpexpireat' command
        HEXPIRE h 1 FIELD 1 a  => -ERR Mandatory argument FIELDS is missing or not at the right position
        HEXPIRE h 1 NX XX FIELDS 1 a => -ERR Mandatory argument FIELDS is missing or not at the right position
        HEXPIRE h 1 FIELDS 0 a => -ERR Parameter `numFields` should be greater than 0
        HEXPIRE h 1 FIELDS 2 a => -ERR The `numfields` parameter must match the number of arguments
        HEXPIRE h 1 NX FIELDS 1 => -ERR The `numfields` parameter must match the number of arguments
        HEXPIRE h 1 FIELDS 1   => -ERR wrong number of arguments for 'hexpire' command
        HTTL h FIELDS x a      => -ERR Number of fields must be a positive integer
        HTTL h FIELDS 1 a b    => -ERR The `numfields` parameter must match the number of arguments
        HGETEX h EX 10 FIELDS  => -ERR Number of fields must be a positive integer
        HGETEX h EX FIELDS 1 a => -ERR value is not an integer or out of range
        HSETEX h FIELDS 2 a b  => -ERR wrong number of arguments for 'hsetex' command
        HSETEX h FIELDS 0 a b  => -ERR invalid number of fields
        HSETEX h FXX FNX FIELDS 1 a b => -ERR Only one of FXX or FNX arguments can be specified
        HSETEX h EX 1 KEEPTTL FIELDS 1 a b => -ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified
        HSETEX h WHAT FIELDS 1 a b => -ERR unknown argument: WHAT
        HSETEX h a b c d       => -ERR unknown argument: a
        "#,
    );
}

#[test]
fn setting_a_field_ends_its_deadline_and_counting_keeps_it() {
    story(
        r#"
        HSETEX h EX 10 FIELDS 3 a 1 b 2 c 3 => 1
        HSET h a 5             => 0
        HINCRBY h b 1          => 3
        HINCRBYFLOAT h c 0.5   => "3.5"
        HTTL h FIELDS 3 a b c  => [-1, 10, 10]
        HSETEX h KEEPTTL FIELDS 2 a 7 b 8 => 1
        HTTL h FIELDS 2 a b    => [-1, 10]
        HSETEX h FIELDS 1 b 9  => 1
        HTTL h FIELDS 1 b      => [-1]
        HSETEX h FXX EX 5 FIELDS 2 a 1 x 1 => 0
        HSETEX h FNX EX 5 FIELDS 2 a 1 x 1 => 0
        HSETEX h FXX EX 5 FIELDS 2 a 1 b 1 => 1
        HSETEX new FXX FIELDS 1 a 1 => 0
        EXISTS new             => 0
        HSETEX new FNX PXAT 1 FIELDS 1 a 1 => 1
        EXISTS new             => 0
        HSETEX h EX 0 FIELDS 1 a 1 => 1
        HEXISTS h a            => 0
        "#,
    );
}

#[test]
fn values_are_returned_while_their_deadline_changes() {
    story(
        r#"
        HSET h a 1 b 2 c 3     => 3
        HGETEX h FIELDS 2 a x  => ["1", nil]
        HGETEX h EX 10 FIELDS 2 a x => ["1", nil]
        HTTL h FIELDS 2 a b    => [10, -1]
        HGETEX h PERSIST FIELDS 2 a b => ["1", "2"]
        HTTL h FIELDS 1 a      => [-1]
        HGETEX h PXAT 1 FIELDS 1 b => ["2"]
        HEXISTS h b            => 0
        HGETEX none EX 10 FIELDS 2 a b => [nil, nil]
        HGETDEL h FIELDS 2 a a => ["1", nil]
        HGETDEL none FIELDS 1 a => [nil]
        HGETDEL h FIELDS 1 c   => ["3"]
        EXISTS h               => 0
        "#,
    );
}

#[test]
fn a_large_hash_answers_as_a_small_one_does() {
    let mut node = TestNode::new();
    for number in 0..500 {
        assert_eq!(node.run(&format!("HSET h f{number} {number}")), "1");
    }
    assert_eq!(node.run("HLEN h"), "500");
    for number in 0..500 {
        assert_eq!(node.run(&format!("HGET h f{number}")), format!("\"{number}\""));
    }
    let (mut cursor, mut seen) = ("0".to_owned(), BTreeSet::new());
    loop {
        let reply = node.run(&format!("HSCAN h {cursor} COUNT 20 NOVALUES"));
        let (next, fields) = reply[2..].split_once("\", [").unwrap();
        for field in fields.trim_end_matches(']').split(", ") {
            assert!(seen.insert(field.to_owned()), "{field} twice");
        }
        cursor = next.to_owned();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 500);
    for number in 0..500 {
        assert_eq!(node.run(&format!("HDEL h f{number}")), "1");
    }
    assert_eq!(node.run("EXISTS h"), "0");
}

/// Lets every shard's wheel do its work, as the server does a few hundred times a second.
fn advance(node: &TestNode) {
    for shard in 0..crate::store::SHARDS {
        while node.engine.advance(shard, 100) {}
    }
}

#[test]
fn a_field_that_nobody_asks_for_is_removed_and_told_of() {
    let mut node = TestNode::new();
    node.run("CONFIG SET notify-keyspace-events KEA");
    let mut listener = node.connect();
    crate::command::testing::run(&node.engine, &mut listener, "PSUBSCRIBE __keyevent@0__:*");
    node.run("HSET h a 1 b 2");
    node.run("HPEXPIRE h 50 FIELDS 1 a");
    node.run("HPEXPIRE h 90 FIELDS 1 b");
    let events = || {
        let mut out = Vec::new();
        listener.outbox().drain_into(&mut out);
        let text = crate::command::testing::show(&out);
        let events = text.split("__keyevent@0__:").skip(1).filter(|it| !it.starts_with('*'));
        let names = events.map(|it| it.split('"').next().unwrap_or_default().to_owned());
        names.collect::<Vec<String>>()
    };
    assert_eq!(events(), ["hset", "hexpire", "hexpire"]);
    node.clock.advance_ms(49);
    advance(&node);
    assert!(events().is_empty());
    node.clock.advance_ms(21);
    advance(&node);
    assert_eq!(events(), ["hexpired"]);
    node.clock.advance_ms(40);
    advance(&node);
    assert_eq!(events(), ["hexpired", "del"]);
    assert_eq!(node.run("DBSIZE"), "0");
}

#[test]
fn no_field_is_ever_served_at_or_after_its_deadline() {
    let mut node = TestNode::new();
    let mut random = 1u64;
    let mut draw = |limit: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % limit
    };
    let mut model = std::collections::BTreeMap::<(u64, u64), u64>::new();
    let mut now = 0;
    for step in 0..4_000 {
        let (key, field, life) = (draw(4), draw(40), 1 + draw(60));
        match draw(4) {
            0 => {
                node.run(&format!("HSETEX h{key} PX {life} FIELDS 1 f{field} v"));
                model.insert((key, field), now + life);
            }
            1 => {
                let reply = node.run(&format!("HPEXPIRE h{key} {life} FIELDS 1 f{field}"));
                let there = model.contains_key(&(key, field));
                assert_eq!(reply, if there { "[1]" } else { "[-2]" });
                model.entry((key, field)).and_modify(|at| *at = now + life);
            }
            2 => {
                let there = model.contains_key(&(key, field));
                let reply = node.run(&format!("HGET h{key} f{field}"));
                assert_eq!(reply, if there { "\"v\"" } else { "nil" }, "step {step}");
            }
            _ => {
                let there = model.keys().filter(|it| it.0 == key).count();
                assert_eq!(node.run(&format!("HLEN h{key}")), there.to_string(), "step {step}");
                let exists = i32::from(there > 0).to_string();
                assert_eq!(node.run(&format!("EXISTS h{key}")), exists);
            }
        }
        let passed = draw(4);
        node.clock.advance_ms(passed);
        now += passed;
        model.retain(|_, at| *at > now);
        if step % 7 == 0 {
            advance(&node);
        }
    }
}

#[test]
fn very_many_fields_that_are_due_go_a_slice_at_a_time() {
    let mut node = TestNode::new();
    for field in 0..5_000 {
        node.run(&format!("HSET h f{field} v"));
        node.run(&format!("HPEXPIRE h 100 FIELDS 1 f{field}"));
    }
    node.run("HSET h stays v");
    let shard = crate::slot::Slot::of(b"h").0 / (crate::slot::SLOTS / crate::store::SHARDS);
    node.clock.advance_ms(200);
    // Not looked at through the key: whoever asks for it removes all that is due.
    let memory = |node: &TestNode| node.engine.store.memory().data;
    let (full, mut slices) = (memory(&node), 0);
    let mut more = true;
    while more {
        let before = memory(&node);
        more = node.engine.advance(shard, 500);
        slices += 1;
        assert!(before - memory(&node) < full / 2, "a slice is a small part");
        assert!(slices < 100);
    }
    assert!(slices >= 10, "{slices}");
    assert_eq!(node.run("HKEYS h"), "[\"stays\"]");
}
