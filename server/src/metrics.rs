//! What a node counts, and how it shows it to Prometheus.
//!
//! One registry a node, so that several nodes in one process stay apart. What Raft knows of itself is not copied into gauges as
//! it changes; it is read from the node's status when somebody asks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use distributed_cache::engine::Engine;
use lattice_kv::KvReader;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric,
};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use raft_consensus::driver::{Raft, Status};
use tonic::Code;

use crate::config::ReadMode;

/// The counters of one node.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Histogram, fn() -> Histogram>,
}

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Range,
    Put,
    DeleteRange,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    op: Operation,
    code: CodeLabel,
}

/// A gRPC status code: few, as a label must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct CodeLabel(Code);

/// From a read in memory to a write on a slow disk, in seconds.
const LATENCY_BUCKETS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

impl Metrics {
    pub(crate) fn new(raft: Raft<KvReader>, reads: ReadMode, cache: Option<Arc<Engine>>) -> Self {
        let mut registry = Registry::with_prefix("lattice");
        let requests =
            Family::<RequestLabels, Histogram, fn() -> Histogram>::new_with_constructor(|| {
                Histogram::new(LATENCY_BUCKETS)
            });
        registry.register_with_unit(
            "kv_request_duration",
            "Time from a client's request to its answer",
            Unit::Seconds,
            requests.clone(),
        );
        registry.register(
            "build",
            "The version of this program",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register(
            "raft_reads_by",
            "How a leader makes sure that it still leads when it answers a read; the same on all nodes",
            Info::new([("policy", reads.name())]),
        );
        registry.register_collector(Box::new(NodeCollector { raft }));
        if let Some(engine) = cache {
            registry.register_collector(Box::new(CacheCollector { engine }));
        }
        Self { registry, requests }
    }

    /// Records a client's request.
    pub(crate) fn request(&self, op: Operation, code: Code, latency: Duration) {
        let labels = RequestLabels { op, code: CodeLabel(code) };
        self.requests.get_or_create(&labels).observe(latency.as_secs_f64());
    }

    /// Everything in the text format of OpenMetrics.
    pub(crate) fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Reads the node when asked.
#[derive(Debug)]
struct NodeCollector {
    raft: Raft<KvReader>,
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = self.raft.status();
        let reader = self.raft.reader();
        encode_raft(&mut encoder, &status)?;
        gauge(&mut encoder, "kv_revision", "Newest revision of the store", reader.revision())?;
        let size = i64::try_from(reader.size().bytes).unwrap_or(i64::MAX);
        gauge(&mut encoder, "kv_store_bytes", "Bytes of keys and values, history included", size)
    }
}

/// Reads the cache when asked.
#[derive(Debug)]
struct CacheCollector {
    engine: Arc<Engine>,
}

impl Collector for CacheCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let (memory, counters) = (self.engine.store.memory(), self.engine.store.counters());
        let clients = i64::try_from(self.engine.clients.len()).unwrap_or(i64::MAX);
        for (name, help, value) in [
            (
                "cache_used_bytes",
                "Memory that counts against the cache's limit",
                number(memory.used),
            ),
            (
                "cache_limit_bytes",
                "The cache's limit, 0 for none",
                number(self.engine.store.limit()),
            ),
            ("cache_buffer_bytes", "Memory of its clients' buffers", number(memory.buffers)),
            ("cache_clients", "Clients of the cache", clients),
            (
                "cache_expiry_lag_max_ms",
                "The longest that a key was kept past its deadline",
                number(counters.expiry_lag_max_ms),
            ),
        ] {
            gauge(&mut encoder, name, help, value)?;
        }
        let commands = self.engine.totals.counts().calls();
        for (name, help, value) in [
            ("cache_commands", "Commands carried out", commands),
            ("cache_hits", "Lookups that found a value", counters.hits),
            ("cache_expired", "Keys removed at their deadline", counters.expired),
            ("cache_evicted", "Keys that gave way at the limit", counters.evicted),
        ] {
            counter(&mut encoder, name, help, value)?;
        }
        let help = "Lookups that found none, by what had become of the key";
        let kind = prometheus_client::metrics::MetricType::Counter;
        let mut family = encoder.encode_descriptor("cache_misses", help, None, kind)?;
        for (cause, misses) in [
            ("never_seen", counters.misses_never_seen),
            ("expired", counters.misses_expired),
            ("evicted", counters.misses_evicted),
            ("deleted", counters.misses_deleted),
        ] {
            let labels = [("cause", cause)];
            ConstCounter::new(misses).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn encode_raft(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> Result<(), fmt::Error> {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let is_leader = i64::from(status.leader == Some(status.node));
    for (name, help, value) in [
        ("raft_term", "Current term", number(status.term.0)),
        ("raft_is_leader", "1 if this node leads", is_leader),
        ("raft_has_leader", "1 if this node knows a leader", i64::from(status.leader.is_some())),
        ("raft_commit_index", "Last entry known to be committed", number(status.commit.0)),
        ("raft_applied_index", "Last entry applied to the store", number(status.applied.0)),
        ("raft_last_index", "Last entry in the log", number(status.last.index.0)),
        ("raft_durable_index", "Last entry on this node's disk", number(status.durable.0)),
        ("raft_first_index", "First entry kept in the log", number(status.first.0)),
        ("raft_low_space", "1 if the disk is nearly full", i64::from(status.low_space)),
        ("raft_damaged_entries", "Damaged entries not repaired yet", number(status.damaged)),
    ] {
        gauge(encoder, name, help, value)?;
    }
    let counters = &status.counters;
    let pending = number(counters.proposals_pending);
    gauge(encoder, "raft_proposals_pending", "Proposals that wait for their entry", pending)?;
    for (name, help, value) in [
        (
            "raft_leader_changes",
            "Changes of the leader that this node saw",
            counters.leader_changes,
        ),
        ("raft_elections", "Elections that this node began", counters.elections),
        ("raft_proposals_committed", "Proposals that were applied", counters.proposals_applied),
        ("raft_proposals_failed", "Proposals that were not applied", counters.proposals_failed),
        ("raft_reads", "Linearizable reads that were confirmed", counters.reads),
        ("raft_snapshots_taken", "Snapshots taken", counters.snapshots_taken),
        ("raft_snapshots_installed", "Snapshots installed", counters.snapshots_installed),
        ("raft_snapshot_bytes_sent", "Bytes of snapshots sent", counters.snapshot_bytes.bytes_sent),
        (
            "raft_snapshot_bytes_received",
            "Bytes of snapshots received",
            counters.snapshot_bytes.bytes_received,
        ),
        (
            "raft_snapshot_bytes_kept",
            "Bytes of snapshots not asked for, since the parts were here",
            counters.snapshot_bytes.bytes_kept + counters.snapshot_bytes.bytes_resumed,
        ),
        (
            "raft_snapshot_bytes_reused",
            "Bytes of own snapshots not written, since the parts were here",
            counters.snapshot_bytes.bytes_reused,
        ),
        ("raft_entries_repaired", "Damaged entries that were repaired", counters.entries_repaired),
        ("raft_entries_served", "Entries given to damaged nodes", counters.entries_served),
        (
            "raft_messages_dropped",
            "Peers' messages dropped for want of room",
            counters.messages_dropped,
        ),
        ("wal_fsyncs", "Syncs of the log", counters.syncs),
    ] {
        counter(encoder, name, help, value)?;
    }
    let synced = Duration::from_nanos(counters.sync_nanos).as_secs_f64();
    counter(encoder, "wal_fsync_seconds", "Time that syncs of the log took", synced)?;
    let lags: Vec<(String, i64)> = status
        .peers
        .iter()
        .map(|peer| (peer.node.to_string(), number(status.last.index.since(peer.matched))))
        .collect();
    if !lags.is_empty() {
        let help = "Entries that a peer lacks, as its leader knows";
        let mut family = encoder.encode_descriptor(
            "raft_peer_match_lag_entries",
            help,
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        for (peer, lag) in lags {
            let labels = [("peer", peer)];
            ConstGauge::new(lag).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: i64,
) -> Result<(), fmt::Error> {
    let metric = ConstGauge::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

/// A counter whose value is kept elsewhere. The encoder adds `_total` to the name.
fn counter<N>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: N,
) -> Result<(), fmt::Error>
where
    ConstCounter<N>: EncodeMetric,
{
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

impl EncodeLabelValue for Operation {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        let name = match self {
            Self::Range => "range",
            Self::Put => "put",
            Self::DeleteRange => "delete_range",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

impl EncodeLabelValue for CodeLabel {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&format!("{:?}", self.0).as_str(), encoder)
    }
}
