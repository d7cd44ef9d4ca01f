//! `INFO`: how the node is, in sections of lines that tools read.
//!
//! Fields are named as in Redis 7.2 where they mean the same, so that tools go on working; those about persistence and replication say
//! that there is none. What only this cache knows is there under names of its own: misses by cause, how late the latest expiry
//! was, hot keys (`INFO hotkeys`) and how well each prefix does (`INFO prefixes`).

use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering;

use crate::access::category::each_command;
use crate::clients::Mark;
use crate::command::connection::REDIS_VERSION;
use crate::command::{Command, Context, Failure, Flags, Group, Keys};
use crate::store::Summary;
use crate::totals::{Counter, Counts};
use crate::types::{DATABASES, Database};

/// The family. All shards are locked, for the counters in them.
pub(in crate::command) const COMMANDS: &[Command] =
    &[Command::new("info", -1, Keys::All, Flags::LOADING.and(Flags::STALE), info).docs(
        Group::Server,
        "1.0.0",
        "Returns how the server is, in sections.",
    )];

/// A section: its name, whether it is shown when none is named, and whether `all` shows it.
struct Section {
    name: &'static str,
    default: bool,
    all: bool,
    write: fn(&mut Page<'_, '_, '_>),
}

const fn section(
    name: &'static str,
    (default, all): (bool, bool),
    write: fn(&mut Page<'_, '_, '_>),
) -> Section {
    Section { name, default, all, write }
}

const SECTIONS: &[Section] = &[
    section("server", (true, true), server),
    section("clients", (true, true), clients),
    section("memory", (true, true), memory),
    section("persistence", (true, true), persistence),
    section("stats", (true, true), stats),
    section("replication", (true, true), replication),
    section("cpu", (true, true), cpu),
    section("modules", (true, false), |page| page.head("Modules")),
    section("commandstats", (false, true), command_stats),
    section("errorstats", (true, true), error_stats),
    section("latencystats", (false, true), latency_stats),
    section("cluster", (true, true), cluster),
    section("keyspace", (true, true), keyspace),
    section("hotkeys", (false, false), hot_keys),
    section("prefixes", (false, false), prefixes),
];

/// What is being written, and what it is written from.
struct Page<'p, 'c, 'e> {
    ctx: &'p mut Context<'c, 'e>,
    text: String,
    counts: Counts,
    summary: Summary,
}

impl Page<'_, '_, '_> {
    fn head(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.text.push_str("\r\n");
        }
        let _ = write!(self.text, "# {title}\r\n");
    }

    fn line(&mut self, field: &str, value: impl Display) {
        let _ = write!(self.text, "{field}:{value}\r\n");
    }

    /// Bytes, as a number and for people.
    fn bytes(&mut self, field: &str, bytes: u64) {
        self.line(field, bytes);
        self.line(&format!("{field}_human"), human(bytes));
    }

    fn zeros(&mut self, fields: &[&str]) {
        fields.iter().for_each(|field| self.line(field, 0));
    }
}

fn float(number: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "to be shown with two digits")]
    let float = number as f64;
    float
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { float(part) / float(whole) }
}

fn human(bytes: u64) -> String {
    let units = [(1u64 << 40, 'T'), (1 << 30, 'G'), (1 << 20, 'M'), (1 << 10, 'K')];
    match units.iter().find(|(size, _)| bytes >= *size) {
        Some((size, letter)) => format!("{:.2}{letter}", ratio(bytes, *size)),
        None => format!("{bytes}B"),
    }
}

fn info(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let names = &arguments[1..];
    let named = |word: &str| names.iter().any(|it| it.eq_ignore_ascii_case(word.as_bytes()));
    let default = names.is_empty() || named("default");
    let (all, everything) = (named("all"), named("everything"));
    let counts = ctx.engine.totals.counts();
    let summary = ctx.keys.summary();
    let mut page = Page { ctx, text: String::new(), counts, summary };
    for section in SECTIONS {
        let is_module = section.name == "modules";
        let shown = (default && section.default)
            || ((all || everything) && section.all)
            || (everything && is_module)
            || named(section.name);
        if shown {
            (section.write)(&mut page);
        }
    }
    let text = std::mem::take(&mut page.text);
    ctx.reply.verbatim("txt", &text);
    Ok(())
}

fn server(page: &mut Page<'_, '_, '_>) {
    let engine = page.ctx.engine;
    let process = engine.totals.process();
    let uptime_s =
        page.ctx.now.monotonic_us.saturating_sub(engine.started.monotonic_us) / 1_000_000;
    page.head("Server");
    page.line("redis_version", REDIS_VERSION);
    page.line("server_name", "lattice");
    page.line("lattice_version", env!("CARGO_PKG_VERSION"));
    page.line("redis_git_sha1", "00000000");
    page.line("redis_git_dirty", 0);
    page.line("redis_mode", if engine.options.cluster { "cluster" } else { "standalone" });
    page.line("os", &process.system);
    page.line("arch_bits", usize::BITS);
    page.line("multiplexing_api", "tokio");
    page.line("process_id", process.id);
    page.line("run_id", engine.name_for("run"));
    page.line("tcp_port", engine.settings.text("port"));
    page.line("server_time_usec", engine.clock.wall_us());
    page.line("uptime_in_seconds", uptime_s);
    page.line("uptime_in_days", uptime_s / 86_400);
    page.line("hz", engine.settings.text("hz"));
    page.line("configured_hz", engine.settings.text("hz"));
    page.line("executable", &process.executable);
    page.line("config_file", "");
    page.line("io_threads_active", u8::from(process.threads > 1));
}

fn clients(page: &mut Page<'_, '_, '_>) {
    let engine = page.ctx.engine;
    let all = engine.clients.all();
    let most = |bytes: fn(&crate::clients::Client) -> usize| {
        all.iter().map(|client| bytes(client)).max().unwrap_or(0)
    };
    let held_back = all.iter().filter(|client| client.is(Mark::PAUSED)).count();
    let subscribed = all.iter().filter(|client| client.subscriptions() > 0).count();
    let tracking = all.iter().filter(|client| client.is(Mark::TRACKING)).count();
    page.head("Clients");
    page.line("connected_clients", all.len());
    page.line("cluster_connections", 0);
    page.line("maxclients", engine.settings.maxclients.load(Ordering::Relaxed));
    page.line("client_recent_max_input_buffer", most(|client| client.input_bytes()));
    page.line("client_recent_max_output_buffer", most(|client| client.output_bytes()));
    page.line("blocked_clients", engine.waiters.len() + held_back);
    page.line("tracking_clients", tracking);
    page.line("pubsub_clients", subscribed);
    page.line("watching_clients", all.iter().filter(|client| client.watched() > 0).count());
    page.line("clients_in_timeout_table", 0);
    page.line("total_watched_keys", engine.watches.keys());
    page.line("total_blocking_keys", engine.waiters.keys_len());
}

fn memory(page: &mut Page<'_, '_, '_>) {
    let engine = page.ctx.engine;
    let (memory, process) = (engine.store.memory(), engine.totals.process());
    let limit = engine.store.limit();
    let resident = process.resident;
    let base = engine.base_bytes();
    let (used, peak) = (memory.used + base, memory.peak.max(memory.used) + base);
    page.head("Memory");
    page.bytes("used_memory", used);
    page.bytes("used_memory_rss", resident);
    page.bytes("used_memory_peak", peak);
    page.line("used_memory_peak_perc", format!("{:.2}%", 100.0 * ratio(used, peak)));
    page.line("used_memory_overhead", base + memory.overhead + memory.buffers);
    page.line("used_memory_startup", base);
    page.line("used_memory_dataset", memory.data);
    page.line(
        "used_memory_dataset_perc",
        format!("{:.2}%", 100.0 * ratio(memory.data, memory.used)),
    );
    page.bytes("total_system_memory", process.system_memory);
    page.bytes("used_memory_lua", 0);
    page.bytes("used_memory_scripts", 0);
    page.zeros(&["number_of_cached_scripts", "number_of_functions", "number_of_libraries"]);
    page.bytes("maxmemory", limit);
    page.line("maxmemory_policy", engine.settings.text("maxmemory-policy"));
    page.line("mem_fragmentation_ratio", format!("{:.2}", ratio(resident, used)));
    page.line("mem_fragmentation_bytes", i128::from(resident) - i128::from(used));
    page.line("mem_not_counted_for_evict", base);
    page.zeros(&["mem_replication_backlog", "mem_total_replication_buffers", "mem_clients_slaves"]);
    page.line("mem_clients_normal", memory.buffers);
    page.zeros(&["mem_cluster_links", "mem_aof_buffer"]);
    // Which one it is, only the program knows that the library is in.
    page.line("mem_allocator", "unknown");
    page.zeros(&["active_defrag_running", "lazyfree_pending_objects", "lazyfreed_objects"]);
}

fn persistence(page: &mut Page<'_, '_, '_>) {
    page.head("Persistence");
    page.zeros(&[
        "loading",
        "async_loading",
        "current_cow_peak",
        "current_cow_size",
        "current_cow_size_age",
        "current_save_keys_processed",
        "current_save_keys_total",
    ]);
    let changes = page.ctx.keys.counters().changes;
    page.line("rdb_changes_since_last_save", changes);
    page.line("rdb_bgsave_in_progress", 0);
    page.line("rdb_last_save_time", page.ctx.engine.started.unix.0 / 1000);
    page.line("rdb_last_bgsave_status", "ok");
    page.line("rdb_last_bgsave_time_sec", -1);
    page.line("rdb_current_bgsave_time_sec", -1);
    page.zeros(&["rdb_saves", "rdb_last_cow_size", "aof_enabled", "aof_rewrite_in_progress"]);
    page.line("aof_rewrite_scheduled", 0);
    page.line("aof_last_rewrite_time_sec", -1);
    page.line("aof_current_rewrite_time_sec", -1);
    page.line("aof_last_bgrewrite_status", "ok");
    page.line("aof_last_write_status", "ok");
}

fn stats(page: &mut Page<'_, '_, '_>) {
    let engine = page.ctx.engine;
    let counters = page.ctx.keys.counters();
    let rates = engine.totals.rates();
    let (channels, patterns, shard_channels) = engine.channels.counts();
    let (tracked, items, prefixes) = engine.tracking.counts();
    let count = |page: &Page<'_, '_, '_>, counter| page.counts.counter(counter);
    let rate = |bytes: u64| format!("{:.2}", float(bytes) / 1024.0);
    page.head("Stats");
    page.line("total_connections_received", count(page, Counter::ConnectionsReceived));
    page.line("total_commands_processed", page.counts.calls());
    page.line("instantaneous_ops_per_sec", rates.commands);
    page.line("total_net_input_bytes", count(page, Counter::BytesIn));
    page.line("total_net_output_bytes", count(page, Counter::BytesOut));
    page.zeros(&["total_net_repl_input_bytes", "total_net_repl_output_bytes"]);
    page.line("instantaneous_input_kbps", rate(rates.bytes_in));
    page.line("instantaneous_output_kbps", rate(rates.bytes_out));
    page.line("instantaneous_input_repl_kbps", "0.00");
    page.line("instantaneous_output_repl_kbps", "0.00");
    page.line("rejected_connections", count(page, Counter::ConnectionsRejected));
    page.zeros(&["sync_full", "sync_partial_ok", "sync_partial_err"]);
    page.line("expired_keys", counters.expired);
    page.line("expired_stale_perc", "0.00");
    page.line("expired_time_cap_reached_count", 0);
    page.line("expiry_lag_max_ms", counters.expiry_lag_max_ms);
    page.line("evicted_keys", counters.evicted);
    page.line("evicted_keys_limit_lowered", counters.evicted_limit_lowered);
    page.line("evicted_keys_resident", counters.evicted_resident);
    page.zeros(&["evicted_clients", "evicted_scripts"]);
    page.zeros(&["total_eviction_exceeded_time", "current_eviction_exceeded_time"]);
    page.line("keyspace_hits", counters.hits);
    page.line("keyspace_misses", counters.misses());
    page.line("keyspace_misses_never_seen", counters.misses_never_seen);
    page.line("keyspace_misses_expired", counters.misses_expired);
    page.line("keyspace_misses_evicted", counters.misses_evicted);
    page.line("keyspace_misses_deleted", counters.misses_deleted);
    page.line("pubsub_channels", channels);
    page.line("pubsub_patterns", patterns);
    page.line("pubsubshard_channels", shard_channels);
    page.zeros(&["latest_fork_usec", "total_forks", "migrate_cached_sockets"]);
    page.line("tracking_total_keys", tracked);
    page.line("tracking_total_items", items);
    page.line("tracking_total_prefixes", prefixes);
    page.line("unexpected_error_replies", 0);
    page.line("total_error_replies", count(page, Counter::Errors));
    page.line("dump_payload_sanitizations", 0);
    page.line("total_reads_processed", count(page, Counter::Reads));
    page.line("total_writes_processed", count(page, Counter::Writes));
    page.line(
        "client_query_buffer_limit_disconnections",
        count(page, Counter::QueryLimitDisconnections),
    );
    page.line(
        "client_output_buffer_limit_disconnections",
        count(page, Counter::OutputLimitDisconnections),
    );
    page.line("acl_access_denied", count(page, Counter::AccessDenied));
}

fn replication(page: &mut Page<'_, '_, '_>) {
    let id = page.ctx.engine.name_for("replication");
    page.head("Replication");
    page.line("role", "master");
    page.line("connected_slaves", 0);
    page.line("master_failover_state", "no-failover");
    page.line("master_replid", id);
    page.line("master_replid2", "0".repeat(40));
    page.line("master_repl_offset", 0);
    page.line("second_repl_offset", -1);
    page.zeros(&[
        "repl_backlog_active",
        "repl_backlog_size",
        "repl_backlog_first_byte_offset",
        "repl_backlog_histlen",
    ]);
}

fn cpu(page: &mut Page<'_, '_, '_>) {
    let process = page.ctx.engine.totals.process();
    let seconds = |us: u64| format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    page.head("CPU");
    page.line("used_cpu_sys", seconds(process.kernel_us));
    page.line("used_cpu_user", seconds(process.user_us));
    page.line("used_cpu_sys_children", "0.000000");
    page.line("used_cpu_user_children", "0.000000");
}

fn command_stats(page: &mut Page<'_, '_, '_>) {
    page.head("Commandstats");
    each_command(|known| {
        let counts = page.counts.command(known.id).clone();
        if counts.calls + counts.rejected + counts.failed == 0 {
            return;
        }
        page.line(
            &format!("cmdstat_{}", known.full_name),
            format_args!(
                "calls={},usec={},usec_per_call={:.2},rejected_calls={},failed_calls={}",
                counts.calls,
                counts.us,
                ratio(counts.us, counts.calls),
                counts.rejected,
                counts.failed
            ),
        );
    });
}

fn error_stats(page: &mut Page<'_, '_, '_>) {
    page.head("Errorstats");
    for (code, count) in page.ctx.engine.totals.errors() {
        page.line(&format!("errorstat_{code}"), format_args!("count={count}"));
    }
}

fn latency_stats(page: &mut Page<'_, '_, '_>) {
    let settings = &page.ctx.engine.settings;
    let percentiles = settings.text("latency-tracking-info-percentiles");
    let tracked = settings.latency_tracking.load(Ordering::Relaxed) != 0;
    page.head("Latencystats");
    if !tracked || percentiles.is_empty() {
        return;
    }
    each_command(|known| {
        let counts = page.counts.command(known.id).clone();
        if counts.calls == 0 {
            return;
        }
        let shown = percentiles.split(' ').map(|percent| {
            let us = counts.percentile(percent.parse().unwrap_or(50.0));
            format!("p{percent}={us}.000")
        });
        let shown = shown.collect::<Vec<_>>().join(",");
        page.line(&format!("latency_percentiles_usec_{}", known.full_name), shown);
    });
}

fn cluster(page: &mut Page<'_, '_, '_>) {
    let enabled = u8::from(page.ctx.engine.options.cluster);
    page.head("Cluster");
    page.line("cluster_enabled", enabled);
}

fn keyspace(page: &mut Page<'_, '_, '_>) {
    page.head("Keyspace");
    for number in 0..DATABASES {
        let (keys, volatile) = page.ctx.keys.sizes(Database(number));
        if keys > 0 {
            let ttl = page.ctx.keys.average_ttl_ms(Database(number));
            page.line(
                &format!("db{number}"),
                format_args!("keys={keys},expires={volatile},avg_ttl={ttl}"),
            );
        }
    }
}

/// Bytes of a key as one line can show them.
fn printable(bytes: &[u8]) -> impl Display {
    bytes.escape_ascii()
}

fn hot_keys(page: &mut Page<'_, '_, '_>) {
    page.head("Hotkeys");
    for (rank, hot) in std::mem::take(&mut page.summary.hot_keys).iter().enumerate() {
        let (database, key) = (hot.database.0, printable(&hot.key));
        page.line(
            &format!("hotkey_{}", rank + 1),
            format_args!("lookups={},error={},db={database},key={key}", hot.lookups, hot.error),
        );
    }
}

fn prefixes(page: &mut Page<'_, '_, '_>) {
    page.head("Prefixes");
    for prefix in std::mem::take(&mut page.summary.prefixes) {
        page.line(
            &format!("prefix_{}", printable(&prefix.prefix)),
            format_args!(
                "hits={},misses={},hit_ratio={:.4}",
                prefix.hits,
                prefix.misses,
                prefix.ratio()
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::command::testing::TestNode;

    #[test]
    fn sections_are_chosen_by_name_and_shown_once() {
        let mut node = TestNode::new();
        let default = node.run("INFO");
        for title in ["# Server", "# Clients", "# Memory", "# Stats", "# Replication", "# Keyspace"]
        {
            assert_eq!(default.matches(title).count(), 1, "{title}");
        }
        assert!(!default.contains("# Commandstats") && !default.contains("# Hotkeys"));
        assert!(default.contains("loading:0\\r\\n") && default.contains("role:master\\r\\n"));
        let some = node.run("INFO memory CPU memory");
        assert_eq!(some.matches("# ").count(), 2, "{some}");
        assert!(node.run("INFO all").contains("# Commandstats"));
        assert!(node.run("INFO everything").contains("# Modules"));
        assert!(node.run("INFO hotkeys prefixes").contains("# Prefixes"));
        assert_eq!(node.run("INFO nothing"), "\"\"");
    }

    #[test]
    fn databases_with_keys_have_a_line() {
        let mut node = TestNode::new();
        node.run("SET a 1");
        node.run("SET b 1 EX 100");
        node.run("SET c 1 EX 300");
        assert!(node.run("INFO keyspace").contains("db0:keys=3,expires=2,avg_ttl=200000"));
    }

    #[test]
    fn the_average_of_many_deadlines_is_about_right() {
        let mut node = TestNode::new();
        for key in 0..10_000 {
            node.run(&format!("SET k{key} 1 PX {}", 1_000_000 + key * 100));
            node.run(&format!("SET forever{key} 1"));
        }
        let info = node.run("INFO keyspace");
        let ttl = info.split("avg_ttl=").nth(1).unwrap().trim_end_matches("\\r\\n\"");
        let ttl: u64 = ttl.parse().unwrap();
        assert!((1_350_000..1_650_000).contains(&ttl), "{ttl}");
    }

    #[test]
    fn an_empty_node_uses_some_memory_for_itself() {
        let mut node = TestNode::new();
        let info = node.run("INFO memory");
        let field = |name: &str| -> u64 {
            let rest = info.split(&format!("\\n{name}:")).nth(1).unwrap();
            rest.split("\\r").next().unwrap().parse().unwrap()
        };
        assert!(field("used_memory_startup") > 30_000, "{info}");
        assert!(field("used_memory") >= field("used_memory_startup"));
        assert!(field("used_memory_peak") >= field("used_memory"));
    }

    #[test]
    fn within_a_transaction_info_works_too() {
        let mut node = TestNode::new();
        node.run("MULTI");
        node.run("SET a 1");
        node.run("INFO stats keyspace");
        node.run("CONFIG RESETSTAT");
        assert!(node.run("EXEC").contains("db0:keys=1"));
    }

    #[test]
    fn errors_are_counted_by_code() {
        let mut node = TestNode::new();
        node.run("SET a x");
        node.run("INCR a");
        node.run("GET");
        let stats = node.run("INFO errorstats commandstats");
        assert!(stats.contains("errorstat_ERR:count=2"), "{stats}");
        assert!(
            stats.contains("cmdstat_incr:calls=1") && stats.contains("failed_calls=1"),
            "{stats}"
        );
        assert!(stats.contains("rejected_calls=1"), "{stats}");
    }
}
