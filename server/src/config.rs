//! How one node is set up: from flags, environment and one file, in this order of precedence.
//!
//! [`Settings`] is one layer, as somebody wrote it: everything optional, nothing checked. [`Config`] is what the node
//! runs with: everything there, everything checked. The names are etcd's where etcd has one.

mod file;
mod settings;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use distributed_cache::settings::{parse_memory, policy_of};
use distributed_cache::store::Policy;
use raft_consensus::raft_node::{ClockBound, LeaseGuard, ReadPolicy};
use thiserror::Error;

use crate::founders::{Founder, Founders, FoundersError};
use crate::url::{Url, UrlError};

pub use settings::{ClusterState, LogFormat, ReadMode, Settings};

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

/// Clocks that differ by more than a half are broken, and a lease by them would be as short.
const CLOCK_DRIFT_MAX_PPM: u32 = 500_000;

/// etcd's bound: a longer timeout is a mistake in the unit.
const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(50);

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
        let told = if self.advertise_client.is_empty() {
            &self.listen_client
        } else {
            &self.advertise_client
        };
        if let Some(url) = told.iter().find(|url| url.is_loopback())
            && self.me().peer_urls.iter().any(|url| !url.is_loopback())
        {
            warnings.push(format!(
                "the other members are told that clients reach this node at {url}, which on their machines is somebody else: set \
                 --listen-client-urls or --advertise-client-urls"
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

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<Vec<String>> {
        Some(text.split(',').map(str::to_owned).collect())
    }

    fn refusal(settings: Settings) -> String {
        Config::new(settings).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_request_outlasts_two_elections() {
        let slow = Settings { election_timeout: Some(3000), ..Settings::default() };
        let seconds = |settings| Config::new(settings).unwrap().request_timeout().as_secs();
        assert_eq!((seconds(Settings::default()), seconds(slow)), (7, 11));
    }

    #[test]
    fn an_empty_list_of_addresses_is_refused() {
        let settings = Settings { listen_client_urls: Some(Vec::new()), ..Settings::default() };
        assert_eq!(refusal(settings), "--listen-client-urls: names no address");
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
    fn a_node_among_others_that_tells_clients_a_loopback_address_is_warned_of() {
        let warnings = |listen_client_urls: Option<&str>| {
            let settings = Settings {
                initial_cluster: some("default=http://10.0.0.1:2380"),
                listen_client_urls: listen_client_urls.and_then(some),
                ..Settings::default()
            };
            Config::new(settings).unwrap().warnings()
        };
        assert!(warnings(None).iter().any(|text| text.contains("http://localhost:2379")));
        assert!(warnings(Some("http://10.0.0.1:2379")).is_empty());
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
