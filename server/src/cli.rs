//! The command line: `lattice NOUN VERB`, and what its exit codes mean.
//!
//! Results go to standard output in the format that `-o` names, everything else to standard error. JSON output carries a
//! `schema` number: fields may be added under the same number, never changed.

mod bench;
mod cache;
mod check;
mod cluster;
mod debug;
mod demo;
mod events;
mod kv;
mod output;
mod recover;
mod serve;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use lattice::client::{Client, ClientError};
use lattice::url::Url;
use tonic::Code;

pub(crate) use output::{Format, Output};

/// Consensus, cache and event store in one server.
#[derive(Debug, Parser)]
#[command(name = "lattice", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 cannot connect, 4 the server answered an error, \
5 unhealthy,\n6 precondition failed, 7 not found, 8 no leader or no quorum, 9 check failed, 124 timeout, 130 interrupted";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node
    Serve(Box<serve::Serve>),
    /// Run a whole cluster on this machine, to try things out
    Demo(demo::Demo),
    /// Read and write keys
    #[command(subcommand)]
    Kv(kv::Kv),
    /// Use and inspect the cache
    #[command(subcommand)]
    Cache(cache::Cache),
    /// Use and inspect the directory of an event store
    #[command(subcommand)]
    Events(events::Events),
    /// Look at the cluster, and change its members
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Begin a new cluster with what one member still has, when the others are lost for good
    Recover(recover::Recover),
    /// Measure a server
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Verify what is on a disk
    #[command(subcommand)]
    Check(check::Check),
    /// Look inside files
    #[command(subcommand)]
    Debug(debug::Debug),
}

/// Where a command finds the cluster.
#[derive(Clone, Debug, Args)]
pub(crate) struct Connection {
    /// Members to ask; the first that answers is used
    #[arg(
        long,
        env = "LATTICE_ENDPOINTS",
        value_name = "URL,…",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:2379",
        value_parser = endpoint
    )]
    pub(crate) endpoints: Vec<Url>,

    /// Seconds to wait for a connection, and for an answer: longer than a member itself waits for a leader, so that it can say so
    #[arg(long, env = "LATTICE_TIMEOUT", value_name = "SECONDS", default_value = "8", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

/// What went wrong, as an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    CannotConnect = 3,
    ServerError = 4,
    Unhealthy = 5,
    Precondition = 6,
    NotFound = 7,
    NoLeader = 8,
    CheckFailed = 9,
    Timeout = 124,
    Interrupted = 130,
}

/// Carries out the command and says how to exit.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Serve(serve) => serve.run(),
        Command::Demo(demo) => demo.run(),
        Command::Kv(kv) => block_on(kv.run()),
        Command::Cache(cache) => cache.run(),
        Command::Events(events) => events.run(),
        Command::Check(check) => check.run(),
        Command::Cluster(cluster) => block_on(cluster.run()),
        Command::Recover(recover) => recover.run(),
        Command::Bench(bench) => bench.run(),
        Command::Debug(debug) => debug.run(),
    };
    let exit = result.unwrap_or_else(|error| {
        let exit = exit_of(&error);
        if !is_broken_pipe(&error) {
            output::complain(&with_causes(&error));
        }
        exit
    });
    ExitCode::from(u8::try_from(exit as i32).expect("exit codes are below 256"))
}

impl Connection {
    /// Connects to the first endpoint that answers.
    pub(crate) async fn client(&self) -> Result<Client, ClientError> {
        Client::connect(&self.endpoints, self.timeout).await
    }
}

/// Runs a command that only waits for a server; Ctrl-C ends it.
fn block_on(command: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        tokio::select! {
            result = command => result,
            _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
        }
    })
}

fn exit_of(error: &anyhow::Error) -> Exit {
    if is_broken_pipe(error) {
        // Whoever reads us has enough: not our failure.
        return Exit::Done;
    }
    let is_usage = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<lattice::config::ConfigError>()
            || matches!(cause.downcast_ref(), Some(lattice::StartError::Config(_)))
    };
    if error.chain().any(is_usage) {
        return Exit::Usage;
    }
    let has_no_place = |cause: &(dyn std::error::Error + 'static)| {
        use lattice::StartError::{AnotherMember, NotListed, OtherCluster, RanBefore, Removed};
        let start: Option<&lattice::StartError> = cause.downcast_ref();
        start.is_some_and(|error| {
            matches!(
                error,
                AnotherMember { .. }
                    | NotListed { .. }
                    | OtherCluster { .. }
                    | RanBefore { .. }
                    | Removed { .. }
            )
        })
    };
    if error.chain().any(has_no_place) {
        return Exit::Precondition;
    }
    if error.chain().any(|cause| cause.is::<cluster::NoSuchMember>()) {
        return Exit::NotFound;
    }
    if error
        .chain()
        .any(|cause| cause.is::<serve::LostDirectory>() || cause.is::<cluster::Conflict>())
    {
        return Exit::Precondition;
    }
    if error.chain().any(|cause| cause.is::<events::NoStore>()) {
        return Exit::NotFound;
    }
    match error.chain().find_map(|cause| cause.downcast_ref::<cache::CacheError>()) {
        Some(cache::CacheError::Connect { .. }) => return Exit::CannotConnect,
        Some(cache::CacheError::Timeout(_)) => return Exit::Timeout,
        Some(cache::CacheError::Server(_)) => return Exit::ServerError,
        Some(cache::CacheError::Broken { .. } | cache::CacheError::Unexpected(_)) => {
            return Exit::Failed;
        }
        None => {}
    }
    match error.chain().find_map(|cause| cause.downcast_ref::<ClientError>()) {
        Some(ClientError::Connect { .. }) => Exit::CannotConnect,
        Some(ClientError::Timeout(_)) => Exit::Timeout,
        Some(ClientError::Status(status)) => match status.code() {
            // Nobody knows whether it was done, for whatever reason: that comes before the reason.
            Code::Unavailable if status.message().contains("timed out") => Exit::Timeout,
            Code::Unavailable if status.message().contains("leader") => Exit::NoLeader,
            Code::DeadlineExceeded => Exit::Timeout,
            Code::NotFound => Exit::NotFound,
            Code::FailedPrecondition => Exit::Precondition,
            _ => Exit::ServerError,
        },
        Some(_) | None => Exit::Failed,
    }
}

/// An error and its causes, but for those that it names itself.
fn with_causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// An endpoint with or without `http://`, as etcd's tools take it.
fn endpoint(text: &str) -> Result<Url, lattice::url::UrlError> {
    if text.contains("://") { text.parse() } else { format!("http://{text}").parse() }
}

/// Where clients are served unless somebody says otherwise.
const CLIENT_PORT: u16 = 2379;

/// What a node that is to be started has to be told besides, if other machines are to reach it.
fn beyond_loopback(peer_urls: &[Url]) -> String {
    match peer_urls.iter().find(|url| !url.is_loopback()) {
        Some(url) => {
            format!(" --listen-client-urls={} --insecure-no-auth", url.with_port(CLIENT_PORT))
        }
        None => String::new(),
    }
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() && seconds <= 1e6 => Ok(duration),
        _ => Err("must be above 0 and at most 1000000".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn endpoints_may_leave_the_scheme_out() {
        assert_eq!(endpoint("localhost:1").unwrap().to_string(), "http://localhost:1");
        assert_eq!(endpoint("http://[::1]:1").unwrap().to_string(), "http://[::1]:1");
        assert!(endpoint("localhost").is_err());
    }

    #[test]
    fn errors_have_their_exit_codes() {
        let status = |status: tonic::Status| {
            exit_of(&anyhow::Error::new(ClientError::Status(Box::new(status))).context("put"))
        };
        assert_eq!(status(tonic::Status::unavailable("etcdserver: no leader")), Exit::NoLeader);
        for unknown in [
            "etcdserver: request timed out",
            "etcdserver: request timed out, possibly due to previous leader failure",
            "etcdserver: request timed out, leader transfer took too long",
        ] {
            assert_eq!(status(tonic::Status::unavailable(unknown)), Exit::Timeout, "{unknown}");
        }
        assert_eq!(status(tonic::Status::invalid_argument("x")), Exit::ServerError);
        let connect = ClientError::Connect { tried: Vec::new() };
        assert_eq!(exit_of(&anyhow::Error::new(connect)), Exit::CannotConnect);
        assert_eq!(exit_of(&anyhow::anyhow!("other")), Exit::Failed);
    }

    #[test]
    fn no_cause_is_told_twice() {
        let full = || anyhow::anyhow!("the disk is full");
        assert_eq!(with_causes(&full().context("cannot write")), "cannot write: the disk is full");
        let named = full().context("cannot write, the disk is full; make room").context("put");
        assert_eq!(with_causes(&named), "put: cannot write, the disk is full; make room");
    }

    #[test]
    fn timeouts_are_sane() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "nan", "inf", "x", "1e30"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
