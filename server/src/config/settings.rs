//! One layer of settings, as somebody wrote it.

use std::path::PathBuf;

use serde::Deserialize;

use super::file::list;

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

/// How a leader makes sure that it still leads when it answers a linearizable read; see
/// [`ReadPolicy`](raft_consensus::raft_node::ReadPolicy).
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

impl Settings {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_layer_wins() {
        let upper = Settings { name: Some("upper".into()), ..Settings::default() };
        let lower =
            Settings { name: Some("lower".into()), snapshot_count: Some(5), ..Settings::default() };
        let both = upper.over(lower);
        assert_eq!((both.name.as_deref(), both.snapshot_count), (Some("upper"), Some(5)));
    }
}
