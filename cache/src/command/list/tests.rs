//! Stories of the list family.

use crate::command::testing::story;

#[test]
fn pushing_and_popping_at_both_ends() {
    story(
        r#"
        RPUSH l a b c             => 3
        LPUSH l z y               => 5
        LRANGE l 0 -1             => ["y", "z", "a", "b", "c"]
        LPOP l                    => "y"
        RPOP l                    => "c"
        LPOP l 0                  => []
        LPOP l 2                  => ["z", "a"]
        RPOP l 99                 => ["b"]
        EXISTS l                  => 0
        LPOP l                    => nil
        LPOP l 0                  => nil
        LPOP l 1                  => nil
        LPOP l -1                 => -ERR value is out of range, must be positive
        LPOP l x                  => -ERR value is out of range, must be positive
        LPOP l 1 2                => -ERR wrong number of arguments for 'lpop' command
        LPUSHX l a                => 0
        RPUSHX l a                => 0
        EXISTS l                  => 0
        RPUSH l a                 => 1
        LPUSHX l b c              => 3
        RPUSHX l d                => 4
        LRANGE l 0 -1             => ["c", "b", "a", "d"]
        "#,
    );
}

#[test]
fn a_list_is_read_by_index() {
    story(
        r#"
        RPUSH l a b c d e         => 5
        LLEN l                    => 5
        LLEN none                 => 0
        LRANGE l 1 3              => ["b", "c", "d"]
        LRANGE l -3 -2            => ["c", "d"]
        LRANGE l 3 1              => []
        LRANGE l -100 100         => ["a", "b", "c", "d", "e"]
        LRANGE l 5 9              => []
        LRANGE l 0 -6             => []
        LRANGE none 0 -1          => []
        LRANGE none x -1          => -ERR value is not an integer or out of range
        LINDEX l 0                => "a"
        LINDEX l -1               => "e"
        LINDEX l -6               => nil
        LINDEX l 5                => nil
        LINDEX l x                => -ERR value is not an integer or out of range
        LINDEX none x             => nil
        LINDEX l -9223372036854775808 => nil
        "#,
    );
}

#[test]
fn elements_are_found_by_value() {
    story(
        r#"
        RPUSH l a b c 1 2 3 c c   => 8
        LPOS l a                  => 0
        LPOS l c                  => 2
        LPOS l z                  => nil
        LPOS none z               => nil
        LPOS none z COUNT 1       => []
        LPOS l c RANK 2           => 6
        LPOS l c RANK -1          => 7
        LPOS l c RANK 4           => nil
        LPOS l c COUNT 0          => [2, 6, 7]
        LPOS l c COUNT 2          => [2, 6]
        LPOS l c COUNT 2 RANK -1  => [7, 6]
        LPOS l c COUNT 0 MAXLEN 7 => [2, 6]
        LPOS l c COUNT 0 MAXLEN 2 RANK -1 => [7, 6]
        LPOS l z COUNT 0          => []
        LPOS l c RANK 0           => -ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list
        LPOS l c COUNT -1         => -ERR COUNT can't be negative
        LPOS l c MAXLEN -1        => -ERR MAXLEN can't be negative
        LPOS l c RANK             => -ERR syntax error
        LPOS l c RANK -9223372036854775808 => -ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807
        "#,
    );
}

#[test]
fn elements_in_the_middle_are_changed() {
    story(
        r#"
        RPUSH l a b c b a         => 5
        LSET l 1 B                => OK
        LSET l -1 A               => OK
        LSET l 5 x                => -ERR index out of range
        LSET l -6 x               => -ERR index out of range
        LSET l x x                => -ERR value is not an integer or out of range
        LSET none x x             => -ERR no such key
        LRANGE l 0 -1             => ["a", "B", "c", "b", "A"]
        LINSERT l BEFORE c 1      => 6
        LINSERT l after c 2       => 7
        LINSERT l AFTER z 2       => -1
        LINSERT none AFTER z 2    => 0
        LINSERT l BESIDE c 2      => -ERR syntax error
        LRANGE l 0 -1             => ["a", "B", "1", "c", "2", "b", "A"]
        LTRIM l 1 -2              => OK
        LRANGE l 0 -1             => ["B", "1", "c", "2", "b"]
        LTRIM l 9 10              => OK
        EXISTS l                  => 0
        LTRIM l 0 1               => OK
        RPUSH l a b a c a d a     => 7
        LREM l 1 a                => 1
        LREM l -1 a               => 1
        LRANGE l 0 -1             => ["b", "a", "c", "a", "d"]
        LREM l 0 a                => 2
        LREM l 0 z                => 0
        LRANGE l 0 -1             => ["b", "c", "d"]
        LREM l 5 b                => 1
        LREM l 5 c                => 1
        LREM l -9223372036854775808 d => 1
        EXISTS l                  => 0
        "#,
    );
}

#[test]
fn elements_move_between_lists() {
    story(
        r#"
        RPUSH a 1 2 3             => 3
        LMOVE a b LEFT RIGHT      => "1"
        LMOVE a b right left      => "3"
        LRANGE b 0 -1             => ["3", "1"]
        RPOPLPUSH a b             => "2"
        EXISTS a                  => 0
        RPOPLPUSH a b             => nil
        LMOVE a b LEFT RIGHT      => nil
        LMOVE b b LEFT RIGHT      => "2"
        LRANGE b 0 -1             => ["3", "1", "2"]
        RPOPLPUSH b b             => "2"
        LRANGE b 0 -1             => ["2", "3", "1"]
        LMOVE a b UP RIGHT        => -ERR syntax error
        SET s x                   => OK
        LMOVE b s LEFT LEFT       => -WRONGTYPE Operation against a key holding the wrong kind of value
        LMOVE s b LEFT LEFT       => -WRONGTYPE Operation against a key holding the wrong kind of value
        LMOVE a s LEFT LEFT       => nil
        LLEN b                    => 3
        RPUSH one x               => 1
        LMOVE one one LEFT LEFT   => "x"
        LLEN one                  => 1
        "#,
    );
}

#[test]
fn many_are_popped_from_the_first_list_that_has_any() {
    story(
        r#"
        RPUSH b 1 2 3 4           => 4
        LMPOP 2 a b LEFT          => ["b", ["1"]]
        LMPOP 2 a b RIGHT COUNT 2 => ["b", ["4", "3"]]
        LMPOP 1 b LEFT COUNT 10   => ["b", ["2"]]
        LMPOP 1 b LEFT            => nil
        LMPOP 0 b LEFT            => -ERR numkeys should be greater than 0
        LMPOP x b LEFT            => -ERR numkeys should be greater than 0
        LMPOP 1 b LEFT COUNT 0    => -ERR count should be greater than 0
        LMPOP 1 b LEFT COUNT 1 COUNT 2 => -ERR syntax error
        LMPOP 2 b LEFT            => -ERR syntax error
        LMPOP 1 b TOP             => -ERR syntax error
        LMPOP 9223372036854775807 b LEFT => -ERR syntax error
        SET s x                   => OK
        LMPOP 2 b s LEFT          => -WRONGTYPE Operation against a key holding the wrong kind of value
        "#,
    );
}

#[test]
fn another_kind_of_value_is_refused() {
    story(
        r#"
        SET s x                   => OK
        LPUSH s a                 => -WRONGTYPE Operation against a key holding the wrong kind of value
        RPUSHX s a                => -WRONGTYPE Operation against a key holding the wrong kind of value
        LPOP s                    => -WRONGTYPE Operation against a key holding the wrong kind of value
        LPOP s 0                  => -WRONGTYPE Operation against a key holding the wrong kind of value
        LLEN s                    => -WRONGTYPE Operation against a key holding the wrong kind of value
        LSET s x a                => -WRONGTYPE Operation against a key holding the wrong kind of value
        LINSERT s BEFORE a b      => -WRONGTYPE Operation against a key holding the wrong kind of value
        LREM s 0 a                => -WRONGTYPE Operation against a key holding the wrong kind of value
        LTRIM s 0 0               => -WRONGTYPE Operation against a key holding the wrong kind of value
        BLPOP a s 0               => -WRONGTYPE Operation against a key holding the wrong kind of value
        GET s                     => "x"
        "#,
    );
}
