//! Disks that fail and disks that are full.
//!
//! A failed fsync ends the node: what it covered may be gone, though the kernel says no more about it. A full disk does
//! not: the node refuses new writes, serves what it has, and goes on once there is room.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lattice::client::{Client, ClientError};
use lattice::proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};
use rustix::process::{Signal, kill_process};
use tonic::Code;

use super::load::Load;
use super::nodes::{Processes, Served};
use super::{PATIENCE, can_run, until};

/// The fsync of a thread that fails; `LATTICE_FAILING_FSYNC` asks for another.
fn failing_fsync() -> u32 {
    std::env::var("LATTICE_FAILING_FSYNC").map_or(50, |number| number.parse().expect("a number"))
}

/// Meddles with the fsyncs of a running process, until it is dropped or the process ends.
struct Meddler(Child);

impl Meddler {
    /// A coming fsync fails.
    fn fail(node: &Served) -> Self {
        Self::attach(node, &format!("error=EIO:when={}", failing_fsync()))
    }

    /// Each fsync takes so much longer.
    fn delay(node: &Served, by: Duration) -> Self {
        Self::attach(node, &format!("delay_enter={}", by.as_micros()))
    }

    fn attach(node: &Served, what: &str) -> Self {
        let mut strace = Command::new("strace")
            .args(["-f", "-e", "trace=fdatasync", "-e"])
            .arg(format!("inject=fdatasync:{what}"))
            .args(["-p", &node.pid().as_raw_nonzero().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines();
        let attached = lines.by_ref().map_while(Result::ok).find(|line| line.contains("attached"));
        assert!(attached.is_some(), "strace ended without a word");
        thread::spawn(move || lines.for_each(drop));
        Self(strace)
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        let _ended_with_the_process =
            kill_process(rustix::process::Pid::from_child(&self.0), Signal::TERM);
        let _reaped = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fsync_stops_the_node_and_loses_nothing() {
    if !can_run("strace", &["-f", "-o", "/dev/null", "true"]) {
        return;
    }
    let mut cluster = Processes::start(3).await;
    let load = Load::start(&cluster, 6, 4);
    load.acknowledges_more(50).await;
    for on_the_leader in [true, false] {
        let leader = cluster.leader().await;
        let victim = if on_the_leader { leader } else { (leader + 1) % 3 };
        let role = if on_the_leader { "leader" } else { "follower" };
        let strace = Meddler::fail(&cluster.nodes[victim]);
        let status = cluster.nodes[victim].ended().await;
        let gap = load.acknowledges_after(Instant::now()).await;
        drop(strace);
        assert_eq!(status.code(), Some(1), "{role}");
        let said = cluster.nodes[victim].says("can no longer be trusted").await;
        assert!(said.contains("os error 5"), "{said}");
        println!("the {role} n{victim} stopped; the next write was acknowledged {gap:.2?} later");
        cluster.nodes[victim].start();
        cluster.caught_up(victim).await;
    }
    let summary = load.stop().await.check_at_the_end(&cluster).await;
    println!("{summary}");
}

/// Three seconds for each fsync: more than two election timeouts, while heartbeats go out as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_slow_hands_over() {
    if !can_run("strace", &["-f", "-o", "/dev/null", "true"]) {
        return;
    }
    let cluster = Processes::start(3).await;
    let load = Load::start(&cluster, 6, 4);
    load.acknowledges_more(50).await;
    let leader = cluster.leader().await;
    let start = Instant::now();
    let slow = Meddler::delay(&cluster.nodes[leader], Duration::from_secs(3));
    cluster.nodes[leader].says("holds the others up").await;
    let next = cluster.leader_other_than(leader).await;
    let gap = load.acknowledges_after(Instant::now()).await;
    let took = start.elapsed();
    drop(slow);
    cluster.caught_up(leader).await;
    let summary = load.stop().await.check_at_the_end(&cluster).await;
    println!(
        "n{leader} handed over to n{next}, which wrote {took:.2?} after the disk became slow, and {gap:.2?} after it led; {summary}"
    );
}

/// A file system in memory of a node's own, nearly filled by one file.
struct SmallDisk {
    directory: PathBuf,
}

const DISK_MIB: usize = 160;
const FILLER_MIB: usize = 136;
const VALUE_BYTES: usize = 64 << 10;
/// More values than fit beside the filler, and fewer than the disk holds without it.
const VALUES: usize = 600;

impl SmallDisk {
    fn is_possible() -> bool {
        can_run("unshare", &["--user", "--map-root-user", "--mount", "true"])
    }

    /// Puts the node's data directory on such a disk.
    fn under(node: &mut Served) -> Self {
        let directory = node.data_dir.with_extension("disk");
        std::fs::create_dir(&directory).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={DISK_MIB}m none '{0}' && head -c {FILLER_MIB}M /dev/zero >'{0}/filler' && exec \"$0\" \"$@\"",
            directory.display()
        );
        let words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &script];
        node.wrapper = words.map(str::to_owned).to_vec();
        node.args.retain(|arg| !arg.starts_with("--data-dir="));
        node.args.push(format!("--data-dir={}", directory.join("data").display()));
        Self { directory }
    }

    /// Takes the filler away, as an operator would make room.
    fn make_room(&self, node: &Served) {
        let filler = self.directory.join("filler");
        let inside = filler.strip_prefix("/").unwrap();
        let root = PathBuf::from(format!("/proc/{}/root", node.pid().as_raw_nonzero()));
        std::fs::remove_file(root.join(inside)).unwrap();
    }
}

async fn put(client: &Client, number: usize) -> Result<(), ClientError> {
    let (key, value) = (format!("key{number:04}").into(), vec![b'x'; VALUE_BYTES].into());
    client.put(PutRequest { key, value, ..PutRequest::default() }).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_serves_reads_until_there_is_room() {
    if !SmallDisk::is_possible() {
        return;
    }
    let mut cluster = Processes::new(1);
    let disk = SmallDisk::under(&mut cluster.nodes[0]);
    cluster.start_all();
    cluster.leader().await;
    let node = &cluster.nodes[0];
    let client = node.client().await;
    let mut stored = 0;
    let error = loop {
        match put(&client, stored).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < VALUES, "the disk does not fill up");
    };
    assert_eq!(error.code(), Some(Code::ResourceExhausted), "{error}");
    assert_eq!(error.to_string(), "etcdserver: mvcc: database space exceeded");
    println!("full after {stored} values of {VALUE_BYTES} bytes");

    let all = || RangeRequest {
        key: "key".into(),
        range_end: "kez".into(),
        count_only: true,
        ..RangeRequest::default()
    };
    assert_eq!(client.range(all()).await.unwrap().count, i64::try_from(stored).unwrap());
    until("the status to tell", async || {
        let errors = client.status().await.unwrap().errors;
        errors.iter().any(|error| error.contains("NOSPACE")).then_some(())
    })
    .await;
    // Deletes are how a client makes room: there is some kept for them.
    let delete = DeleteRangeRequest { key: "key0000".into(), ..DeleteRangeRequest::default() };
    assert_eq!(client.delete_range(delete).await.unwrap().deleted, 1);

    disk.make_room(node);
    until("writes to be taken again", async || put(&client, stored).await.ok()).await;
    assert_eq!(client.range(all()).await.unwrap().count, i64::try_from(stored).unwrap());
    until("the status to tell", async || {
        client.status().await.unwrap().errors.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_room_lets_another_one_lead_and_writes_go_on() {
    if !SmallDisk::is_possible() {
        return;
    }
    let mut cluster = Processes::new(3);
    let _disk = SmallDisk::under(&mut cluster.nodes[2]);
    cluster.start_all();
    let small = cluster.nodes[2].client().await;
    until("the node with the small disk to lead", async || {
        let leader = cluster.leader().await;
        if leader != 2 {
            let id = small.status().await.ok()?.header?.member_id;
            // It may be too early for that.
            cluster.nodes[leader].client().await.move_leader(id).await.ok()?;
        }
        Some(())
    })
    .await;
    let client = cluster.nodes[0].client().await;
    for number in 0..VALUES {
        until("a write to be taken", async || put(&client, number).await.ok()).await;
    }
    assert_ne!(cluster.leader().await, 2, "it has no room for all that");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_with_a_full_disk_holds_up_nobody_and_catches_up() {
    if !SmallDisk::is_possible() {
        return;
    }
    let mut cluster = Processes::new(3);
    let disk = SmallDisk::under(&mut cluster.nodes[2]);
    cluster.start_all();
    if cluster.leader().await == 2 {
        // Until every founder is bound to its directory, and the others know, they do not go on without one of them.
        until("all founders to be bound", async || {
            let log = cluster.nodes[2].log();
            (log.iter().filter(|line| line.contains("Bound ")).count() == 3).then_some(())
        })
        .await;
        let client = cluster.nodes[2].client().await;
        until("a write to be taken", async || put(&client, 0).await.ok()).await;
        cluster.nodes[2].signal(Signal::STOP);
        cluster.leader_other_than(2).await;
        cluster.nodes[2].signal(Signal::CONT);
    }
    let leader = cluster.leader_other_than(2).await;
    let client = cluster.nodes[leader].client().await;
    let start = Instant::now();
    for number in 0..VALUES {
        until("a write to be taken", async || put(&client, number).await.ok()).await;
    }
    let took: Duration = start.elapsed();
    cluster.nodes[2].says("Little disk space is left").await;
    assert!(cluster.nodes[2].status().await.is_some(), "it answers");
    disk.make_room(&cluster.nodes[2]);
    cluster.caught_up(2).await;
    let behind = Client::connect(&cluster.urls()[2..], PATIENCE).await.unwrap();
    let all = RangeRequest {
        key: "key".into(),
        range_end: "kez".into(),
        count_only: true,
        ..RangeRequest::default()
    };
    assert_eq!(behind.range(all).await.unwrap().count, i64::try_from(VALUES).unwrap());
    println!("the others wrote {VALUES} values in {took:.2?}, and n2 caught up");
}
