//! Messages: `SUBSCRIBE` and its like, `PUBLISH`, `PUBSUB`.

use super::{Command, Context, Failure, Flags, Group, Keys, help};
use crate::pubsub::Scope;
use crate::resp::Reply;

const SUBSCRIBES: Flags = Flags::PUBSUB.and(Flags::NOSCRIPT).and(Flags::LOADING).and(Flags::STALE);
const PUBLISHES: Flags =
    Flags::PUBSUB.and(Flags::LOADING).and(Flags::STALE).and(Flags::FAST).and(Flags::MAY_REPLICATE);
const LOOKS: Flags = Flags::PUBSUB.and(Flags::LOADING).and(Flags::STALE);

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    Command::new("subscribe", -2, Keys::None, SUBSCRIBES, subscribe).docs(
        Group::PubSub,
        "2.0.0",
        "Subscribes to channels.",
    ),
    Command::new("unsubscribe", -1, Keys::None, SUBSCRIBES, unsubscribe).docs(
        Group::PubSub,
        "2.0.0",
        "Ends subscriptions to channels: to these, or to all.",
    ),
    Command::new("psubscribe", -2, Keys::None, SUBSCRIBES, psubscribe).docs(
        Group::PubSub,
        "2.0.0",
        "Subscribes to all channels that fit one of the patterns.",
    ),
    Command::new("punsubscribe", -1, Keys::None, SUBSCRIBES, punsubscribe).docs(
        Group::PubSub,
        "2.0.0",
        "Ends subscriptions to patterns: to these, or to all.",
    ),
    Command::new("ssubscribe", -2, Keys::EVERY, SUBSCRIBES, ssubscribe).docs(
        Group::PubSub,
        "7.0.0",
        "Subscribes to channels that belong to the slot of their name.",
    ),
    Command::new("sunsubscribe", -1, Keys::EVERY, SUBSCRIBES, sunsubscribe).docs(
        Group::PubSub,
        "7.0.0",
        "Ends subscriptions to channels of slots: to these, or to all.",
    ),
    Command::new("publish", 3, Keys::None, PUBLISHES, publish).docs(
        Group::PubSub,
        "2.0.0",
        "Sends a message to all who subscribe to a channel.",
    ),
    Command::new("spublish", 3, Keys::ONE, PUBLISHES, spublish).docs(
        Group::PubSub,
        "7.0.0",
        "Sends a message to all who subscribe to a channel of a slot.",
    ),
    Command::new("pubsub", -2, Keys::None, Flags(0), help)
        .docs(Group::PubSub, "2.8.0", "Tells who subscribes to what.")
        .with(&[
            Command::new("channels", -2, Keys::None, LOOKS, channels).docs(
                Group::PubSub,
                "2.8.0",
                "Lists the channels that somebody subscribes to.",
            ),
            Command::new("numsub", -2, Keys::None, LOOKS, numsub).docs(
                Group::PubSub,
                "2.8.0",
                "Counts the subscribers of channels.",
            ),
            Command::new("numpat", 2, Keys::None, LOOKS, numpat).docs(
                Group::PubSub,
                "2.8.0",
                "Counts the patterns that somebody subscribes to.",
            ),
            Command::new("shardchannels", -2, Keys::None, LOOKS, shardchannels).docs(
                Group::PubSub,
                "7.0.0",
                "Lists the channels of slots that somebody subscribes to.",
            ),
            Command::new("shardnumsub", -2, Keys::None, LOOKS, shardnumsub).docs(
                Group::PubSub,
                "7.0.0",
                "Counts the subscribers of channels of slots.",
            ),
            Command::new("help", 2, Keys::None, Flags::LOADING.and(Flags::STALE), help).docs(
                Group::PubSub,
                "6.2.0",
                "Lists the subcommands.",
            ),
        ]),
];

type Done = Result<(), Failure>;

fn subscribe(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    add(ctx, Scope::Channel, &arguments[1..])
}

fn psubscribe(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    add(ctx, Scope::Pattern, &arguments[1..])
}

fn ssubscribe(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    add(ctx, Scope::Shard, &arguments[1..])
}

fn unsubscribe(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    remove(ctx, Scope::Channel, &arguments[1..])
}

fn punsubscribe(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    remove(ctx, Scope::Pattern, &arguments[1..])
}

fn sunsubscribe(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    remove(ctx, Scope::Shard, &arguments[1..])
}

fn add(ctx: &mut Context<'_, '_>, scope: Scope, names: &[&[u8]]) -> Done {
    for name in names {
        let session = &mut *ctx.session;
        let own = &mut session.subscriptions;
        ctx.engine.channels.subscribe(ctx.engine, &session.client, own, scope, name);
        confirm(ctx, scope, scope.subscribed(), Some(name));
    }
    Ok(())
}

fn remove(ctx: &mut Context<'_, '_>, scope: Scope, names: &[&[u8]]) -> Done {
    let all;
    let mut names = names.to_vec();
    if names.is_empty() {
        all = ctx.session.subscriptions.names(scope);
        names = all.iter().map(|name| &**name).collect();
        if names.is_empty() {
            confirm(ctx, scope, scope.unsubscribed(), None);
        }
    }
    for name in names {
        let session = &mut *ctx.session;
        let own = &mut session.subscriptions;
        ctx.engine.channels.unsubscribe(ctx.engine, &session.client, own, scope, name);
        confirm(ctx, scope, scope.unsubscribed(), Some(name));
    }
    Ok(())
}

/// The message about one subscription. It is no reply: a client that wants no replies gets it all the same.
fn confirm(ctx: &mut Context<'_, '_>, scope: Scope, kind: &str, name: Option<&[u8]>) {
    let count = ctx.session.subscriptions.count(scope);
    let write = |reply: &mut Reply<'_>| {
        reply.push(3);
        reply.bulk(kind.as_bytes());
        reply.bulk_or_null(name);
        reply.count(count);
    };
    if ctx.session.is_muted() {
        let mut message = Vec::new();
        write(&mut Reply::new(&mut message, ctx.session.protocol));
        ctx.session.outbox().put(&message);
    } else {
        write(&mut ctx.reply);
    }
}

fn publish(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    let sent = ctx.engine.channels.publish(Scope::Channel, arguments[1], arguments[2]);
    ctx.reply.count(sent);
    Ok(())
}

fn spublish(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    let sent = ctx.engine.channels.publish(Scope::Shard, arguments[1], arguments[2]);
    ctx.reply.count(sent);
    Ok(())
}

fn channels(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    list(ctx, Scope::Channel, arguments)
}

fn shardchannels(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    list(ctx, Scope::Shard, arguments)
}

fn list(ctx: &mut Context<'_, '_>, scope: Scope, arguments: &[&[u8]]) -> Done {
    if arguments.len() > 3 {
        return Err(super::client::wrong_usage(arguments));
    }
    let names = ctx.engine.channels.names(scope, arguments.get(2).copied());
    ctx.reply.array(names.len());
    for name in names {
        ctx.reply.bulk(&name);
    }
    Ok(())
}

fn numsub(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    count(ctx, Scope::Channel, &arguments[2..])
}

fn shardnumsub(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Done {
    count(ctx, Scope::Shard, &arguments[2..])
}

fn count(ctx: &mut Context<'_, '_>, scope: Scope, names: &[&[u8]]) -> Done {
    // An array of pairs, not a map, in either protocol.
    ctx.reply.array(names.len() * 2);
    for name in names {
        ctx.reply.bulk(name);
        ctx.reply.count(ctx.engine.channels.subscribers(scope, name));
    }
    Ok(())
}

fn numpat(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Done {
    ctx.reply.count(ctx.engine.channels.counts().1);
    Ok(())
}
