//! `lattice events …`: an event store's directory, from the command line.
//!
//! The commands open the directory themselves, and a directory belongs to one process at a time: stop whoever uses it first. All but
//! `append` only read: they change nothing in the directory.

mod append;
mod show;
mod streams;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use event_sourcing::store::journal::{JournalStore, JournalStoreOptions};
use event_sourcing::{
    EventStore as _, EventType, Filter, Label, Pattern, Position, StreamName, Version,
};
use futures::executor::block_on;
use serde_json::{Value, json};

use super::output::json_bytes;
use super::{Exit, Format, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum Events {
    /// Append one event; makes a store of a directory that is none
    Append(append::Append),
    /// Read a stream, or the whole log
    Read(show::Read),
    /// Show the last events
    Tail(show::Tail),
    /// List streams; reads the whole log
    Streams(streams::Streams),
    /// Show sizes, the hash chain, and how many events there are of each type
    Stats(Stats),
}

/// Which store, and how results are shown.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Directory of the store
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// How results are shown
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Which events pass: those that pass everything that is given.
#[derive(Debug, Args)]
struct Filtered {
    /// Any of these types
    #[arg(long = "type", value_name = "TYPE", value_parser = event_type)]
    types: Vec<EventType>,
    /// Any type that begins so
    #[arg(long, value_name = "PREFIX")]
    type_prefix: Vec<String>,
    /// Any stream that begins so
    #[arg(long, value_name = "PREFIX")]
    stream_prefix: Vec<String>,
    /// Streams whose name matches this regular expression
    #[arg(long, value_name = "REGEX", value_parser = pattern)]
    stream_pattern: Option<Pattern>,
    /// All of these labels
    #[arg(long = "label", value_name = "LABEL", value_parser = label)]
    labels: Vec<Label>,
    /// The store's own events too: those whose type or stream begins with `$`
    #[arg(long)]
    system: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    common: Common,
}

impl Events {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            Self::Append(append) => append.run(),
            Self::Read(read) => read.run(),
            Self::Tail(tail) => tail.run(),
            Self::Streams(streams) => streams.run(),
            Self::Stats(stats) => stats.run(),
        }
    }
}

impl Common {
    fn output(&self) -> Output {
        Output::new(self.output)
    }

    fn open(&self) -> anyhow::Result<JournalStore> {
        open(&self.directory)
    }
}

impl Filtered {
    /// The filter. `stream` is what is read, if it is one: its events are wanted even if it is one of the store's own.
    fn filter(self, stream: Option<&StreamName>) -> Filter {
        let shared = |texts: Vec<String>| texts.into_iter().map(Into::into).collect();
        Filter {
            types: self.types,
            type_prefixes: shared(self.type_prefix),
            type_pattern: None,
            stream_prefixes: shared(self.stream_prefix),
            stream_pattern: self.stream_pattern,
            labels: self.labels,
            exclude_system: !self.system && !stream.is_some_and(StreamName::is_system),
        }
    }
}

impl Stats {
    fn run(self) -> anyhow::Result<Exit> {
        let store = self.common.open()?;
        let types = block_on(store.types())?;
        let stats = store.stats();
        let (chain, chain_at) = match stats.chain {
            Some(head) => (json!(hex(&head.hash)), json!(head.position.0)),
            None => (Value::Null, Value::Null),
        };
        let damaged: u64 = store.damage().iter().map(|range| range.end - range.start).sum();
        let index = &stats.index;
        let rows = [
            ("head", json!(stats.head.0), "position of the last event"),
            ("log_bytes", json!(stats.log_bytes), "bytes of the log on disk"),
            ("index_files", json!(index.files), "index files"),
            ("index_memory_bytes", json!(index.sealed + index.growing), "bytes of index in memory"),
            ("damaged_events", json!(damaged), "events known to be damaged"),
            ("low_space", json!(stats.low_space), "the disk is nearly full"),
            ("chain", chain, "head of the hash chain"),
            ("chain_position", chain_at, "the last event that it stands for"),
        ];
        let mut items: Vec<Value> = rows
            .into_iter()
            .map(|(name, value, what)| json!({ "name": name, "value": value, "what": what }))
            .collect();
        items.extend(types.iter().map(|count| {
            let what = format!("events, schema version {}", count.schema);
            json!({
                "name": count.event_type.as_str(), "value": count.count, "what": what,
                "type": count.event_type.as_str(), "type_schema": count.schema,
            })
        }));
        self.common.output().list(&["NAME", "", "VALUE"], json!({}), "stats", &items, |item| {
            ["name", "what", "value"].iter().map(|field| cell(&item[field])).collect()
        })?;
        Ok(Exit::Done)
    }
}

/// Opens a store that exists, for reading only.
pub(super) fn open(directory: &Path) -> anyhow::Result<JournalStore> {
    if !directory.join("store").is_file() {
        bail!(NoStore { directory: directory.to_path_buf() });
    }
    open_with(directory, true)
}

/// Opens a store for writing, or begins one.
fn open_or_begin(directory: &Path) -> anyhow::Result<JournalStore> {
    open_with(directory, false)
}

fn open_with(directory: &Path, read_only: bool) -> anyhow::Result<JournalStore> {
    let mut options = JournalStoreOptions::new(directory);
    options.read_only = read_only;
    // Whoever appends one event has no other business here.
    options.scavenge_every = None;
    options.idle = Duration::from_secs(3600);
    JournalStore::open(&options).with_context(|| format!("cannot open {}", directory.display()))
}

/// A directory is no store.
#[derive(Debug, thiserror::Error)]
#[error("{directory} is no event store: it has no file `store`", directory = directory.display())]
pub(super) struct NoStore {
    directory: PathBuf,
}

/// An event, for programs.
fn event_json(recorded: &event_sourcing::Recorded) -> Value {
    let event = &recorded.event;
    let labels: Vec<&str> = event.labels.iter().map(Label::as_str).collect();
    json!({
        "position": recorded.position.0,
        "stream": recorded.stream.as_str(),
        "version": recorded.version.0,
        "timestamp_ms": recorded.timestamp.0,
        "id": event.id.to_string(),
        "type": event.event_type.as_str(),
        "type_schema": event.schema,
        "content_type": event.content_type.as_str(),
        "data": content(event),
        "labels": labels,
        "correlation": event.metadata.correlation,
        "causation": event.metadata.causation,
        "user": event.metadata.user,
        "append": { "index": recorded.place.index, "count": recorded.place.count },
    })
}

/// What an event says: JSON as it is, text as text, other bytes in base64.
fn content(event: &event_sourcing::NewEvent) -> Value {
    match event.content_type {
        event_sourcing::ContentType::Json => {
            serde_json::from_slice(&event.data).unwrap_or_else(|_no_json| json_bytes(&event.data))
        }
        _ => json_bytes(&event.data),
    }
}

/// A JSON value as a cell of a table.
pub(super) fn cell(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    super::output::shown(text.as_bytes())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn stream(text: &str) -> Result<StreamName, event_sourcing::error::InvalidName> {
    StreamName::new(text)
}

fn event_type(text: &str) -> Result<EventType, event_sourcing::error::InvalidName> {
    EventType::new(text)
}

fn label(text: &str) -> Result<Label, event_sourcing::error::InvalidName> {
    Label::new(text)
}

fn pattern(text: &str) -> Result<Pattern, event_sourcing::filter::PatternError> {
    Pattern::new(text)
}

fn position(text: &str) -> Result<Position, std::num::ParseIntError> {
    text.parse().map(Position)
}

fn version(text: &str) -> Result<Version, std::num::ParseIntError> {
    text.parse().map(Version)
}
