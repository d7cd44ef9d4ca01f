//! `LATTICE …`: what this cache knows and Redis has no command for. `lattice cache` asks it; any client may.

use super::{Command, Context, Failure, Flags, Group, Keys};

const READ: Flags = Flags::READONLY.and(Flags::FAST).and(Flags::LOADING).and(Flags::STALE);

/// The family.
pub(super) const COMMANDS: &[Command] = &[Command::new("lattice", -2, Keys::None, READ, container)
    .docs(Group::Lattice, "7.2.0", "What this cache knows and Redis has no command for.")
    .with(SUBCOMMANDS)];

const SUBCOMMANDS: &[Command] = &[
    Command::new("ring", 2, Keys::None, READ, ring).docs(
        Group::Lattice,
        "7.2.0",
        "Returns the slot table: which members hold which slots, as bytes.",
    ),
    Command::new("hotkeys", 2, Keys::All, READ, hot_keys).docs(
        Group::Lattice,
        "7.2.0",
        "Returns the keys that are looked up most, with estimates of how often.",
    ),
    Command::new("prefixes", 2, Keys::All, READ, prefixes).docs(
        Group::Lattice,
        "7.2.0",
        "Returns estimates of hits and misses for each prefix of keys.",
    ),
];

fn container(_context: &mut Context<'_, '_>, _arguments: &[&[u8]]) -> Result<(), Failure> {
    Err(Failure::Syntax)
}

/// The encoded [`SlotTable`](crate::ring::table::SlotTable): see `docs/formats.md`.
fn ring(context: &mut Context<'_, '_>, _arguments: &[&[u8]]) -> Result<(), Failure> {
    context.reply.bulk(&context.engine.placement().encode());
    Ok(())
}

fn hot_keys(context: &mut Context<'_, '_>, _arguments: &[&[u8]]) -> Result<(), Failure> {
    let summary = context.keys.summary();
    context.reply.array(summary.hot_keys.len());
    for hot in &summary.hot_keys {
        context.reply.map(4);
        context.reply.bulk(b"key");
        context.reply.bulk(&hot.key);
        context.reply.bulk(b"database");
        context.reply.integer(i64::from(hot.database.0));
        context.reply.bulk(b"lookups");
        context.reply.integer(i64::try_from(hot.lookups).unwrap_or(i64::MAX));
        context.reply.bulk(b"error");
        context.reply.integer(i64::try_from(hot.error).unwrap_or(i64::MAX));
    }
    Ok(())
}

fn prefixes(context: &mut Context<'_, '_>, _arguments: &[&[u8]]) -> Result<(), Failure> {
    let summary = context.keys.summary();
    context.reply.array(summary.prefixes.len());
    for prefix in &summary.prefixes {
        context.reply.map(3);
        context.reply.bulk(b"prefix");
        context.reply.bulk(&prefix.prefix);
        context.reply.bulk(b"hits");
        context.reply.integer(i64::try_from(prefix.hits).unwrap_or(i64::MAX));
        context.reply.bulk(b"misses");
        context.reply.integer(i64::try_from(prefix.misses).unwrap_or(i64::MAX));
    }
    Ok(())
}
