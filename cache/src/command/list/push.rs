//! `LPUSH`, `RPUSH`, `LPUSHX`, `RPUSHX`.

use super::push_event;
use crate::command::{Context, Failure};
use crate::store::Missing;
use crate::value::List;
use crate::value::list::End;

pub(super) fn lpush(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    push(ctx, arguments, End::Front, Missing::Create)
}

pub(super) fn rpush(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    push(ctx, arguments, End::Back, Missing::Create)
}

pub(super) fn lpushx(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    push(ctx, arguments, End::Front, Missing::Skip)
}

pub(super) fn rpushx(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    push(ctx, arguments, End::Back, Missing::Skip)
}

fn push(
    ctx: &mut Context<'_, '_>,
    arguments: &[&[u8]],
    end: End,
    missing: Missing,
) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let length = ctx.keys.edit(&key, missing, |list: &mut List| {
        for element in &arguments[2..] {
            list.push(end, element);
        }
        list.len()
    })?;
    if length.is_some() {
        ctx.notify(b'l', push_event(end), &key);
    }
    ctx.reply.count(length.unwrap_or(0));
    Ok(())
}
