//! Several sets at once: `SINTER`, `SUNION`, `SDIFF`, what stores their results, and `SINTERCARD`.
//!
//! The keyspace lends out one value at a time, so members are copied into a run (`crate::value::packed`) before they are looked up
//! in the next set. An intersection does so in batches of the smallest set, so that `SINTERCARD` with a limit stops early and
//! never copies more than a batch.

use crate::command::{Context, Failure, integer, is_option};
use crate::store::{Key, Keyspace, Lifetime};
use crate::value::packed::{self, Elements};
use crate::value::{Set, SetView, Value, View};

/// How many members are looked up in one set before it is the next one's turn.
const BATCH: usize = 1_024;

pub(super) fn sinter(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (mut run, mut count) = (Vec::new(), 0);
    intersect(ctx, &arguments[1..], |member| {
        packed::push(&mut run, member);
        count += 1;
        true
    })?;
    ctx.reply.set(count);
    Elements::of(&run).for_each(|member| ctx.reply.bulk(member));
    Ok(())
}

pub(super) fn sinterstore(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let mut result = Set::default();
    intersect(ctx, &arguments[2..], |member| {
        result.insert(member);
        true
    })?;
    store(ctx, arguments[1], result, "sinterstore")
}

pub(super) fn sintercard(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let number = integer(arguments[1]).ok().and_then(|number| usize::try_from(number).ok());
    let number = number.filter(|number| *number > 0);
    let number = number.ok_or_else(|| Failure::err("numkeys should be greater than 0"))?;
    if number > arguments.len() - 2 {
        return Err(Failure::err("Number of keys can't be greater than number of args"));
    }
    let (keys, options) = arguments[2..].split_at(number);
    let mut limit = 0;
    for option in options.chunks(2) {
        let &[name, value] = option else { return Err(Failure::Syntax) };
        if !is_option(name, "LIMIT") {
            return Err(Failure::Syntax);
        }
        let value = integer(value).ok().and_then(|value| usize::try_from(value).ok());
        limit = value.ok_or_else(|| Failure::err("LIMIT can't be negative"))?;
    }
    let mut count = 0;
    intersect(ctx, keys, |_| {
        count += 1;
        count != limit
    })?;
    ctx.reply.count(count);
    Ok(())
}

/// Hands the members that all of `names` hold to `found`, until it says no.
fn intersect(
    ctx: &mut Context<'_, '_>,
    names: &[&[u8]],
    mut found: impl FnMut(&[u8]) -> bool,
) -> Result<(), Failure> {
    let mut sets = lengths(ctx, names)?;
    sets.sort_by_key(|(length, _)| *length);
    let Some(((smallest, first), others)) = sets.split_first() else { return Ok(()) };
    if *smallest == 0 {
        return Ok(());
    }
    let (mut batch, mut kept, mut cursor) = (Vec::new(), Vec::new(), 0);
    loop {
        batch.clear();
        cursor = members(ctx.keys, first)
            .scan(cursor, BATCH, |member| packed::push(&mut batch, &member));
        for (_, other) in others {
            let other = members(ctx.keys, other);
            kept.clear();
            for member in Elements::of(&batch).filter(|member| other.contains(member)) {
                packed::push(&mut kept, member);
            }
            std::mem::swap(&mut batch, &mut kept);
        }
        if !Elements::of(&batch).all(&mut found) || cursor == 0 {
            return Ok(());
        }
    }
}

/// The keys with how many members each holds: 0 if it is missing. Counts as one lookup of each.
fn lengths<'k>(
    ctx: &mut Context<'_, '_>,
    names: &[&'k [u8]],
) -> Result<Vec<(usize, Key<'k>)>, Failure> {
    let mut lengths = Vec::with_capacity(names.len());
    for name in names {
        let key = ctx.key(name);
        let length = ctx.keys.set_members(&key)?.map_or(0, |set| set.len());
        lengths.push((length, key));
    }
    Ok(lengths)
}

/// The members of a key that is known to hold a set or nothing.
fn members<'v>(keys: &'v mut Keyspace<'_>, key: &Key<'_>) -> SetView<'v> {
    match keys.peek(key) {
        Some(View::Set(set)) => set,
        _ => SetView::Packed(&[]),
    }
}

pub(super) fn sunion(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let result = unite(ctx, &arguments[1..])?;
    answer(ctx, &result);
    Ok(())
}

pub(super) fn sunionstore(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let result = unite(ctx, &arguments[2..])?;
    store(ctx, arguments[1], result, "sunionstore")
}

fn unite(ctx: &mut Context<'_, '_>, names: &[&[u8]]) -> Result<Set, Failure> {
    let mut result = Set::default();
    for (_, key) in lengths(ctx, names)? {
        for member in members(ctx.keys, &key).iter() {
            result.insert(&member);
        }
    }
    Ok(result)
}

pub(super) fn sdiff(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let result = subtract(ctx, &arguments[1..])?;
    answer(ctx, &result);
    Ok(())
}

pub(super) fn sdiffstore(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let result = subtract(ctx, &arguments[2..])?;
    store(ctx, arguments[1], result, "sdiffstore")
}

/// What the first of `names` holds and no other. Of each other set either all members are removed from the result, or all of
/// the result are looked up in it, whichever is less.
fn subtract(ctx: &mut Context<'_, '_>, names: &[&[u8]]) -> Result<Set, Failure> {
    let sets = lengths(ctx, names)?;
    let Some(((_, first), others)) = sets.split_first() else { return Ok(Set::default()) };
    let mut result = Set::default();
    for member in members(ctx.keys, first).iter() {
        result.insert(&member);
    }
    for (length, key) in others {
        let other = members(ctx.keys, key);
        if *length < result.view().len() {
            for member in other.iter() {
                result.remove(&member);
            }
        } else {
            let left = result.view();
            let left = left.iter().filter(|member| !other.contains(member));
            result = left.fold(Set::default(), |mut set, member| {
                set.insert(&member);
                set
            });
        }
    }
    Ok(result)
}

fn answer(ctx: &mut Context<'_, '_>, result: &Set) {
    let result = result.view();
    ctx.reply.set(result.len());
    result.iter().for_each(|member| ctx.reply.bulk(&member));
}

/// Puts `result` where `name` says; an empty one removes what is there.
fn store(ctx: &mut Context<'_, '_>, name: &[u8], result: Set, event: &str) -> Result<(), Failure> {
    let key = ctx.key(name);
    let count = result.view().len();
    if count > 0 {
        ctx.keys.put(&key, Value::Set(result), Lifetime::Forever);
        ctx.notify(b's', event, &key);
    } else if ctx.keys.remove(&key) {
        ctx.notify(b'g', "del", &key);
    }
    ctx.reply.count(count);
    Ok(())
}
