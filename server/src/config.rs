//! How one node is set up: from flags, environment and one file, in this order of precedence.
//!
//! [`Settings`] is one layer, as somebody wrote it: everything optional, nothing checked. [`Config`] is what the node
//! runs with: everything there, everything checked. The names are etcd's where etcd has one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use distributed_cache::settings::{parse_memory, policy_of};
use distributed_cache::store::Policy;
use raft_consensus::raft_node::{ClockBound, LeaseGuard, ReadPolicy};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::founders::{Founder, Founders, FoundersError};
use crate::url::{Url, UrlError};

/// One layer of settings. What is `None` is left to the next layer, and in the end to the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
pub struct Settings {
    /// Name of this node, unique in the cluster [default: default]
    #[cfg_attr(feature = "cli", arg(long, env = "LATTICE_NAME"))]
    pub name: Option<String>,

    /// Directory for everything this node must not forget [default: NAME.lattice]
    #[cfg_attr(feature = "cli", arg(long, env = "LATTICE_DATA_DIR", value_name = "DIR"))]
    pub data_dir: Option<PathBuf>,

    /// Where to listen for clients [default: http://localhost:2379]
    #[serde(default, deserialize_with = "list")]
    #[cfg_attr(
        feature = "cli",
        arg(long, env = "LATTICE_LISTEN_CLIENT_URLS", value_name = "URL,…", value_delimiter = ',')
    )]
    pub listen_client_urls: Option<Vec<String>>,

    /// Where clients reach this node, as told in the list of members [default: where it listens]
    #[serde(default, deserialize_with = "list")]
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            env = "LATTICE_ADVERTISE_CLIENT_URLS",
            value_name = "URL,…",
            value_delimiter = ','
        )
    )]
    pub advertise_client_urls: Option<Vec<String>>,

    /// Where to listen for the other members [default: http://localhost:2380]
    #[serde(default, deserialize_with = "list")]
    #[cfg_attr(
        feature = "cli",
        arg(long, env = "LATTICE_LISTEN_PEER_URLS", value_name = "URL,…", value_delimiter = ',')
    )]
    pub listen_peer_urls: Option<Vec<String>>,

    /// Where the other members reach this node; must agree with the initial cluster [default: as there]
    #[serde(default, deserialize_with = "list")]
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            env = "LATTICE_INITIAL_ADVERTISE_PEER_URLS",
            value_name = "URL,…",
            value_delimiter = ','
        )
    )]
    pub initial_advertise_peer_urls: Option<Vec<String>>,

    /// All founding members, the same on every node; for a node that joins, the members [default: this node alone]
    #[serde(default, deserialize_with = "list")]
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            env = "LATTICE_INITIAL_CLUSTER",
            value_name = "NAME=URL,…",
            value_delimiter = ','
        )
    )]
    pub initial_cluster: Option<Vec<String>>,

    /// Whether an empty data directory is that of a founder, or of a node that joins a cluster that exists [default: new]
    #[cfg_attr(feature = "cli", arg(long, env = "LATTICE_INITIAL_CLUSTER_STATE", value_enum))]
    pub initial_cluster_state: Option<ClusterState>,

    /// Tells clusters apart that have the same members; the same on every node [default: lattice-cluster]
    #[cfg_attr(
        feature = "cli",
        arg(long, env = "LATTICE_INITIAL_CLUSTER_TOKEN", value_name = "TOKEN")
    )]
    pub initial_cluster_token: Option<String>,

    /// Milliseconds between a leader's heartbeats [default: 100]
    #[cfg_attr(feature = "cli", arg(long, env = "LATTICE_HEARTBEAT_INTERVAL", value_name = "MS"))]
    pub heartbeat_interval: Option<u64>,

    /// Milliseconds without a leader after which an election may begin; each wait is this to 1.5 times this [default: 1000]
    #[cfg_attr(feature = "cli", arg(long, env = "LATTICE_ELECTION_TIMEOUT", value_name = "MS"))]
    pub election_timeout: Option<u64>,

    /// How a leader makes sure that it still leads before it answers a read: `round` asks the others and assumes nothing; `lease` and
    /// `lease-guard` rest on --max-clock-drift; `honour` asks too, and leaves others their lease-guards: the step between `round` and
    /// `lease-guard`, in both directions. The same on all nodes [default: round]
    #[cfg_attr(feature = "cli", arg(long, env = "LATTICE_READ_POLICY", value_enum))]
    pub read_policy: Option<ReadMode>,

    /// With a lease: by how many microseconds more than a second a member's clock may go while another's goes a second. The same on
    /// all nodes [default: 10000, that is 1 %]
    #[cfg_attr(feature = "cli", arg(long, env = "LATTICE_MAX_CLOCK_DRIFT", value_name = "PPM"))]
    pub max_clock_drift: Option<u32>,

    /// Entries applied between two snapshots, or fewer if they have 64 MiB; more when the state is large [default: 100000]
    #[cfg_attr(feature = "cli", arg(long, env = "LATTICE_SNAPSHOT_COUNT", value_name = "ENTRIES"))]
    pub snapshot_count: Option<u64>,

    /// Bytes of snapshots sent to other members in a second, to all of them together [default: 67108864]
    #[cfg_attr(
        feature = "cli",
        arg(long, env = "LATTICE_SNAPSHOT_BYTES_PER_SECOND", value_name = "BYTES")
    )]
    pub snapshot_bytes_per_second: Option<u64>,

    /// Where to serve health and metrics over HTTP, or `none` [default: 127.0.0.1:8080]
    #[cfg_attr(feature = "cli", arg(long, env = "LATTICE_ADMIN_LISTEN", value_name = "HOST:PORT"))]
    pub admin_listen: Option<String>,

    /// Where to serve the cache to Redis's clients, or `none` [default: 127.0.0.1:6379]
    #[cfg_attr(feature = "cli", arg(long, env = "LATTICE_CACHE_LISTEN", value_name = "HOST:PORT"))]
    pub cache_listen: Option<String>,

    /// The most memory for the cache: bytes, or with kb, mb, gb; 0 for no limit [default: 0]
    #[cfg_attr(feature = "cli", arg(long, env = "LATTICE_CACHE_MAXMEMORY", value_name = "SIZE"))]
    pub cache_maxmemory: Option<String>,

    /// What gives way at that limit, under Redis's names: noeviction, allkeys-lru, volatile-ttl … [default: noeviction]
    #[cfg_attr(feature = "cli", arg(long, env = "LATTICE_CACHE_POLICY", value_name = "POLICY"))]
    pub cache_policy: Option<String>,

    /// The password of the cache's default user; better in the environment [default: none]
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            env = "LATTICE_CACHE_REQUIREPASS",
            value_name = "PASSWORD",
            hide_env_values = true
        )
    )]
    pub cache_requirepass: Option<String>,

    /// Serve everybody who can reach this node, without authentication and encryption [default: loopback only]
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            env = "LATTICE_INSECURE_NO_AUTH",
            num_args = 0..=1,
            require_equals = true,
            default_missing_value = "true",
            value_name = "true|false",
            value_parser = clap::builder::BoolishValueParser::new()
        )
    )]
    pub insecure_no_auth: Option<bool>,

    /// How log lines look, on standard error [default: text]
    #[cfg_attr(feature = "cli", arg(long, env = "LATTICE_LOG_FORMAT", value_enum))]
    pub log_format: Option<LogFormat>,
}

/// Whether a node founds its cluster or comes back to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum ClusterState {
    /// An empty data directory is a founder's.
    #[default]
    New,
    /// An empty data directory is that of a node that joins; any other says itself which member it is.
    Existing,
}

/// How a leader makes sure that it still leads when it answers a linearizable read; see [`ReadPolicy`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum ReadMode {
    /// By a round of heartbeats. No assumption about time.
    #[default]
    Round,
    /// By a lease that the answers to heartbeats renew.
    Lease,
    /// By the age of the newest committed entry.
    LeaseGuard,
    /// By a round, while others may go by lease-guards.
    Honour,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum LogFormat {
    /// One line of text an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

impl ReadMode {
    /// As it is written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Round => "round",
            Self::Lease => "lease",
            Self::LeaseGuard => "lease-guard",
            Self::Honour => "honour",
        }
    }
}

/// What a node runs with. Made from [`Settings`]; [`Config::check`] says what must hold.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name: one of the founders.
    pub name: String,
    /// Where it keeps its data; `None` keeps everything in memory, for tests.
    pub data_dir: Option<PathBuf>,
    /// Where it listens for clients.
    pub listen_client: Vec<Url>,
    /// Where clients reach it; empty means where it listens.
    pub advertise_client: Vec<Url>,
    /// Where it listens for peers.
    pub listen_peer: Vec<Url>,
    /// The founding members, this node among them.
    pub founders: Founders,
    /// Whether an empty data directory is fine.
    pub state: ClusterState,
    /// Time between a leader's heartbeats.
    pub heartbeat: Duration,
    /// The shortest election timeout; the longest is half as long again.
    pub election_timeout: Duration,
    /// How reads are made sure of; the same on all nodes.
    pub read_mode: ReadMode,
    /// By how many microseconds a second the members' clocks may differ in speed; for leases only, the same on all nodes.
    pub max_clock_drift_ppm: u32,
    /// Entries applied between two snapshots.
    pub snapshot_count: u64,
    /// Bytes of snapshots sent to other members in a second.
    pub snapshot_bytes_per_second: u64,
    /// Where health and metrics are served; `None` for nowhere.
    pub admin_listen: Option<Url>,
    /// The cache; `None` for none.
    pub cache: Option<CacheConfig>,
    /// Whether addresses that others can reach are allowed.
    pub insecure_no_auth: bool,
}

/// How the cache is set up.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Where it serves Redis's clients.
    pub listen: Url,
    /// The most memory that it uses, in bytes; 0 for no limit.
    pub maxmemory: u64,
    /// What gives way at the limit.
    pub policy: Policy,
    /// The default user's password.
    pub password: Option<String>,
}

/// Why settings cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or a value has the wrong type.
    #[error("{path} is not a valid configuration: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// What and where, over several lines.
        message: String,
    },
    /// The file has a key that there is no setting for.
    #[error("{path}: unknown key `{key}`{}", suggestion.as_ref().map_or_else(String::new, |known| format!("; did you mean `{known}`?")))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The nearest key that exists, if one is near.
        suggestion: Option<&'static str>,
    },
    /// A URL of a setting cannot be used.
    #[error("--{setting}: {error}")]
    Url {
        /// The setting.
        setting: &'static str,
        /// What is wrong.
        error: UrlError,
    },
    /// The founding members make no cluster.
    #[error("--initial-cluster: {0}")]
    Founders(#[from] FoundersError),
    /// A setting has a value that cannot work.
    #[error("--{setting}: {reason}")]
    Value {
        /// The setting.
        setting: &'static str,
        /// Why not.
        reason: String,
    },
    /// An address that others can reach, without authentication.
    #[error(
        "--{setting}: {url} can be reached from other machines, and this version has neither authentication nor TLS: \
         listen on a loopback address, or say --insecure-no-auth if the network is closed"
    )]
    Exposed {
        /// The setting.
        setting: &'static str,
        /// The address.
        url: Url,
    },
}

/// The keys of a configuration file.
const KEYS: [&str; 21] = [
    "name",
    "data-dir",
    "listen-client-urls",
    "advertise-client-urls",
    "listen-peer-urls",
    "initial-advertise-peer-urls",
    "initial-cluster",
    "initial-cluster-state",
    "initial-cluster-token",
    "heartbeat-interval",
    "election-timeout",
    "read-policy",
    "max-clock-drift",
    "snapshot-count",
    "admin-listen",
    "cache-listen",
    "cache-maxmemory",
    "cache-policy",
    "cache-requirepass",
    "insecure-no-auth",
    "log-format",
];

/// Clocks that differ by more than a half are broken, and a lease by them would be as short.
const CLOCK_DRIFT_MAX_PPM: u32 = 500_000;

/// etcd's bound: a longer timeout is a mistake in the unit.
const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(50);

impl Settings {
    /// The settings of a TOML file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file = |error: toml::de::Error| ConfigError::File {
            path: path.into(),
            message: error.to_string(),
        };
        let table: toml::Table = text.parse().map_err(file)?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(ConfigError::UnknownKey {
                path: path.into(),
                key: key.clone(),
                suggestion: nearest(key),
            });
        }
        // From the text once more: an error then names the line.
        toml::from_str(text).map_err(file)
    }

    /// These settings, and where they are silent, those of `lower`.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            name: self.name.or(lower.name),
            data_dir: self.data_dir.or(lower.data_dir),
            listen_client_urls: self.listen_client_urls.or(lower.listen_client_urls),
            advertise_client_urls: self.advertise_client_urls.or(lower.advertise_client_urls),
            listen_peer_urls: self.listen_peer_urls.or(lower.listen_peer_urls),
            initial_advertise_peer_urls: self
                .initial_advertise_peer_urls
                .or(lower.initial_advertise_peer_urls),
            initial_cluster: self.initial_cluster.or(lower.initial_cluster),
            initial_cluster_state: self.initial_cluster_state.or(lower.initial_cluster_state),
            initial_cluster_token: self.initial_cluster_token.or(lower.initial_cluster_token),
            heartbeat_interval: self.heartbeat_interval.or(lower.heartbeat_interval),
            election_timeout: self.election_timeout.or(lower.election_timeout),
            read_policy: self.read_policy.or(lower.read_policy),
            max_clock_drift: self.max_clock_drift.or(lower.max_clock_drift),
            snapshot_count: self.snapshot_count.or(lower.snapshot_count),
            snapshot_bytes_per_second: self
                .snapshot_bytes_per_second
                .or(lower.snapshot_bytes_per_second),
            admin_listen: self.admin_listen.or(lower.admin_listen),
            cache_listen: self.cache_listen.or(lower.cache_listen),
            cache_maxmemory: self.cache_maxmemory.or(lower.cache_maxmemory),
            cache_policy: self.cache_policy.or(lower.cache_policy),
            cache_requirepass: self.cache_requirepass.or(lower.cache_requirepass),
            insecure_no_auth: self.insecure_no_auth.or(lower.insecure_no_auth),
            log_format: self.log_format.or(lower.log_format),
        }
    }
}

impl Config {
    /// Fills in the defaults and checks everything that can be checked without touching the machine.
    pub fn new(settings: Settings) -> Result<Self, ConfigError> {
        let name = settings.name.unwrap_or_else(|| "default".into());
        if name.is_empty() || name.contains(['=', ',', '/']) {
            let reason = format!("`{name}` is empty or has one of = , / in it");
            return Err(ConfigError::Value { setting: "name", reason });
        }
        let listen_peer =
            urls("listen-peer-urls", settings.listen_peer_urls, Some("http://localhost:2380"))?;
        let advertised =
            urls("initial-advertise-peer-urls", settings.initial_advertise_peer_urls, None)?;
        let founders = founders(
            &name,
            settings.initial_cluster_token.as_deref().unwrap_or("lattice-cluster"),
            settings.initial_cluster.as_deref(),
            &advertised,
            &listen_peer,
        )?;
        let config = Self {
            data_dir: Some(
                settings.data_dir.unwrap_or_else(|| PathBuf::from(format!("{name}.lattice"))),
            ),
            listen_client: urls(
                "listen-client-urls",
                settings.listen_client_urls,
                Some("http://localhost:2379"),
            )?,
            advertise_client: urls("advertise-client-urls", settings.advertise_client_urls, None)?,
            listen_peer,
            founders,
            state: settings.initial_cluster_state.unwrap_or_default(),
            heartbeat: Duration::from_millis(settings.heartbeat_interval.unwrap_or(100)),
            election_timeout: Duration::from_millis(settings.election_timeout.unwrap_or(1000)),
            read_mode: settings.read_policy.unwrap_or_default(),
            max_clock_drift_ppm: settings
                .max_clock_drift
                .unwrap_or(ClockBound::default().drift_ppm),
            snapshot_count: settings.snapshot_count.unwrap_or(100_000),
            snapshot_bytes_per_second: settings.snapshot_bytes_per_second.unwrap_or(64 << 20),
            admin_listen: address(
                "admin-listen",
                settings.admin_listen.as_deref().unwrap_or("127.0.0.1:8080"),
            )?,
            cache: cache(
                settings.cache_listen.as_deref(),
                settings.cache_maxmemory.as_deref(),
                settings.cache_policy.as_deref(),
                settings.cache_requirepass,
            )?,
            insecure_no_auth: settings.insecure_no_auth.unwrap_or(false),
            name,
        };
        config.check()?;
        Ok(config)
    }

    /// Checks what must hold between the parts; [`crate::Node`] checks again what it is given.
    pub fn check(&self) -> Result<(), ConfigError> {
        let value = |setting, reason: String| Err(ConfigError::Value { setting, reason });
        if self.founders.get(&self.name).is_none() {
            return value("initial-cluster", format!("{} is not in it", self.name));
        }
        if self.heartbeat.is_zero() || self.heartbeat >= self.election_timeout {
            let reason = format!(
                "{:?} is not above zero and below the election timeout of {:?}",
                self.heartbeat, self.election_timeout
            );
            return value("heartbeat-interval", reason);
        }
        if self.election_timeout > ELECTION_TIMEOUT_MAX {
            let reason = format!("{:?} is above {ELECTION_TIMEOUT_MAX:?}", self.election_timeout);
            return value("election-timeout", reason);
        }
        if self.max_clock_drift_ppm > CLOCK_DRIFT_MAX_PPM {
            let reason = format!(
                "{} microseconds a second is above {CLOCK_DRIFT_MAX_PPM}: with such clocks use --read-policy=round",
                self.max_clock_drift_ppm
            );
            return value("max-clock-drift", reason);
        }
        if self.read_policy() != ReadPolicy::ReadIndex
            && self.election_timeout <= 2 * ClockBound::default().margin
        {
            let reason = format!(
                "an election timeout of {:?} leaves no time for a lease",
                self.election_timeout
            );
            return value("read-policy", reason);
        }
        if self.snapshot_count == 0 {
            return value("snapshot-count", "must be above zero".into());
        }
        if self.snapshot_bytes_per_second == 0 {
            return value("snapshot-bytes-per-second", "must be above zero".into());
        }
        if self.advertise_client.is_empty()
            && let Some(url) = self.listen_client.iter().find(|url| url.is_unspecified())
        {
            let reason = format!("needed, as nobody can connect to {url}, where this node listens");
            return value("advertise-client-urls", reason);
        }
        if let Some(url) = self.me().peer_urls.iter().find(|url| url.is_unspecified()) {
            return value("initial-cluster", format!("nobody can connect to {url}"));
        }
        Ok(())
    }

    /// How long a client's request may wait for a leader or for its turn, if the client does not give it less. As with
    /// etcd: time for a slow disk, and to outlast the loss of a leader and one election that fails.
    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }

    /// What the node is told about reads.
    pub(crate) fn read_policy(&self) -> ReadPolicy {
        let drift_ppm = self.max_clock_drift_ppm;
        let clock = ClockBound { drift_ppm, ..ClockBound::default() };
        let guard = LeaseGuard { lease: None, clock };
        match self.read_mode {
            ReadMode::Round => ReadPolicy::ReadIndex,
            ReadMode::Lease => ReadPolicy::Lease(clock),
            ReadMode::LeaseGuard => ReadPolicy::LeaseGuard(guard),
            ReadMode::Honour => ReadPolicy::Honour(guard),
        }
    }

    /// Things that work but deserve a word, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.heartbeat * 3 > self.election_timeout {
            warnings.push(format!(
                "the election timeout of {:?} holds fewer than three heartbeats of {:?}: one lost message may cost the \
                 leader its office",
                self.election_timeout, self.heartbeat
            ));
        }
        if self.insecure_no_auth {
            warnings.push(
                "running without authentication and encryption: whoever reaches this node can read and change everything"
                    .into(),
            );
        }
        warnings
    }

    /// This node among the founders.
    #[must_use]
    pub fn me(&self) -> &Founder {
        self.founders.get(&self.name).expect("checked: the node is a founder")
    }
}

/// Who founds the cluster: the list, or without one this node alone.
fn founders(
    name: &str,
    token: &str,
    list: Option<&[String]>,
    advertised: &[Url],
    listen: &[Url],
) -> Result<Founders, ConfigError> {
    let Some(list) = list else {
        let alone = if advertised.is_empty() { listen } else { advertised };
        return Ok(Founders::new(token, [(name.to_owned(), alone.to_vec())])?);
    };
    let founders = Founders::parse(token, list.iter().map(String::as_str))?;
    let Some(me) = founders.get(name) else {
        let reason = format!("{name}, the name of this node, is not in it");
        return Err(ConfigError::Value { setting: "initial-cluster", reason });
    };
    let mut advertised = advertised.to_vec();
    advertised.sort();
    if !advertised.is_empty() && advertised != me.peer_urls {
        let show =
            |urls: &[Url]| urls.iter().map(Url::to_string).collect::<Vec<String>>().join(",");
        let reason = format!(
            "{} differs from {}, which the initial cluster has for {name}",
            show(&advertised),
            show(&me.peer_urls)
        );
        return Err(ConfigError::Value { setting: "initial-advertise-peer-urls", reason });
    }
    Ok(founders)
}

fn urls(
    setting: &'static str,
    given: Option<Vec<String>>,
    default: Option<&str>,
) -> Result<Vec<Url>, ConfigError> {
    if given.as_ref().is_some_and(Vec::is_empty) {
        return Err(ConfigError::Value { setting, reason: "names no address".into() });
    }
    let given = given.unwrap_or_else(|| default.map(str::to_owned).into_iter().collect());
    given
        .iter()
        .map(|text| text.parse().map_err(|error| ConfigError::Url { setting, error }))
        .collect()
}

/// An address, or `none`.
fn address(setting: &'static str, text: &str) -> Result<Option<Url>, ConfigError> {
    if text == "none" {
        return Ok(None);
    }
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    match with_scheme.parse() {
        Ok(url) => Ok(Some(url)),
        Err(error) => Err(ConfigError::Url { setting, error }),
    }
}

fn cache(
    listen: Option<&str>,
    maxmemory: Option<&str>,
    policy: Option<&str>,
    password: Option<String>,
) -> Result<Option<CacheConfig>, ConfigError> {
    let listen = address("cache-listen", listen.unwrap_or("127.0.0.1:6379"))?;
    let Some(listen) = listen else { return Ok(None) };
    let value = |setting, reason| ConfigError::Value { setting, reason };
    let maxmemory = maxmemory.unwrap_or("0");
    let bytes = parse_memory(maxmemory).and_then(|bytes| u64::try_from(bytes).ok());
    let maxmemory = bytes.ok_or_else(|| {
        value("cache-maxmemory", format!("`{maxmemory}` is no size: write 100mb, or 2gb"))
    })?;
    let policy = policy.unwrap_or("noeviction");
    let policy = policy_of(policy)
        .ok_or_else(|| value("cache-policy", format!("`{policy}` is none of Redis's policies")))?;
    if password.as_ref().is_some_and(String::is_empty) {
        return Err(value("cache-requirepass", "an empty password is none: leave it out".into()));
    }
    Ok(Some(CacheConfig { listen, maxmemory, policy, password }))
}

/// The addresses that `url` stands for, refused if others could reach them and nobody said that this is meant.
pub(crate) fn guard(
    setting: &'static str,
    url: &Url,
    addresses: &[SocketAddr],
    insecure_no_auth: bool,
) -> Result<(), ConfigError> {
    if insecure_no_auth || addresses.iter().all(|address| address.ip().is_loopback()) {
        return Ok(());
    }
    Err(ConfigError::Exposed { setting, url: url.clone() })
}

/// The known key nearest to `key`, if a few typing mistakes lead from one to the other.
fn nearest(key: &str) -> Option<&'static str> {
    let normal = key.replace('_', "-").to_ascii_lowercase();
    KEYS.iter()
        .map(|known| (distance(&normal, known), *known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3)
        .map(|(_, known)| known)
}

/// Levenshtein's distance: insertions, deletions and replacements of one byte that lead from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A list in a file: an array of strings, or one string with commas as on the command line.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum List {
        One(String),
        Many(Vec<String>),
    }
    Ok(Some(match List::deserialize(deserializer)? {
        List::One(text) => text.split(',').map(|item| item.trim().to_owned()).collect(),
        List::Many(items) => items,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, ConfigError> {
        Settings::parse(Path::new("node.toml"), text)
    }

    fn some(text: &str) -> Option<Vec<String>> {
        Some(text.split(',').map(str::to_owned).collect())
    }

    fn refusal(settings: Settings) -> String {
        Config::new(settings).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_file_takes_lists_in_both_forms() {
        let file = parse(
            "name = 'n1'\ninitial-cluster = 'n1=http://h:1, n2=http://h:2'\n\
             listen-client-urls = ['http://localhost:3']\nheartbeat-interval = 50",
        )
        .unwrap();
        assert_eq!(file.initial_cluster, some("n1=http://h:1,n2=http://h:2"));
        assert_eq!(file.listen_client_urls, some("http://localhost:3"));
        assert_eq!(file.heartbeat_interval, Some(50));
    }

    #[test]
    fn a_request_outlasts_two_elections() {
        let slow = Settings { election_timeout: Some(3000), ..Settings::default() };
        let seconds = |settings| Config::new(settings).unwrap().request_timeout().as_secs();
        assert_eq!((seconds(Settings::default()), seconds(slow)), (7, 11));
    }

    #[test]
    fn an_empty_list_of_addresses_is_refused() {
        let settings = parse("listen-client-urls = []").unwrap();
        assert_eq!(refusal(settings), "--listen-client-urls: names no address");
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let text = |key: &str| parse(&format!("{key} = 1")).unwrap_err().to_string();
        assert!(text("hearbeat-interval").contains("did you mean `heartbeat-interval`?"));
        assert!(text("data_dir").contains("did you mean `data-dir`?"));
        assert_eq!(text("colour"), "node.toml: unknown key `colour`");
    }

    #[test]
    fn every_setting_is_a_known_key() {
        let all: String = KEYS
            .iter()
            .map(|key| {
                let value = match *key {
                    "initial-cluster-state" => "'existing'",
                    "log-format" => "'json'",
                    "read-policy" => "'lease-guard'",
                    "heartbeat-interval" | "election-timeout" | "snapshot-count"
                    | "max-clock-drift" => "7",
                    "insecure-no-auth" => "true",
                    _ => "'x'",
                };
                format!("{key} = {value}\n")
            })
            .collect();
        let file = parse(&all).unwrap();
        assert_eq!(file.clone().over(Settings::default()), file);
        assert_eq!(Settings::default().over(file.clone()), file);
    }

    #[test]
    fn a_wrong_type_names_its_line() {
        let error = parse("name = 'a'\nheartbeat-interval = 'soon'").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn the_upper_layer_wins() {
        let upper = Settings { name: Some("upper".into()), ..Settings::default() };
        let lower =
            Settings { name: Some("lower".into()), snapshot_count: Some(5), ..Settings::default() };
        let both = upper.over(lower);
        assert_eq!((both.name.as_deref(), both.snapshot_count), (Some("upper"), Some(5)));
    }

    #[test]
    fn without_settings_a_node_founds_a_cluster_of_itself() {
        let config = Config::new(Settings::default()).unwrap();
        assert_eq!(config.founders.iter().count(), 1);
        assert_eq!(config.me().name, "default");
        assert_eq!(config.data_dir, Some("default.lattice".into()));
        assert!(config.warnings().is_empty());
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let base = Settings::default;
        for (settings, setting) in [
            (Settings { name: Some("a,b".into()), ..base() }, "--name"),
            (Settings { heartbeat_interval: Some(0), ..base() }, "--heartbeat-interval"),
            (Settings { heartbeat_interval: Some(1000), ..base() }, "--heartbeat-interval"),
            (Settings { election_timeout: Some(50_001), ..base() }, "--election-timeout"),
            (Settings { snapshot_count: Some(0), ..base() }, "--snapshot-count"),
            (
                Settings { snapshot_bytes_per_second: Some(0), ..base() },
                "--snapshot-bytes-per-second",
            ),
            (Settings { max_clock_drift: Some(500_001), ..base() }, "--max-clock-drift"),
            (
                Settings {
                    heartbeat_interval: Some(1),
                    election_timeout: Some(10),
                    read_policy: Some(ReadMode::Lease),
                    ..base()
                },
                "--read-policy",
            ),
            (Settings { initial_cluster: some("n1=http://h:1"), ..base() }, "--initial-cluster"),
            (Settings { listen_client_urls: some("h:1"), ..base() }, "--listen-client-urls"),
            (Settings { admin_listen: Some("8080".into()), ..base() }, "--admin-listen"),
            (
                Settings { listen_client_urls: some("http://0.0.0.0:1"), ..base() },
                "--advertise-client-urls",
            ),
            (
                Settings {
                    initial_cluster: some("default=http://h:1"),
                    initial_advertise_peer_urls: some("http://h:2"),
                    ..base()
                },
                "--initial-advertise-peer-urls",
            ),
        ] {
            let text = refusal(settings);
            assert!(text.starts_with(setting), "{setting}: {text}");
        }
    }

    #[test]
    fn reads_go_by_what_was_asked_for_and_by_rounds_if_nothing_was() {
        let policy = |read_policy, max_clock_drift| {
            let settings = Settings { read_policy, max_clock_drift, ..Settings::default() };
            Config::new(settings).unwrap().read_policy()
        };
        assert_eq!(policy(None, None), ReadPolicy::ReadIndex);
        let clock = ClockBound { drift_ppm: 500, ..ClockBound::default() };
        assert_eq!(policy(Some(ReadMode::Lease), Some(500)), ReadPolicy::Lease(clock));
        let guard = LeaseGuard::default();
        assert_eq!(policy(Some(ReadMode::LeaseGuard), None), ReadPolicy::LeaseGuard(guard));
        assert_eq!(policy(Some(ReadMode::Honour), None), ReadPolicy::Honour(guard));
    }

    #[test]
    fn few_heartbeats_a_timeout_and_an_open_node_are_warned_of() {
        let config = Config::new(Settings {
            heartbeat_interval: Some(400),
            insecure_no_auth: Some(true),
            ..Settings::default()
        });
        assert_eq!(config.unwrap().warnings().len(), 2);
    }

    #[test]
    fn an_address_that_others_reach_needs_a_word() {
        let url: Url = "http://10.0.0.1:2379".parse().unwrap();
        let addresses = url.resolve().unwrap();
        assert!(guard("listen-client-urls", &url, &addresses, false).is_err());
        assert!(guard("listen-client-urls", &url, &addresses, true).is_ok());
        let own: Url = "http://[::1]:2379".parse().unwrap();
        assert!(guard("listen-client-urls", &own, &own.resolve().unwrap(), false).is_ok());
    }
}
