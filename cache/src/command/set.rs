//! The set family: members one by one here, random ones in `random`, several sets at once in `combine`.

mod combine;
mod random;
#[cfg(test)]
mod tests;

use super::cursor::{ElementScan, read_cursor};
use super::{Command, Context, Failure, Flags, Group, Keys};
use crate::store::Missing;
use crate::value::{Kind, Set};

fn sadd(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let added = ctx.keys.edit(&key, Missing::Create, |set: &mut Set| {
        arguments[2..].iter().filter(|member| set.insert(member)).count()
    })?;
    let added = added.unwrap_or(0);
    if added > 0 {
        ctx.notify(b's', "sadd", &key);
    }
    ctx.reply.count(added);
    Ok(())
}

fn srem(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let edited = ctx.keys.edit(&key, Missing::Skip, |set: &mut Set| {
        let removed = arguments[2..].iter().filter(|member| set.remove(member)).count();
        (removed, set.view().is_empty())
    })?;
    let (removed, emptied) = edited.unwrap_or_default();
    if removed > 0 {
        ctx.notify(b's', "srem", &key);
        if emptied {
            ctx.notify(b'g', "del", &key);
        }
    }
    ctx.reply.count(removed);
    Ok(())
}

fn sismember(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let set = ctx.keys.set_members(&key)?;
    ctx.reply.integer(i64::from(set.is_some_and(|set| set.contains(arguments[2]))));
    Ok(())
}

fn smismember(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let set = ctx.keys.set_members(&key)?;
    ctx.reply.array(arguments.len() - 2);
    for member in &arguments[2..] {
        ctx.reply.integer(i64::from(set.is_some_and(|set| set.contains(member))));
    }
    Ok(())
}

fn smembers(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let Some(set) = ctx.keys.set_members(&key)? else {
        ctx.reply.set(0);
        return Ok(());
    };
    ctx.reply.set(set.len());
    for member in set.iter() {
        ctx.reply.bulk(&member);
    }
    Ok(())
}

fn scard(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let set = ctx.keys.set_members(&key)?;
    ctx.reply.count(set.map_or(0, |set| set.len()));
    Ok(())
}

fn smove(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (source, destination) = (ctx.key(arguments[1]), ctx.key(arguments[2]));
    let member = arguments[3];
    if ctx.keys.kind(&source).is_none() {
        ctx.reply.integer(0);
        return Ok(());
    }
    for key in [&source, &destination] {
        if ctx.keys.kind(key).is_some_and(|kind| kind != Kind::Set) {
            return Err(Failure::WrongType);
        }
    }
    if arguments[1] == arguments[2] {
        let set = ctx.keys.set_members(&source)?;
        ctx.reply.integer(i64::from(set.is_some_and(|set| set.contains(member))));
        return Ok(());
    }
    let removed = ctx.keys.edit(&source, Missing::Skip, |set: &mut Set| {
        (set.remove(member), set.view().is_empty())
    })?;
    let (removed, emptied) = removed.unwrap_or_default();
    if removed {
        ctx.notify(b's', "srem", &source);
        if emptied {
            ctx.notify(b'g', "del", &source);
        }
        let added =
            ctx.keys.edit(&destination, Missing::Create, |set: &mut Set| set.insert(member))?;
        if added == Some(true) {
            ctx.notify(b's', "sadd", &destination);
        }
    }
    ctx.reply.integer(i64::from(removed));
    Ok(())
}

fn sscan(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let cursor = read_cursor(arguments[2])?;
    let key = ctx.key(arguments[1]);
    let mut members = Vec::new();
    let mut next = 0;
    if let Some(set) = ctx.keys.set_members(&key)? {
        let options = ElementScan::read(&arguments[3..], false)?;
        next = set.scan(cursor, options.count, |member| {
            if options.takes(&member) {
                members.push(member);
            }
        });
    }
    ctx.reply.array(2);
    ctx.reply.bulk_display(next);
    ctx.reply.array(members.len());
    for member in &members {
        ctx.reply.bulk(member);
    }
    Ok(())
}

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = READ.and(Flags::FAST);
const WRITE_FAST: Flags = Flags::WRITE.and(Flags::FAST);
const GROW: Flags = Flags::WRITE.and(Flags::DENYOOM);
const GROW_FAST: Flags = GROW.and(Flags::FAST);
const COUNTED: Keys = Keys::Counted { count: 1, store: 0 };

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    Command::new("sadd", -3, Keys::ONE, GROW_FAST, sadd).docs(
        Group::Set,
        "1.0.0",
        "Adds members to a set, which is created if it is missing.",
    ),
    Command::new("scard", 2, Keys::ONE, READ_FAST, scard).docs(
        Group::Set,
        "1.0.0",
        "Returns the number of members of a set.",
    ),
    Command::new("sdiff", -2, Keys::EVERY, READ, combine::sdiff).docs(
        Group::Set,
        "1.0.0",
        "Returns what is in the first set and in none of the others.",
    ),
    Command::new("sdiffstore", -3, Keys::EVERY, GROW, combine::sdiffstore).docs(
        Group::Set,
        "1.0.0",
        "Stores what is in the first set and in none of the others.",
    ),
    Command::new("sinter", -2, Keys::EVERY, READ, combine::sinter).docs(
        Group::Set,
        "1.0.0",
        "Returns what is in all of several sets.",
    ),
    Command::new("sintercard", -3, COUNTED, READ.and(Flags::MOVABLE_KEYS), combine::sintercard)
        .docs(Group::Set, "7.0.0", "Returns how many members are in all of several sets."),
    Command::new("sinterstore", -3, Keys::EVERY, GROW, combine::sinterstore).docs(
        Group::Set,
        "1.0.0",
        "Stores what is in all of several sets.",
    ),
    Command::new("sismember", 3, Keys::ONE, READ_FAST, sismember).docs(
        Group::Set,
        "1.0.0",
        "Tells whether something is a member of a set.",
    ),
    Command::new("smembers", 2, Keys::ONE, READ, smembers).docs(
        Group::Set,
        "1.0.0",
        "Returns all members of a set.",
    ),
    Command::new("smismember", -3, Keys::ONE, READ_FAST, smismember).docs(
        Group::Set,
        "6.2.0",
        "Tells of several things whether they are members of a set.",
    ),
    Command::new("smove", 4, Keys::TWO, WRITE_FAST, smove).docs(
        Group::Set,
        "1.0.0",
        "Moves a member from one set to another.",
    ),
    Command::new("spop", -2, Keys::ONE, WRITE_FAST, random::spop).docs(
        Group::Set,
        "1.0.0",
        "Removes random members of a set and returns them.",
    ),
    Command::new("srandmember", -2, Keys::ONE, READ, random::srandmember).docs(
        Group::Set,
        "1.0.0",
        "Returns random members of a set.",
    ),
    Command::new("srem", -3, Keys::ONE, WRITE_FAST, srem).docs(
        Group::Set,
        "1.0.0",
        "Removes members from a set.",
    ),
    Command::new("sscan", -3, Keys::ONE, READ, sscan).docs(
        Group::Set,
        "2.8.0",
        "Returns the members of a set bit by bit.",
    ),
    Command::new("sunion", -2, Keys::EVERY, READ, combine::sunion).docs(
        Group::Set,
        "1.0.0",
        "Returns what is in any of several sets.",
    ),
    Command::new("sunionstore", -3, Keys::EVERY, GROW, combine::sunionstore).docs(
        Group::Set,
        "1.0.0",
        "Stores what is in any of several sets.",
    ),
];
