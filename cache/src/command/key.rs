//! The key family: what is done with a key whatever it holds.

mod expire;
mod object;
mod rename;
#[cfg(test)]
mod tests;

use super::{Command, Context, Failure, Flags, Group, Keys, integer, parse_integer};

fn del(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let mut removed = 0;
    for argument in &arguments[1..] {
        let key = ctx.key(argument);
        if ctx.keys.remove(&key) {
            ctx.notify(b'g', "del", &key);
            removed += 1;
        }
        // Whoever is loading it may have read what is out of date now.
        ctx.engine.void_lease(&key);
    }
    ctx.reply.count(removed);
    Ok(())
}

fn exists(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let found = arguments[1..].iter().filter(|argument| {
        let key = ctx.key(argument);
        ctx.keys.examine(&key).is_some()
    });
    let found = found.count();
    ctx.reply.count(found);
    Ok(())
}

fn touch(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let found = arguments[1..].iter().filter(|argument| {
        let key = ctx.key(argument);
        ctx.keys.touch(&key)
    });
    let found = found.count();
    ctx.reply.count(found);
    Ok(())
}

fn kind(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let name = ctx.keys.kind(&key).map_or("none", |kind| kind.name());
    ctx.reply.simple(name);
    Ok(())
}

/// `WAIT`: a node alone has no replicas to wait for.
fn wait(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    integer(arguments[1])?;
    check_timeout(arguments[2])?;
    ctx.reply.integer(0);
    Ok(())
}

/// `WAITAOF`: nothing is written to disk, and there are no replicas.
fn waitaof(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let local = integer(arguments[1])?;
    if !(0..=1).contains(&local) {
        return Err(Failure::err("value is out of range, must be between 0 and 1"));
    }
    if integer(arguments[2])? < 0 {
        return Err(Failure::err("value is out of range, must be positive"));
    }
    check_timeout(arguments[3])?;
    if local == 1 {
        return Err(Failure::err(
            "WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    ctx.reply.array(2);
    ctx.reply.integer(0);
    ctx.reply.integer(0);
    Ok(())
}

fn check_timeout(text: &[u8]) -> Result<(), Failure> {
    match parse_integer(text) {
        None => Err(Failure::err("timeout is not an integer or out of range")),
        Some(..0) => Err(Failure::err("timeout is negative")),
        Some(_) => Ok(()),
    }
}

const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const GROW: Flags = Flags::WRITE.and(Flags::DENYOOM);
const WRITE_FAST: Flags = Flags::WRITE.and(Flags::FAST);

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    Command::new("copy", -3, Keys::TWO, GROW.and(Flags::WAKES), rename::copy).docs(
        Group::Generic,
        "6.2.0",
        "Copies a value to another key.",
    ),
    Command::new("del", -2, Keys::EVERY, WRITE, del).docs(Group::Generic, "1.0.0", "Deletes keys."),
    Command::new("exists", -2, Keys::EVERY, READ_FAST, exists).docs(
        Group::Generic,
        "1.0.0",
        "Counts how many of the given keys exist.",
    ),
    Command::new("expire", -3, Keys::ONE, WRITE_FAST, expire::expire).docs(
        Group::Generic,
        "1.0.0",
        "Sets a key's time to live in seconds.",
    ),
    Command::new("expireat", -3, Keys::ONE, WRITE_FAST, expire::expireat).docs(
        Group::Generic,
        "1.2.0",
        "Sets a key's deadline in seconds since the Unix epoch.",
    ),
    Command::new("expiretime", 2, Keys::ONE, READ_FAST, expire::expiretime).docs(
        Group::Generic,
        "7.0.0",
        "Returns a key's deadline in seconds since the Unix epoch.",
    ),
    Command::new("move", 3, Keys::ONE, WRITE_FAST.and(Flags::WAKES), rename::move_).docs(
        Group::Generic,
        "1.0.0",
        "Moves a key to another database.",
    ),
    Command::new("object", -2, Keys::None, Flags(0), kind)
        .docs(Group::Generic, "2.2.3", "Tells what is known about a key beside its value.")
        .with(object::SUBCOMMANDS),
    Command::new("persist", 2, Keys::ONE, WRITE_FAST, expire::persist).docs(
        Group::Generic,
        "2.2.0",
        "Removes a key's deadline.",
    ),
    Command::new("pexpire", -3, Keys::ONE, WRITE_FAST, expire::pexpire).docs(
        Group::Generic,
        "2.6.0",
        "Sets a key's time to live in milliseconds.",
    ),
    Command::new("pexpireat", -3, Keys::ONE, WRITE_FAST, expire::pexpireat).docs(
        Group::Generic,
        "2.6.0",
        "Sets a key's deadline in milliseconds since the Unix epoch.",
    ),
    Command::new("pexpiretime", 2, Keys::ONE, READ_FAST, expire::pexpiretime).docs(
        Group::Generic,
        "7.0.0",
        "Returns a key's deadline in milliseconds since the Unix epoch.",
    ),
    Command::new("pttl", 2, Keys::ONE, READ_FAST, expire::pttl).docs(
        Group::Generic,
        "2.6.0",
        "Returns how long a key has left to live in milliseconds.",
    ),
    Command::new("rename", 3, Keys::TWO, WRITE.and(Flags::WAKES), rename::rename).docs(
        Group::Generic,
        "1.0.0",
        "Gives a key another name, whatever was there.",
    ),
    Command::new("renamenx", 3, Keys::TWO, WRITE_FAST.and(Flags::WAKES), rename::renamenx).docs(
        Group::Generic,
        "1.0.0",
        "Gives a key another name if nothing has that.",
    ),
    Command::new("touch", -2, Keys::EVERY, READ_FAST, touch).docs(
        Group::Generic,
        "3.2.1",
        "Counts how many of the given keys exist, which counts as a use of them.",
    ),
    Command::new("ttl", 2, Keys::ONE, READ_FAST, expire::ttl).docs(
        Group::Generic,
        "1.0.0",
        "Returns how long a key has left to live in seconds.",
    ),
    Command::new("type", 2, Keys::ONE, READ_FAST, kind).docs(
        Group::Generic,
        "1.0.0",
        "Returns which kind of value a key holds.",
    ),
    Command::new("unlink", -2, Keys::EVERY, WRITE_FAST, del).docs(
        Group::Generic,
        "4.0.0",
        "Deletes keys; here the same as DEL.",
    ),
    Command::new("wait", 3, Keys::None, Flags::NOSCRIPT, wait).docs(
        Group::Generic,
        "3.0.0",
        "Returns how many replicas have all writes: none, at once, on a node alone.",
    ),
    Command::new("waitaof", 4, Keys::None, Flags::NOSCRIPT, waitaof).docs(
        Group::Generic,
        "7.2.0",
        "Returns how many nodes have all writes on disk: none, at once.",
    ),
];
