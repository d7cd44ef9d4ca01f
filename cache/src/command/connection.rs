//! What a connection chooses for itself: `PING`, `ECHO`, `SELECT`, `HELLO`, `RESET`, `QUIT`.

use super::{
    Command, Context, Failure, Flags, Group, Keys, integer, is_option, parse_integer, shown,
};
use crate::clients::Mark;
use crate::resp::Protocol;
use crate::session::Next;
use crate::types::{DATABASES, Database};

/// The version of Redis that clients are told. Commands, errors and replies are those of 7.2, with the deadlines of fields of 7.4,
/// which is also what redis-py wants to see before it caches what `CLIENT TRACKING` keeps true.
pub const REDIS_VERSION: &str = "7.4.0";

/// What stands for any state of the server.
const ANY_TIME: Flags = Flags::LOADING.and(Flags::STALE).and(Flags::FAST);

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    Command::new("ping", -1, Keys::None, Flags::FAST, ping).docs(
        Group::Connection,
        "1.0.0",
        "Answers PONG, or its argument.",
    ),
    Command::new("echo", 2, Keys::None, ANY_TIME, echo).docs(
        Group::Connection,
        "1.0.0",
        "Answers its argument.",
    ),
    Command::new("select", 2, Keys::None, ANY_TIME, select).docs(
        Group::Connection,
        "1.0.0",
        "Chooses the database that the following commands work in.",
    ),
    Command::new(
        "hello",
        -1,
        Keys::None,
        ANY_TIME.and(Flags::NOSCRIPT).and(Flags::NO_AUTH).and(Flags::ALLOW_BUSY),
        hello,
    )
    .docs(Group::Connection, "6.0.0", "Chooses the protocol, and tells what the server is."),
    Command::new(
        "reset",
        1,
        Keys::None,
        ANY_TIME.and(Flags::NOSCRIPT).and(Flags::NO_AUTH).and(Flags::ALLOW_BUSY),
        reset,
    )
    .docs(Group::Connection, "6.2.0", "Forgets all that the connection has chosen."),
    Command::new(
        "quit",
        -1,
        Keys::None,
        ANY_TIME.and(Flags::NOSCRIPT).and(Flags::NO_AUTH).and(Flags::ALLOW_BUSY),
        quit,
    )
    .docs(Group::Connection, "1.0.0", "Closes the connection."),
];

fn ping(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    if arguments.len() > 2 {
        return Err(Failure::Arity("ping"));
    }
    let text = arguments.get(1);
    if ctx.session.is_subscribed() && ctx.session.protocol == Protocol::Resp2 {
        // A subscriber tells replies from messages by their first element.
        ctx.reply.array(2);
        ctx.reply.bulk(b"pong");
        ctx.reply.bulk(text.unwrap_or(&&b""[..]));
        return Ok(());
    }
    match text {
        Some(text) => ctx.reply.bulk(text),
        None => ctx.reply.simple("PONG"),
    }
    Ok(())
}

fn echo(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    ctx.reply.bulk(arguments[1]);
    Ok(())
}

fn select(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let index = integer(arguments[1])?;
    let database = u8::try_from(index).ok().filter(|index| *index < DATABASES);
    let Some(database) = database else {
        return Err(Failure::err("DB index is out of range"));
    };
    if ctx.engine.options.cluster && database != 0 {
        return Err(Failure::err("SELECT is not allowed in cluster mode"));
    }
    ctx.session.select(Database(database));
    ctx.reply.ok();
    Ok(())
}

fn quit(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    ctx.session.next = Next::Close;
    ctx.session.client.mark(Mark::CLOSING, true);
    ctx.reply.ok();
    Ok(())
}

fn reset(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    ctx.session.forget_choices(ctx.engine);
    ctx.session.replies = crate::session::Replies::On;
    ctx.reply.set_protocol(ctx.session.protocol);
    ctx.reply.simple("RESET");
    Ok(())
}

fn hello(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let protocol = match arguments.get(1) {
        None => None,
        Some(text) => match parse_integer(text) {
            Some(2) => Some(Protocol::Resp2),
            Some(3) => Some(Protocol::Resp3),
            Some(_) => {
                return Err(Failure::Text("NOPROTO unsupported protocol version".into()));
            }
            None => {
                return Err(Failure::err("Protocol version is not an integer or out of range"));
            }
        },
    };
    let mut rest = arguments.get(2..).unwrap_or_default();
    while let [option, after @ ..] = rest {
        rest = match after {
            [name, password, after @ ..] if is_option(option, "AUTH") => {
                super::access::authenticate(ctx, name, password)?;
                after
            }
            [name, after @ ..] if is_option(option, "SETNAME") => {
                super::client::set_name(ctx, name)?;
                after
            }
            _ => {
                let option = shown(option);
                return Err(Failure::err(format_args!("Syntax error in HELLO option '{option}'")));
            }
        };
    }
    if !ctx.session.authenticated {
        return Err(Failure::Text(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
             HELLO AUTH <user> <pass> option can be used to authenticate the client and select \
             the RESP protocol version at the same time"
                .into(),
        ));
    }
    if let Some(protocol) = protocol {
        ctx.session.set_protocol(protocol);
        ctx.reply.set_protocol(protocol);
    }
    let id = i64::try_from(ctx.session.client.id.0).unwrap_or(i64::MAX);
    let reply = &mut ctx.reply;
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(if reply.protocol() == Protocol::Resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.integer(id);
    reply.bulk(b"mode");
    reply.bulk(if ctx.engine.options.cluster { b"cluster" } else { b"standalone" });
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}
