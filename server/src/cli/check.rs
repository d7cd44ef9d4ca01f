//! `lattice check …`: looks whether what is on a disk is what it should be.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use event_sourcing::schema::Known;
use event_sourcing::{EventStore as _, EventType};
use futures::executor::block_on;
use serde_json::{Value, json};

use super::events::{cell, hex, open};
use super::{Exit, Format, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum Check {
    /// Verify an event store: checksums, versions, ids, index files, hash chain; changes nothing; exit code 9 if something is wrong
    Events(Events),
    /// Show which event types are in a store, and whether a program knows them; exit code 9 if it does not
    Schema(Schema),
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Directory of the store
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// How results are shown
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// Directory of the store
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// What the program knows: a JSON object of event types, each with the latest version of its schema that is read
    #[arg(long, value_name = "FILE")]
    known: Option<PathBuf>,
    /// How results are shown
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

impl Check {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            Self::Events(events) => events.run(),
            Self::Schema(schema) => schema.run(),
        }
    }
}

impl Events {
    fn run(self) -> anyhow::Result<Exit> {
        let store = open(&self.directory)?;
        let found = block_on(store.verify())?;
        let is_sound = found.is_sound();
        let problems: Vec<Value> =
            found.problems.iter().map(|problem| json!(problem.to_string())).collect();
        let output = Output::new(self.output);
        let chain = found.chain.map(|head| hex(&head.hash));
        let torn = found.torn.as_ref().map(|torn| torn.bytes.end - torn.bytes.start);
        if output.format() != Format::Table {
            output.one(
                "",
                json!({
                    "sound": is_sound, "events": found.events, "scavenged": found.scavenged,
                    "segments": found.segments, "chain": chain, "problems": problems,
                    "more_problems": found.more, "torn_bytes": torn,
                    "unfit_index_files": found.unfit_index_files,
                }),
            )?;
        } else {
            let mut text = format!(
                "{} events, {} of them scavenged; segments: {}\n",
                found.events, found.scavenged, found.segments
            );
            match &chain {
                Some(chain) => text.push_str(&format!("hash chain {chain}\n")),
                None => text.push_str("hash chain broken: events are missing from it\n"),
            }
            if let Some(torn) = torn {
                text.push_str(&format!(
                    "torn at the end: {torn} bytes that were never acknowledged; cut when the store is opened\n"
                ));
            }
            if found.unfit_index_files > 0 {
                text.push_str(&format!(
                    "index files that do not fit, and are made again when the store is opened: {}\n",
                    found.unfit_index_files
                ));
            }
            for problem in &problems {
                text.push_str(&format!("problem: {}\n", cell(problem)));
            }
            if found.more {
                text.push_str("problem: there are more\n");
            }
            text.push_str(if is_sound { "sound\n" } else { "NOT sound\n" });
            output.text(&text)?;
        }
        Ok(if is_sound { Exit::Done } else { Exit::CheckFailed })
    }
}

impl Schema {
    fn run(self) -> anyhow::Result<Exit> {
        let known = match &self.known {
            Some(path) => {
                let bytes = std::fs::read(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let types: BTreeMap<EventType, u32> =
                    serde_json::from_slice(&bytes).with_context(|| {
                        format!("{} is no JSON object of types and versions", path.display())
                    })?;
                Some(Known { types })
            }
            None => None,
        };
        let store = open(&self.directory)?;
        let types = block_on(store.types())?;
        let gaps = known.as_ref().map(|known| known.gaps(&types)).unwrap_or_default();
        let items: Vec<Value> = types
            .iter()
            .map(|count| {
                let gap = gaps.iter().find(|gap| gap.found == *count);
                let state = match (&known, gap) {
                    (None, _) => "",
                    _ if count.event_type.is_system() => "the store's own",
                    (Some(_), None) => "known",
                    (Some(_), Some(gap)) if gap.known.is_none() => "UNKNOWN TYPE",
                    (Some(_), Some(_)) => "UNKNOWN VERSION",
                };
                json!({
                    "type": count.event_type.as_str(), "type_schema": count.schema,
                    "events": count.count, "state": state,
                })
            })
            .collect();
        let summary = json!({ "gaps": gaps.len() });
        let headers = ["TYPE", "SCHEMA", "EVENTS", ""];
        Output::new(self.output).list(&headers, summary, "types", &items, |item| {
            ["type", "type_schema", "events", "state"]
                .iter()
                .map(|field| cell(&item[field]))
                .collect()
        })?;
        Ok(if gaps.is_empty() { Exit::Done } else { Exit::CheckFailed })
    }
}
