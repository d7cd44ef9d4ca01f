//! `lattice events streams`.

use std::collections::BTreeMap;

use clap::Args;
use event_sourcing::{EventStore as _, Filter, Source, StreamName};
use futures::executor::block_on;
use serde_json::{Value, json};

use super::super::Exit;
use super::{Common, cell};

#[derive(Debug, Args)]
pub(crate) struct Streams {
    #[command(flatten)]
    common: Common,
    /// Streams that begin so
    #[arg(long, value_name = "PREFIX", default_value = "")]
    prefix: String,
    /// The store's own streams too: those that begin with `$`
    #[arg(long)]
    system: bool,
}

impl Streams {
    /// The store has no list of its streams, so the log is read. Memory is bounded by the number of streams that are shown.
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let store = self.common.open()?;
        // Of each stream, how many events can be seen. Those that were deleted are known by what was decided about them.
        let mut visible: BTreeMap<StreamName, u64> = BTreeMap::new();
        let prefixes = [self.prefix.clone(), format!("$${}", self.prefix)];
        let filter = Filter {
            stream_prefixes: prefixes.into_iter().map(Into::into).collect(),
            ..Filter::default()
        };
        let mut read = event_sourcing::Read::forward(Source::All).filter(filter);
        loop {
            let page = block_on(store.read(read.clone()))?;
            for event in &page.events {
                let described = event.stream.described_stream();
                if let Some(named) = described.and_then(|name| StreamName::new(name).ok())
                    && (self.system || !named.is_system())
                    && named.as_str().starts_with(&self.prefix)
                {
                    visible.entry(named).or_default();
                }
                if (self.system || !event.stream.is_system())
                    && event.stream.as_str().starts_with(&self.prefix)
                {
                    *visible.entry(event.stream.clone()).or_default() += 1;
                }
            }
            let Some(next) = page.next else { break };
            read = read.from(next);
        }
        let mut items: Vec<Value> = Vec::new();
        for (stream, events) in &visible {
            let Some(info) = block_on(store.stream(stream.clone()))? else { continue };
            let retention = info.retention;
            let state = match (retention.tombstoned, retention.exists(info.last)) {
                (true, _) => "tombstone",
                (false, false) => "deleted",
                (false, true) => "",
            };
            items.push(json!({
                "stream": stream.as_str(), "events": events, "first": info.first.0, "last": info.last.0,
                "last_position": info.last_position.0, "state": state,
                "truncate_before": retention.truncate_before.map(|before| before.0),
                "max_count": retention.max_count,
                "max_age_seconds": retention.max_age.map(|age| age.as_secs()),
            }));
        }
        let headers = ["STREAM", "EVENTS", "FIRST", "LAST", "AT POSITION", "STATE"];
        self.common.output().list(&headers, json!({}), "streams", &items, |item| {
            let fields = ["stream", "events", "first", "last", "last_position", "state"];
            fields.iter().map(|field| cell(&item[field])).collect()
        })?;
        Ok(Exit::Done)
    }
}
