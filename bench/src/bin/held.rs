//! What a group holds in memory while a member is away, and while it is sent a large snapshot.
//!
//! `cargo run --release -p lattice-bench --bin held -- DIR [ENTRIES [SNAPSHOT_MIB]]`. Three nodes in this process, with logs on a real disk
//! under DIR (what is written there is removed); a message between nodes is a function call. Resident memory is that of all three,
//! and its highest point is what a sampler saw every few milliseconds.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lattice_bench::server::resident_of;
use lattice_bench::table::Table;
use raft_consensus::driver::{NodeOptions, Raft};
use raft_consensus::state_machine::{
    BoxError, Committed, DurableStateMachine, Fatal, Part, Reply, SnapshotParts, SnapshotView,
};
use raft_consensus::transport::MemoryNetwork;
use raft_consensus::types::{EntryId, NodeId};
use tokio::runtime::Runtime;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const IDS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const PATIENCE: Duration = Duration::from_secs(600);
const PART: usize = 1 << 20;
const WRITERS: u64 = 256;

/// Applies nothing, and has a snapshot of as many parts as it is told: each is made when it is asked for, and checked when it arrives.
#[derive(Clone, Debug)]
struct Large {
    applied: EntryId,
    parts: u64,
}

/// The part with this number: not two are alike.
fn part(number: u64) -> Part {
    let mut word = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut data = Vec::with_capacity(PART);
    while data.len() < PART {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        data.extend_from_slice(&word.to_le_bytes());
    }
    Part { name: format!("part-{number:08}"), data: data.into() }
}

struct View(std::ops::Range<u64>);

impl SnapshotView for View {
    fn next_part(&mut self) -> Result<Option<Part>, BoxError> {
        Ok(self.0.next().map(part))
    }
}

impl DurableStateMachine for Large {
    type Reader = ();

    fn reader(&self) {}

    fn apply(&mut self, entries: &[Committed], replies: &mut Vec<Reply>) -> Result<(), Fatal> {
        let commands = entries.iter().filter(|entry| entry.command.is_some());
        replies.extend(commands.map(|_| Ok(Bytes::new())));
        self.applied = entries.last().map_or(self.applied, |entry| entry.id);
        Ok(())
    }

    fn applied(&self) -> EntryId {
        self.applied
    }

    fn durable(&self) -> EntryId {
        EntryId::ZERO
    }

    fn view(&self) -> Result<Option<Box<dyn SnapshotView>>, BoxError> {
        Ok(Some(Box::new(View(0..self.parts))))
    }

    fn restore(&mut self, last: EntryId, parts: &mut dyn SnapshotParts) -> Result<(), BoxError> {
        let mut count = 0;
        while let Some(found) = parts.next_part()? {
            if found != part(count) {
                return Err(format!("part {count} is not what was sent").into());
            }
            count += 1;
        }
        if count != self.parts {
            return Err(format!("{count} parts of {}", self.parts).into());
        }
        self.applied = last;
        Ok(())
    }
}

/// The highest resident memory from now on.
struct Sampler {
    highest: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Sampler {
    fn start() -> Self {
        let (highest, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, stop) = (Arc::clone(&highest), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                seen.fetch_max(resident(), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
        });
        Self { highest, is_over, thread }
    }

    fn stop(self) -> Outcome<u64> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_panic| "the sampler panicked")?;
        Ok(self.highest.load(Ordering::Relaxed))
    }
}

fn resident() -> u64 {
    resident_of(std::process::id()).unwrap_or(0)
}

struct Group {
    directory: PathBuf,
    network: MemoryNetwork,
    parts: u64,
    nodes: Vec<Option<Raft<()>>>,
}

impl Group {
    async fn start(directory: &Path, parts: u64) -> Outcome<Self> {
        drop(fs::remove_dir_all(directory));
        let network = MemoryNetwork::new();
        let directory = directory.to_owned();
        let mut group = Self { directory, network, parts, nodes: vec![None, None, None] };
        for node in 0..3 {
            group.start_node(node)?;
        }
        for node in group.nodes.iter().flatten() {
            let founded = node.wait_for(PATIENCE, |status| status.membership.is_fully_bound());
            founded.await.ok_or("the group was not founded")?;
        }
        Ok(group)
    }

    fn start_node(&mut self, node: usize) -> Outcome<()> {
        let id = IDS[node];
        let mut options = NodeOptions::on_disk(id, IDS, &self.directory.join(id.to_string()))?;
        options.timing.election_timeout = Duration::from_secs(1)..Duration::from_secs(2);
        let machine = Large { applied: EntryId::ZERO, parts: self.parts };
        self.nodes[node] = Some(Raft::start(options, machine, self.network.transport(id))?);
        Ok(())
    }

    async fn stop_node(&mut self, node: usize) {
        if let Some(raft) = self.nodes[node].take() {
            raft.shutdown().await;
        }
    }

    async fn leader(&self) -> Outcome<usize> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            for (node, raft) in self.nodes.iter().enumerate() {
                if raft.as_ref().is_some_and(|raft| raft.status().leader == Some(IDS[node])) {
                    return Ok(node);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err("nobody leads".into())
    }

    /// Commands of 100 bytes, by many at once, whatever leader there is.
    async fn write(&self, count: u64) -> Outcome<()> {
        let leader = self.nodes[self.leader().await?].clone().ok_or("the leader runs")?;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let leader = leader.clone();
                let mine = count / WRITERS + u64::from(writer < count % WRITERS);
                tokio::spawn(async move {
                    for _ in 0..mine {
                        leader.propose(vec![b'x'; 100]).await?;
                    }
                    Ok::<_, raft_consensus::driver::ProposeError>(())
                })
            })
            .collect();
        for writer in writers {
            writer.await??;
        }
        Ok(())
    }

    async fn has_caught_up(&self, node: usize) -> Outcome<()> {
        let leader = self.nodes[self.leader().await?].as_ref().ok_or("the leader runs")?;
        let target = leader.status().applied;
        let raft = self.nodes[node].as_ref().ok_or("it runs")?;
        let reached = raft.wait_for(PATIENCE, |status| status.applied >= target).await;
        reached.map(|_| ()).ok_or_else(|| "it does not catch up".into())
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

async fn run(directory: &Path, entries: u64, snapshot_mib: u64) -> Outcome<()> {
    let mut table = Table::new(&["", "before MiB", "highest MiB", "after MiB", "seconds"]);
    let mut row = |what: String, before: u64, highest: u64, began: Instant| {
        let seconds = format!("{:.1}", began.elapsed().as_secs_f64());
        table.row(vec![what, mib(before), mib(highest), mib(resident()), seconds]);
    };
    let mut group = Group::start(directory, 1).await?;
    group.write(10_000).await?;
    let away = (group.leader().await? + 1) % 3;
    group.stop_node(away).await;
    let (before, began, sampler) = (resident(), Instant::now(), Sampler::start());
    group.write(entries).await?;
    row(format!("{entries} entries of 100 bytes, a follower down"), before, sampler.stop()?, began);
    let (before, began, sampler) = (resident(), Instant::now(), Sampler::start());
    group.start_node(away)?;
    group.has_caught_up(away).await?;
    row("it comes back and catches up".into(), before, sampler.stop()?, began);
    drop(group);

    let mut group = Group::start(directory, snapshot_mib).await?;
    let away = (group.leader().await? + 1) % 3;
    group.stop_node(away).await;
    group.write(20_000).await?;
    let leader = group.nodes[group.leader().await?].clone().ok_or("the leader runs")?;
    let (before, began, sampler) = (resident(), Instant::now(), Sampler::start());
    leader.snapshot().await?;
    row(format!("a snapshot of {snapshot_mib} MiB is taken"), before, sampler.stop()?, began);
    let (before, began, sampler) = (resident(), Instant::now(), Sampler::start());
    group.start_node(away)?;
    group.has_caught_up(away).await?;
    row("a follower comes back and gets it".into(), before, sampler.stop()?, began);
    print!("{}", table.render());
    Ok(())
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let directory = PathBuf::from(arguments.first().ok_or("which directory?")?).join("held");
    let entries = arguments.get(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let snapshot_mib = arguments.get(2).map_or(Ok(1024), |text| text.parse())?;
    let outcome = Runtime::new()?.block_on(run(&directory, entries, snapshot_mib));
    fs::remove_dir_all(&directory)?;
    outcome
}
