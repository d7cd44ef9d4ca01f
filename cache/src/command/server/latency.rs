//! `LATENCY`: spikes by event, and durations by command.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use crate::command::{
    Command, Context, Failure, Flags, Group, Handler, Keys, Known, TABLE, help, shown,
};
use crate::latency::Event;

const OPEN: Flags = Flags::LOADING.and(Flags::STALE);
const ADMIN: Flags = OPEN.and(Flags::ADMIN).and(Flags::NOSCRIPT);

/// The family.
pub(in crate::command) const COMMANDS: &[Command] =
    &[row("latency", -2, Flags(0), help, "A container for latency commands.").with(&[
        row("doctor", 2, ADMIN, doctor, "Returns a report in words."),
        row("graph", 3, ADMIN, graph, "Draws the latest spikes of an event."),
        row("help", 2, OPEN, help, "Tells about the subcommands."),
        row("histogram", -2, ADMIN, histogram, "Returns how long commands took, cumulated."),
        row("history", 3, ADMIN, history, "Returns the latest spikes of an event."),
        row("latest", 2, ADMIN, latest, "Returns the latest spike of each event."),
        row("reset", -2, ADMIN, reset, "Forgets the spikes of events, or all."),
    ])];

const fn row(
    name: &'static str,
    arity: i32,
    flags: Flags,
    run: Handler,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, Keys::None, flags, run).docs(Group::Server, "2.8.13", summary)
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Which event an argument names, whatever its case.
fn find(ctx: &Context<'_, '_>, name: &[u8]) -> Option<(&'static str, Event)> {
    let events = ctx.engine.latency.events();
    events.into_iter().find(|(event, _)| event.as_bytes().eq_ignore_ascii_case(name))
}

fn history(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let event = find(ctx, arguments[2]).map(|(_, event)| event).unwrap_or_default();
    ctx.reply.array(event.spikes.len());
    for spike in event.spikes {
        ctx.reply.array(2);
        ctx.reply.integer(integer(spike.at_s));
        ctx.reply.integer(integer(spike.ms));
    }
    Ok(())
}

fn latest(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    let events = ctx.engine.latency.events();
    ctx.reply.array(events.len());
    for (name, event) in events {
        let last = event.spikes.back().expect("an event is known by its spikes");
        ctx.reply.array(4);
        ctx.reply.bulk(name.as_bytes());
        ctx.reply.integer(integer(last.at_s));
        ctx.reply.integer(integer(last.ms));
        ctx.reply.integer(integer(event.worst_ms));
    }
    Ok(())
}

fn reset(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let names = &arguments[2..];
    let count = ctx.engine.latency.reset(|event| {
        names.is_empty() || names.iter().any(|it| it.eq_ignore_ascii_case(event.as_bytes()))
    });
    ctx.reply.count(count);
    Ok(())
}

fn graph(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    const ROWS: u64 = 4;
    let Some((name, event)) = find(ctx, arguments[2]) else {
        let name = shown(arguments[2]);
        return Err(Failure::err(format_args!("No samples available for event '{name}'")));
    };
    let spikes: Vec<u64> = event.spikes.iter().map(|spike| spike.ms).collect();
    let high = spikes.iter().copied().max().unwrap_or(0);
    let low = spikes.iter().copied().min().unwrap_or(0);
    let line = "-".repeat(80);
    let mut text = format!(
        "{name} - high {high} ms, low {low} ms (all time high {} ms)\n{line}\n",
        event.worst_ms
    );
    let shown = &spikes[spikes.len().saturating_sub(80)..];
    for row in (0..ROWS).rev() {
        // A column has as many rows as its share of the way from the lowest to the highest.
        let column = |ms: &u64| match (ms - low) * ROWS >= row * (high - low).max(1) {
            true if row == 0 => '_',
            true => '#',
            false => ' ',
        };
        let line: String = shown.iter().map(column).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    ctx.reply.verbatim("txt", &text);
    Ok(())
}

fn doctor(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    let threshold = ctx.engine.settings.latency_monitor_threshold.load(Ordering::Relaxed);
    let events = ctx.engine.latency.events();
    let mut text = String::new();
    if threshold == 0 {
        text.push_str(
            "Latency monitoring is off. CONFIG SET latency-monitor-threshold MILLISECONDS turns it on.\n",
        );
    } else if events.is_empty() {
        let _ = writeln!(text, "Nothing has taken {threshold} ms or more.");
    }
    for (name, event) in &events {
        let total: u64 = event.spikes.iter().map(|spike| spike.ms).sum();
        let count = event.spikes.len();
        let mean = total / (count as u64).max(1);
        let worst = event.worst_ms;
        let _ = writeln!(text, "{name}: {count} spikes, {mean} ms on average, worst {worst} ms.");
        let advice = match *name {
            "command" | "fast-command" => "SLOWLOG GET shows which commands they were.",
            "expire-cycle" => "Many keys had one deadline: spread their TTLs.",
            "eviction-cycle" => "Memory is at its limit: raise maxmemory, or write less.",
            _ => continue,
        };
        let _ = writeln!(text, "  {advice}");
    }
    ctx.reply.verbatim("txt", &text);
    Ok(())
}

fn histogram(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let counts = ctx.engine.totals.counts();
    let mut chosen: Vec<&Known> = Vec::new();
    let with_parts =
        |known: &'static Known| std::iter::once(known).chain(known.subcommands.values());
    if arguments.len() == 2 {
        chosen.extend(TABLE.iter().flat_map(with_parts));
    }
    for name in &arguments[2..] {
        let mut parts = name.splitn(2, |byte| *byte == b'|');
        let container = TABLE.find(parts.next().unwrap_or_default());
        match (container, parts.next()) {
            (Some(known), None) => chosen.extend(with_parts(known)),
            (Some(known), Some(part)) => chosen.extend(known.find(part)),
            (None, _) => {}
        }
    }
    let tracked = ctx.engine.settings.latency_tracking.load(Ordering::Relaxed) != 0;
    chosen.retain(|known| tracked && counts.command(known.id).calls > 0);
    ctx.reply.map(chosen.len());
    for known in chosen {
        let counts = counts.command(known.id);
        let rows = counts.cumulative();
        ctx.reply.bulk(known.full_name.as_bytes());
        ctx.reply.map(2);
        ctx.reply.bulk(b"calls");
        ctx.reply.integer(integer(counts.calls));
        ctx.reply.bulk(b"histogram_usec");
        ctx.reply.map(rows.len());
        for (us, count) in rows {
            ctx.reply.integer(integer(us));
            ctx.reply.integer(integer(count));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::command::testing::TestNode;

    #[test]
    fn spikes_are_listed_drawn_and_forgotten() {
        let mut node = TestNode::new();
        node.run("CONFIG SET latency-monitor-threshold 10");
        for us in [20_000, 90_000, 40_000] {
            let now = crate::engine::Clock::now(&*node.clock);
            node.engine.latency.note(&node.engine.settings, "command", us, now);
            node.clock.advance_ms(1000);
        }
        node.story(
            "
            LATENCY HISTORY command => [[1700000000, 20], [1700000001, 90], [1700000002, 40]]
            LATENCY HISTORY nothing => []
            LATENCY LATEST => [[\"command\", 1700000002, 40, 90]]
            LATENCY GRAPH nothing => -ERR No samples available for event 'nothing'
            ",
        );
        assert!(node.run("LATENCY GRAPH command").contains("high 90 ms, low 20 ms"));
        assert!(node.run("LATENCY DOCTOR").contains("command: 3 spikes, 50 ms on average"));
        node.story("LATENCY RESET nothing => 0\nLATENCY RESET => 1\nLATENCY LATEST => []");
    }

    #[test]
    fn durations_are_cumulated_by_command() {
        let mut node = TestNode::new();
        node.run("SET a 1");
        node.run("GET a");
        node.story(
            "
            LATENCY HISTOGRAM get nothing => [\"get\", [\"calls\", 1, \"histogram_usec\", [1, 1]]]
            CONFIG SET latency-tracking no => OK
            LATENCY HISTOGRAM get => []
            ",
        );
    }
}
