//! `CLIENT TRACKING` and its like: see [`crate::tracking`].

use std::collections::BTreeSet;
use std::ops::Bound;

use super::{Context, Done, Failure, integer, is_option, number, on_or_off};
use crate::clients::Mark;
use crate::tracking::{Choice, Selection};
use crate::types::ClientId;

pub(super) fn tracking(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    let options = Options::parse(ctx, &arguments[3..])?;
    if !on_or_off(arguments[2])? {
        ctx.engine.tracking.disable(&ctx.session.client, &mut ctx.session.tracking);
        ctx.engine.review_observation();
        ctx.reply.ok();
        return Ok(());
    }
    let before = &ctx.session.tracking;
    let selection = options.check(before)?;
    let mut prefixes = before.prefixes.clone();
    if options.is_broadcast {
        if options.prefixes.is_empty() {
            prefixes.insert(Box::default());
        }
        prefixes.extend(options.prefixes.iter().map(|prefix| Box::from(*prefix)));
    }
    ctx.session.tracking = Choice {
        is_on: true,
        redirect: options.redirect,
        is_broadcast: options.is_broadcast,
        prefixes,
        selection,
        is_caching: false,
        is_no_loop: options.is_no_loop,
    };
    ctx.engine.tracking.enable(&ctx.session.client, &ctx.session.tracking);
    ctx.engine.review_observation();
    ctx.reply.ok();
    Ok(())
}

#[derive(Debug, Default)]
struct Options<'a> {
    redirect: Option<std::sync::Arc<crate::clients::Client>>,
    is_broadcast: bool,
    is_opt_in: bool,
    is_opt_out: bool,
    is_no_loop: bool,
    prefixes: Vec<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn parse(ctx: &Context<'_, '_>, mut rest: &[&'a [u8]]) -> Result<Self, Failure> {
        let mut options = Self::default();
        while let [option, after @ ..] = rest {
            rest = after;
            if is_option(option, "REDIRECT") && !after.is_empty() {
                if options.redirect.is_some() {
                    return Err(Failure::err(
                        "A client can only redirect to a single other client",
                    ));
                }
                let id = ClientId(u64::try_from(integer(after[0])?).unwrap_or(0));
                let target = ctx.engine.clients.get(id);
                options.redirect = Some(target.ok_or_else(|| {
                    Failure::err("The client ID you want redirect to does not exist")
                })?);
                rest = &after[1..];
            } else if is_option(option, "PREFIX") && !after.is_empty() {
                options.prefixes.push(after[0]);
                rest = &after[1..];
            } else if is_option(option, "BCAST") {
                options.is_broadcast = true;
            } else if is_option(option, "OPTIN") {
                options.is_opt_in = true;
            } else if is_option(option, "OPTOUT") {
                options.is_opt_out = true;
            } else if is_option(option, "NOLOOP") {
                options.is_no_loop = true;
            } else {
                return Err(Failure::Syntax);
            }
        }
        Ok(options)
    }

    /// Whether the options go together, and with what was chosen before.
    fn check(&self, before: &Choice) -> Result<Selection, Failure> {
        if !self.is_broadcast && !self.prefixes.is_empty() {
            return Err(Failure::err("PREFIX option requires BCAST mode to be enabled"));
        }
        if before.is_on && before.is_broadcast != self.is_broadcast {
            return Err(Failure::err(
                "You can't switch BCAST mode on/off before disabling tracking for this client, \
                 and then re-enabling it with a different mode.",
            ));
        }
        if self.is_broadcast && (self.is_opt_in || self.is_opt_out) {
            return Err(Failure::err("OPTIN and OPTOUT are not compatible with BCAST"));
        }
        let selection = match (self.is_opt_in, self.is_opt_out) {
            (true, true) => {
                return Err(Failure::err("You can't specify both OPTIN mode and OPTOUT mode"));
            }
            (true, false) => Selection::OptIn,
            (false, true) => Selection::OptOut,
            (false, false) => Selection::All,
        };
        if matches!(
            (before.selection, selection),
            (Selection::OptIn, Selection::OptOut) | (Selection::OptOut, Selection::OptIn)
        ) {
            return Err(Failure::err(
                "You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, \
                 and then re-enabling it with a different mode.",
            ));
        }
        if self.is_broadcast {
            self.check_prefixes(&before.prefixes)?;
        }
        Ok(selection)
    }

    /// Prefixes of one client must not overlap: it would be told twice. In order, any two that overlap have none between them that
    /// does not overlap the first; so neighbours are all that has to be compared.
    fn check_prefixes(&self, before: &BTreeSet<Box<[u8]>>) -> Result<(), Failure> {
        let overlaps = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
        let complain = |prefix: &[u8], what: &str, other: &[u8]| {
            Failure::err(format_args!(
                "Prefix '{}' overlaps with {what} prefix '{}'. Prefixes for a single client must \
                 not overlap.",
                String::from_utf8_lossy(prefix),
                String::from_utf8_lossy(other)
            ))
        };
        for prefix in &self.prefixes {
            let shorter =
                before.range::<[u8], _>((Bound::Unbounded, Bound::Included(*prefix))).next_back();
            let longer =
                before.range::<[u8], _>((Bound::Included(*prefix), Bound::Unbounded)).next();
            let other = shorter.into_iter().chain(longer).find(|it| overlaps(it, prefix));
            if let Some(other) = other {
                return Err(complain(prefix, "an existing", other));
            }
        }
        let mut ordered: Vec<(&[u8], usize)> =
            self.prefixes.iter().enumerate().map(|(at, prefix)| (*prefix, at)).collect();
        ordered.sort_unstable();
        for pair in ordered.windows(2) {
            if overlaps(pair[0].0, pair[1].0) {
                let (first, second) =
                    if pair[0].1 < pair[1].1 { (pair[0], pair[1]) } else { (pair[1], pair[0]) };
                return Err(complain(first.0, "another provided", second.0));
            }
        }
        Ok(())
    }
}

pub(super) fn caching(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    let choice = &mut ctx.session.tracking;
    if !choice.is_on {
        return Err(Failure::err(
            "CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or \
             OPTOUT mode enabled",
        ));
    }
    if is_option(arguments[2], "YES") {
        if choice.selection != Selection::OptIn {
            return Err(Failure::err(
                "CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
            ));
        }
    } else if is_option(arguments[2], "NO") {
        if choice.selection != Selection::OptOut {
            return Err(Failure::err(
                "CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            ));
        }
    } else {
        return Err(Failure::Syntax);
    }
    choice.is_caching = true;
    ctx.reply.ok();
    Ok(())
}

/// Who gets the invalidations: another's number, 0 for the client itself, -1 if it does not track.
fn redirect(choice: &Choice) -> i64 {
    match &choice.redirect {
        _ if !choice.is_on => -1,
        None => 0,
        Some(target) => number(target),
    }
}

pub(super) fn get_redir(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Done {
    ctx.reply.integer(redirect(&ctx.session.tracking));
    Ok(())
}

pub(super) fn tracking_info(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Done {
    let choice = &ctx.session.tracking;
    let (opt_in, opt_out) =
        (choice.selection == Selection::OptIn, choice.selection == Selection::OptOut);
    let flags = [
        (choice.is_on, "on"),
        (!choice.is_on, "off"),
        (choice.is_broadcast, "bcast"),
        (opt_in, "optin"),
        (opt_in && choice.is_caching, "caching-yes"),
        (opt_out, "optout"),
        (opt_out && choice.is_caching, "caching-no"),
        (choice.is_no_loop, "noloop"),
        (ctx.session.client.is(Mark::BROKEN_REDIRECT), "broken_redirect"),
    ];
    let flags: Vec<&str> = flags.iter().filter(|(is, _)| *is).map(|(_, flag)| *flag).collect();
    let reply = &mut ctx.reply;
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(flags.len());
    for flag in flags {
        reply.bulk(flag.as_bytes());
    }
    reply.bulk(b"redirect");
    reply.integer(redirect(choice));
    reply.bulk(b"prefixes");
    reply.array(choice.prefixes.len());
    for prefix in &choice.prefixes {
        reply.bulk(prefix);
    }
    Ok(())
}
