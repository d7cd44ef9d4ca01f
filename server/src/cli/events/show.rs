//! `lattice events read` and `lattice events tail`.

use clap::Args;
use event_sourcing::read::From;
use event_sourcing::{
    Direction, EventStore, Position, ReadError, Recorded, Source, StreamName, Version,
};
use futures::executor::block_on;
use serde_json::{Value, json};

use super::super::output::print;
use super::super::{Exit, Format, Output};
use super::{Common, Filtered, cell, event_json, position, stream, version};

/// Events that a table or one JSON document holds, unless told otherwise: they are in memory until the last one is known.
const COUNT: usize = 1_000;

#[derive(Debug, Args)]
pub(crate) struct Read {
    #[command(flatten)]
    common: Common,
    /// The stream [default: all of the log]
    #[arg(value_parser = stream)]
    stream: Option<StreamName>,
    /// Begin at this position
    #[arg(long, value_name = "POSITION", value_parser = position, conflicts_with = "from_version")]
    from: Option<Position>,
    /// Begin at this version of the stream
    #[arg(long, value_name = "VERSION", value_parser = version, requires = "stream")]
    from_version: Option<Version>,
    /// Read towards the beginning
    #[arg(long)]
    backward: bool,
    /// Events at most [default: 1000; all of them with -o jsonl]
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    #[command(flatten)]
    filter: Filtered,
}

#[derive(Debug, Args)]
pub(crate) struct Tail {
    #[command(flatten)]
    common: Common,
    /// The stream [default: all of the log]
    #[arg(value_parser = stream)]
    stream: Option<StreamName>,
    /// How many events
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    count: usize,
    #[command(flatten)]
    filter: Filtered,
}

impl Read {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let from = match (self.from, self.from_version) {
            (Some(position), _) => From::Position(position),
            (None, Some(version)) => From::Version(version),
            (None, None) => From::Edge,
        };
        let filter = self.filter.filter(self.stream.as_ref());
        let direction = if self.backward { Direction::Backward } else { Direction::Forward };
        let read = event_sourcing::Read {
            direction,
            ..event_sourcing::Read::forward(source(self.stream)).from(from).filter(filter)
        };
        let store = self.common.open()?;
        let is_lines = self.common.output == Format::Jsonl;
        let count = self.count.unwrap_or(if is_lines { usize::MAX } else { COUNT });
        if is_lines {
            // As they come, so that a log of any length can be taken away.
            return pages(&store, read, count, |event| {
                print(&format!("{}\n", event_json(event)))?;
                Ok(())
            });
        }
        let mut items = Vec::new();
        let exit = pages(&store, read, count, |event| {
            items.push(event_json(event));
            Ok(())
        })?;
        show(&self.common.output(), &items)?;
        Ok(exit)
    }
}

impl Tail {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let filter = self.filter.filter(self.stream.as_ref());
        let read = event_sourcing::Read::backward(source(self.stream)).filter(filter);
        let store = self.common.open()?;
        let mut items = Vec::new();
        let exit = pages(&store, read, self.count, |event| {
            items.push(event_json(event));
            Ok(())
        })?;
        items.reverse();
        show(&self.common.output(), &items)?;
        Ok(exit)
    }
}

fn source(stream: Option<StreamName>) -> Source {
    stream.map_or(Source::All, Source::Stream)
}

/// Reads page after page, up to `count` events. A stream that is not there is not found, and damage ends the reading.
fn pages(
    store: &dyn EventStore,
    mut read: event_sourcing::Read,
    mut count: usize,
    mut each: impl FnMut(&Recorded) -> anyhow::Result<()>,
) -> anyhow::Result<Exit> {
    while count > 0 {
        read.count_max = count.min(event_sourcing::read::PAGE_COUNT);
        let page = match block_on(store.read(read.clone())) {
            Ok(page) => page,
            Err(error @ (ReadError::NoStream { .. } | ReadError::Tombstoned { .. })) => {
                super::super::output::complain(&error.to_string());
                return Ok(Exit::NotFound);
            }
            Err(error) => return Err(error.into()),
        };
        for event in &page.events {
            each(event)?;
        }
        count -= page.events.len().min(count);
        let Some(next) = page.next else { break };
        read.from = next;
    }
    Ok(Exit::Done)
}

fn show(output: &Output, items: &[Value]) -> anyhow::Result<()> {
    let headers = ["POSITION", "STREAM", "VERSION", "TYPE", "DATA"];
    output.list(&headers, json!({}), "events", items, |item| {
        let fields = ["position", "stream", "version", "type", "data"];
        fields.iter().map(|field| cell(&item[field])).collect()
    })?;
    Ok(())
}
