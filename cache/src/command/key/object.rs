//! `OBJECT`: what is known about a key beside its value.

use crate::command::{Command, Context, Failure, Flags, Group, Keys, help};
use crate::store::Policy;

const SECOND: Keys = Keys::Range { first: 2, last: 2, step: 1 };

fn encoding(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[2]);
    let encoding = ctx.keys.peek(&key).map(|view| view.encoding());
    ctx.reply.bulk_or_null(encoding.map(str::as_bytes));
    Ok(())
}

/// Always 1: no value is shared.
fn refcount(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[2]);
    match ctx.keys.kind(&key) {
        Some(_) => ctx.reply.integer(1),
        None => ctx.reply.null(),
    }
    Ok(())
}

fn is_frequency_policy(ctx: &Context<'_, '_>) -> bool {
    matches!(ctx.engine.settings.policy(), Policy::AllKeysLfu | Policy::VolatileLfu)
}

fn idletime(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[2]);
    let Some((idle_ms, _)) = ctx.keys.usage(&key) else {
        ctx.reply.null();
        return Ok(());
    };
    if is_frequency_policy(ctx) {
        return Err(Failure::err(
            "An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
        ));
    }
    ctx.reply.integer(i64::try_from(idle_ms / 1_000).unwrap_or(i64::MAX));
    Ok(())
}

fn freq(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[2]);
    let Some((_, frequency)) = ctx.keys.usage(&key) else {
        ctx.reply.null();
        return Ok(());
    };
    if !is_frequency_policy(ctx) {
        return Err(Failure::err(
            "An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
        ));
    }
    ctx.reply.integer(i64::from(frequency));
    Ok(())
}

/// The subcommands of `OBJECT`.
pub(super) const SUBCOMMANDS: &[Command] = &[
    Command::new("encoding", 3, SECOND, Flags::READONLY, encoding).docs(
        Group::Generic,
        "2.2.3",
        "Returns the name of the form in which a value is kept.",
    ),
    Command::new("freq", 3, SECOND, Flags::READONLY, freq).docs(
        Group::Generic,
        "4.0.0",
        "Returns how often a key is used, on a logarithmic scale of 0 to 255.",
    ),
    Command::new("help", 2, Keys::None, Flags::LOADING.and(Flags::STALE), help).docs(
        Group::Generic,
        "6.2.0",
        "Tells about the subcommands.",
    ),
    Command::new("idletime", 3, SECOND, Flags::READONLY, idletime).docs(
        Group::Generic,
        "2.2.3",
        "Returns the seconds since a key was last used.",
    ),
    Command::new("refcount", 3, SECOND, Flags::READONLY, refcount).docs(
        Group::Generic,
        "2.2.3",
        "Returns the number of references to a value.",
    ),
];
