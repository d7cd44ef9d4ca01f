//! `MEMORY`: where the memory is.

use super::{Command, Context, Failure, Flags, Group, Keys, help, integer, is_option};

fn usage(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    match &arguments[3..] {
        [] => {}
        // Every element is counted always, so how many to sample makes no difference.
        [option, samples] if is_option(option, "SAMPLES") => {
            if integer(samples)? < 0 {
                return Err(Failure::Syntax);
            }
        }
        _ => return Err(Failure::Syntax),
    }
    let key = ctx.key(arguments[2]);
    match ctx.keys.memory_of(&key) {
        Some(bytes) => ctx.reply.count(bytes),
        None => ctx.reply.null(),
    }
    Ok(())
}

fn percentage(part: u64, whole: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a percentage is for reading")]
    let (part, whole) = (part as f64, whole.max(1) as f64);
    part * 100.0 / whole
}

fn stats(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    let memory = ctx.engine.store.memory();
    let base = ctx.engine.base_bytes();
    let keys: u64 = (0..crate::types::DATABASES)
        .map(|number| ctx.keys.len(crate::types::Database(number)) as u64)
        .sum();
    let numbers = [
        ("peak.allocated", memory.peak + base),
        ("total.allocated", memory.used + base),
        ("startup.allocated", base),
        ("replication.backlog", 0),
        ("clients.normal", memory.buffers),
        ("aof.buffer", 0),
        ("overhead.total", base + memory.overhead + memory.buffers),
        ("keys.count", keys),
        ("keys.bytes-per-key", (memory.data + memory.overhead).checked_div(keys).unwrap_or(0)),
        ("dataset.bytes", memory.data),
    ];
    let shares = [
        ("dataset.percentage", percentage(memory.data, memory.used)),
        ("peak.percentage", percentage(memory.used, memory.peak)),
    ];
    ctx.reply.map(numbers.len() + shares.len());
    for (name, bytes) in numbers {
        ctx.reply.bulk(name.as_bytes());
        ctx.reply.integer(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
    for (name, share) in shares {
        ctx.reply.bulk(name.as_bytes());
        ctx.reply.double(share);
    }
    Ok(())
}

/// Tells what `MEMORY STATS` means.
fn doctor(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    let memory = ctx.engine.store.memory();
    let limit = ctx.engine.store.limit();
    let mut report = String::new();
    if limit != 0 && memory.used > limit / 10 * 9 {
        report.push_str("The memory limit is nearly reached: keys give way, or writes are refused, as maxmemory-policy says.\n");
    }
    if memory.buffers > memory.data && memory.buffers > 64 << 20 {
        report.push_str("Connections' buffers hold more than the keys do: look for slow readers in CLIENT LIST.\n");
    }
    if memory.peak / 2 > memory.used && memory.peak > 64 << 20 {
        report.push_str("The peak was more than twice of what is used now: the process may still hold that much.\n");
    }
    if report.is_empty() {
        report.push_str("Nothing stands out.\n");
    }
    ctx.reply.verbatim("txt", &report);
    Ok(())
}

/// There is nothing to purge: the store gives memory back by itself.
fn purge(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    ctx.reply.ok();
    Ok(())
}

fn malloc_stats(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    ctx.reply.bulk(b"Stats not supported for the current allocator");
    Ok(())
}

const SECOND: Keys = Keys::Range { first: 2, last: 2, step: 1 };

/// The family.
pub(super) const COMMANDS: &[Command] = &[Command::new("memory", -2, Keys::None, Flags(0), usage)
    .docs(Group::Server, "4.0.0", "Tells where the memory is.")
    .with(&[
        Command::new("doctor", 2, Keys::None, Flags(0), doctor).docs(
            Group::Server,
            "4.0.0",
            "Says what stands out about the use of memory.",
        ),
        Command::new("help", 2, Keys::None, Flags::LOADING.and(Flags::STALE), help).docs(
            Group::Server,
            "4.0.0",
            "Tells about the subcommands.",
        ),
        Command::new("malloc-stats", 2, Keys::None, Flags(0), malloc_stats).docs(
            Group::Server,
            "4.0.0",
            "Would show the allocator's statistics, if it had any.",
        ),
        Command::new("purge", 2, Keys::None, Flags(0), purge).docs(
            Group::Server,
            "4.0.0",
            "Does nothing: memory is given back without being asked for.",
        ),
        Command::new("stats", 2, Keys::All, Flags(0), stats).docs(
            Group::Server,
            "4.0.0",
            "Returns how much memory is used for what.",
        ),
        Command::new("usage", -3, SECOND, Flags::READONLY, usage).docs(
            Group::Server,
            "4.0.0",
            "Returns how many bytes a key occupies with all that belongs to it.",
        ),
    ])];

#[cfg(test)]
mod tests {
    use crate::command::testing::TestNode;

    #[test]
    fn a_larger_value_occupies_more() {
        let mut node = TestNode::new();
        node.story(
            "
            SET small x            => OK
            MEMORY USAGE none      => nil
            MEMORY USAGE small SAMPLES => -ERR syntax error
            MEMORY USAGE small SAMPLES -1 => -ERR syntax error
            MEMORY PURGE           => OK
            ",
        );
        let small: usize = node.run("MEMORY USAGE small SAMPLES 0").parse().unwrap();
        assert!((3..200).contains(&small), "{small}");
        assert!(node.run("MEMORY STATS").contains("\"keys.count\", 1"));
    }
}
