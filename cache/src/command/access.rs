//! `AUTH` and `ACL`.

use super::{Command, Context, Failure, Flags, Group, Keys, TABLE, help, integer, is_option};
use crate::access::category::{CATEGORIES, belongs, each_command};
use crate::access::{LogContext, UserShown};
use crate::clients::Mark;
use crate::session::resolve;

/// For everybody, at any time.
const OPEN: Flags = Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE);
/// For operators.
const ADMIN: Flags = OPEN.and(Flags::ADMIN);
const HELP: Flags = Flags::LOADING.and(Flags::STALE);

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "auth",
        -2,
        Keys::None,
        OPEN.and(Flags::FAST).and(Flags::NO_AUTH).and(Flags::ALLOW_BUSY),
        auth,
    )
    .docs(Group::Connection, "1.0.0", "Authenticates the connection."),
    Command::new("acl", -2, Keys::None, Flags(0), help)
        .docs(Group::Server, "6.0.0", "A container for access list commands.")
        .with(ACL),
];

const ACL: &[Command] = &[
    sub("cat", -2, OPEN, cat, "Lists the categories of commands, or the commands of one."),
    sub("deluser", -3, ADMIN, delete_user, "Deletes users, and closes their connections."),
    sub("dryrun", -4, ADMIN, dry_run, "Tells whether a user may carry out a command."),
    sub("genpass", -2, OPEN, generate_password, "Makes a password that cannot be guessed."),
    sub("getuser", 3, ADMIN, get_user, "Tells what a user may do."),
    sub("help", 2, HELP, help, "Tells about the subcommands."),
    sub("list", 2, ADMIN, list, "Lists all users with their rules."),
    sub("load", 2, ADMIN, no_file, "Reads the users from a file; there is none."),
    sub("log", -2, ADMIN, log, "Lists what was refused lately."),
    sub("save", 2, ADMIN, no_file, "Writes the users to a file; there is none."),
    sub("setuser", -3, ADMIN, set_user, "Makes or changes a user by rules."),
    sub("users", 2, ADMIN, users, "Lists the names of all users."),
    sub("whoami", 2, OPEN, who_am_i, "Tells whom the connection has authenticated as."),
];

const fn sub(
    name: &'static str,
    arity: i32,
    flags: Flags,
    run: super::Handler,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, Keys::None, flags, run).docs(Group::Server, "6.0.0", summary)
}

fn auth(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    match *arguments {
        [_, password] => {
            if ctx.engine.access.default_has_no_password() {
                return Err(Failure::err(
                    "AUTH <password> called without any password configured for the default user. \
                     Are you sure your configuration is correct?",
                ));
            }
            authenticate(ctx, b"default", password)?;
        }
        [_, name, password] => authenticate(ctx, name, password)?,
        _ => return Err(Failure::Syntax),
    }
    ctx.reply.ok();
    Ok(())
}

/// Has the session act as the user `name`, if the password is theirs. For `AUTH` and `HELLO … AUTH`.
///
/// # Errors
/// If it is not, or the user is switched off.
pub(super) fn authenticate(
    ctx: &mut Context<'_, '_>,
    name: &[u8],
    password: &[u8],
) -> Result<(), Failure> {
    let access = &ctx.engine.access;
    if let Some(user) = access.authenticate(name, password) {
        ctx.session.become_user(user, true);
        return Ok(());
    }
    let context = context_of(ctx);
    access.note_failed_authentication(&ctx.engine.settings, name, context, ctx.now, || {
        ctx.session.describe(ctx.now)
    });
    Err(Failure::Text("WRONGPASS invalid username-password pair or user is disabled.".into()))
}

fn context_of(ctx: &Context<'_, '_>) -> LogContext {
    if ctx.session.may_wait { LogContext::TopLevel } else { LogContext::Multi }
}

fn cat(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    match *arguments {
        [_, _] => {
            ctx.reply.array(CATEGORIES.len());
            for category in CATEGORIES {
                ctx.reply.bulk(category.as_bytes());
            }
        }
        [_, _, name] => {
            let Some(category) = CATEGORIES.iter().find(|it| is_option(name, it)) else {
                let name = String::from_utf8_lossy(&name[..name.len().min(128)]);
                return Err(Failure::err(format_args!("Unknown category '{name}'")));
            };
            let mut names = Vec::new();
            each_command(|known| {
                if belongs(known, category) {
                    names.push(known.full_name);
                }
            });
            ctx.reply.array(names.len());
            for name in names {
                ctx.reply.bulk(name.as_bytes());
            }
        }
        _ => return Err(unknown_subcommand(arguments)),
    }
    Ok(())
}

/// What Redis says to a subcommand with too many arguments.
fn unknown_subcommand(arguments: &[&[u8]]) -> Failure {
    let name = String::from_utf8_lossy(&arguments[1][..arguments[1].len().min(128)]);
    let container = String::from_utf8_lossy(arguments[0]).to_uppercase();
    Failure::err(format_args!(
        "unknown subcommand or wrong number of arguments for '{name}'. Try {container} HELP."
    ))
}

fn set_user(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let engine = ctx.engine;
    let user = engine.access.set_user(&engine.settings, arguments[2], &arguments[3..])?;
    // Who listens to what is no longer theirs to hear is disconnected.
    for client in engine.clients.all() {
        if client.subscriptions() == 0 || client.labels().user.as_bytes() != user.name() {
            continue;
        }
        let channels = engine.channels.of(client.id);
        let channels = channels.iter().map(|(channel, is_pattern)| (&channel[..], *is_pattern));
        if !user.allows_channels(channels) {
            disconnect(ctx, &client);
        }
    }
    ctx.reply.ok();
    Ok(())
}

/// Has a client's connection closed; the client's own after the reply.
fn disconnect(ctx: &mut Context<'_, '_>, client: &crate::clients::Client) {
    if client.id == ctx.session.client.id {
        client.mark(Mark::CLOSING, true);
        ctx.session.next = crate::session::Next::Close;
    } else {
        client.kill();
    }
}

fn delete_user(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let names = &arguments[2..];
    if names.contains(&&b"default"[..]) {
        return Err(Failure::err("The 'default' user cannot be removed"));
    }
    let deleted = ctx.engine.access.delete(names);
    for client in ctx.engine.clients.all() {
        let user = client.labels().user;
        if names.iter().any(|name| *name == user.as_bytes()) {
            disconnect(ctx, &client);
        }
    }
    ctx.reply.count(deleted);
    Ok(())
}

fn get_user(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let Some(user) = ctx.engine.access.find(arguments[2]) else {
        ctx.reply.null();
        return Ok(());
    };
    let UserShown { flags, passwords, selectors } = user.shown();
    let reply = &mut ctx.reply;
    reply.map(6);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    reply.array(passwords.len());
    passwords.iter().for_each(|hash| reply.bulk(hash.as_bytes()));
    let (root, others) = selectors.split_first().expect("a user has a root selector");
    let mut show = |reply: &mut crate::resp::Reply<'_>, it: &crate::access::SelectorShown| {
        reply.bulk(b"commands");
        reply.bulk(it.commands.as_bytes());
        reply.bulk(b"keys");
        reply.bulk(&it.keys);
        reply.bulk(b"channels");
        reply.bulk(&it.channels);
    };
    show(reply, root);
    reply.bulk(b"selectors");
    reply.array(others.len());
    for selector in others {
        reply.map(3);
        show(reply, selector);
    }
    Ok(())
}

fn list(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    let users = ctx.engine.access.all();
    ctx.reply.array(users.len());
    for user in users {
        ctx.reply.bulk(&user.line());
    }
    Ok(())
}

fn users(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    let users = ctx.engine.access.all();
    ctx.reply.array(users.len());
    for user in users {
        ctx.reply.bulk(user.name());
    }
    Ok(())
}

fn who_am_i(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    ctx.reply.bulk(ctx.session.user.name());
    Ok(())
}

fn no_file(_: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    Err(Failure::err(
        "This instance is not configured to use an ACL file: users live in memory, and are made \
         with ACL SETUSER",
    ))
}

fn generate_password(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    const BITS_MAX: i64 = 4096;
    let bits = match *arguments {
        [_, _] => 256,
        [_, _, bits] => integer(bits)?,
        _ => return Err(unknown_subcommand(arguments)),
    };
    if !(1..=BITS_MAX).contains(&bits) {
        return Err(Failure::err(format_args!(
            "ACL GENPASS argument must be the number of bits for the output password, a positive \
             number up to {BITS_MAX}"
        )));
    }
    let digits = usize::try_from(bits.unsigned_abs().div_ceil(4)).expect("at most 1024");
    let mut text = crate::access::hex(&ctx.engine.secret(digits.div_ceil(2)));
    text.truncate(digits);
    ctx.reply.bulk(text.as_bytes());
    Ok(())
}

fn log(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let count = match *arguments {
        [_, _] => 10,
        [_, _, word] if is_option(word, "RESET") => {
            ctx.engine.access.reset_log();
            ctx.reply.ok();
            return Ok(());
        }
        [_, _, count] => integer(count)?.max(0),
        _ => return Err(unknown_subcommand(arguments)),
    };
    let entries = ctx.engine.access.refusals(usize::try_from(count).unwrap_or(0));
    let (now, reply) = (ctx.now, &mut ctx.reply);
    reply.array(entries.len());
    for entry in entries {
        reply.map(10);
        reply.bulk(b"count");
        reply.integer(i64::try_from(entry.count).unwrap_or(i64::MAX));
        reply.bulk(b"reason");
        reply.bulk(entry.reason.as_bytes());
        reply.bulk(b"context");
        reply.bulk(match entry.context {
            LogContext::TopLevel => b"toplevel",
            LogContext::Multi => b"multi",
            LogContext::Script => b"lua",
        });
        reply.bulk(b"object");
        reply.bulk(&entry.object);
        reply.bulk(b"username");
        reply.bulk(&entry.user);
        reply.bulk(b"age-seconds");
        let age_ms = entry.updated.unix.until(now.unix);
        #[expect(clippy::cast_precision_loss, reason = "an age in milliseconds is far below 2^53")]
        reply.double(age_ms as f64 / 1000.0);
        reply.bulk(b"client-info");
        reply.bulk(entry.client.as_bytes());
        let integer = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        reply.bulk(b"entry-id");
        reply.integer(integer(entry.id));
        reply.bulk(b"timestamp-created");
        reply.integer(integer(entry.created.unix.0));
        reply.bulk(b"timestamp-last-updated");
        reply.integer(integer(entry.updated.unix.0));
    }
    Ok(())
}

fn dry_run(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let access = &ctx.engine.access;
    let Some(user) = access.find(arguments[2]) else {
        let name = String::from_utf8_lossy(arguments[2]);
        return Err(Failure::err(format_args!("User '{name}' not found")));
    };
    if TABLE.find(arguments[3]).is_none() {
        let name = String::from_utf8_lossy(arguments[3]);
        return Err(Failure::err(format_args!("Command '{name}' not found")));
    }
    let known = resolve(&arguments[3..])?;
    match access.check(&user, known, &arguments[3..]) {
        Ok(()) => ctx.reply.ok(),
        Err(denied) => ctx.reply.bulk(&denied.in_detail()),
    }
    Ok(())
}
