//! Keys under other names: `RENAME`, `RENAMENX`, `COPY`, `MOVE`.

use crate::command::{Context, Failure, integer, is_option};
use crate::store::{Key, Lifetime};
use crate::types::{DATABASES, Database, UnixMillis};

pub(super) fn rename(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (from, to) = (ctx.key(arguments[1]), ctx.key(arguments[2]));
    if ctx.keys.kind(&from).is_none() {
        return Err(Failure::NoSuchKey);
    }
    if from.bytes() != to.bytes() {
        move_value(ctx, &from, &to, ["rename_from", "rename_to"]);
    }
    ctx.reply.ok();
    Ok(())
}

pub(super) fn renamenx(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (from, to) = (ctx.key(arguments[1]), ctx.key(arguments[2]));
    if ctx.keys.kind(&from).is_none() {
        return Err(Failure::NoSuchKey);
    }
    // If both are one key, it exists.
    let free = ctx.keys.kind(&to).is_none();
    if free {
        move_value(ctx, &from, &to, ["rename_from", "rename_to"]);
    }
    ctx.reply.integer(i64::from(free));
    Ok(())
}

/// Moves the value of `from`, which exists, with its deadline.
fn move_value(ctx: &mut Context<'_, '_>, from: &Key<'_>, to: &Key<'_>, events: [&str; 2]) {
    let Some((value, deadline)) = ctx.keys.take(from) else { return };
    ctx.keys.put(to, value, lifetime(deadline));
    ctx.notify(b'g', events[0], from);
    ctx.notify(b'g', events[1], to);
}

fn lifetime(deadline: Option<UnixMillis>) -> Lifetime {
    deadline.map_or(Lifetime::Forever, Lifetime::Until)
}

fn database(text: &[u8]) -> Result<Database, Failure> {
    let number = u8::try_from(integer(text)?).ok().filter(|number| *number < DATABASES);
    number.map(Database).ok_or_else(|| Failure::err("DB index is out of range"))
}

fn same_object() -> Failure {
    Failure::err("source and destination objects are the same")
}

pub(super) fn move_(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    if ctx.engine.options.cluster {
        return Err(Failure::err("MOVE is not allowed in cluster mode"));
    }
    let database = database(arguments[2])?;
    if database == ctx.session.database {
        return Err(same_object());
    }
    // The same bytes are in the same slot of every database, so the shard is locked.
    let from = ctx.key(arguments[1]);
    let to = ctx.engine.store.key(database, arguments[1]);
    let possible = ctx.keys.kind(&from).is_some() && ctx.keys.kind(&to).is_none();
    if possible {
        move_value(ctx, &from, &to, ["move_from", "move_to"]);
    }
    ctx.reply.integer(i64::from(possible));
    Ok(())
}

pub(super) fn copy(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let mut replace = false;
    let mut target = ctx.session.database;
    let mut rest = arguments[3..].iter();
    while let Some(option) = rest.next() {
        if is_option(option, "REPLACE") {
            replace = true;
        } else if is_option(option, "DB") {
            target = database(rest.next().ok_or(Failure::Syntax)?)?;
        } else {
            return Err(Failure::Syntax);
        }
    }
    if ctx.engine.options.cluster && target != Database(0) {
        return Err(Failure::err("Copying to another database is not allowed in cluster mode"));
    }
    let from = ctx.key(arguments[1]);
    let to = ctx.engine.store.key(target, arguments[2]);
    if from.database() == to.database() && from.bytes() == to.bytes() {
        return Err(same_object());
    }
    let deadline = ctx.keys.deadline(&from);
    let possible = deadline.is_some() && (replace || ctx.keys.kind(&to).is_none());
    if possible && let Some(value) = ctx.keys.get(&from).map(|view| view.to_value()) {
        ctx.keys.put(&to, value, lifetime(deadline.flatten()));
        ctx.notify(b'g', "copy_to", &to);
    }
    ctx.reply.integer(i64::from(possible));
    Ok(())
}
