//! Deadlines: `EXPIRE`, `PEXPIRE`, `EXPIREAT`, `PEXPIREAT`, `TTL`, `PTTL`, `EXPIRETIME`, `PEXPIRETIME`, `PERSIST`.
//!
//! A deadline is an absolute moment in milliseconds, whatever form it was given in. One that has passed deletes the key.

use crate::command::{Context, Failure, integer, is_option, shown};
use crate::types::UnixMillis;

pub(super) fn expire(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let now = ctx.now.unix;
    set(ctx, arguments, 1_000, now)
}

pub(super) fn pexpire(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let now = ctx.now.unix;
    set(ctx, arguments, 1, now)
}

pub(super) fn expireat(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    set(ctx, arguments, 1_000, UnixMillis(0))
}

pub(super) fn pexpireat(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    set(ctx, arguments, 1, UnixMillis(0))
}

/// When a deadline is set, as against the one there is. A key without one lives for ever.
#[derive(Clone, Copy, Debug, Default)]
struct Condition {
    /// `NX`: there is none.
    absent: bool,
    /// `XX`: there is one.
    present: bool,
    /// `GT`: it becomes later.
    later: bool,
    /// `LT`: it becomes earlier.
    earlier: bool,
}

impl Condition {
    fn read(arguments: &[&[u8]]) -> Result<Self, Failure> {
        let mut condition = Self::default();
        for option in arguments {
            let names = [
                ("NX", &mut condition.absent),
                ("XX", &mut condition.present),
                ("GT", &mut condition.later),
                ("LT", &mut condition.earlier),
            ];
            let Some((_, set)) = names.into_iter().find(|(name, _)| is_option(option, name)) else {
                let option = shown(option);
                return Err(Failure::err(format_args!("Unsupported option {option}")));
            };
            *set = true;
        }
        if condition.absent && (condition.present || condition.later || condition.earlier) {
            return Err(Failure::err(
                "NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if condition.later && condition.earlier {
            return Err(Failure::err("GT and LT options at the same time are not compatible"));
        }
        Ok(condition)
    }

    fn is_met(self, old: Option<i64>, new: i64) -> bool {
        match old {
            None => !self.present && !self.later,
            Some(old) => !self.absent && (!self.later || new > old) && (!self.earlier || new < old),
        }
    }
}

/// Sets a deadline: the third argument times `unit` milliseconds after `from`.
fn set(
    ctx: &mut Context<'_, '_>,
    arguments: &[&[u8]],
    unit: i64,
    from: UnixMillis,
) -> Result<(), Failure> {
    let condition = Condition::read(&arguments[3..])?;
    let name = ctx.command.name;
    let given = integer(arguments[2])?.checked_mul(unit);
    let from = i64::try_from(from.0).ok();
    // In whole numbers with a sign: a moment before the epoch has passed as well as any.
    let deadline = given.zip(from).and_then(|(given, from)| given.checked_add(from));
    let deadline = deadline
        .ok_or_else(|| Failure::err(format_args!("invalid expire time in '{name}' command")))?;
    let key = ctx.key(arguments[1]);
    let Some(old) = ctx.keys.deadline(&key) else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let old = old.and_then(|old| i64::try_from(old.0).ok());
    if !condition.is_met(old, deadline) {
        ctx.reply.integer(0);
        return Ok(());
    }
    let deadline = UnixMillis(u64::try_from(deadline).unwrap_or(0));
    ctx.keys.set_deadline(&key, Some(deadline));
    ctx.notify(b'g', if deadline <= ctx.now.unix { "del" } else { "expire" }, &key);
    ctx.reply.integer(1);
    Ok(())
}

pub(super) fn ttl(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let now = ctx.now.unix;
    tell(ctx, arguments, |at| (now.until(at) + 500) / 1_000)
}

pub(super) fn pttl(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let now = ctx.now.unix;
    tell(ctx, arguments, |at| now.until(at))
}

pub(super) fn expiretime(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    tell(ctx, arguments, |at| at.0.saturating_add(500) / 1_000)
}

pub(super) fn pexpiretime(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    tell(ctx, arguments, |at| at.0)
}

/// Answers -2 for no key, -1 for no deadline, and else what `show` makes of it.
fn tell(
    ctx: &mut Context<'_, '_>,
    arguments: &[&[u8]],
    show: impl Fn(UnixMillis) -> u64,
) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let told = match ctx.keys.deadline(&key) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => i64::try_from(show(at)).unwrap_or(i64::MAX),
    };
    ctx.reply.integer(told);
    Ok(())
}

pub(super) fn persist(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let volatile = ctx.keys.deadline(&key).flatten().is_some();
    if volatile {
        ctx.keys.set_deadline(&key, None);
        ctx.notify(b'g', "persist", &key);
    }
    ctx.reply.integer(i64::from(volatile));
    Ok(())
}
