//! The guided demonstration of event sourcing: a bank account, on a directory or in memory.

mod bank;
mod demonstration;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use event_sourcing::projection::{MemorySink, RedbSink, Sink};
use event_sourcing::store::journal::{JournalStore, JournalStoreOptions};
use event_sourcing::{EventStore, MemoryStore};

/// Shows what event sourcing is, with a bank account
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// Keeps the log and the read model here, and goes on with them if they are there [default: a directory that is removed in the end]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where events are kept
    #[arg(long, value_name = "BACKEND", default_value = "journal")]
    backend: Backend,
}

/// Where events are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Backend {
    /// In the memory of this process
    Memory,
    /// On the disk, each event synced before it is acknowledged
    Journal,
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let mut out = std::io::stdout().lock();
    if flags.backend == Backend::Memory {
        anyhow::ensure!(flags.data.is_none(), "--backend memory keeps nothing: it takes no --data");
        writeln!(out, "The log is in memory.\n")?;
        let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
        return shown(demonstration::run(&Arc::new(MemoryStore::default()), &sink, &mut out));
    }
    let temporary = tempfile::tempdir().context("no directory for the log could be made")?;
    let directory = flags.data.as_deref().unwrap_or(temporary.path());
    let store = JournalStore::open(&JournalStoreOptions::new(directory))
        .with_context(|| format!("the log in {} could not be opened", directory.display()))?;
    let store = Arc::new(store);
    let rows = directory.join("balances.redb");
    let sink: Arc<dyn Sink> = Arc::new(RedbSink::open(&rows)?);
    let (path, events) = (directory.display(), store.head());
    writeln!(out, "The log is in {path}, and has {events} events so far.\n")?;
    let told = demonstration::run(&store, &sink, &mut out);
    store.close();
    shown(told)?;
    let again = match &flags.data {
        Some(_) => "Run it again: it goes on where it has ended.",
        None => "With --data DIR the log stays, and a second run goes on with it.",
    };
    shown(writeln!(out, "{again}").map_err(Into::into))
}

/// Whoever reads no further has seen enough.
fn shown(told: anyhow::Result<()>) -> anyhow::Result<()> {
    match told {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        told => told,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
