//! The table of settings.

use std::sync::atomic::AtomicI64;

use super::{Effect, Kind, Row, Settings};

const INTEGER_MAX: i64 = i32::MAX as i64;
const ANY: Kind = Kind::Integer { min: 0, max: INTEGER_MAX };
const LONG: Kind = Kind::Integer { min: 0, max: i64::MAX };
const MEMORY: Kind = Kind::Memory { min: 0, max: i64::MAX };
const PORT: Kind = Kind::Integer { min: 0, max: 65_535 };

/// A setting that does what it says, and whose value is an atomic.
const fn live(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    cell: fn(&Settings) -> &AtomicI64,
) -> Row {
    Row { name, alias: "", kind, default, effect: Effect::Real, cell: Some(cell) }
}

/// A setting that does what it says, and whose value is a text.
const fn text(name: &'static str, kind: Kind, default: &'static str) -> Row {
    Row { name, alias: "", kind, default, effect: Effect::Real, cell: None }
}

/// A setting that does nothing here.
const fn kept(name: &'static str, kind: Kind, default: &'static str) -> Row {
    Row { name, alias: "", kind, default, effect: Effect::None, cell: None }
}

/// A setting that says what is so.
const fn fixed(name: &'static str, kind: Kind, default: &'static str) -> Row {
    Row { name, alias: "", kind, default, effect: Effect::Fixed, cell: None }
}

impl Row {
    const fn or(mut self, alias: &'static str) -> Self {
        self.alias = alias;
        self
    }
}

/// All settings.
pub static TABLE: &[Row] = &[
    live("maxmemory", MEMORY, "0", |it| &it.maxmemory),
    live(
        "maxmemory-policy",
        Kind::Word(&[
            "volatile-lru",
            "volatile-lfu",
            "volatile-random",
            "volatile-ttl",
            "allkeys-lru",
            "allkeys-lfu",
            "allkeys-random",
            "noeviction",
        ]),
        "noeviction",
        |it| &it.maxmemory_policy,
    ),
    live("maxclients", Kind::Integer { min: 1, max: u32::MAX as i64 }, "10000", |it| {
        &it.maxclients
    }),
    live("timeout", ANY, "0", |it| &it.timeout),
    live("tcp-keepalive", ANY, "300", |it| &it.tcp_keepalive),
    live("slowlog-log-slower-than", Kind::Integer { min: -1, max: i64::MAX }, "10000", |it| {
        &it.slowlog_log_slower_than
    }),
    live("slowlog-max-len", LONG, "128", |it| &it.slowlog_max_len),
    live("latency-monitor-threshold", LONG, "0", |it| &it.latency_monitor_threshold),
    live("latency-tracking", Kind::Bool, "yes", |it| &it.latency_tracking),
    live("acllog-max-len", LONG, "128", |it| &it.acllog_max_len),
    live(
        "acl-pubsub-default",
        Kind::Word(&["allchannels", "resetchannels"]),
        "resetchannels",
        |it| &it.acl_pubsub_default,
    ),
    live("tracking-table-max-keys", LONG, "1000000", |it| &it.tracking_table_max_keys),
    live("proto-max-bulk-len", Kind::Memory { min: 1 << 20, max: i64::MAX }, "536870912", |it| {
        &it.proto_max_bulk_len
    }),
    live(
        "client-query-buffer-limit",
        Kind::Memory { min: 1 << 20, max: i64::MAX },
        "1073741824",
        |it| &it.client_query_buffer_limit,
    ),
    live("hll-sparse-max-bytes", MEMORY, "3000", |it| &it.hll_sparse_max_bytes),
    text("requirepass", Kind::Text, ""),
    text("notify-keyspace-events", Kind::Checked(event_classes), ""),
    text(
        "client-output-buffer-limit",
        Kind::OutputLimits,
        "normal 268435456 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
    ),
    text("latency-tracking-info-percentiles", Kind::Checked(percentiles), "50 99 99.9"),
    // What is so.
    fixed("databases", ANY, "16"),
    fixed("cluster-enabled", Kind::Bool, "no"),
    fixed("bind", Kind::Text, ""),
    fixed("port", PORT, "0"),
    fixed("tls-port", PORT, "0"),
    fixed("unixsocket", Kind::Text, ""),
    fixed("unixsocketperm", Kind::Text, "0"),
    fixed("io-threads", ANY, "1"),
    fixed("daemonize", Kind::Bool, "no"),
    fixed("supervised", Kind::Text, "no"),
    fixed("pidfile", Kind::Text, ""),
    fixed("logfile", Kind::Text, ""),
    fixed("aclfile", Kind::Text, ""),
    fixed("tcp-backlog", ANY, "511"),
    fixed("replicaof", Kind::Text, "").or("slaveof"),
    fixed("enable-protected-configs", Kind::Text, "no"),
    fixed("enable-debug-command", Kind::Text, "yes"),
    fixed("enable-module-command", Kind::Text, "no"),
    fixed("appendfilename", Kind::Text, "appendonly.aof"),
    fixed("appenddirname", Kind::Text, "appendonlydir"),
    fixed("cluster-config-file", Kind::Text, ""),
    // How collections are packed: the store decides by itself.
    kept("hash-max-listpack-entries", LONG, "512").or("hash-max-ziplist-entries"),
    kept("hash-max-listpack-value", MEMORY, "64").or("hash-max-ziplist-value"),
    kept("list-max-listpack-size", Kind::Integer { min: i32::MIN as i64, max: INTEGER_MAX }, "-2")
        .or("list-max-ziplist-size"),
    kept("list-compress-depth", ANY, "0"),
    kept("set-max-intset-entries", LONG, "512"),
    kept("set-max-listpack-entries", LONG, "128"),
    kept("set-max-listpack-value", MEMORY, "64"),
    kept("zset-max-listpack-entries", LONG, "128").or("zset-max-ziplist-entries"),
    kept("zset-max-listpack-value", MEMORY, "64").or("zset-max-ziplist-value"),
    kept("stream-node-max-bytes", MEMORY, "4096"),
    kept("stream-node-max-entries", LONG, "100"),
    // Expiry is exact and eviction has its own algorithm: nothing to turn.
    kept("hz", ANY, "10"),
    kept("dynamic-hz", Kind::Bool, "yes"),
    kept("active-expire-effort", Kind::Integer { min: 1, max: 10 }, "1"),
    kept("activerehashing", Kind::Bool, "yes"),
    kept("activedefrag", Kind::Bool, "no"),
    kept("maxmemory-samples", Kind::Integer { min: 1, max: INTEGER_MAX }, "5"),
    kept("maxmemory-eviction-tenacity", Kind::Integer { min: 0, max: 100 }, "10"),
    kept("maxmemory-clients", Kind::Checked(memory_or_percent), "0"),
    kept("lfu-log-factor", ANY, "10"),
    kept("lfu-decay-time", ANY, "1"),
    kept("lazyfree-lazy-eviction", Kind::Bool, "no"),
    kept("lazyfree-lazy-expire", Kind::Bool, "no"),
    kept("lazyfree-lazy-server-del", Kind::Bool, "no"),
    kept("lazyfree-lazy-user-del", Kind::Bool, "no"),
    kept("lazyfree-lazy-user-flush", Kind::Bool, "no"),
    kept("jemalloc-bg-thread", Kind::Bool, "yes"),
    // Nothing is persisted.
    kept("save", Kind::Checked(save_points), ""),
    kept("appendonly", Kind::Checked(never), "no"),
    kept("appendfsync", Kind::Word(&["everysec", "always", "no"]), "everysec"),
    kept("dir", Kind::Text, "/"),
    kept("dbfilename", Kind::Text, "dump.rdb"),
    kept("rdbcompression", Kind::Bool, "yes"),
    kept("rdbchecksum", Kind::Bool, "yes"),
    kept("rdb-save-incremental-fsync", Kind::Bool, "yes"),
    kept("rdb-del-sync-files", Kind::Bool, "no"),
    kept("stop-writes-on-bgsave-error", Kind::Bool, "yes"),
    kept("no-appendfsync-on-rewrite", Kind::Bool, "no"),
    kept("auto-aof-rewrite-percentage", ANY, "100"),
    kept("auto-aof-rewrite-min-size", MEMORY, "67108864"),
    kept("aof-load-truncated", Kind::Bool, "yes"),
    kept("aof-use-rdb-preamble", Kind::Bool, "yes"),
    kept("aof-rewrite-incremental-fsync", Kind::Bool, "yes"),
    kept("aof-timestamp-enabled", Kind::Bool, "no"),
    kept("sanitize-dump-payload", Kind::Word(&["no", "yes", "clients"]), "yes"),
    // There are no primaries and replicas in Redis's sense.
    kept("masterauth", Kind::Text, ""),
    kept("masteruser", Kind::Text, ""),
    kept("replica-read-only", Kind::Bool, "yes").or("slave-read-only"),
    kept("replica-serve-stale-data", Kind::Bool, "yes").or("slave-serve-stale-data"),
    kept("replica-priority", ANY, "100").or("slave-priority"),
    kept("replica-lazy-flush", Kind::Bool, "no").or("slave-lazy-flush"),
    kept("replica-ignore-maxmemory", Kind::Bool, "yes").or("slave-ignore-maxmemory"),
    kept("replica-announce-ip", Kind::Text, "").or("slave-announce-ip"),
    kept("replica-announce-port", PORT, "0").or("slave-announce-port"),
    kept("replica-announced", Kind::Bool, "yes"),
    kept("repl-timeout", Kind::Integer { min: 1, max: INTEGER_MAX }, "60"),
    kept("repl-ping-replica-period", Kind::Integer { min: 1, max: INTEGER_MAX }, "10")
        .or("repl-ping-slave-period"),
    kept("repl-backlog-size", Kind::Memory { min: 1, max: i64::MAX }, "1048576"),
    kept("repl-backlog-ttl", LONG, "3600"),
    kept("repl-diskless-sync", Kind::Bool, "yes"),
    kept("repl-diskless-sync-delay", ANY, "5"),
    kept("repl-diskless-sync-max-replicas", ANY, "0"),
    kept("repl-diskless-load", Kind::Word(&["disabled", "on-empty-db", "swapdb"]), "disabled"),
    kept("repl-disable-tcp-nodelay", Kind::Bool, "no"),
    kept("min-replicas-to-write", ANY, "0").or("min-slaves-to-write"),
    kept("min-replicas-max-lag", ANY, "10").or("min-slaves-max-lag"),
    // The cluster has its own ways of placing slots and of noticing failures.
    kept("cluster-node-timeout", LONG, "15000"),
    kept("cluster-require-full-coverage", Kind::Bool, "yes"),
    kept("cluster-allow-reads-when-down", Kind::Bool, "no"),
    kept("cluster-allow-pubsubshard-when-down", Kind::Bool, "yes"),
    kept("cluster-allow-replica-migration", Kind::Bool, "yes"),
    kept("cluster-migration-barrier", ANY, "1"),
    kept("cluster-replica-validity-factor", ANY, "10").or("cluster-slave-validity-factor"),
    kept("cluster-replica-no-failover", Kind::Bool, "no").or("cluster-slave-no-failover"),
    kept("cluster-link-sendbuf-limit", MEMORY, "0"),
    text("cluster-announce-ip", Kind::Text, ""),
    text("cluster-announce-port", PORT, "0"),
    kept("cluster-announce-tls-port", PORT, "0"),
    kept("cluster-announce-bus-port", PORT, "0"),
    kept("cluster-announce-hostname", Kind::Text, ""),
    kept(
        "cluster-preferred-endpoint-type",
        Kind::Word(&["ip", "hostname", "unknown-endpoint"]),
        "ip",
    ),
    // The process.
    kept("loglevel", Kind::Word(&["debug", "verbose", "notice", "warning", "nothing"]), "notice"),
    kept("protected-mode", Kind::Bool, "yes"),
    kept("busy-reply-threshold", LONG, "5000").or("lua-time-limit"),
    kept("shutdown-timeout", ANY, "10"),
    kept("shutdown-on-sigint", Kind::Text, "default"),
    kept("shutdown-on-sigterm", Kind::Text, "default"),
    kept("crash-log-enabled", Kind::Bool, "yes"),
    kept("crash-memcheck-enabled", Kind::Bool, "yes"),
    kept("proc-title-template", Kind::Text, "{title} {listen-addr} {server-mode}"),
    kept("oom-score-adj", Kind::Word(&["no", "yes", "relative", "absolute"]), "no"),
    kept("oom-score-adj-values", Kind::Text, "0 200 800"),
    kept("ignore-warnings", Kind::Text, ""),
    kept(
        "propagation-error-behavior",
        Kind::Word(&["ignore", "panic", "panic-on-replicas"]),
        "ignore",
    ),
];

/// The classes of keyspace events in the order in which Redis shows them: the ten that `A` stands for, then the rest.
fn event_classes(text: &str) -> Result<String, &'static str> {
    const ALL: &str = "g$lshzxetd";
    let has = |letter: char| text.contains(letter);
    if !text.chars().all(|letter| "Ag$lshzxeKEtmdn".contains(letter)) {
        return Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.");
    }
    let mut shown = String::new();
    if has('A') || ALL.chars().all(has) {
        shown.push('A');
    } else {
        shown.extend(ALL.chars().filter(|letter| has(*letter)));
    }
    shown.extend("nKEm".chars().filter(|letter| has(*letter)));
    Ok(shown)
}

fn percentiles(text: &str) -> Result<String, &'static str> {
    let mut shown = Vec::new();
    for word in text.split_ascii_whitespace() {
        let percent: f64 =
            word.parse().map_err(|_not| "Invalid latency-tracking-info-percentiles parameters")?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(
                "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]",
            );
        }
        shown.push(percent.to_string());
    }
    if shown.len() > 16 {
        return Err("Invalid latency-tracking-info-percentiles parameters");
    }
    Ok(shown.join(" "))
}

/// Pairs of seconds and changes; nothing is ever saved by them.
fn save_points(text: &str) -> Result<String, &'static str> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let good = |word: &&str| word.parse::<u32>().is_ok();
    if !words.len().is_multiple_of(2) || !words.iter().all(good) {
        return Err("Invalid save parameters");
    }
    Ok(words.join(" "))
}

/// A switch that cannot be on.
fn never(text: &str) -> Result<String, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "no" => Ok("no".to_owned()),
        "yes" => Err("nothing is persisted: this cache keeps its data in memory alone"),
        _ => Err("argument must be 'yes' or 'no'"),
    }
}

fn memory_or_percent(text: &str) -> Result<String, &'static str> {
    let percent = text.strip_suffix('%').and_then(|number| number.parse::<u32>().ok());
    match (percent, super::parse_memory(text)) {
        (Some(0..=100), _) => Ok(text.to_owned()),
        (_, Some(bytes)) => Ok(bytes.to_string()),
        (Some(_), _) => Err("percentage argument must be less or equal to 100"),
        _ => Err("argument must be a memory or percent value"),
    }
}
