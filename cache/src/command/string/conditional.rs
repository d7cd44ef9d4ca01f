//! What locks need and Redis does with scripts: act on a key if it still holds one's own token.

use crate::command::{Context, Failure, integer};
use crate::types::UnixMillis;

/// `DELIFEQ key value`, as Valkey 9 has it.
pub(super) fn delifeq(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let equal = ctx.keys.string(&key)? == Some(arguments[2]);
    if equal {
        ctx.keys.remove(&key);
        ctx.notify(b'g', "del", &key);
    }
    ctx.reply.integer(i64::from(equal));
    Ok(())
}

/// `PEXPIREIFEQ key value milliseconds`: `PEXPIRE`, if the key holds `value`.
pub(super) fn pexpireifeq(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let given = integer(arguments[3])?;
    let deadline = i64::try_from(ctx.now.unix.0).ok().and_then(|now| now.checked_add(given));
    let deadline =
        deadline.ok_or_else(|| Failure::err("invalid expire time in 'pexpireifeq' command"))?;
    let equal = ctx.keys.string(&key)? == Some(arguments[2]);
    if equal {
        // A moment before the epoch has passed as well as any.
        let deadline = UnixMillis(u64::try_from(deadline).unwrap_or(0));
        ctx.keys.set_deadline(&key, Some(deadline));
        let event = if deadline <= ctx.now.unix { "del" } else { "expire" };
        ctx.notify(b'g', event, &key);
    }
    ctx.reply.integer(i64::from(equal));
    Ok(())
}
