//! Loading without stampedes: `GETORLOCK`, `SETWITHLEASE`, `UNLEASE`. What a client sees is described in `docs/cache.md`.

use super::{Command, Context, Failure, Flags, Group, Keys, integer, is_option};
use crate::blocking::attempt_or_wait;
use crate::engine::Engine;
use crate::leases::Grant;
use crate::resp::Reply;
use crate::store::{Keyspace, Lifetime};
#[cfg(feature = "sim")]
use crate::types::Now;
use crate::types::{Database, UnixMillis};
use crate::value::Kind;

/// The longest lease, and the longest wait: an hour.
const DURATION_MAX_MS: i64 = 3_600_000;

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "getorlock",
        -3,
        Keys::ONE,
        Flags::WRITE.and(Flags::DENYOOM).and(Flags::NOSCRIPT).and(Flags::BLOCKING),
        get_or_lock,
    )
    .docs(
        Group::Lattice,
        "7.2.0",
        "Returns the value of a key; if it is missing or stale, makes one caller load it while others wait or have the stale value.",
    ),
    Command::new(
        "setwithlease",
        -4,
        Keys::ONE,
        Flags::WRITE.and(Flags::DENYOOM).and(Flags::FAST),
        set_with_lease,
    )
    .docs(
        Group::Lattice,
        "7.2.0",
        "Publishes what the holder of a lease has loaded, or that there is nothing, if the lease still stands.",
    ),
    Command::new("unlease", 3, Keys::ONE, Flags::WRITE.and(Flags::FAST), unlease).docs(
        Group::Lattice,
        "7.2.0",
        "Gives a lease up, so that the next caller loads.",
    ),
];

/// What `GETORLOCK` was asked, in milliseconds.
struct Question<'a> {
    lease: u64,
    stale: u64,
    wait: Option<&'a [u8]>,
}

fn duration(argument: &[u8], least: i64, what: &str) -> Result<u64, Failure> {
    let value = integer(argument)?;
    if !(least..=DURATION_MAX_MS).contains(&value) {
        return Err(Failure::err(format_args!(
            "{what} must be between {least} and {DURATION_MAX_MS} milliseconds"
        )));
    }
    Ok(value.unsigned_abs())
}

fn question<'a>(arguments: &[&'a [u8]]) -> Result<Question<'a>, Failure> {
    let mut question =
        Question { lease: duration(arguments[2], 1, "lease")?, stale: 0, wait: None };
    for option in arguments[3..].chunks(2) {
        match *option {
            [name, value] if is_option(name, "STALE") => {
                question.stale = lifetime(value)?;
            }
            [name, value] if is_option(name, "WAIT") => {
                question.wait = (duration(value, 0, "wait")? > 0).then_some(value);
            }
            _ => return Err(Failure::Syntax),
        }
    }
    Ok(question)
}

/// A lifetime in milliseconds, at least one.
fn lifetime(argument: &[u8]) -> Result<u64, Failure> {
    u64::try_from(integer(argument)?)
        .ok()
        .filter(|value| *value > 0)
        .ok_or_else(|| Failure::err("invalid expire time in 'setwithlease' command"))
}

fn get_or_lock(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let asked = question(arguments)?;
    let (engine, now) = (ctx.engine, ctx.now);
    let key = ctx.key(arguments[1]);
    let deadline = ctx.keys.deadline(&key).flatten();
    let is_stale = deadline.is_some_and(|at| now.unix.until(at) <= asked.stale);
    let value = ctx.keys.string(&key)?;
    if let Some(bytes) = value
        && !is_stale
    {
        answer(&mut ctx.reply, "hit", Some(bytes));
        ctx.reply.null();
        return Ok(());
    }
    #[cfg(feature = "sim")]
    if engine.store.bug() == Some(crate::sim::PlantedBug::LeaseGrantedTwice) {
        engine.leases.void(key.database(), key.bytes());
    }
    let secret = engine.secret(8);
    let token = u64::from_be_bytes(secret.try_into().expect("eight bytes were asked for"));
    let grant = engine.leases.acquire(
        key.database(),
        key.bytes(),
        token,
        asked.lease * 1000,
        value.is_some(),
        now.monotonic_us,
    );
    match (grant, value) {
        (Grant::Granted, value) => {
            answer(&mut ctx.reply, "load", value);
            ctx.reply.bulk(format!("{token:016x}").as_bytes());
            // From now on the registry has to hear of what happens to the key.
            engine.review_observation();
        }
        (Grant::Held(_), Some(stale)) => {
            answer(&mut ctx.reply, "stale", Some(stale));
            ctx.reply.null();
        }
        (Grant::Absent(us), _) => {
            answer(&mut ctx.reply, "absent", None);
            ctx.reply.integer(whole_millis(us));
        }
        (Grant::Held(us), None) => match asked.wait.filter(|_| ctx.session.may_wait) {
            Some(wait) => return wait_for_value(ctx, arguments, wait, us),
            None => {
                answer(&mut ctx.reply, "wait", None);
                ctx.reply.integer(whole_millis(us));
            }
        },
        (Grant::TooMany, _) => return Err(Failure::err("too many leases")),
    }
    Ok(())
}

/// Waits until there is a value, but no longer than the lease stands: if its holder has died, somebody else has to ask.
fn wait_for_value(
    ctx: &mut Context<'_, '_>,
    arguments: &[&[u8]],
    wait: &[u8],
    lease_us: u64,
) -> Result<(), Failure> {
    let wait_ms = duration(wait, 1, "wait")?.min(lease_us.div_ceil(1000).max(1));
    let seconds = format!("{}.{:03}", wait_ms / 1000, wait_ms % 1000);
    let nothing = |reply: &mut Reply<'_>| {
        answer(reply, "wait", None);
        reply.integer(0);
    };
    let keys = [arguments[1]];
    attempt_or_wait(ctx, arguments, &keys, Kind::String, seconds.as_bytes(), published, nothing)
}

/// Serves one who waits, once there is a value.
fn published(
    engine: &Engine,
    keys: &mut Keyspace<'_>,
    database: Database,
    arguments: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Result<bool, Failure> {
    let key = engine.store.key(database, arguments[1]);
    let value = keys.string(&key)?;
    if value.is_some() {
        answer(reply, "hit", value);
        reply.null();
    }
    Ok(value.is_some())
}

/// The head of the reply, and the first two of its three elements.
fn answer(reply: &mut Reply<'_>, state: &str, value: Option<&[u8]>) {
    reply.array(3);
    reply.bulk(state.as_bytes());
    reply.bulk_or_null(value);
}

fn whole_millis(us: u64) -> i64 {
    i64::try_from(us.div_ceil(1000)).expect("no more than an hour was granted")
}

/// A token as `GETORLOCK` writes it. Anything else is the token of no lease.
fn token(argument: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(argument).ok().filter(|text| text.len() == 16)?;
    u64::from_str_radix(text, 16).ok()
}

fn set_with_lease(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (mut negative, mut fresh, mut stale) = (false, None, None);
    let mut options = arguments[4..].iter();
    while let Some(name) = options.next() {
        if is_option(name, "NEGATIVE") {
            negative = true;
            continue;
        }
        let value = options.next().ok_or(Failure::Syntax)?;
        if is_option(name, "PX") {
            fresh = Some(lifetime(value)?);
        } else if is_option(name, "STALE") {
            stale = Some(lifetime(value)?);
        } else {
            return Err(Failure::Syntax);
        }
    }
    let fits = if negative {
        fresh.is_some() && stale.is_none() && arguments[3].is_empty()
    } else {
        fresh.is_some() || stale.is_none()
    };
    if !fits {
        return Err(Failure::Syntax);
    }
    if fresh.is_some_and(|fresh| negative && fresh > DURATION_MAX_MS.unsigned_abs()) {
        return Err(Failure::err("a negative entry lasts no longer than an hour"));
    }
    let key = ctx.key(arguments[1]);
    let now = ctx.now;
    let leases = &ctx.engine.leases;
    #[cfg(feature = "sim")]
    let now = match ctx.engine.store.bug() {
        // When nothing has ended yet.
        Some(crate::sim::PlantedBug::LeaseOutlivesItsTime) => Now { monotonic_us: 0, ..now },
        _ => now,
    };
    let holds = token(arguments[2])
        .is_some_and(|it| leases.release(key.database(), key.bytes(), it, now.monotonic_us));
    if !holds {
        ctx.reply.integer(0);
        return Ok(());
    }
    if let (true, Some(fresh)) = (negative, fresh) {
        if ctx.keys.remove(&key) {
            ctx.notify(b'g', "del", &key);
        }
        leases.note_absent(key.database(), key.bytes(), fresh * 1000, now.monotonic_us);
        let told = i64::try_from(fresh).expect("no more than an hour");
        ctx.engine.waiters.answer_all(key.database(), key.bytes(), Kind::String, |reply| {
            answer(reply, "absent", None);
            reply.integer(told);
        });
    } else {
        let until = |fresh: u64| {
            let lifetime = fresh.saturating_add(stale.unwrap_or(0));
            Lifetime::Until(UnixMillis(now.unix.0.saturating_add(lifetime)))
        };
        ctx.keys.set(&key, arguments[3], fresh.map_or(Lifetime::Forever, until));
        ctx.notify(b'$', "set", &key);
        if fresh.is_some() {
            ctx.notify(b'g', "expire", &key);
        }
    }
    ctx.reply.integer(1);
    Ok(())
}

fn unlease(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let now_us = ctx.now.monotonic_us;
    let leases = &ctx.engine.leases;
    let held = token(arguments[2])
        .is_some_and(|it| leases.release(key.database(), key.bytes(), it, now_us));
    if held {
        ctx.engine.waiters.ask_again(key.database(), key.bytes());
    }
    ctx.reply.integer(i64::from(held));
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{TestNode, call, run};
    use crate::session::Session;

    /// Asks for `k`, and returns the token of the lease.
    fn lease(node: &mut TestNode, line: &str) -> String {
        let reply = String::from_utf8(node.call(&words(line))).unwrap();
        assert!(reply.starts_with("*3\r\n$4\r\nload\r\n"), "{reply:?}");
        reply.trim_end().rsplit("\r\n").next().unwrap().to_owned()
    }

    fn words(line: &str) -> Vec<&[u8]> {
        line.split(' ').map(str::as_bytes).collect()
    }

    fn ask(node: &TestNode, session: &mut Session, line: &str) -> String {
        String::from_utf8(call(&node.engine, session, &words(line))).unwrap()
    }

    fn outbox(session: &Session) -> String {
        let mut out = Vec::new();
        session.outbox().drain_into(&mut out);
        String::from_utf8(out).unwrap()
    }

    const WAIT_1000: &str = "*3\r\n$4\r\nwait\r\n$-1\r\n:1000\r\n";

    #[test]
    fn one_loads_and_the_others_are_told() {
        let mut node = TestNode::new();
        let mut other = node.connect();
        let token = lease(&mut node, "GETORLOCK k 1000");
        assert_eq!(ask(&node, &mut other, "GETORLOCK k 1000"), WAIT_1000);
        assert_eq!(node.call(&words(&format!("SETWITHLEASE k {token} v PX 5000"))), b":1\r\n");
        let hit = "*3\r\n$3\r\nhit\r\n$1\r\nv\r\n$-1\r\n";
        assert_eq!(ask(&node, &mut other, "GETORLOCK k 1000"), hit);
        assert_eq!(ask(&node, &mut other, "PTTL k"), ":5000\r\n");
        assert_eq!(node.call(&words(&format!("SETWITHLEASE k {token} w"))), b":0\r\n");
    }

    #[test]
    fn those_who_wait_get_what_is_published() {
        let mut node = TestNode::new();
        let mut other = node.connect();
        let token = lease(&mut node, "GETORLOCK k 1000");
        assert_eq!(ask(&node, &mut other, "GETORLOCK k 1000 WAIT 500"), "");
        assert!(node.engine.waiters.is_waiting(other.client.id));
        node.call(&words(&format!("SETWITHLEASE k {token} v")));
        assert_eq!(outbox(&other), "*3\r\n$3\r\nhit\r\n$1\r\nv\r\n$-1\r\n");
    }

    #[test]
    fn a_plain_write_serves_those_who_wait_too_and_voids_the_lease() {
        let mut node = TestNode::new();
        let mut other = node.connect();
        let token = lease(&mut node, "GETORLOCK k 1000");
        ask(&node, &mut other, "GETORLOCK k 1000 WAIT 500");
        let mut third = node.connect();
        ask(&node, &mut third, "SET k newer");
        assert_eq!(outbox(&other), "*3\r\n$3\r\nhit\r\n$5\r\nnewer\r\n$-1\r\n");
        assert_eq!(node.call(&words(&format!("SETWITHLEASE k {token} older"))), b":0\r\n");
        assert_eq!(ask(&node, &mut third, "GET k"), "$5\r\nnewer\r\n");
    }

    #[test]
    fn a_removal_voids_the_lease_though_there_is_nothing_to_remove() {
        let mut node = TestNode::new();
        let token = lease(&mut node, "GETORLOCK k 1000");
        assert_eq!(node.run("DEL k"), "0");
        assert_eq!(node.call(&words(&format!("SETWITHLEASE k {token} old"))), b":0\r\n");
        assert_eq!(node.run("EXISTS k"), "0");
        lease(&mut node, "GETORLOCK k 1000");
    }

    #[test]
    fn a_lease_ends_by_itself_and_the_next_caller_loads() {
        let mut node = TestNode::new();
        let dead = lease(&mut node, "GETORLOCK k 1000");
        node.clock.advance_ms(999);
        let mut other = node.connect();
        assert_eq!(ask(&node, &mut other, "GETORLOCK k 1000"), "*3\r\n$4\r\nwait\r\n$-1\r\n:1\r\n");
        node.clock.advance_ms(1);
        let alive = lease(&mut node, "GETORLOCK k 1000");
        assert_eq!(node.call(&words(&format!("SETWITHLEASE k {dead} v"))), b":0\r\n");
        assert_eq!(node.call(&words(&format!("SETWITHLEASE k {alive} v"))), b":1\r\n");
    }

    #[test]
    fn a_wait_is_no_longer_than_the_lease() {
        let mut node = TestNode::new();
        lease(&mut node, "GETORLOCK k 100");
        let mut other = node.connect();
        ask(&node, &mut other, "GETORLOCK k 100 WAIT 60000");
        let now_us = node.engine.clock.now().monotonic_us;
        assert_eq!(
            node.engine.waiters.standing(other.client.id, now_us),
            crate::blocking::Standing::Waits(Some(now_us + 100_000))
        );
    }

    #[test]
    fn a_stale_value_goes_to_all_but_the_one_who_loads() {
        let mut node = TestNode::new();
        let mut other = node.connect();
        let token = lease(&mut node, "GETORLOCK k 1000 STALE 200");
        node.call(&words(&format!("SETWITHLEASE k {token} old PX 1000 STALE 200")));
        let hit = "*3\r\n$3\r\nhit\r\n$3\r\nold\r\n$-1\r\n";
        node.clock.advance_ms(999);
        assert_eq!(ask(&node, &mut other, "GETORLOCK k 1000 STALE 200"), hit);
        node.clock.advance_ms(1);
        let reply = node.call(&words("GETORLOCK k 100 STALE 200"));
        assert!(reply.starts_with(b"*3\r\n$4\r\nload\r\n$3\r\nold\r\n$16\r\n"));
        let stale = "*3\r\n$5\r\nstale\r\n$3\r\nold\r\n$-1\r\n";
        assert_eq!(ask(&node, &mut other, "GETORLOCK k 100 STALE 200"), stale);
        node.clock.advance_ms(200);
        assert_eq!(node.run("EXISTS k"), "0");
    }

    #[test]
    fn what_is_absent_is_not_asked_for_until_it_is_set_or_time_is_over() {
        let mut node = TestNode::new();
        let mut other = node.connect();
        let token = lease(&mut node, "GETORLOCK k 1000");
        ask(&node, &mut other, "GETORLOCK k 1000 WAIT 500");
        let publish = format!("SETWITHLEASE k {token}  NEGATIVE PX 300");
        assert_eq!(node.call(&words(&publish)), b":1\r\n");
        let absent = "*3\r\n$6\r\nabsent\r\n$-1\r\n:300\r\n";
        assert_eq!(outbox(&other), absent);
        assert!(!node.engine.waiters.is_waiting(other.client.id));
        assert_eq!(ask(&node, &mut other, "GETORLOCK k 1000"), absent);
        assert_eq!(run(&node.engine, &mut other, "GET k"), "nil");
        node.clock.advance_ms(300);
        let token = lease(&mut node, "GETORLOCK k 1000");
        node.call(&words(&format!("SETWITHLEASE k {token}  NEGATIVE PX 300")));
        node.run("SET k v");
        node.run("DEL k");
        lease(&mut node, "GETORLOCK k 1000");
    }

    #[test]
    fn who_gives_up_lets_the_next_load() {
        let mut node = TestNode::new();
        let mut other = node.connect();
        let token = lease(&mut node, "GETORLOCK k 1000");
        ask(&node, &mut other, "GETORLOCK k 1000 WAIT 500");
        assert_eq!(node.call(&words(&format!("UNLEASE k {token}"))), b":1\r\n");
        assert_eq!(outbox(&other), "*3\r\n$4\r\nwait\r\n$-1\r\n:0\r\n");
        assert_eq!(node.call(&words(&format!("UNLEASE k {token}"))), b":0\r\n");
        lease(&mut node, "GETORLOCK k 1000");
    }

    #[test]
    fn whoever_waits_is_told_at_once_that_the_lease_is_void() {
        for change in ["DEL k", "UNLINK k", "FLUSHALL", "RPUSH k x", "SWAPDB 0 1"] {
            let mut node = TestNode::new();
            let mut other = node.connect();
            lease(&mut node, "GETORLOCK k 1000");
            ask(&node, &mut other, "GETORLOCK k 1000 WAIT 500");
            node.run(change);
            assert_eq!(outbox(&other), "*3\r\n$4\r\nwait\r\n$-1\r\n:0\r\n", "{change}");
            assert!(!node.engine.waiters.is_used(), "{change}");
        }
    }

    #[test]
    fn a_wait_in_vain_is_answered_as_any_other_wait() {
        let mut node = TestNode::new();
        let mut other = node.connect();
        lease(&mut node, "GETORLOCK k 1000");
        ask(&node, &mut other, "GETORLOCK k 1000 WAIT 300");
        node.clock.advance_ms(300);
        let mut out = Vec::new();
        other.wait_is_over(&node.engine, node.engine.clock.now(), &mut out);
        assert_eq!(out, b"*3\r\n$4\r\nwait\r\n$-1\r\n:0\r\n");
        ask(&node, &mut other, "MULTI");
        ask(&node, &mut other, "GETORLOCK k 1000 WAIT 300");
        assert!(ask(&node, &mut other, "EXEC").ends_with("wait\r\n$-1\r\n:700\r\n"));
    }

    #[test]
    fn leases_count_against_the_limit_of_memory_while_they_stand() {
        let mut node = TestNode::new();
        let before = node.engine.store.memory().buffers;
        let key = "k".repeat(10_000);
        let token = lease(&mut node, &format!("GETORLOCK {key} 1000"));
        assert!(node.engine.store.memory().buffers > before + 20_000);
        node.call(&words(&format!("UNLEASE {key} {token}")));
        assert_eq!(node.engine.store.memory().buffers, before);
        for end in ["FLUSHALL", "DEL k"] {
            lease(&mut node, "GETORLOCK k 1000");
            node.run(end);
            assert_eq!(node.engine.store.memory().buffers, before, "{end}");
        }
    }

    #[test]
    fn a_flush_voids_leases() {
        let mut node = TestNode::new();
        let token = lease(&mut node, "GETORLOCK k 1000");
        node.run("FLUSHALL");
        assert_eq!(node.call(&words(&format!("SETWITHLEASE k {token} v"))), b":0\r\n");
    }

    #[test]
    fn nonsense_is_refused() {
        let mut node = TestNode::new();
        node.run("RPUSH list a");
        for line in [
            "GETORLOCK k 0",
            "GETORLOCK k x",
            "GETORLOCK k 3600001",
            "GETORLOCK k 1000 WAIT",
            "GETORLOCK k 1000 STALE -1",
            "GETORLOCK k 1000 WAIT 3600001",
            "GETORLOCK list 1000",
            "SETWITHLEASE k t v STALE 5",
            "SETWITHLEASE k t v NEGATIVE PX 5",
            "SETWITHLEASE k t v PX 0",
            "SETWITHLEASE k t v EX 5",
        ] {
            let reply = node.call(&words(line));
            assert_eq!(reply[0], b'-', "{line}: {}", String::from_utf8_lossy(&reply));
        }
        assert_eq!(node.call(&words("SETWITHLEASE k nobodys v")), b":0\r\n");
    }
}
