//! The server as a whole: its databases, its time, its end.

pub mod absent;
pub mod debug;
pub mod info;
pub mod latency;
pub mod monitor;
pub mod slow_log;

use super::{Command, Context, Failure, Flags, Group, Keys, is_option, parse_integer};
use crate::session::Next;
use crate::types::{DATABASES, Database};

const ANY_TIME: Flags = Flags::LOADING.and(Flags::STALE).and(Flags::FAST);

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    Command::new("dbsize", 1, Keys::All, Flags::READONLY.and(Flags::FAST), database_size).docs(
        Group::Server,
        "1.0.0",
        "Returns the number of keys in the database.",
    ),
    Command::new("flushall", -1, Keys::All, Flags::WRITE, flush_all).docs(
        Group::Server,
        "1.0.0",
        "Removes all keys of all databases.",
    ),
    Command::new("flushdb", -1, Keys::All, Flags::WRITE, flush_database).docs(
        Group::Server,
        "1.0.0",
        "Removes all keys of the database.",
    ),
    Command::new("lastsave", 1, Keys::None, ANY_TIME, last_save).docs(
        Group::Server,
        "1.0.0",
        "Returns when the server began: nothing is saved after that.",
    ),
    Command::new("role", 1, Keys::None, ANY_TIME.and(Flags::NOSCRIPT), role).docs(
        Group::Server,
        "2.8.12",
        "Returns the part that the node plays in replication.",
    ),
    Command::new(
        "shutdown",
        -1,
        Keys::None,
        Flags::ADMIN
            .and(Flags::NOSCRIPT)
            .and(Flags::LOADING)
            .and(Flags::STALE)
            .and(Flags::NO_MULTI)
            .and(Flags::ALLOW_BUSY),
        shutdown,
    )
    .docs(Group::Server, "1.0.0", "Stops the server."),
    Command::new("swapdb", 3, Keys::All, Flags::WRITE.and(Flags::FAST), swap_databases).docs(
        Group::Server,
        "4.0.0",
        "Exchanges the keys of two databases.",
    ),
    Command::new("time", 1, Keys::None, ANY_TIME, time).docs(
        Group::Server,
        "2.6.0",
        "Returns the time of the server's clock.",
    ),
    Command::new("lolwut", -1, Keys::None, Flags::READONLY.and(Flags::FAST), lolwut).docs(
        Group::Server,
        "5.0.0",
        "Draws a lattice, and tells the version.",
    ),
];

fn database_size(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    let database = ctx.session.database;
    let keys = ctx.keys.len(database);
    ctx.reply.count(keys);
    Ok(())
}

/// `ASYNC` and `SYNC` are taken, and make no difference: keys go at once, memory in whole blocks.
fn see_flush_option(arguments: &[&[u8]]) -> Result<(), Failure> {
    match *arguments {
        [_] => Ok(()),
        [_, option] if is_option(option, "ASYNC") || is_option(option, "SYNC") => Ok(()),
        _ => Err(Failure::Syntax),
    }
}

fn flush_all(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    see_flush_option(arguments)?;
    ctx.keys.flush(None);
    ctx.reply.ok();
    Ok(())
}

fn flush_database(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    see_flush_option(arguments)?;
    ctx.keys.flush(Some(ctx.session.database));
    ctx.reply.ok();
    Ok(())
}

fn swap_databases(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    if ctx.engine.options.cluster {
        return Err(Failure::err("SWAPDB is not allowed in cluster mode"));
    }
    let index = |text: &[u8], which: &str| {
        let number = parse_integer(text);
        number.ok_or_else(|| Failure::err(format_args!("invalid {which} DB index")))
    };
    let (left, right) = (index(arguments[1], "first")?, index(arguments[2], "second")?);
    let database = |index: i64| {
        let index = u8::try_from(index).ok().filter(|index| *index < DATABASES);
        index.map(Database).ok_or_else(|| Failure::err("DB index is out of range"))
    };
    let (left, right) = (database(left)?, database(right)?);
    if left != right {
        ctx.keys.swap(left, right);
    }
    ctx.reply.ok();
    Ok(())
}

fn time(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    let us = ctx.engine.clock.wall_us();
    ctx.reply.array(2);
    ctx.reply.bulk_display(us / 1_000_000);
    ctx.reply.bulk_display(us % 1_000_000);
    Ok(())
}

fn last_save(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    let seconds = ctx.engine.started.unix.0 / 1000;
    ctx.reply.integer(i64::try_from(seconds).unwrap_or(i64::MAX));
    Ok(())
}

fn role(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    ctx.reply.array(3);
    ctx.reply.bulk(b"master");
    ctx.reply.integer(0);
    ctx.reply.array(0);
    Ok(())
}

fn shutdown(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let options = &arguments[1..];
    let has = |word: &str| options.iter().any(|option| is_option(option, word));
    let known = ["SAVE", "NOSAVE", "NOW", "FORCE", "ABORT"];
    let good = options.iter().all(|option| known.iter().any(|word| is_option(option, word)));
    if !good || (has("SAVE") && has("NOSAVE")) || (has("ABORT") && options.len() > 1) {
        return Err(Failure::Syntax);
    }
    if has("ABORT") {
        return Err(Failure::err("No shutdown in progress."));
    }
    if has("SAVE") {
        return Err(absent::nothing_is_saved());
    }
    if !ctx.engine.stop() {
        return Err(Failure::err("This node ends with the program that it is part of"));
    }
    ctx.session.next = Next::Close;
    Ok(())
}

fn lolwut(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    let version = super::connection::REDIS_VERSION;
    let row = "\\/".repeat(20);
    let back = "/\\".repeat(20);
    let lattice = format!("{row}\n{back}\n").repeat(4);
    ctx.reply.verbatim("txt", &format!("{lattice}\nLattice. Redis ver. {version}\n"));
    Ok(())
}
