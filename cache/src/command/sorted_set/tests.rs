//! Stories of the sorted set family.

use crate::command::testing::{TestNode, story};

#[test]
fn members_are_added_as_the_options_say() {
    story(
        r#"
        ZADD z 1 a 2 b 3 c        => 3
        ZADD z 1 a 5 b            => 0
        ZADD z CH 1 a 6 b 0 d     => 2
        ZADD z NX 9 a 9 e         => 1
        ZADD z XX CH 8 a 9 f      => 1
        ZADD z GT CH 7 a 10 e     => 1
        ZADD z LT CH 9 a 1 e      => 1
        ZADD z GT CH 1 new        => 1
        ZADD z INCR 2.5 a         => "10.5"
        ZADD z NX INCR 1 a        => nil
        ZADD z XX INCR 1 none     => nil
        ZADD z GT INCR -1 a       => nil
        ZADD z INCR 0 a           => "10.5"
        ZINCRBY z -10.5 a         => "0"
        ZINCRBY z 1 fresh         => "1"
        ZRANGE z 0 -1 WITHSCORES  => ["a", "0", "d", "0", "e", "1", "fresh", "1", "new", "1", "c", "3", "b", "6"]
        ZADD none XX 1 a          => 0
        ZADD none XX INCR 1 a     => nil
        EXISTS none               => 0
        ZADD z 1                  => -ERR wrong number of arguments for 'zadd' command
        ZADD z 1 a 2              => -ERR syntax error
        ZADD z NX CH              => -ERR syntax error
        ZADD z NX XX 1 a          => -ERR XX and NX options at the same time are not compatible
        ZADD z NX GT 1 a          => -ERR GT, LT, and/or NX options at the same time are not compatible
        ZADD z LT GT 1 a          => -ERR GT, LT, and/or NX options at the same time are not compatible
        ZADD z INCR 1 a 2 b       => -ERR INCR option supports a single increment-element pair
        ZADD new 1 a x b          => -ERR value is not a valid float
        ZADD new nan a            => -ERR value is not a valid float
        EXISTS new                => 0
        ZADD i inf a -inf b       => 2
        ZADD i INCR -inf a        => -ERR resulting score is not a number (NaN)
        ZINCRBY i inf b           => -ERR resulting score is not a number (NaN)
        ZRANGE i 0 -1 WITHSCORES  => ["b", "-inf", "a", "inf"]
        "#,
    );
}

#[test]
fn scores_and_ranks_are_read() {
    story(
        r#"
        ZADD z 1 a 2 b 3.5 c -0.0 n => 4
        ZCARD z                   => 4
        ZCARD none                => 0
        ZSCORE z c                => "3.5"
        ZSCORE z x                => nil
        ZSCORE none x             => nil
        ZSCORE z n                => "0"
        ZMSCORE z a x c           => ["1", nil, "3.5"]
        ZMSCORE none a            => [nil]
        ZRANK z a                 => 1
        ZREVRANK z a              => 2
        ZRANK z x                 => nil
        ZRANK z a WITHSCORE       => [1, "1"]
        ZREVRANK z c WITHSCORE    => [0, "3.5"]
        ZRANK z x WITHSCORE       => nil
        ZRANK z a WITHSCORES      => -ERR syntax error
        ZRANK z a WITHSCORE x     => -ERR syntax error
        ZCOUNT z 1 2              => 2
        ZCOUNT z (1 (2            => 0
        ZCOUNT z -inf +inf        => 4
        ZCOUNT z 5 1              => 0
        ZCOUNT z x 1              => -ERR min or max is not a float
        ZCOUNT z nan 1            => -ERR min or max is not a float
        ZCOUNT none 0 1           => 0
        SET s x                   => OK
        ZSCORE s a                => -WRONGTYPE Operation against a key holding the wrong kind of value
        ZADD s 1 a                => -WRONGTYPE Operation against a key holding the wrong kind of value
        "#,
    );
}

#[test]
fn ranges_by_rank_score_and_name() {
    story(
        r#"
        ZADD z 1 a 2 b 3 c 4 d 5 e => 5
        ZRANGE z 1 3              => ["b", "c", "d"]
        ZRANGE z -2 -1            => ["d", "e"]
        ZRANGE z 3 1              => []
        ZRANGE z 0 1 REV          => ["e", "d"]
        ZREVRANGE z 0 1 WITHSCORES => ["e", "5", "d", "4"]
        ZRANGE z 2 4 BYSCORE      => ["b", "c", "d"]
        ZRANGE z 4 2 BYSCORE REV  => ["d", "c", "b"]
        ZRANGE z (2 +inf BYSCORE LIMIT 1 1 => ["d"]
        ZRANGE z +inf (2 BYSCORE REV LIMIT 1 -1 => ["d", "c"]
        ZRANGEBYSCORE z 1 (3 WITHSCORES => ["a", "1", "b", "2"]
        ZRANGEBYSCORE z 1 5 LIMIT -1 2 => []
        ZRANGEBYSCORE z 1 5 LIMIT 2 0 => []
        ZRANGEBYSCORE z 1 5 LIMIT 9 1 => []
        ZREVRANGEBYSCORE z 5 2 LIMIT 1 2 => ["d", "c"]
        ZRANGE z 0 1 LIMIT 1 1    => -ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX
        ZRANGE z [a [b BYLEX WITHSCORES => -ERR syntax error, WITHSCORES not supported in combination with BYLEX
        ZRANGE z a b BYLEX        => -ERR min or max not valid string range item
        ZRANGE z a b BYSCORE      => -ERR min or max is not a float
        ZRANGE z 1 2 BYSCORE BYLEX => -ERR syntax error
        ZREVRANGE z 0 1 REV       => -ERR syntax error
        ZRANGE z 0 1 LIMIT 1      => -ERR syntax error
        ZRANGE none 0 -1          => []
        ZADD l 0 a 0 b 0 c 0 d    => 4
        ZRANGEBYLEX l - +         => ["a", "b", "c", "d"]
        ZRANGEBYLEX l [b (d       => ["b", "c"]
        ZRANGEBYLEX l - + LIMIT 1 2 => ["b", "c"]
        ZREVRANGEBYLEX l (d [b    => ["c", "b"]
        ZRANGEBYLEX l + -         => []
        ZLEXCOUNT l (a [c         => 2
        ZLEXCOUNT l a c           => -ERR min or max not valid string range item
        ZADD mixed 1 m2 2 m3 3 a  => 3
        ZLEXCOUNT mixed [m1 +     => 0
        ZREMRANGEBYLEX mixed [m1 + => 0
        ZRANGESTORE d z 1 2       => 2
        ZRANGE d 0 -1 WITHSCORES  => ["b", "2", "c", "3"]
        ZRANGESTORE d z (3 +inf BYSCORE LIMIT 1 5 => 1
        ZRANGE d 0 -1 WITHSCORES  => ["e", "5"]
        ZRANGESTORE d z 0 0 WITHSCORES => -ERR syntax error
        ZRANGESTORE d none 0 -1   => 0
        EXISTS d                  => 0
"#,
    );
}

#[test]
fn scores_are_numbers_and_pairs_in_resp3() {
    let mut node = TestNode::new();
    node.run("HELLO 3");
    node.story(
        r#"
        ZADD z 1 a 2 b 3 c        => 3
        ZADD z INCR 0.5 c         => ,3.5
        ZRANGE z 0 1 WITHSCORES   => [["a", ,1], ["b", ,2]]
        ZSCORE z a                => ,1
        ZPOPMIN z                 => ["a", ,1]
        ZPOPMIN z 1               => [["b", ,2]]
        ZUNION 1 z WITHSCORES     => [["c", ,3.5]]
        ZRANK z c WITHSCORE       => [0, ,3.5]
        ZMSCORE z c d             => [,3.5, nil]
        ZSCAN z 0                 => ["0", ["c", "3.5"]]
        ZMPOP 1 z MIN             => ["z", [["c", ,3.5]]]
        "#,
    );
}

#[test]
fn members_are_removed_one_by_one_and_in_ranges() {
    story(
        r#"
        ZADD z 1 a 2 b 3 c 4 d 5 e 6 f => 6
        ZREM z a x                => 1
        ZREMRANGEBYRANK z 0 0     => 1
        ZREMRANGEBYSCORE z (3 4   => 1
        ZREMRANGEBYRANK z 5 1     => 0
        ZRANGE z 0 -1             => ["c", "e", "f"]
        ZREMRANGEBYLEX z [e +     => 2
        ZREMRANGEBYSCORE z x 1    => -ERR min or max is not a float
        ZREM z c                  => 1
        EXISTS z                  => 0
        ZREM z c                  => 0
        ZADD z 1 a 2 b 3 c 4 d    => 4
        ZPOPMIN z                 => ["a", "1"]
        ZPOPMAX z 2               => ["d", "4", "c", "3"]
        ZPOPMIN z 0               => []
        ZPOPMIN z -1              => -ERR value is out of range, must be positive
        ZPOPMIN z 1 2             => -ERR syntax error
        ZPOPMAX z 9               => ["b", "2"]
        ZPOPMAX z                 => []
        EXISTS z                  => 0
        ZADD z 1 a 2 b 3 c        => 3
        ZMPOP 2 none z MAX        => ["z", [["c", "3"]]]
        ZMPOP 1 z MIN COUNT 5     => ["z", [["a", "1"], ["b", "2"]]]
        ZMPOP 1 z MIN             => nil
        ZMPOP 0 z MIN             => -ERR numkeys should be greater than 0
        ZMPOP 1 z MIN COUNT 0     => -ERR count should be greater than 0
        ZMPOP 1 z MID             => -ERR syntax error
        "#,
    );
}

#[test]
fn sets_are_combined() {
    story(
        r#"
        ZADD a 1 x 2 y 3 z        => 3
        ZADD b 10 y 20 z 30 w     => 3
        SADD s x y                => 2
        ZUNION 2 a b WITHSCORES   => ["x", "1", "y", "12", "z", "23", "w", "30"]
        ZINTER 2 a b WITHSCORES   => ["y", "12", "z", "23"]
        ZINTER 2 a b WITHSCORES AGGREGATE MAX => ["y", "10", "z", "20"]
        ZINTER 2 a b WEIGHTS 2 1 AGGREGATE min WITHSCORES => ["y", "4", "z", "6"]
        ZINTER 2 a s WITHSCORES   => ["x", "2", "y", "3"]
        ZDIFF 2 a b WITHSCORES    => ["x", "1"]
        ZDIFF 2 a none            => ["x", "y", "z"]
        ZDIFF 2 none a            => []
        ZINTERCARD 2 a b          => 2
        ZINTERCARD 2 a b LIMIT 1  => 1
        ZINTERCARD 2 a b LIMIT 0  => 2
        ZINTERCARD 2 a b LIMIT -1 => -ERR LIMIT can't be negative
        ZUNIONSTORE d 2 a b WEIGHTS 1 2 => 4
        ZRANGE d 0 -1 WITHSCORES  => ["x", "1", "y", "22", "z", "43", "w", "60"]
        ZINTERSTORE d 2 d a       => 3
        ZDIFFSTORE d 2 d a        => 0
        EXISTS d                  => 0
        ZUNION 0 a                => -ERR at least 1 input key is needed for 'zunion' command
        ZUNION x a                => -ERR value is not an integer or out of range
        ZUNION 2 a                => -ERR syntax error
        ZUNION 1 a WEIGHTS        => -ERR syntax error
        ZUNION 1 a WEIGHTS x      => -ERR weight value is not a float
        ZUNION 1 a AGGREGATE avg  => -ERR syntax error
        ZDIFF 1 a WEIGHTS 1       => -ERR syntax error
        ZUNIONSTORE d 1 a WITHSCORES => -ERR syntax error
        ZADD i inf m              => 1
        ZADD j -inf m             => 1
        ZUNION 2 i j WITHSCORES   => ["m", "0"]
        ZUNION 1 i WEIGHTS 0 WITHSCORES => ["m", "0"]
        SET t x                   => OK
        ZUNION 2 a t nonsense     => -WRONGTYPE Operation against a key holding the wrong kind of value
        "#,
    );
}

#[test]
fn a_scan_goes_over_a_large_set_and_patterns_pick() {
    let mut node = TestNode::new();
    node.story(
        r#"
        ZADD z 1 a 2.5 b          => 2
        ZSCAN z 0                 => ["0", ["a", "1", "b", "2.5"]]
        ZSCAN z 0 MATCH b*        => ["0", ["b", "2.5"]]
        ZSCAN none 0              => ["0", []]
        ZSCAN z x                 => -ERR invalid cursor
        ZSCAN z 0 COUNT 0         => -ERR syntax error
        "#,
    );
    for number in 0..1_000 {
        node.run(&format!("ZADD big {number} m{number}"));
    }
    let (mut cursor, mut seen) = ("0".to_owned(), 0);
    loop {
        let reply = node.run(&format!("ZSCAN big {cursor} COUNT 50"));
        seen += reply.matches("\"m").count();
        cursor = reply.split('"').nth(1).unwrap().to_owned();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen, 1_000);
}

#[test]
fn random_members_are_members() {
    let mut node = TestNode::new();
    node.story(
        r#"
        ZRANDMEMBER none          => nil
        ZRANDMEMBER none 5        => []
        ZADD z 1 a                => 1
        ZRANDMEMBER z             => "a"
        ZRANDMEMBER z 5           => ["a"]
        ZRANDMEMBER z -3          => ["a", "a", "a"]
        ZRANDMEMBER z -2 WITHSCORES => ["a", "1", "a", "1"]
        ZRANDMEMBER z 0           => []
        ZRANDMEMBER z x           => -ERR value is not an integer or out of range
        ZRANDMEMBER z 1 SCORES    => -ERR syntax error
        ZRANDMEMBER z -9223372036854775807 WITHSCORES => -ERR value is out of range
        ZRANDMEMBER z -9223372036854775807 => -ERR value is out of range
        "#,
    );
    for number in 0..300 {
        node.run(&format!("ZADD big 0 m{number}"));
    }
    for count in [1, 10, 150, 299, 300, 400] {
        let reply = node.run(&format!("ZRANDMEMBER big {count}"));
        let mut names: Vec<&str> = reply.trim_matches(['[', ']']).split(", ").collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count.min(300));
    }
}
