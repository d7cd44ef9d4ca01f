//! `lattice events append`.

use std::io::Read as _;

use anyhow::Context as _;
use clap::Args;
use event_sourcing::{
    AppendError, Check, EventId, EventStore as _, EventType, Expected, Label, NewEvent, Position,
    Query, QueryItem, StreamName, Version,
};
use futures::executor::block_on;
use serde_json::json;
use uuid::Uuid;

use super::super::Exit;
use super::{Common, event_type, label, open_or_begin, position, stream};

#[derive(Debug, Args)]
pub(crate) struct Append {
    #[command(flatten)]
    common: Common,
    /// The stream
    #[arg(value_parser = stream)]
    stream: StreamName,
    /// The type of the event, such as `account.opened`
    #[arg(value_name = "TYPE", value_parser = event_type)]
    event_type: EventType,
    /// What it says, in JSON; `-` reads standard input
    #[arg(default_value = "{}")]
    data: String,
    /// What it says is any bytes, not JSON
    #[arg(long)]
    bytes: bool,
    /// What the stream must be like: `any`, `no-stream`, `exists`, or the version of its last event
    #[arg(long, value_name = "EXPECTED", default_value = "any", value_parser = expected)]
    expect: Expected,
    /// A label; can be given more than once
    #[arg(long = "label", value_name = "LABEL", value_parser = label)]
    labels: Vec<Label>,
    /// Refuse if an event with all of these labels …
    #[arg(long, value_name = "LABEL", value_delimiter = ',', value_parser = label, requires = "after")]
    fail_if_label: Vec<Label>,
    /// … is after this position
    #[arg(long, value_name = "POSITION", value_parser = position, requires = "fail_if_label")]
    after: Option<Position>,
    /// The event's id: appended again with the same id it is recorded once [default: a random one]
    #[arg(long, value_name = "UUID")]
    id: Option<Uuid>,
    /// The version of the type's schema
    #[arg(long = "schema", value_name = "N", default_value_t = 1)]
    schema: u32,
    /// An idempotency key: an append that is repeated with the same one is carried out once
    #[arg(long)]
    key: Option<String>,
}

impl Append {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let data = if self.data == "-" {
            let mut data = Vec::new();
            std::io::stdin().lock().read_to_end(&mut data)?;
            data
        } else {
            self.data.into_bytes()
        };
        let mut event = if self.bytes {
            NewEvent::bytes(self.event_type, data)
        } else {
            serde_json::from_slice::<serde::de::IgnoredAny>(&data)
                .context("the event is not JSON: use --bytes for anything else")?;
            NewEvent::json(self.event_type, data)
        };
        event.schema = self.schema;
        event.labels = self.labels;
        if let Some(id) = self.id {
            event.id = EventId(id);
        }
        let id = event.id;
        let mut append = event_sourcing::Append::to(self.stream, self.expect, [event]);
        if let Some(after) = self.after {
            let query = Query::item(QueryItem::labels(self.fail_if_label));
            append.checks.push(Check::NoMatch { query, after });
        }
        if let Some(key) = self.key {
            append = append.key(key);
        }
        let output = self.common.output();
        let store = open_or_begin(&self.common.directory)?;
        match block_on(store.append(append)) {
            Ok(committed) => {
                let version = committed.streams.first().map(|(_, version)| version.0);
                let again = if committed.repeated { ", recorded before" } else { "" };
                let text = format!(
                    "position {}, version {}{again}",
                    committed.last,
                    version.unwrap_or_default()
                );
                output.one(
                    &text,
                    json!({
                        "id": id.to_string(), "position": committed.last.0, "version": version,
                        "repeated": committed.repeated,
                    }),
                )?;
                Ok(Exit::Done)
            }
            Err(AppendError::Conflict(conflict)) => {
                let positions: Vec<u64> =
                    conflict.winners.iter().map(|winner| winner.position.0).collect();
                let text = match positions.as_slice() {
                    [] => "refused: the log is not as expected".to_owned(),
                    [first, ..] => {
                        format!("refused: the log is not as expected, see the event at {first}")
                    }
                };
                output.one(
                    &text,
                    json!({ "conflict": true, "winners": positions, "head": conflict.head.0 }),
                )?;
                Ok(Exit::Precondition)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn expected(text: &str) -> Result<Expected, String> {
    match text {
        "any" => Ok(Expected::Any),
        "no-stream" => Ok(Expected::NoStream),
        "exists" => Ok(Expected::StreamExists),
        version => version
            .parse()
            .map(|version| Expected::Exact(Version(version)))
            .map_err(|_no_number| "must be any, no-stream, exists or a version".to_owned()),
    }
}
