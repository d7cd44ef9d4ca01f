//! The string family: `GET` and `SET`, which all others are measured by, and what else takes a string whole.

mod conditional;
mod counter;
mod lcs;
mod options;
mod range;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;

use self::options::{Condition, Of, Options, Unit};
use super::{Command, Context, Failure, Flags, Group, Keys};
use crate::engine::Engine;
use crate::store::Lifetime;
use crate::types::UnixMillis;
use crate::value::View;

/// The largest string, in bytes: a sixteenth of the memory limit, and never more than `proto-max-bulk-len` (512 MiB).
pub(super) fn size_max(engine: &Engine) -> usize {
    let setting = engine.settings.proto_max_bulk_len.load(Ordering::Relaxed);
    usize::try_from(setting).unwrap_or(0).min(engine.store.value_limit())
}

/// `length` and `more` together, if a string may be so large.
pub(super) fn fits(length: usize, more: usize, size_max: usize) -> Result<usize, Failure> {
    length
        .checked_add(more)
        .filter(|size| *size <= size_max)
        .ok_or_else(|| Failure::err("string exceeds maximum allowed size (proto-max-bulk-len)"))
}

/// Refuses what grows a value by `bytes` that its arguments do not show, if that passes the memory limit.
pub(super) fn room(engine: &Engine, bytes: usize) -> Result<(), Failure> {
    let limit = engine.store.limit();
    if limit != 0 && bytes > 4_096 && engine.store.memory().used + bytes as u64 > limit {
        return Err(Failure::out_of_memory());
    }
    Ok(())
}

/// Appends zeros until `bytes` has `length`. Memory that is new is zero as the operating system gives it, so a string of zeros costs
/// little until it is looked at.
pub(super) fn grow(bytes: &mut Vec<u8>, length: usize) {
    if bytes.is_empty() {
        *bytes = vec![0; length];
    } else if bytes.len() < length {
        bytes.resize(length, 0);
    }
}

fn get(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    ctx.reply.bulk_or_null(ctx.keys.string(&key)?);
    Ok(())
}

fn set(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    if arguments.len() > 3 {
        return set_with_options(ctx, arguments);
    }
    let key = ctx.key(arguments[1]);
    ctx.keys.set(&key, arguments[2], Lifetime::Forever);
    ctx.notify(b'$', "set", &key);
    ctx.reply.ok();
    Ok(())
}

#[inline(never)]
fn set_with_options(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let options = Options::read(&arguments[3..], Of::Set)?;
    let deadline = options.deadline(ctx.now.unix, ctx.command.name)?;
    let key = ctx.key(arguments[1]);
    if options.get {
        ctx.reply.bulk_or_null(ctx.keys.string(&key)?);
    }
    let met = match options.condition {
        None => true,
        Some(Condition::Absent) => ctx.keys.peek(&key).is_none(),
        Some(Condition::Present) => ctx.keys.peek(&key).is_some(),
        Some(Condition::Equals(value)) => match ctx.keys.peek(&key) {
            None => false,
            Some(View::String(held)) => held == value,
            Some(_) => return Err(Failure::WrongType),
        },
    };
    if met {
        ctx.keys.set(&key, arguments[2], options.lifetime(deadline));
        ctx.notify(b'$', "set", &key);
        if deadline.is_some() {
            ctx.notify(b'g', "expire", &key);
        }
    }
    match (options.get, met) {
        (true, _) => {}
        (false, true) => ctx.reply.ok(),
        (false, false) => ctx.reply.null(),
    }
    Ok(())
}

fn setnx(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let absent = ctx.keys.peek(&key).is_none();
    if absent {
        ctx.keys.set(&key, arguments[2], Lifetime::Forever);
        ctx.notify(b'$', "set", &key);
    }
    ctx.reply.integer(i64::from(absent));
    Ok(())
}

fn setex(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    set_until(ctx, arguments, Unit::Seconds)
}

fn psetex(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    set_until(ctx, arguments, Unit::Milliseconds)
}

fn set_until(ctx: &mut Context<'_, '_>, arguments: &[&[u8]], unit: Unit) -> Result<(), Failure> {
    let deadline = unit.deadline(arguments[2], ctx.now.unix, ctx.command.name)?;
    let key = ctx.key(arguments[1]);
    ctx.keys.set(&key, arguments[3], Lifetime::Until(deadline));
    ctx.notify(b'$', "set", &key);
    ctx.notify(b'g', "expire", &key);
    ctx.reply.ok();
    Ok(())
}

fn getset(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    ctx.reply.bulk_or_null(ctx.keys.string(&key)?);
    ctx.keys.set(&key, arguments[2], Lifetime::Forever);
    ctx.notify(b'$', "set", &key);
    Ok(())
}

fn getdel(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    ctx.reply.bulk_or_null(ctx.keys.string(&key)?);
    if ctx.keys.remove(&key) {
        ctx.notify(b'g', "del", &key);
    }
    Ok(())
}

fn getex(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let options = Options::read(&arguments[2..], Of::GetEx)?;
    let key = ctx.key(arguments[1]);
    let value = ctx.keys.string(&key)?;
    let found = value.is_some();
    ctx.reply.bulk_or_null(value);
    if !found {
        return Ok(());
    }
    let deadline: Option<UnixMillis> = options.deadline(ctx.now.unix, ctx.command.name)?;
    if let Some(deadline) = deadline {
        ctx.keys.set_deadline(&key, Some(deadline));
        ctx.notify(b'g', if deadline <= ctx.now.unix { "del" } else { "expire" }, &key);
    } else if options.persist && ctx.keys.deadline(&key).flatten().is_some() {
        ctx.keys.set_deadline(&key, None);
        ctx.notify(b'g', "persist", &key);
    }
    Ok(())
}

fn mget(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    ctx.reply.array(arguments.len() - 1);
    for argument in &arguments[1..] {
        let key = ctx.key(argument);
        // Another kind of value reads as none.
        ctx.reply.bulk_or_null(ctx.keys.string(&key).unwrap_or(None));
    }
    Ok(())
}

fn mset(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    set_pairs(ctx, pairs(arguments, "mset")?);
    ctx.reply.ok();
    Ok(())
}

fn msetnx(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let pairs = pairs(arguments, "msetnx")?;
    let free = pairs.iter().all(|[key, _]| {
        let key = ctx.key(key);
        ctx.keys.peek(&key).is_none()
    });
    if free {
        set_pairs(ctx, pairs);
    }
    ctx.reply.integer(i64::from(free));
    Ok(())
}

/// Keys with their values, if every key has one.
fn pairs<'s, 'a>(
    arguments: &'s [&'a [u8]],
    name: &'static str,
) -> Result<&'s [[&'a [u8]; 2]], Failure> {
    match arguments[1..].as_chunks::<2>() {
        (pairs, []) => Ok(pairs),
        _ => Err(Failure::Arity(name)),
    }
}

fn set_pairs(ctx: &mut Context<'_, '_>, pairs: &[[&[u8]; 2]]) {
    for [key, value] in pairs {
        let key = ctx.key(key);
        ctx.keys.set(&key, value, Lifetime::Forever);
        ctx.notify(b'$', "set", &key);
    }
}

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE_FAST: Flags = Flags::WRITE.and(Flags::FAST);
const GROW: Flags = Flags::WRITE.and(Flags::DENYOOM);
const GROW_FAST: Flags = GROW.and(Flags::FAST);
const PAIRS: Keys = Keys::Range { first: 1, last: -1, step: 2 };

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    Command::new("append", 3, Keys::ONE, GROW_FAST, range::append).docs(
        Group::String,
        "2.0.0",
        "Appends bytes to a string, which is created if it is missing.",
    ),
    Command::new("decr", 2, Keys::ONE, GROW_FAST, counter::decr).docs(
        Group::String,
        "1.0.0",
        "Subtracts one from an integer.",
    ),
    Command::new("decrby", 3, Keys::ONE, GROW_FAST, counter::decrby).docs(
        Group::String,
        "1.0.0",
        "Subtracts a number from an integer.",
    ),
    Command::new("delifeq", 3, Keys::ONE, WRITE_FAST, conditional::delifeq).docs(
        Group::Lattice,
        "9.0.0",
        "Deletes a key if it holds the given string.",
    ),
    Command::new("get", 2, Keys::ONE, READ_FAST, get).docs(
        Group::String,
        "1.0.0",
        "Returns a string.",
    ),
    Command::new("getdel", 2, Keys::ONE, WRITE_FAST, getdel).docs(
        Group::String,
        "6.2.0",
        "Returns a string and deletes it.",
    ),
    Command::new("getex", -2, Keys::ONE, WRITE_FAST, getex).docs(
        Group::String,
        "6.2.0",
        "Returns a string and sets or removes its deadline.",
    ),
    Command::new("getrange", 4, Keys::ONE, READ, range::getrange).docs(
        Group::String,
        "2.4.0",
        "Returns a part of a string.",
    ),
    Command::new("getset", 3, Keys::ONE, GROW_FAST, getset).docs(
        Group::String,
        "1.0.0",
        "Sets a string and returns the one before.",
    ),
    Command::new("incr", 2, Keys::ONE, GROW_FAST, counter::incr).docs(
        Group::String,
        "1.0.0",
        "Adds one to an integer.",
    ),
    Command::new("incrby", 3, Keys::ONE, GROW_FAST, counter::incrby).docs(
        Group::String,
        "1.0.0",
        "Adds a number to an integer.",
    ),
    Command::new("incrbyfloat", 3, Keys::ONE, GROW_FAST, counter::incrbyfloat).docs(
        Group::String,
        "2.6.0",
        "Adds a floating-point number to a number.",
    ),
    Command::new("lcs", -3, Keys::TWO, READ, lcs::lcs).docs(
        Group::String,
        "7.0.0",
        "Finds the longest common subsequence of two strings.",
    ),
    Command::new("mget", -2, Keys::EVERY, READ_FAST, mget).docs(
        Group::String,
        "1.0.0",
        "Returns several strings.",
    ),
    Command::new("mset", -3, PAIRS, GROW, mset).docs(
        Group::String,
        "1.0.1",
        "Sets several strings, all at one moment.",
    ),
    Command::new("msetnx", -3, PAIRS, GROW, msetnx).docs(
        Group::String,
        "1.0.1",
        "Sets several strings if none of the keys exists.",
    ),
    Command::new("pexpireifeq", 4, Keys::ONE, WRITE_FAST, conditional::pexpireifeq).docs(
        Group::Lattice,
        "7.2.0",
        "Sets a time to live in milliseconds if the key holds the given string.",
    ),
    Command::new("psetex", 4, Keys::ONE, GROW, psetex).docs(
        Group::String,
        "2.6.0",
        "Sets a string with a time to live in milliseconds.",
    ),
    Command::new("set", -3, Keys::ONE, GROW, set).docs(
        Group::String,
        "1.0.0",
        "Sets a string, whatever the key held, perhaps on a condition and with a deadline.",
    ),
    Command::new("setex", 4, Keys::ONE, GROW, setex).docs(
        Group::String,
        "2.0.0",
        "Sets a string with a time to live in seconds.",
    ),
    Command::new("setnx", 3, Keys::ONE, GROW_FAST, setnx).docs(
        Group::String,
        "1.0.0",
        "Sets a string if the key does not exist.",
    ),
    Command::new("setrange", 4, Keys::ONE, GROW, range::setrange).docs(
        Group::String,
        "2.2.0",
        "Overwrites a part of a string, which grows with zeros as needed.",
    ),
    Command::new("strlen", 2, Keys::ONE, READ_FAST, range::strlen).docs(
        Group::String,
        "2.2.0",
        "Returns a string's length in bytes.",
    ),
    Command::new("substr", 4, Keys::ONE, READ, range::getrange).docs(
        Group::String,
        "1.0.0",
        "Returns a part of a string.",
    ),
];
