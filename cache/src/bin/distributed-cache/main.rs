//! A cache node that shows what it can do, and then serves.

mod demonstration;

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Parser;
use distributed_cache::engine::{Clock as _, Engine, EngineOptions};
use distributed_cache::net::clock::SystemClock;
use distributed_cache::net::tls::{ClientCertificate, TlsOptions};
use distributed_cache::net::{BindError, RunningServer, Server, ServerOptions, UnixSocket};
use distributed_cache::settings::{POLICIES, parse_memory};
use distributed_cache::store::{Policy, StoreOptions};
use tokio::sync::Notify;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Where a node listens unless told otherwise.
const DEFAULT_PORT: u16 = 6379;

/// A cache node: speaks the Redis protocol.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// Listens here [default: 127.0.0.1:6379, or a free port if that is taken]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The most memory to use: bytes, or with kb, mb, gb; 0 for no limit
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = parse_size)]
    maxmemory: u64,
    /// What gives way at the limit: noeviction, allkeys-lru, allkeys-lfu, allkeys-random, volatile-lru, volatile-lfu,
    /// volatile-random, volatile-ttl
    #[arg(long, value_name = "POLICY", default_value = "noeviction", value_parser = parse_policy)]
    policy: Policy,
    /// Threads that serve [default: one a core, at most 8]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// The password of the default user
    #[arg(long, value_name = "PASSWORD", env = "LATTICE_CACHE_PASSWORD", hide_env_values = true)]
    requirepass: Option<String>,
    /// Listens on this path as well
    #[arg(long, value_name = "PATH")]
    unixsocket: Option<PathBuf>,
    /// Permissions of that path, in octal
    #[arg(long, value_name = "MODE", value_parser = parse_mode, requires = "unixsocket")]
    unixsocketperm: Option<u32>,
    /// Listens on this port with TLS as well
    #[arg(long, value_name = "PORT", requires_all = ["tls_cert_file", "tls_key_file"])]
    tls_port: Option<u16>,
    /// Our certificate, as PEM
    #[arg(long, value_name = "FILE")]
    tls_cert_file: Option<PathBuf>,
    /// The key of our certificate, as PEM
    #[arg(long, value_name = "FILE")]
    tls_key_file: Option<PathBuf>,
    /// The authorities of clients' certificates, as PEM
    #[arg(long, value_name = "FILE")]
    tls_ca_cert_file: Option<PathBuf>,
    /// Whether clients show a certificate: yes, no, optional
    #[arg(long, value_name = "WHETHER", default_value = "yes", value_parser = parse_client_certificate)]
    tls_auth_clients: ClientCertificate,
    /// Answers the cluster commands, as a cluster of one
    #[arg(long)]
    cluster_enabled: bool,
    /// Serves at once, without the demonstration
    #[arg(long)]
    no_demo: bool,
    /// Lets everybody in who can reach an address that is not this machine's own
    #[arg(long)]
    insecure_no_auth: bool,
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    start_log();
    abort_on_panic();
    let places = Places::of(&flags)?;
    let clock = Arc::new(SystemClock::new());
    let engine = Arc::new(Engine::new(engine_options(&flags, &clock), clock.clone()));
    if let Some(password) = &flags.requirepass {
        engine.require_password(password);
    }
    let stop = Arc::new(Notify::new());
    let ring = Arc::clone(&stop);
    engine.on_stop(Box::new(move || ring.notify_one()));
    let server = serve(&flags, &places, &engine, clock)?;
    match tell(&server, &engine, &flags) {
        // Nobody reads on: no reason not to serve.
        Err(error) if is_broken_pipe(&error) => {}
        told => told?,
    }
    wait_for_end(&stop)?;
    server.stop().context("a worker could not serve")
}

/// The log, on standard error; `RUST_LOG` chooses what is in it.
fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// A panic stops the process: what was half done must not be served.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// Where to listen.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    /// In the clear.
    plain: SocketAddr,
    /// With TLS.
    tls: Option<SocketAddr>,
}

impl Places {
    /// In the clear this machine alone is served; others with TLS and a password, or on the word of the operator.
    fn of(flags: &Flags) -> anyhow::Result<Self> {
        let wanted = flags.listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)));
        let tls = flags.tls_port.map(|port| SocketAddr::new(wanted.ip(), port));
        if wanted.ip().is_loopback() {
            return Ok(Self { plain: wanted, tls });
        }
        if flags.insecure_no_auth {
            tracing::warn!(address = %wanted, "whoever reaches this address can listen in, and more");
            return Ok(Self { plain: wanted, tls });
        }
        if tls.is_none() || flags.requirepass.is_none() {
            bail!(
                "{wanted} can be reached from elsewhere: give --requirepass and --tls-port with its files, \
                 or accept the risk with --insecure-no-auth"
            )
        }
        let plain = match wanted {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, wanted.port())),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::LOCALHOST, wanted.port())),
        };
        tracing::info!(%plain, "in the clear, this machine alone is served");
        Ok(Self { plain, tls })
    }
}

fn engine_options(flags: &Flags, clock: &SystemClock) -> EngineOptions {
    EngineOptions {
        store: StoreOptions {
            hash_seed: secret_seed(clock),
            limit: flags.maxmemory,
            policy: flags.policy,
            versions: false,
        },
        cluster: flags.cluster_enabled,
        seed: secret_seed(clock),
    }
}

/// A number that no client can guess: the operating system's randomness, and if it had none, the time.
fn secret_seed(clock: &SystemClock) -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(clock.wall_us())
}

fn serve(
    flags: &Flags,
    places: &Places,
    engine: &Arc<Engine>,
    clock: Arc<SystemClock>,
) -> anyhow::Result<RunningServer> {
    let mut options = server_options(flags, places)?;
    options.clock = Some(clock);
    let server = match Server::bind(options.clone(), Arc::clone(engine)) {
        Err(BindError::AddressInUse { address, .. })
            if flags.listen.is_none() && address == places.plain =>
        {
            tracing::info!("port {DEFAULT_PORT} is taken (a Redis?): taking a free one");
            options.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
            Server::bind(options, Arc::clone(engine))
        }
        other => other,
    };
    Ok(server?.start()?)
}

fn server_options(flags: &Flags, places: &Places) -> anyhow::Result<ServerOptions> {
    let mut options = ServerOptions {
        listen: vec![places.plain],
        threads: flags.threads.map(usize::from),
        unix_socket: flags
            .unixsocket
            .clone()
            .map(|path| UnixSocket { path, mode: flags.unixsocketperm }),
        ..ServerOptions::default()
    };
    if let Some(address) = places.tls {
        let tls = TlsOptions {
            certificates: flags.tls_cert_file.clone().context("--tls-cert-file is needed")?,
            key: flags.tls_key_file.clone().context("--tls-key-file is needed")?,
            client_authorities: flags.tls_ca_cert_file.clone(),
            client_certificate: flags.tls_auth_clients,
        };
        options.listen_tls = Some((address, tls));
    }
    Ok(options)
}

/// Tells whoever started the program what it can do, and where it is.
fn tell(server: &RunningServer, engine: &Engine, flags: &Flags) -> anyhow::Result<()> {
    let out = &mut std::io::stdout().lock();
    if !flags.no_demo {
        demonstration::run(engine, out)?;
    }
    if let Some(address) = server.local_addr() {
        let port = address.port();
        writeln!(
            out,
            "Serving on {address}. It speaks the Redis protocol; in another terminal try"
        )?;
        writeln!(out, "  redis-cli -p {port} set greeting hello ex 60")?;
        writeln!(out, "  redis-cli -p {port} ttl greeting")?;
        writeln!(out, "  redis-cli -p {port} info stats")?;
        writeln!(out, "  redis-cli -p {port} --bigkeys")?;
        writeln!(out, "  redis-benchmark -p {port} -t set,get -P 16 -q")?;
    }
    if let Some(address) = server.tls_addr() {
        writeln!(out, "With TLS on {address}.")?;
    }
    if let Some(path) = &flags.unixsocket {
        writeln!(out, "On this machine also at {}.", path.display())?;
    }
    writeln!(out, "Ctrl-C ends it; what it holds is gone then.")?;
    Ok(out.flush()?)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Waits until somebody wants the program to end: a signal, or `SHUTDOWN`.
fn wait_for_end(stop: &Notify) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result?,
            _ = terminate.recv() => {}
            () = stop.notified() => {}
        }
        Ok(())
    })
}

/// A number of bytes as Redis reads it: `100`, `100k`, `100kb`, `100mb`, `1gb`; k is 1,000 and kb is 1,024.
fn parse_size(text: &str) -> Result<u64, String> {
    parse_memory(text)
        .and_then(|bytes| u64::try_from(bytes).ok())
        .ok_or_else(|| format!("'{text}' is no size: give bytes, or a number with kb, mb or gb"))
}

fn parse_policy(text: &str) -> Result<Policy, String> {
    let policy = POLICIES.iter().find(|(name, _)| *name == text);
    policy.map(|(_, policy)| *policy).ok_or_else(|| format!("'{text}' is no policy"))
}

fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("'{text}' is no file mode: use octal, as in 770")),
    }
}

fn parse_client_certificate(text: &str) -> Result<ClientCertificate, String> {
    Ok(match text {
        "yes" => ClientCertificate::Required,
        "no" => ClientCertificate::NotAsked,
        "optional" => ClientCertificate::Optional,
        _ => return Err(format!("'{text}' is none of yes, no, optional")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_redis_reads_them() {
        assert_eq!(parse_size("100"), Ok(100));
        assert_eq!(parse_size("100mb"), Ok(100 << 20));
        assert_eq!(parse_size("2GB"), Ok(2 << 30));
        assert_eq!(parse_size("3k"), Ok(3000));
        assert!(parse_size("99999999999gb").is_err());
        assert!(parse_size("tenmb").is_err());
        assert!(parse_size("1tb").is_err());
        assert!(parse_size("-1").is_err());
    }

    #[test]
    fn in_the_clear_this_machine_alone_is_served_unless_the_operator_insists() {
        let places = |words: &[&str]| {
            let words = std::iter::once(&"distributed-cache").chain(words);
            Places::of(&Flags::parse_from(words))
        };
        let tls = ["--tls-port", "6380", "--tls-cert-file", "c", "--tls-key-file", "k"];
        let open = ["--listen", "0.0.0.0:7000"];
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();

        assert!(places(&["--listen", "[::1]:0"]).is_ok());
        assert!(places(&open).is_err());
        assert!(places(&[&open[..], &tls].concat()).is_err());
        assert!(places(&[&open[..], &["--requirepass", "secret"]].concat()).is_err());
        let safe = places(&[&open[..], &tls, &["--requirepass", "secret"]].concat()).unwrap();
        assert_eq!(safe.plain, address("127.0.0.1:7000"));
        assert_eq!(safe.tls, Some(address("0.0.0.0:6380")));
        let risky = places(&[&open[..], &["--insecure-no-auth"]].concat()).unwrap();
        assert_eq!(risky.plain, address("0.0.0.0:7000"));
    }
}
