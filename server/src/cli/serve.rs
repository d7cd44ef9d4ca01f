//! `lattice serve`: one node, until a signal or a fatal error.

use std::fmt;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use lattice::config::LogFormat;
use lattice::{Config, Node, Settings};
use raft_consensus::effects::FatalError;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::Exit;
use super::output::colour;

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// A TOML file with any of these settings; the environment and the command line go before it
    #[arg(long, env = "LATTICE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let file = match &self.config {
            Some(path) => Settings::read(path)?,
            None => Settings::default(),
        };
        let settings = self.settings.over(file);
        log_to_stderr(settings.log_format.unwrap_or_default(), "info");
        raise_file_limit();
        let config = Config::new(settings)?;
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(config))
    }
}

/// The cluster knows the node under a directory that it does not have any more.
#[derive(Debug)]
pub(crate) struct LostDirectory(FatalError);

impl fmt::Display for LostDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (`lattice cluster replace`, then start with an empty directory and --initial-cluster-state=existing)",
            self.0
        )
    }
}

impl std::error::Error for LostDirectory {}

/// As many open files as the system allows: the usual soft limit of 1024 is made for other programs.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where it is refused, fewer clients can connect.
    let _refused = setrlimit(Resource::Nofile, most);
}

async fn serve(config: Config) -> anyhow::Result<Exit> {
    let mut signals = Signals::new()?;
    let node = tokio::select! {
        node = Node::start(config) => node.context("the node does not start")?,
        _ = signals.next() => return Ok(Exit::Interrupted),
    };
    tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "stopping");
            tokio::select! {
                () = node.shutdown() => Ok(Exit::Done),
                _ = signals.next() => Ok(Exit::Interrupted),
            }
        }
        removed = node.removed() => {
            tracing::info!("stopping: no member of the cluster any more");
            node.shutdown().await;
            Err(removed.into())
        }
        reason = node.stopped() => {
            let error = match reason {
                Some(reason @ FatalError::WrongStore { .. }) => LostDirectory(reason).into(),
                Some(reason) => anyhow::anyhow!("{reason}"),
                None => anyhow::anyhow!("Raft ended without a reason"),
            };
            Err(error.context("the node stopped"))
        }
    }
}

/// The signals that ask a process to end.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Log lines go to standard error: `level` and above, or what `RUST_LOG` says.
pub(crate) fn log_to_stderr(format: LogFormat, level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new(level));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour(&std::io::stderr()));
    match format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
}
