//! Every command of the table within `MULTI`: a handler works on shards that its transaction has locked, and must not lock any by
//! itself, nor a registry twice.

use std::sync::mpsc;
use std::time::Duration;

use super::testing::TestNode;
use super::{Command, Group, Known, TABLE};

/// How long all of them may take together.
const PATIENCE: Duration = Duration::from_secs(120);

/// Calls whose arguments are not plain keys and numbers.
const CALLS: &[&str] = &[
    "ACL GENPASS 8",
    "BITFIELD s SET u8 0 1",
    "BITOP AND d s s",
    "BLMOVE l l LEFT RIGHT 0",
    "BLMPOP 0 1 l LEFT",
    "BLPOP l 0",
    "BLPOP nothing 0",
    "BZMPOP 0 1 z MIN",
    "CLIENT KILL ID 77",
    "CLIENT LIST ID 1",
    "CLIENT NO-TOUCH ON",
    "CLIENT PAUSE 0",
    "CLIENT SETINFO LIB-NAME x",
    "CLIENT TRACKING ON",
    "CLIENT UNBLOCK 77",
    "CLUSTER COUNTKEYSINSLOT 1",
    "CONFIG GET *",
    "CONFIG RESETSTAT",
    "CONFIG SET maxmemory 0",
    "COPY s d REPLACE",
    "DEBUG OBJECT s",
    "DEBUG SLEEP 1",
    "EVAL nothing 0",
    "GETEX s EX 100",
    "GETORLOCK none 1000 WAIT 1000",
    "HEXPIRE h 100 FIELDS 1 f",
    "INFO everything",
    "LATTICE HOTKEYS",
    "LATTICE PREFIXES",
    "LCS s s",
    "LINSERT l BEFORE a b",
    "LMOVE l l LEFT RIGHT",
    "LMPOP 1 l LEFT",
    "LPOS l a",
    "MEMORY DOCTOR",
    "MEMORY STATS",
    "MONITOR",
    "OBJECT ENCODING s",
    "PFADD p a",
    "PFCOUNT p",
    "SCAN 0 COUNT 100",
    "SET s v IFEQ v",
    "SINTERCARD 1 set",
    "SORT l BY nosort GET s",
    "SWAPDB 0 1",
    "UNSUBSCRIBE",
    "ZADD z 1 a",
    "ZMPOP 1 z MIN",
    "ZRANGE z 0 -1",
    "ZRANGEBYLEX z - +",
    "ZRANGESTORE d z 0 -1",
    "ZUNIONSTORE d 1 z",
];

/// A call with a key of the right kind and numbers, as many as the command takes at least.
fn plain_call(name: &str, command: &Command) -> String {
    let key = match command.group {
        Group::List => "l",
        Group::Hash => "h",
        Group::Set => "set",
        Group::SortedSet => "z",
        _ => "s",
    };
    let given = name.split(' ').count();
    let wanted = usize::try_from(command.arity.unsigned_abs()).unwrap();
    let more = (given..wanted).map(|at| if at == given { key } else { "1" });
    [name].into_iter().chain(more).collect::<Vec<_>>().join(" ")
}

fn calls() -> Vec<String> {
    let name = |known: &Known| known.full_name.replace('|', " ").to_uppercase();
    let mut calls: Vec<String> = CALLS.iter().map(|call| (*call).to_owned()).collect();
    for known in TABLE.iter() {
        if known.subcommands.is_empty() {
            calls.push(plain_call(&name(known), known.command));
        }
        for inner in known.subcommands.values() {
            calls.push(plain_call(&name(inner), inner.command));
        }
    }
    // These end or stop what the others need.
    calls.retain(|call| !["EXEC", "DISCARD", "MULTI", "QUIT", "RESET"].contains(&call.as_str()));
    calls
}

fn run(call: &str) -> String {
    let mut node = TestNode::new();
    for line in ["SET s v", "RPUSH l a b", "HSET h f v", "SADD set a", "ZADD z 1 a"] {
        node.run(line);
    }
    node.run("CONFIG SET notify-keyspace-events KEAmn");
    node.run("WATCH s");
    node.run("MULTI");
    node.run(call);
    node.run("SET after 1");
    node.run(call);
    node.run("EXEC")
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test that would hang has to be watched")]
fn no_command_waits_for_itself_within_a_transaction() {
    let (tell, told) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        for call in calls() {
            tell.send((call.clone(), None)).unwrap();
            tell.send((call.clone(), Some(run(&call)))).unwrap();
        }
    });
    let (mut all, mut good, mut last) = (0, 0, String::new());
    let mut left = PATIENCE;
    loop {
        let before = std::time::Instant::now();
        match told.recv_timeout(left) {
            Ok((call, None)) => last = call,
            Ok((_, Some(reply))) => {
                all += 1;
                good += usize::from(reply.starts_with('[') && !reply.contains("-ERR"));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("{last} takes for ever"),
        }
        left = left.saturating_sub(before.elapsed());
    }
    assert!(worker.join().is_ok(), "{last} panicked");
    assert!(good * 2 > all, "the arguments are plausible: {good} of {all} calls went well");
}
