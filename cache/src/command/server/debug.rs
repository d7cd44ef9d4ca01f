//! `DEBUG`: what tests need to steer the server by.

use std::sync::atomic::Ordering;

use crate::command::{Command, Context, Failure, Flags, Group, Keys, is_option, shown};
use crate::session::{Next, Waiting};
use crate::value::View;

/// The family.
pub(in crate::command) const COMMANDS: &[Command] = &[Command::new(
    "debug",
    -2,
    Keys::All,
    Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::LOADING).and(Flags::STALE),
    debug,
)
.docs(Group::Server, "1.0.0", "Steers the server for tests.")];

const HELP: &[&str] = &[
    "DEBUG <subcommand> [<arg> ...]. Subcommands are:",
    "OBJECT <key>",
    "    Shows how a value is kept.",
    "SET-ACTIVE-EXPIRE <0|1>",
    "    Whether keys are removed at their deadline before anybody asks for them.",
    "SLEEP <seconds>",
    "    Answers after so long. Other clients are served meanwhile.",
    "HELP",
    "    Shows this.",
];

fn debug(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    match arguments[1..] {
        [name] if is_option(name, "HELP") => {
            ctx.reply.array(HELP.len());
            HELP.iter().for_each(|line| ctx.reply.simple(line));
        }
        [name, seconds] if is_option(name, "SLEEP") => sleep(ctx, seconds)?,
        [name, flag] if is_option(name, "SET-ACTIVE-EXPIRE") => {
            let on = flag == b"1";
            ctx.engine.expires_actively.store(on, Ordering::Relaxed);
            ctx.reply.ok();
        }
        [name, key] if is_option(name, "OBJECT") => object(ctx, key)?,
        _ => {
            let name = shown(&arguments[1][..arguments[1].len().min(128)]);
            return Err(Failure::err(format_args!(
                "unknown subcommand or wrong number of arguments for '{name}'. Try DEBUG HELP."
            )));
        }
    }
    Ok(())
}

/// Lets the client wait, and it alone. Within `EXEC` it answers at once: waiting there would hold all keys.
fn sleep(ctx: &mut Context<'_, '_>, seconds: &[u8]) -> Result<(), Failure> {
    let seconds: f64 = std::str::from_utf8(seconds)
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|seconds| (0.0..=1e9).contains(seconds))
        .ok_or(Failure::NotFloat)?;
    if !ctx.session.may_wait || seconds == 0.0 {
        ctx.reply.ok();
        return Ok(());
    }
    let us = std::time::Duration::from_secs_f64(seconds).as_micros();
    let moment = ctx.now.monotonic_us.saturating_add(u64::try_from(us).unwrap_or(u64::MAX));
    ctx.session.waiting = Waiting::Moment(moment);
    ctx.session.next = Next::Wait(Some(moment));
    Ok(())
}

fn object(ctx: &mut Context<'_, '_>, key: &[u8]) -> Result<(), Failure> {
    let key = ctx.key(key);
    let Some(bytes) = ctx.keys.memory_of(&key) else { return Err(Failure::NoSuchKey) };
    let (idle_ms, _) = ctx.keys.usage(&key).unwrap_or_default();
    let view = ctx.keys.peek(&key).ok_or(Failure::NoSuchKey)?;
    let encoding = match view {
        View::String(_) => "raw",
        View::List(list) => list.encoding(),
        View::Set(set) => set.encoding(),
        View::SortedSet(set) => set.encoding(),
        View::Hash(hash) => hash.encoding(),
    };
    ctx.reply.simple(&format!(
        "Value at:0x0 refcount:1 encoding:{encoding} serializedlength:{bytes} lru:0 \
         lru_seconds_idle:{}",
        idle_ms / 1000
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{TestNode, call};
    use crate::session::Next;

    #[test]
    fn sleep_lets_one_client_wait_and_no_other() {
        let mut node = TestNode::new();
        let mut sleeper = node.connect();
        let mut out = Vec::new();
        let now = node.engine.clock.now();
        let arguments: [&[u8]; 3] = [b"DEBUG", b"SLEEP", b"0.5"];
        let (next, _) = sleeper.execute(&node.engine, &arguments, now, &mut out);
        assert_eq!(next, Next::Wait(Some(now.monotonic_us + 500_000)));
        assert!(out.is_empty());
        assert_eq!(call(&node.engine, &mut node.session, &[b"PING"]), b"+PONG\r\n");
        node.clock.advance_ms(500);
        let (next, _) = sleeper.wait_is_over(&node.engine, node.engine.clock.now(), &mut out);
        assert_eq!((next, &out[..]), (Next::Continue, &b"+OK\r\n"[..]));
    }

    #[test]
    fn expiry_by_itself_can_be_switched_off_and_reads_stay_exact() {
        let mut node = TestNode::new();
        node.story(
            "
            DEBUG SET-ACTIVE-EXPIRE 0 => OK
            SET a 1 PX 10 => OK
            wait 20
            GET a => nil
            DEBUG SET-ACTIVE-EXPIRE 1 => OK
            DEBUG OBJECT nothing => -ERR no such key
            DEBUG NOTHING => -ERR unknown subcommand or wrong number of arguments for 'NOTHING'. Try DEBUG HELP.
            DEBUG SLEEP x => -ERR value is not a valid float
            DEBUG SLEEP -1 => -ERR value is not a valid float
            ",
        );
    }
}
