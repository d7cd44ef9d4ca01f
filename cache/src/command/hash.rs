//! The hash family: fields and values here, numbers in `number`, random fields in `random`, deadlines of fields in `expiry`, and
//! what gets or sets them along with values in `value_and_expiry`.

mod expiry;
mod number;
mod random;
#[cfg(test)]
mod tests;
mod value_and_expiry;

use super::cursor::{ElementScan, read_cursor};
use super::{Command, Context, Failure, Flags, Group, Keys};
use crate::store::{Lifetime, Missing};
use crate::value::Hash;

/// `HSET` and `HMSET`, which differ in the reply.
fn hset(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (pairs, rest) = arguments[2..].as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Failure::Arity(ctx.command.name));
    }
    let key = ctx.key(arguments[1]);
    let created = ctx.keys.edit(&key, Missing::Create, |hash: &mut Hash| {
        pairs.iter().filter(|[field, value]| hash.set(field, value, Lifetime::Forever)).count()
    })?;
    ctx.notify(b'h', "hset", &key);
    if ctx.command.name == "hmset" {
        ctx.reply.ok();
    } else {
        ctx.reply.count(created.unwrap_or(0));
    }
    Ok(())
}

fn hsetnx(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let set = ctx.keys.edit(&key, Missing::Create, |hash: &mut Hash| {
        !hash.view().contains(arguments[2])
            && hash.set(arguments[2], arguments[3], Lifetime::Forever)
    })?;
    let set = set == Some(true);
    if set {
        ctx.notify(b'h', "hset", &key);
    }
    ctx.reply.integer(i64::from(set));
    Ok(())
}

fn hget(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let hash = ctx.keys.hash(&key)?;
    ctx.reply.bulk_or_null(hash.and_then(|hash| hash.get(arguments[2])));
    Ok(())
}

fn hmget(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let hash = ctx.keys.hash(&key)?;
    ctx.reply.array(arguments.len() - 2);
    for field in &arguments[2..] {
        ctx.reply.bulk_or_null(hash.and_then(|hash| hash.get(field)));
    }
    Ok(())
}

fn hgetall(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let Some(hash) = ctx.keys.hash(&key)? else {
        ctx.reply.map(0);
        return Ok(());
    };
    ctx.reply.map(hash.len());
    for it in hash.iter() {
        ctx.reply.bulk(it.field);
        ctx.reply.bulk(it.value);
    }
    Ok(())
}

fn hkeys(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let Some(hash) = ctx.keys.hash(&key)? else {
        ctx.reply.array(0);
        return Ok(());
    };
    ctx.reply.array(hash.len());
    hash.iter().for_each(|it| ctx.reply.bulk(it.field));
    Ok(())
}

fn hvals(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let Some(hash) = ctx.keys.hash(&key)? else {
        ctx.reply.array(0);
        return Ok(());
    };
    ctx.reply.array(hash.len());
    hash.iter().for_each(|it| ctx.reply.bulk(it.value));
    Ok(())
}

fn hdel(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let edited = ctx.keys.edit(&key, Missing::Skip, |hash: &mut Hash| {
        let removed = arguments[2..].iter().filter(|field| hash.remove(field)).count();
        (removed, hash.view().is_empty())
    })?;
    let (removed, emptied) = edited.unwrap_or_default();
    if removed > 0 {
        ctx.notify(b'h', "hdel", &key);
        if emptied {
            ctx.notify(b'g', "del", &key);
        }
    }
    ctx.reply.count(removed);
    Ok(())
}

fn hlen(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let hash = ctx.keys.hash(&key)?;
    ctx.reply.count(hash.map_or(0, |hash| hash.len()));
    Ok(())
}

fn hstrlen(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let hash = ctx.keys.hash(&key)?;
    let value = hash.and_then(|hash| hash.get(arguments[2]));
    ctx.reply.count(value.map_or(0, <[u8]>::len));
    Ok(())
}

fn hexists(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let hash = ctx.keys.hash(&key)?;
    ctx.reply.integer(i64::from(hash.is_some_and(|hash| hash.contains(arguments[2]))));
    Ok(())
}

fn hscan(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let cursor = read_cursor(arguments[2])?;
    let key = ctx.key(arguments[1]);
    let (mut elements, mut next) = (Vec::new(), 0);
    if let Some(hash) = ctx.keys.hash(&key)? {
        let options = ElementScan::read(&arguments[3..], true)?;
        next = hash.scan(cursor, options.count, |it| {
            if options.takes(it.field) {
                elements.push(it.field);
                elements.extend((!options.no_values).then_some(it.value));
            }
        });
    }
    ctx.reply.array(2);
    ctx.reply.bulk_display(next);
    ctx.reply.array(elements.len());
    elements.iter().for_each(|element| ctx.reply.bulk(element));
    Ok(())
}

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = READ.and(Flags::FAST);
const WRITE_FAST: Flags = Flags::WRITE.and(Flags::FAST);
const GROW_FAST: Flags = WRITE_FAST.and(Flags::DENYOOM);

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    Command::new("hdel", -3, Keys::ONE, WRITE_FAST, hdel).docs(
        Group::Hash,
        "2.0.0",
        "Removes fields from a hash.",
    ),
    Command::new("hexists", 3, Keys::ONE, READ_FAST, hexists).docs(
        Group::Hash,
        "2.0.0",
        "Tells whether a hash has a field.",
    ),
    Command::new("hexpire", -6, Keys::ONE, GROW_FAST, expiry::hexpire).docs(
        Group::Hash,
        "7.4.0",
        "Sets how many seconds fields have left.",
    ),
    Command::new("hexpireat", -6, Keys::ONE, GROW_FAST, expiry::hexpireat).docs(
        Group::Hash,
        "7.4.0",
        "Sets the deadline of fields, in seconds since the Unix epoch.",
    ),
    Command::new("hexpiretime", -5, Keys::ONE, READ_FAST, expiry::hexpiretime).docs(
        Group::Hash,
        "7.4.0",
        "Returns the deadline of fields, in seconds since the Unix epoch.",
    ),
    Command::new("hget", 3, Keys::ONE, READ_FAST, hget).docs(
        Group::Hash,
        "2.0.0",
        "Returns the value of a field.",
    ),
    Command::new("hgetall", 2, Keys::ONE, READ, hgetall).docs(
        Group::Hash,
        "2.0.0",
        "Returns all fields of a hash with their values.",
    ),
    Command::new("hgetdel", -5, Keys::ONE, WRITE_FAST, value_and_expiry::hgetdel).docs(
        Group::Hash,
        "8.0.0",
        "Removes fields and returns their values.",
    ),
    Command::new("hgetex", -5, Keys::ONE, WRITE_FAST, value_and_expiry::hgetex).docs(
        Group::Hash,
        "8.0.0",
        "Returns the values of fields and sets or removes their deadline.",
    ),
    Command::new("hincrby", 4, Keys::ONE, GROW_FAST, number::hincrby).docs(
        Group::Hash,
        "2.0.0",
        "Adds a number to the integer in a field.",
    ),
    Command::new("hincrbyfloat", 4, Keys::ONE, GROW_FAST, number::hincrbyfloat).docs(
        Group::Hash,
        "2.6.0",
        "Adds a floating-point number to the number in a field.",
    ),
    Command::new("hkeys", 2, Keys::ONE, READ, hkeys).docs(
        Group::Hash,
        "2.0.0",
        "Returns the names of all fields of a hash.",
    ),
    Command::new("hlen", 2, Keys::ONE, READ_FAST, hlen).docs(
        Group::Hash,
        "2.0.0",
        "Returns the number of fields of a hash.",
    ),
    Command::new("hmget", -3, Keys::ONE, READ_FAST, hmget).docs(
        Group::Hash,
        "2.0.0",
        "Returns the values of several fields.",
    ),
    Command::new("hmset", -4, Keys::ONE, GROW_FAST, hset).docs(
        Group::Hash,
        "2.0.0",
        "Sets fields of a hash, as HSET does.",
    ),
    Command::new("hpersist", -5, Keys::ONE, WRITE_FAST, expiry::hpersist).docs(
        Group::Hash,
        "7.4.0",
        "Removes the deadline of fields.",
    ),
    Command::new("hpexpire", -6, Keys::ONE, GROW_FAST, expiry::hpexpire).docs(
        Group::Hash,
        "7.4.0",
        "Sets how many milliseconds fields have left.",
    ),
    Command::new("hpexpireat", -6, Keys::ONE, GROW_FAST, expiry::hpexpireat).docs(
        Group::Hash,
        "7.4.0",
        "Sets the deadline of fields, in milliseconds since the Unix epoch.",
    ),
    Command::new("hpexpiretime", -5, Keys::ONE, READ_FAST, expiry::hpexpiretime).docs(
        Group::Hash,
        "7.4.0",
        "Returns the deadline of fields, in milliseconds since the Unix epoch.",
    ),
    Command::new("hpttl", -5, Keys::ONE, READ_FAST, expiry::hpttl).docs(
        Group::Hash,
        "7.4.0",
        "Returns how many milliseconds fields have left.",
    ),
    Command::new("hrandfield", -2, Keys::ONE, READ, random::hrandfield).docs(
        Group::Hash,
        "6.2.0",
        "Returns random fields of a hash.",
    ),
    Command::new("hscan", -3, Keys::ONE, READ, hscan).docs(
        Group::Hash,
        "2.8.0",
        "Returns the fields of a hash bit by bit.",
    ),
    Command::new("hset", -4, Keys::ONE, GROW_FAST, hset).docs(
        Group::Hash,
        "2.0.0",
        "Sets fields of a hash, which is created if it is missing.",
    ),
    Command::new("hsetex", -6, Keys::ONE, GROW_FAST, value_and_expiry::hsetex).docs(
        Group::Hash,
        "8.0.0",
        "Sets fields of a hash along with their deadline.",
    ),
    Command::new("hsetnx", 4, Keys::ONE, GROW_FAST, hsetnx).docs(
        Group::Hash,
        "2.0.0",
        "Sets a field of a hash, unless it is there.",
    ),
    Command::new("hstrlen", 3, Keys::ONE, READ_FAST, hstrlen).docs(
        Group::Hash,
        "3.2.0",
        "Returns the length of the value of a field.",
    ),
    Command::new("httl", -5, Keys::ONE, READ_FAST, expiry::httl).docs(
        Group::Hash,
        "7.4.0",
        "Returns how many seconds fields have left.",
    ),
    Command::new("hvals", 2, Keys::ONE, READ, hvals).docs(
        Group::Hash,
        "2.0.0",
        "Returns all values of a hash.",
    ),
];
