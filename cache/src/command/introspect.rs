//! `COMMAND`: what the server knows about its own commands.
//!
//! Clients of a cluster route by it, `redis-cli` hints by it, and access rules are made from it; so it is generated from the very
//! tables that commands are carried out by, and nothing is said twice.

mod complexity;
mod tips;

use super::key_spec::{KeySpec, Place, specs_of, words_of};
use super::{Command, Context, Failure, Flags, Group, Keys, Known, TABLE, help, is_option};
use crate::access::category::{
    CATEGORIES, belongs, categories_of, each_command, find_command as find,
};
use crate::glob;
use crate::resp::Reply;
use crate::session::resolve;

const ANY_TIME: Flags = Flags::LOADING.and(Flags::STALE);

/// The family.
pub(super) const COMMANDS: &[Command] = &[Command::new("command", -1, Keys::None, ANY_TIME, all)
    .docs(Group::Server, "2.8.13", "Returns detailed information about all commands.")
    .with(SUBCOMMANDS)];

const SUBCOMMANDS: &[Command] = &[
    sub("count", 2, count, "2.8.13", "Returns how many commands there are."),
    sub("docs", -2, docs, "7.0.0", "Returns what commands do, in words."),
    sub("getkeys", -4, get_keys, "2.8.13", "Extracts the keys from a whole command."),
    sub(
        "getkeysandflags",
        -4,
        get_keys_and_flags,
        "7.0.0",
        "Extracts keys, and what becomes of them.",
    ),
    sub("help", 2, help, "5.0.0", "Tells about the subcommands."),
    sub("info", -2, info, "2.8.13", "Returns information about some commands, or all."),
    sub("list", -2, list, "7.0.0", "Returns the names of commands."),
];

const fn sub(
    name: &'static str,
    arity: i32,
    run: super::Handler,
    since: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, Keys::None, ANY_TIME, run).docs(Group::Server, since, summary)
}

/// Flags as `COMMAND` names them. As in Redis, it does not tell that a command may replicate.
const FLAG_NAMES: [(Flags, &str); 17] = [
    (Flags::WRITE, "write"),
    (Flags::READONLY, "readonly"),
    (Flags::DENYOOM, "denyoom"),
    (Flags::ADMIN, "admin"),
    (Flags::PUBSUB, "pubsub"),
    (Flags::NOSCRIPT, "noscript"),
    (Flags::BLOCKING, "blocking"),
    (Flags::LOADING, "loading"),
    (Flags::STALE, "stale"),
    (Flags::SKIP_MONITOR, "skip_monitor"),
    (Flags::SKIP_SLOWLOG, "skip_slowlog"),
    (Flags::FAST, "fast"),
    (Flags::NO_AUTH, "no_auth"),
    (Flags::ALLOW_BUSY, "allow_busy"),
    (Flags::NO_ASYNC_LOADING, "no_async_loading"),
    (Flags::NO_MULTI, "no_multi"),
    (Flags::NO_MANDATORY_KEYS, "no_mandatory_keys"),
];

fn flag_names(known: &Known) -> Vec<&'static str> {
    let flags = known.command.flags;
    let mut names: Vec<_> =
        FLAG_NAMES.iter().filter(|(flag, _)| flags.has(*flag)).map(|(_, name)| *name).collect();
    // Several parts may still be told by position; a count or an option cannot.
    let movable = specs_of(known).iter().any(|spec| !matches!(spec.place, Place::Range { .. }));
    if movable || flags.has(Flags::MOVABLE_KEYS) {
        names.push("movablekeys");
    }
    names
}

/// First, last and step of the keys that positions alone can tell; zeros if there are none.
fn positions(known: &Known) -> (i64, i64, i64) {
    let number = |number: usize| i64::try_from(number).expect("positions are small");
    match known.command.keys {
        Keys::Range { first, last, step } => {
            let last = i64::try_from(last).expect("positions are small");
            (number(first), last, number(step))
        }
        Keys::None | Keys::All | Keys::Counted { .. } | Keys::Found(_) => {
            match specs_of(known).first().map(|spec| spec.place) {
                Some(Place::Range { first, last, step }) => {
                    let last = i64::try_from(last).expect("positions are small");
                    let last = if last < 0 { last } else { last + number(first) };
                    (number(first), last, number(step))
                }
                _ => (0, 0, 0),
            }
        }
    }
}

fn describe(reply: &mut Reply<'_>, known: &Known) {
    reply.array(10);
    reply.bulk(known.full_name.as_bytes());
    reply.integer(i64::from(known.command.arity));
    let flags = flag_names(known);
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.simple(flag));
    let (first, last, step) = positions(known);
    reply.integer(first);
    reply.integer(last);
    reply.integer(step);
    reply.set(categories_of(known).count());
    for category in categories_of(known) {
        reply.simple(&format!("@{category}"));
    }
    let tips = tips::of(known.full_name);
    reply.set(tips.len());
    tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    let specs = specs_of(known);
    reply.set(specs.len());
    specs.iter().for_each(|spec| describe_keys(reply, spec));
    if known.subcommands.is_empty() {
        reply.set(0);
    } else {
        reply.array(known.subcommands.len());
        known.subcommands.values().for_each(|subcommand| describe(reply, subcommand));
    }
}

fn describe_keys(reply: &mut Reply<'_>, spec: &KeySpec) {
    let step = |step: usize| i64::try_from(step).expect("steps are small");
    reply.map(3);
    reply.bulk(b"flags");
    let flags: Vec<&str> = spec.flags.split(' ').collect();
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.simple(flag));
    let part = |reply: &mut Reply<'_>, name: &str, kind: &str, fields: &[(&str, i64)]| {
        reply.bulk(name.as_bytes());
        reply.map(2);
        reply.bulk(b"type");
        reply.bulk(kind.as_bytes());
        reply.bulk(b"spec");
        reply.map(fields.len());
        for (field, value) in fields {
            reply.bulk(field.as_bytes());
            reply.integer(*value);
        }
    };
    match spec.place {
        Place::Range { first, last, step: distance } => {
            part(reply, "begin_search", "index", &[("index", step(first))]);
            let last = i64::try_from(last).expect("positions are small");
            let fields = [("lastkey", last), ("keystep", step(distance)), ("limit", 0)];
            part(reply, "find_keys", "range", &fields);
        }
        Place::Counted { count } => {
            part(reply, "begin_search", "index", &[("index", step(count))]);
            let fields = [("keynumidx", 0), ("firstkey", 1), ("keystep", 1)];
            part(reply, "find_keys", "keynum", &fields);
        }
        Place::Unknown => {
            part(reply, "begin_search", "unknown", &[]);
            part(reply, "find_keys", "unknown", &[]);
        }
    }
}

fn all(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    ctx.reply.array(TABLE.iter().count());
    TABLE.iter().for_each(|known| describe(&mut ctx.reply, known));
    Ok(())
}

fn count(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    ctx.reply.count(TABLE.iter().count());
    Ok(())
}

fn info(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let names = &arguments[2..];
    if names.is_empty() {
        return all(ctx, arguments);
    }
    ctx.reply.array(names.len());
    for name in names {
        match find(name) {
            Some(known) => describe(&mut ctx.reply, known),
            None => ctx.reply.null_array(),
        }
    }
    Ok(())
}

const fn group_name(group: Group) -> &'static str {
    match group {
        Group::Generic => "generic",
        Group::String => "string",
        Group::Bitmap => "bitmap",
        Group::HyperLogLog => "hyperloglog",
        Group::List => "list",
        Group::Set => "set",
        Group::SortedSet => "sorted-set",
        Group::Hash => "hash",
        Group::PubSub => "pubsub",
        Group::Transactions => "transactions",
        Group::Connection => "connection",
        Group::Server => "server",
        Group::Scripting => "scripting",
        Group::Cluster => "cluster",
        Group::Lattice => "lattice",
    }
}

fn document(reply: &mut Reply<'_>, known: &Known) {
    let command = known.command;
    reply.bulk(known.full_name.as_bytes());
    reply.map(4);
    reply.bulk(b"summary");
    reply.bulk(command.summary.as_bytes());
    reply.bulk(b"since");
    reply.bulk(command.since.as_bytes());
    reply.bulk(b"group");
    reply.bulk(group_name(command.group).as_bytes());
    if known.subcommands.is_empty() {
        reply.bulk(b"complexity");
        reply.bulk(complexity::of(known.full_name).as_bytes());
    } else {
        reply.bulk(b"subcommands");
        reply.map(known.subcommands.len());
        known.subcommands.values().for_each(|subcommand| document(reply, subcommand));
    }
}

fn docs(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let names = &arguments[2..];
    let known: Vec<&Known> = if names.is_empty() {
        TABLE.iter().collect()
    } else {
        names.iter().filter_map(|name| find(name)).collect()
    };
    ctx.reply.map(known.len());
    known.into_iter().for_each(|known| document(&mut ctx.reply, known));
    Ok(())
}

fn list(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let mut names = Vec::new();
    match *arguments {
        [_, _] => each_command(|known| names.push(known.full_name)),
        [_, _, word, kind, what] if is_option(word, "FILTERBY") => {
            if is_option(kind, "ACLCAT") {
                let category = CATEGORIES.iter().find(|category| is_option(what, category));
                each_command(|known| {
                    if category.is_some_and(|category| belongs(known, category)) {
                        names.push(known.full_name);
                    }
                });
            } else if is_option(kind, "PATTERN") {
                each_command(|known| {
                    if glob::matches_ignoring_case(what, known.full_name.as_bytes()) {
                        names.push(known.full_name);
                    }
                });
            } else if !is_option(kind, "MODULE") {
                return Err(Failure::Syntax);
            }
        }
        _ => return Err(Failure::Syntax),
    }
    ctx.reply.array(names.len());
    names.iter().for_each(|name| ctx.reply.bulk(name.as_bytes()));
    Ok(())
}

/// The keys of a whole command, by their index in it.
fn keys_of<'a>(arguments: &'a [&'a [u8]]) -> Result<(&'static Known, Vec<usize>), Failure> {
    let invalid = || Failure::err("Invalid command specified");
    let known = TABLE.find(arguments[0]).ok_or_else(invalid)?;
    let known = if known.subcommands.is_empty() || arguments.len() == 1 {
        known
    } else {
        known.find(arguments[1]).ok_or_else(invalid)?
    };
    if specs_of(known).iter().all(|spec| spec.access().is_none()) {
        return Err(Failure::err("The command has no key arguments"));
    }
    if resolve(arguments).is_err() {
        return Err(Failure::err("Invalid number of arguments specified for command"));
    }
    let mut indexes = Vec::new();
    known.command.keys.each(arguments, |index| indexes.push(index));
    if indexes.is_empty() && !known.command.flags.has(Flags::NO_MANDATORY_KEYS) {
        return Err(Failure::err("Invalid arguments specified for command"));
    }
    Ok((known, indexes))
}

fn get_keys(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let arguments = &arguments[2..];
    let (_, indexes) = keys_of(arguments)?;
    ctx.reply.array(indexes.len());
    indexes.iter().for_each(|index| ctx.reply.bulk(arguments[*index]));
    Ok(())
}

fn get_keys_and_flags(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let arguments = &arguments[2..];
    let (known, indexes) = keys_of(arguments)?;
    ctx.reply.array(indexes.len());
    for index in indexes {
        ctx.reply.array(2);
        ctx.reply.bulk(arguments[index]);
        let spec = words_of(known, arguments, index);
        let flags: Vec<&str> = spec.flags.split(' ').collect();
        ctx.reply.set(flags.len());
        flags.iter().for_each(|flag| ctx.reply.simple(flag));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::{TestNode, story};

    #[test]
    fn keys_are_found_in_whole_commands() {
        story(
            "
            COMMAND GETKEYS SET a 1 => [\"a\"]
            COMMAND GETKEYS MSET a 1 b 2 => [\"a\", \"b\"]
            COMMAND GETKEYS EVAL script 2 a b c => [\"a\", \"b\"]
            COMMAND GETKEYS EVAL script 0 => []
            COMMAND GETKEYS PING x => -ERR The command has no key arguments
            COMMAND GETKEYS NOTHING a => -ERR Invalid command specified
            COMMAND GETKEYS GET a b => -ERR Invalid number of arguments specified for command
            COMMAND GETKEYSANDFLAGS SET a 1 => [[\"a\", [OW, update]]]
            COMMAND GETKEYSANDFLAGS SET a 1 GET => [[\"a\", [RW, access, update]]]
            COMMAND GETKEYSANDFLAGS COPY a b => [[\"a\", [RO, access]], [\"b\", [OW, update]]]
            ",
        );
    }

    #[test]
    fn a_command_is_described_in_ten_parts() {
        story(
            "
            COMMAND INFO get nothing => [[\"get\", 2, [readonly, fast], 1, 1, 1, [@read, @string, @fast], [], [[\"flags\", [RO, access], \"begin_search\", [\"type\", \"index\", \"spec\", [\"index\", 1]], \"find_keys\", [\"type\", \"range\", \"spec\", [\"lastkey\", 0, \"keystep\", 1, \"limit\", 0]]]], []], nil]
            COMMAND LIST FILTERBY PATTERN config|re* => [\"config|resetstat\", \"config|rewrite\"]
            COMMAND LIST FILTERBY NOTHING x => -ERR syntax error
            ",
        );
    }

    #[test]
    fn every_command_says_what_it_does() {
        let mut node = TestNode::new();
        assert_eq!(
            node.run("COMMAND DOCS zcard"),
            "[\"zcard\", [\"summary\", \"Returns how many members a sorted set has.\", \"since\", \"1.2.0\", \
             \"group\", \"sorted-set\", \"complexity\", \"O(1)\"]]"
        );
        each_command(|known| {
            assert!(!known.command.summary.is_empty(), "{} has no summary", known.full_name);
            assert!(!known.command.summary.contains('\n'), "{} in one line", known.full_name);
        });
    }
}
