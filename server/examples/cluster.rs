//! Three real nodes on this machine: gRPC between them, logs on disk, and a client that talks to any of them.
//!
//! `cargo run --example cluster` starts the nodes one after the other, waits for their election, writes, reads and deletes
//! through consensus, and reads the same value from every node. The logs stay in `./data/`: a second run recovers them and
//! shows what it found. The example checks what it shows, and ends with an error if something is not so.
//!
//! ```text
//! cargo run --example cluster                      three nodes, a few writes
//! cargo run --example cluster -- --kill-leader     and the leader crashes on the way
//! cargo run --example cluster -- --ops 5000        and says how many writes a second that was
//! cargo run --example cluster -- --nodes 5 --stay  five nodes, until Ctrl-C
//! ```
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "an example prints"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use tokio::task::JoinSet;

#[path = "support/kv_client.rs"]
mod kv_client;
#[path = "support/logging.rs"]
mod logging;
#[path = "support/nodes.rs"]
mod nodes;

use kv_client::KvClient;
use nodes::{Cluster, NodeConfig};

/// Three nodes (or more) on this machine that keep keys and values by consensus.
#[derive(Debug, Parser)]
#[command(name = "cluster")]
struct Arguments {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Crash the leader on the way, go on without it, and start it again
    #[arg(long)]
    kill_leader: bool,
    /// Write this many keys more, and say how fast that was
    #[arg(long, default_value_t = 0, value_name = "N")]
    ops: u64,
    /// Keep the nodes running until Ctrl-C
    #[arg(long)]
    stay: bool,
}

/// A key for each finished run, for the next to find.
const RUNS: &str = "runs/";
/// The key that says which run began last.
const LATEST: &str = "latest";
/// Writers of `--ops` that wait for an answer at the same time: consensus is fast in company.
const WRITERS: u64 = 64;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe example failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    ensure!(
        !arguments.kill_leader || arguments.nodes >= 3,
        "--kill-leader needs at least three nodes: fewer cannot go on without one of them"
    );
    logging::start();

    println!("=== Starting {}-Node Lattice Cluster ===\n", arguments.nodes);
    let node_configs: Vec<NodeConfig> = (0..arguments.nodes).map(NodeConfig::number).collect();
    // What a cluster knows of its members is in its logs: each size of cluster has its own.
    let directory = Path::new("data").join(format!("cluster-of-{}", arguments.nodes));
    let mut cluster = Cluster::start(node_configs, &directory).await?;
    let (leader, term) = cluster.leader().await?;
    println!("\n[Node {leader}] leads in term {term}\n");

    let client = KvClient::connect(cluster.kv_endpoints()).await?;
    println!("Connected to KV service at {}\n", client.endpoint().await);
    let run = show_what_is_there(&client).await?;
    write_read_delete(&client, run).await?;
    read_from_every_node(&cluster, run).await?;
    if arguments.kill_leader {
        kill_the_leader(&mut cluster, &client).await?;
    }
    if arguments.ops > 0 {
        measure(&client, arguments.ops).await?;
    }
    client.put(&format!("{RUNS}{run:06}"), "finished").await?;

    if arguments.stay {
        println!("The cluster stays until Ctrl-C. In another terminal:\n");
        println!("  etcdctl --endpoints={} get key1\n", cluster.kv_endpoints_text());
        tokio::signal::ctrl_c().await?;
    }
    cluster.shutdown().await;
    println!(
        "=== All {} nodes stopped; their logs are in {} ===",
        arguments.nodes,
        directory.display()
    );
    Ok(())
}

/// Shows what earlier runs left, checks that it is all there, and returns the number of this run.
async fn show_what_is_there(client: &KvClient) -> Result<u64> {
    let runs = client.list(RUNS).await?;
    let mut expected = 1;
    for key in runs.keys() {
        ensure!(
            *key == format!("{RUNS}{expected:06}"),
            "run {expected} finished, but left no trace"
        );
        expected += 1;
    }
    if runs.is_empty() {
        println!("No finished run before this one: the logs are new.\n");
        return Ok(1);
    }
    let found = client.list("key").await?;
    println!("Recovered from {} earlier runs:", runs.len());
    for (key, value) in &found {
        println!("  {key} = {value}");
    }
    println!();
    let left = BTreeMap::from([("key1", "value1"), ("key3", "value3")]);
    for (key, value) in left {
        ensure!(found.get(key).is_some_and(|found| found == value), "{key} was lost");
    }
    let last_one_finished = client.get(LATEST).await? == Some(format!("run {}", runs.len()));
    if last_one_finished {
        ensure!(!found.contains_key("key2"), "key2 was deleted, and came back");
    }
    Ok(expected)
}

async fn write_read_delete(client: &KvClient, run: u64) -> Result<()> {
    println!("Writing, reading and deleting through consensus:");
    put(client, "key1", "value1").await?;
    // Before anything that a later run would miss or wonder about, should this one not finish.
    put(client, LATEST, &format!("run {run}")).await?;
    put(client, "key2", "value2").await?;
    put(client, "key3", "value3").await?;
    for number in 1..=3 {
        get(client, &format!("key{number}"), Some(&format!("value{number}"))).await?;
    }
    println!("  DELETE key2");
    client.delete("key2").await?;
    println!("  ✓ DELETE successful");
    get(client, "key2", None).await?;
    println!();
    Ok(())
}

async fn put(client: &KvClient, key: &str, value: &str) -> Result<()> {
    println!("  PUT {key} = {value}");
    client.put(key, value).await?;
    println!("  ✓ PUT successful");
    Ok(())
}

async fn get(client: &KvClient, key: &str, expected: Option<&str>) -> Result<()> {
    println!("  GET {key}");
    let value = client.get(key).await?;
    ensure!(value.as_deref() == expected, "{key} is {value:?}, not {expected:?}");
    println!("  ✓ GET {key} = {}", value.as_deref().unwrap_or("(no such key)"));
    Ok(())
}

/// Every node answers with the latest value: it first makes sure that it has caught up with the leader.
async fn read_from_every_node(cluster: &Cluster, run: u64) -> Result<()> {
    println!("Reading from every node:");
    for endpoints in cluster.kv_endpoints_by_node() {
        let client = KvClient::connect(endpoints).await?;
        let endpoint = client.endpoint().await;
        let value = client.get(LATEST).await?;
        ensure!(value == Some(format!("run {run}")), "{endpoint} answers {value:?}");
        println!("  ✓ {endpoint}: {LATEST} = run {run}");
    }
    println!();
    Ok(())
}

/// Crashes the leader: the others elect another, have everything, and go on; then it comes back and catches up.
async fn kill_the_leader(cluster: &mut Cluster, client: &KvClient) -> Result<()> {
    let (leader, _) = cluster.leader().await?;
    println!("Killing the leader, [Node {leader}]:");
    let crash = Instant::now();
    let index = cluster.kill(&leader)?;
    put(client, "after-the-crash", "written").await?;
    println!("  ✓ written {:.1} s after the crash", crash.elapsed().as_secs_f64());
    let (next, term) = cluster.leader().await?;
    println!("  ✓ [Node {next}] leads now, in term {term}");
    get(client, "key1", Some("value1")).await?;
    cluster.restart(index).await?;
    let back = KvClient::connect(cluster.kv_endpoints_of(index)).await?;
    get(&back, "after-the-crash", Some("written")).await?;
    println!("  ✓ [Node {leader}] is back and has caught up\n");
    Ok(())
}

/// Writes `ops` keys with many writers, and checks that all of them are there.
async fn measure(client: &KvClient, ops: u64) -> Result<()> {
    let keys = 1_000.min(ops);
    println!("Writing {ops} times to {keys} keys, {WRITERS} writers at a time:");
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (client, next) = (client.clone(), Arc::clone(&next));
        writers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= ops {
                    return anyhow::Ok(());
                }
                client.put(&format!("ops/{:06}", number % keys), &number.to_string()).await?;
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.context("a writer panicked")??;
    }
    let seconds = start.elapsed().as_secs_f64();
    let found = client.list("ops/").await?;
    for number in 0..keys {
        // Several writers write to one key: any of this run's values may be the last.
        let Some(value) = found.get(&format!("ops/{number:06}")) else {
            bail!("ops/{number:06} was lost");
        };
        let is_of_this_key = value.parse().is_ok_and(|value: u64| value % keys == number);
        ensure!(is_of_this_key, "ops/{number:06} is {value}, which nobody wrote there");
    }
    let build =
        if cfg!(debug_assertions) { "a debug build; try --release" } else { "a release build" };
    #[expect(clippy::cast_precision_loss, reason = "printed without decimals")]
    let rate = ops as f64 / seconds;
    println!("  ✓ {ops} writes in {seconds:.2} s: {rate:.0} a second ({build})\n");
    Ok(())
}
