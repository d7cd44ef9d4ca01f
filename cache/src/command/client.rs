//! `CLIENT`: what connections there are, and what they want.

mod kill;
mod tracking;

use super::{
    Command, Context, Failure, Flags, Group, Keys, TABLE, help, integer, is_option, shown,
};
use crate::clients::{Class, Client, Labels, Mark, Pause};
use crate::session::Replies;
use crate::totals::{Counter, Outcome};
use crate::types::ClientId;

const ANY_TIME: Flags = Flags::LOADING.and(Flags::STALE).and(Flags::NOSCRIPT);
const OPERATOR: Flags = ANY_TIME.and(Flags::ADMIN);

/// The family.
pub(super) const COMMANDS: &[Command] = &[Command::new("client", -2, Keys::None, Flags(0), help)
    .docs(Group::Connection, "2.4.0", "What connections there are, and what they want.")
    .with(&[
        sub(
            "caching",
            3,
            ANY_TIME,
            tracking::caching,
            "6.0.0",
            "Whether the next reads are tracked.",
        ),
        sub("getname", 2, ANY_TIME, get_name, "2.6.9", "The connection's name."),
        sub("getredir", 2, ANY_TIME, tracking::get_redir, "6.0.0", "Who gets its invalidations."),
        sub("help", 2, Flags::LOADING.and(Flags::STALE), help, "5.0.0", "Lists the subcommands."),
        sub("id", 2, ANY_TIME, id, "5.0.0", "The connection's number."),
        sub("info", 2, ANY_TIME, info, "6.2.0", "The connection's line in CLIENT LIST."),
        sub("kill", -3, OPERATOR, kill::kill, "2.4.0", "Disconnects clients."),
        sub("list", -2, OPERATOR, list, "2.4.0", "Lists connections, a line for each."),
        sub(
            "no-evict",
            3,
            OPERATOR,
            no_evict,
            "7.0.0",
            "Whether it is spared when memory is short.",
        ),
        sub("no-touch", 3, ANY_TIME, no_touch, "7.2.0", "Whether its reads count as uses of keys."),
        sub("pause", -3, OPERATOR, pause, "3.0.0", "Holds commands back for a time."),
        sub("reply", 3, ANY_TIME, reply, "3.2.0", "Whether it wants replies."),
        sub(
            "setinfo",
            4,
            ANY_TIME,
            set_info,
            "7.2.0",
            "Tells the client library's name or version.",
        ),
        sub("setname", 3, ANY_TIME, set_name_command, "2.6.9", "Names the connection."),
        sub(
            "tracking",
            -3,
            ANY_TIME,
            tracking::tracking,
            "6.0.0",
            "Whether it is told when keys it has read change.",
        ),
        sub(
            "trackinginfo",
            2,
            ANY_TIME,
            tracking::tracking_info,
            "6.2.0",
            "How the connection tracks keys.",
        ),
        sub("unblock", -3, OPERATOR, unblock, "5.0.0", "Ends the wait of a client."),
        sub("unpause", 2, OPERATOR, unpause, "6.2.0", "Ends a pause."),
    ])];

const fn sub(
    name: &'static str,
    arity: i32,
    flags: Flags,
    run: super::Handler,
    since: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, Keys::None, flags, run).docs(Group::Connection, since, summary)
}

type Done = Result<(), Failure>;

/// What Redis says to a subcommand with too many arguments.
pub(super) fn wrong_usage(arguments: &[&[u8]]) -> Failure {
    let name = shown(&arguments[1][..arguments[1].len().min(128)]);
    let container = shown(arguments[0]).to_uppercase();
    Failure::err(format_args!(
        "unknown subcommand or wrong number of arguments for '{name}'. Try {container} HELP."
    ))
}

/// Whether bytes can stand in a line of `CLIENT LIST`.
fn is_label(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_graphic)
}

/// The most bytes of a client's name, or of its library's: every line of `CLIENT LIST` has them.
const LABEL_MAX: usize = 1024;

fn see_length(label: &[u8]) -> Done {
    if label.len() > LABEL_MAX {
        return Err(Failure::err(format_args!("names cannot be longer than {LABEL_MAX} bytes")));
    }
    Ok(())
}

/// Names the connection; an empty name takes the name away.
pub(super) fn set_name(ctx: &mut Context<'_, '_>, name: &[u8]) -> Done {
    if !is_label(name) {
        return Err(Failure::err(
            "Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    see_length(name)?;
    ctx.session.client.edit_labels(|labels| labels.name = name.to_vec());
    Ok(())
}

fn set_name_command(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    set_name(ctx, arguments[2])?;
    ctx.reply.ok();
    Ok(())
}

fn get_name(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Done {
    let name = ctx.session.client.labels().name;
    ctx.reply.bulk_or_null(Some(&*name).filter(|name| !name.is_empty()));
    Ok(())
}

fn set_info(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    let (option, value) = (arguments[2], arguments[3]);
    let (field, shown): (fn(&mut Labels) -> &mut Vec<u8>, _) = if is_option(option, "LIB-NAME") {
        (|labels| &mut labels.library, "lib-name")
    } else if is_option(option, "LIB-VER") {
        (|labels| &mut labels.library_version, "lib-ver")
    } else {
        let option = shown(option);
        return Err(Failure::err(format_args!("Unrecognized option '{option}'")));
    };
    if !is_label(value) {
        return Err(Failure::err(format_args!(
            "{shown} cannot contain spaces, newlines or special characters."
        )));
    }
    see_length(value)?;
    ctx.session.client.edit_labels(|labels| *field(labels) = value.to_vec());
    ctx.reply.ok();
    Ok(())
}

fn id(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Done {
    ctx.reply.integer(number(&ctx.session.client));
    Ok(())
}

/// A client's number as a reply has it.
fn number(client: &Client) -> i64 {
    i64::try_from(client.id.0).unwrap_or(i64::MAX)
}

fn info(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Done {
    let mut text = ctx.session.describe(ctx.now);
    text.push('\n');
    ctx.reply.verbatim("txt", &text);
    Ok(())
}

/// A class by its name in `CLIENT LIST` and `CLIENT KILL`; None for replicas and masters, which are never there.
fn class(name: &[u8]) -> Result<Option<Class>, Failure> {
    if is_option(name, "NORMAL") {
        Ok(Some(Class::Normal))
    } else if is_option(name, "PUBSUB") {
        Ok(Some(Class::PubSub))
    } else if ["SLAVE", "REPLICA", "MASTER"].iter().any(|it| is_option(name, it)) {
        Ok(None)
    } else {
        let name = shown(name);
        Err(Failure::err(format_args!("Unknown client type '{name}'")))
    }
}

fn list(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    let clients = &ctx.engine.clients;
    let chosen = match &arguments[2..] {
        [] => clients.all(),
        [option, name] if is_option(option, "TYPE") => {
            let class = class(name)?;
            let mut all = clients.all();
            all.retain(|client| Some(client.class()) == class);
            all
        }
        [option, ids @ ..] if is_option(option, "ID") && !ids.is_empty() => {
            let mut chosen = Vec::new();
            for id in ids {
                let id = super::parse_integer(id).ok_or(Failure::err("Invalid client ID"))?;
                let id = u64::try_from(id).unwrap_or(0);
                chosen.extend(clients.get(ClientId(id)));
            }
            chosen
        }
        _ => return Err(Failure::Syntax),
    };
    let mut text = String::new();
    for client in chosen {
        text.push_str(&String::from_utf8_lossy(&client.describe(ctx.now)));
        text.push('\n');
    }
    ctx.reply.verbatim("txt", &text);
    Ok(())
}

/// `ON` or `OFF`.
fn on_or_off(argument: &[u8]) -> Result<bool, Failure> {
    if is_option(argument, "ON") {
        Ok(true)
    } else if is_option(argument, "OFF") {
        Ok(false)
    } else {
        Err(Failure::Syntax)
    }
}

/// No client is ever disconnected to free memory for keys: what is chosen is noted, and shown in the flags.
fn no_evict(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    ctx.session.client.mark(Mark::NO_EVICT, on_or_off(arguments[2])?);
    ctx.reply.ok();
    Ok(())
}

fn no_touch(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    ctx.session.client.mark(Mark::NO_TOUCH, on_or_off(arguments[2])?);
    ctx.reply.ok();
    Ok(())
}

fn reply(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    if is_option(arguments[2], "ON") {
        ctx.session.replies = Replies::On;
        ctx.reply.ok();
    } else if is_option(arguments[2], "OFF") {
        ctx.session.replies = Replies::Off;
    } else if is_option(arguments[2], "SKIP") {
        if ctx.session.replies != Replies::Off {
            ctx.session.replies = Replies::SkipNext;
        }
    } else {
        return Err(Failure::Syntax);
    }
    Ok(())
}

fn pause(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    let what = match arguments.get(3) {
        _ if arguments.len() > 4 => return Err(wrong_usage(arguments)),
        None => Pause::All,
        Some(mode) if is_option(mode, "ALL") => Pause::All,
        Some(mode) if is_option(mode, "WRITE") => Pause::Writes,
        Some(_) => return Err(Failure::err("CLIENT PAUSE mode must be WRITE or ALL")),
    };
    let milliseconds = super::parse_integer(arguments[2])
        .ok_or(Failure::err("timeout is not an integer or out of range"))?;
    let milliseconds =
        u64::try_from(milliseconds).map_err(|_negative| Failure::err("timeout is negative"))?;
    let until_us = ctx.now.monotonic_us.saturating_add(milliseconds.saturating_mul(1000));
    ctx.engine.clients.pause(what, until_us);
    ctx.reply.ok();
    Ok(())
}

fn unpause(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Done {
    ctx.engine.clients.unpause();
    ctx.reply.ok();
    Ok(())
}

fn unblock(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    let is_error = match arguments.get(3) {
        _ if arguments.len() > 4 => return Err(wrong_usage(arguments)),
        None => false,
        Some(reason) if is_option(reason, "TIMEOUT") => false,
        Some(reason) if is_option(reason, "ERROR") => true,
        Some(_) => {
            return Err(Failure::err("CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
        }
    };
    let id = ClientId(u64::try_from(integer(arguments[2])?).unwrap_or(0));
    let unblocked = ctx.engine.waiters.unblock(id, is_error);
    if let Some(name) = &unblocked
        && is_error
    {
        if let Some(known) = TABLE.find(name) {
            ctx.session.tally.count(known.id, 0, Outcome::FailedLate);
        }
        ctx.session.tally.add(Counter::Errors, 1);
        ctx.engine.totals.note_error("UNBLOCKED");
    }
    ctx.reply.integer(i64::from(unblocked.is_some()));
    Ok(())
}
