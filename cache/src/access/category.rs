//! Categories of commands (`@read`, `@dangerous` …): what a command belongs to follows from its family and its flags, but for a few.

use crate::command::{Flags, Group, Known, TABLE};

/// All categories, in the order in which `ACL CAT` lists them.
pub const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// Categories that do not follow from family and flags.
const MORE: &[(&str, &[&str])] = &[
    ("asking", &["connection"]),
    ("command", &["connection"]),
    ("dbsize", &["keyspace"]),
    ("flushall", &["keyspace", "dangerous"]),
    ("flushdb", &["keyspace", "dangerous"]),
    ("info", &["dangerous"]),
    ("keys", &["dangerous"]),
    ("lastsave", &["admin", "dangerous"]),
    ("readonly", &["connection"]),
    ("readwrite", &["connection"]),
    ("restore", &["dangerous"]),
    ("role", &["admin", "dangerous"]),
    ("sort", &["set", "sortedset", "list", "dangerous"]),
    ("sort_ro", &["set", "sortedset", "list", "dangerous"]),
    ("swapdb", &["keyspace", "dangerous"]),
    ("wait", &["connection"]),
    ("waitaof", &["connection"]),
];

/// Commands that are not in the category of their family.
const NOT_THEIR_FAMILYS: [&str; 4] = ["sort", "sort_ro", "wait", "waitaof"];

const fn of_family(group: Group) -> Option<&'static str> {
    match group {
        Group::Generic => Some("keyspace"),
        Group::String => Some("string"),
        Group::Bitmap => Some("bitmap"),
        Group::HyperLogLog => Some("hyperloglog"),
        Group::List => Some("list"),
        Group::Set => Some("set"),
        Group::SortedSet => Some("sortedset"),
        Group::Hash => Some("hash"),
        Group::PubSub => Some("pubsub"),
        Group::Transactions => Some("transaction"),
        Group::Connection => Some("connection"),
        Group::Scripting => Some("scripting"),
        Group::Server | Group::Cluster | Group::Lattice => None,
    }
}

/// Whether `known` belongs to `category`, one of [`CATEGORIES`].
#[must_use]
pub fn belongs(known: &Known, category: &str) -> bool {
    let command = known.command;
    let has = |flag| command.flags.has(flag);
    let container = !command.subcommands.is_empty() && known.full_name != "command";
    let name = known.full_name;
    let parent = name.split('|').next().unwrap_or(name);
    if MORE
        .iter()
        .any(|(other, more)| (*other == name || *other == parent) && more.contains(&category))
    {
        return true;
    }
    let family = if container || NOT_THEIR_FAMILYS.contains(&name) {
        None
    } else {
        of_family(command.group)
    };
    match category {
        "read" => has(Flags::READONLY) && command.group != Group::Scripting,
        "write" => has(Flags::WRITE),
        "fast" => has(Flags::FAST),
        "slow" => !has(Flags::FAST),
        "admin" => has(Flags::ADMIN),
        "dangerous" => has(Flags::ADMIN) || has(Flags::DANGEROUS),
        "blocking" => has(Flags::BLOCKING),
        "pubsub" => has(Flags::PUBSUB) || family == Some("pubsub"),
        _ => family == Some(category),
    }
}

/// The categories of a command.
pub fn categories_of(known: &Known) -> impl Iterator<Item = &'static str> {
    CATEGORIES.into_iter().filter(|category| belongs(known, category))
}

/// Calls `visit` with every command and subcommand.
pub fn each_command(mut visit: impl FnMut(&'static Known)) {
    for known in TABLE.iter() {
        visit(known);
        known.subcommands.values().for_each(&mut visit);
    }
}

/// The command of this full name: `name`, or `container|name`.
#[must_use]
pub fn find_command(name: &[u8]) -> Option<&'static Known> {
    let mut parts = name.split(|byte| *byte == b'|');
    let known = TABLE.find(parts.next()?)?;
    match (parts.next(), parts.next()) {
        (None, _) => Some(known),
        (Some(subcommand), None) => known.find(subcommand),
        (Some(_), Some(_)) => None,
    }
}
