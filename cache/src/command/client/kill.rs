//! `CLIENT KILL`: by address, or by filters that all have to fit.

use super::{Context, Done, Failure, class, is_option, shown};
use crate::clients::{Class, Client, Mark};
use crate::session::Next;
use crate::types::ClientId;

/// Which clients are to go.
#[derive(Debug, Default)]
struct Filter<'a> {
    id: Option<ClientId>,
    /// Some(None): a class that nobody is of.
    class: Option<Option<Class>>,
    address: Option<&'a [u8]>,
    local_address: Option<&'a [u8]>,
    user: Option<&'a [u8]>,
    /// Only those who have been connected for so many seconds.
    age_s: Option<u64>,
    /// Whether the caller is spared.
    skips_me: bool,
}

impl Filter<'_> {
    fn fits(&self, client: &Client, ctx: &Context<'_, '_>) -> bool {
        self.id.is_none_or(|id| client.id == id)
            && self.class.is_none_or(|class| class == Some(client.class()))
            && self.address.is_none_or(|it| client.origin.address.as_bytes() == it)
            && self.local_address.is_none_or(|it| client.origin.local_address.as_bytes() == it)
            && self.user.is_none_or(|it| client.labels().user == it)
            && self.age_s.is_none_or(|it| client.age_us(ctx.now) / 1_000_000 >= it)
            && !(self.skips_me && client.id == ctx.session.client.id)
    }
}

pub(super) fn kill(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    if let [_, _, address] = arguments {
        // The old form kills by address alone, and the caller too.
        let filter = Filter { address: Some(address), ..Filter::default() };
        if kill_all(ctx, &filter) == 0 {
            return Err(Failure::err("No such client"));
        }
        ctx.reply.ok();
        return Ok(());
    }
    let filter = parse(ctx, &arguments[2..])?;
    let killed = kill_all(ctx, &filter);
    ctx.reply.count(killed);
    Ok(())
}

fn parse<'a>(ctx: &Context<'_, '_>, mut options: &[&'a [u8]]) -> Result<Filter<'a>, Failure> {
    let mut filter = Filter { skips_me: true, ..Filter::default() };
    while let [option, rest @ ..] = options {
        let [value, rest @ ..] = rest else { return Err(Failure::Syntax) };
        options = rest;
        if is_option(option, "ID") {
            filter.id = Some(ClientId(positive(value, "client-id should be greater than 0")?));
        } else if is_option(option, "TYPE") {
            filter.class = Some(class(value)?);
        } else if is_option(option, "ADDR") {
            filter.address = Some(value);
        } else if is_option(option, "LADDR") {
            filter.local_address = Some(value);
        } else if is_option(option, "USER") {
            if ctx.engine.access.find(value).is_none() {
                let name = shown(value);
                return Err(Failure::err(format_args!("No such user '{name}'")));
            }
            filter.user = Some(value);
        } else if is_option(option, "MAXAGE") {
            filter.age_s = Some(positive(value, "maxage is not an integer or out of range")?);
        } else if is_option(option, "SKIPME") && is_option(value, "YES") {
            filter.skips_me = true;
        } else if is_option(option, "SKIPME") && is_option(value, "NO") {
            filter.skips_me = false;
        } else {
            return Err(Failure::Syntax);
        }
    }
    Ok(filter)
}

fn positive(value: &[u8], complaint: &str) -> Result<u64, Failure> {
    let value = super::super::parse_integer(value).and_then(|value| u64::try_from(value).ok());
    value.filter(|value| *value > 0).ok_or_else(|| Failure::err(complaint))
}

fn kill_all(ctx: &mut Context<'_, '_>, filter: &Filter<'_>) -> usize {
    let mut killed = 0;
    for client in ctx.engine.clients.all() {
        if !filter.fits(&client, ctx) {
            continue;
        }
        killed += 1;
        if client.id == ctx.session.client.id {
            // The reply goes out first.
            client.mark(Mark::CLOSING, true);
            ctx.session.next = Next::Close;
        } else {
            client.kill();
        }
    }
    killed
}
