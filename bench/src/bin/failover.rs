//! How long a cluster of three takes no writes when its leader fails, beside etcd.
//!
//! `cargo run --release -p lattice-bench --bin failover -- DIR [TIMES]`. Builds nothing: needs `target/release/lattice`, or the program
//! that `LATTICE` names. etcd takes part if it is installed. Needs root and Linux: each member has a network namespace of its own, so that
//! links can be cut one way or both by routes that lead nowhere, while clients still reach all members. DIR must be on a real disk; what is
//! written there is removed.
//!
//! Writers at every member put one key at a time and give up on a put after a quarter of a second. The gap is the longest time without any
//! acknowledged put, from the fault on, by whichever writer. The faults: the leader is killed; it is stopped (SIGSTOP); it is cut off from both
//! others; it hears neither of them, and is heard by both. Between two faults the cluster is whole and quiet again.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lattice_bench::table::Table;
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const FAULTS: [Fault; 4] = [Fault::Kill, Fault::Pause, Fault::Partition, Fault::Deaf];
const WRITERS_A_MEMBER: usize = 4;
const GIVEN_UP_AFTER: Duration = Duration::from_millis(250);
/// A cluster that takes no writes for so long has failed the measurement.
const PATIENCE: Duration = Duration::from_secs(60);
/// A fault lasts so long at least, and the writes so long after they have come back.
const LASTS: Duration = Duration::from_millis(3500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    Pause,
    Partition,
    Deaf,
}

// What is needed of etcd's messages, by their documented numbers.

#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
    #[prost(uint64, tag = "6")]
    raft_term: u64,
}

/// When puts were acknowledged.
#[derive(Debug)]
struct Acknowledged {
    last: Instant,
    longest_gap: Duration,
    count: u64,
}

/// Three members of one system, and who writes to them.
struct Cluster {
    name: &'static str,
    program: PathBuf,
    directory: PathBuf,
    /// Its addresses are `10.77.{net}.1` to `3`.
    net: u8,
    members: Vec<Option<Child>>,
    channels: Vec<Channel>,
    acknowledged: Arc<Mutex<Acknowledged>>,
    writers: Vec<JoinHandle<()>>,
}

impl Cluster {
    async fn start(name: &'static str, program: &Path, directory: &Path, net: u8) -> Outcome<Self> {
        let acknowledged =
            Acknowledged { last: Instant::now(), longest_gap: Duration::ZERO, count: 0 };
        let mut cluster = Self {
            name,
            program: program.to_owned(),
            directory: directory.to_owned(),
            net,
            members: vec![None, None, None],
            channels: Vec::new(),
            acknowledged: Arc::new(Mutex::new(acknowledged)),
            writers: Vec::new(),
        };
        cluster.remove_network();
        cluster.make_network()?;
        for member in 0..3 {
            cluster.start_member(member)?;
            let url = format!("http://{}:2379", cluster.address(member));
            let endpoint = Endpoint::from_shared(url)?.connect_timeout(GIVEN_UP_AFTER);
            cluster.channels.push(endpoint.connect_lazy());
        }
        for writer in 0..3 * WRITERS_A_MEMBER {
            let (channel, acknowledged) =
                (cluster.channels[writer % 3].clone(), Arc::clone(&cluster.acknowledged));
            cluster.writers.push(tokio::spawn(write(writer, channel, acknowledged)));
        }
        Ok(cluster)
    }

    fn address(&self, member: usize) -> String {
        format!("10.77.{}.{}", self.net, member + 1)
    }

    fn namespace(&self, member: usize) -> String {
        format!("lattice-bench-{}-{member}", self.net)
    }

    fn make_network(&self) -> Outcome<()> {
        let net = self.net;
        let bridge = format!("lb{net}");
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("10.77.{net}.254/24"), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for member in 0..3 {
            let (space, here, there) =
                (self.namespace(member), format!("lb{net}h{member}"), format!("lb{net}m{member}"));
            ip(&["netns", "add", &space])?;
            ip(&["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &space])?;
            ip(&["link", "set", &here, "master", &bridge, "up"])?;
            let address = format!("{}/24", self.address(member));
            ip(&["-n", &space, "addr", "add", &address, "dev", &there])?;
            ip(&["-n", &space, "link", "set", &there, "up"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    /// As far as there is one.
    fn remove_network(&self) {
        for member in 0..3 {
            drop(ip(&["netns", "del", &self.namespace(member)]));
        }
        drop(ip(&["link", "del", &format!("lb{}", self.net)]));
    }

    fn start_member(&mut self, member: usize) -> Outcome<()> {
        let url = |member: usize, port: u16| format!("http://{}:{port}", self.address(member));
        let list: Vec<String> =
            (0..3).map(|member| format!("n{member}={}", url(member, 2380))).collect();
        let directory = self.directory.join(format!("{}-{member}", self.name));
        fs::create_dir_all(&directory)?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(member)]).arg(&self.program);
        if self.name == "lattice" {
            command.args(["serve", "--cache-listen=none", "--insecure-no-auth"]);
        } else {
            command.arg(format!("--advertise-client-urls={}", url(member, 2379)));
            command.arg(format!("--initial-advertise-peer-urls={}", url(member, 2380)));
        }
        command
            .arg(format!("--name=n{member}"))
            .arg(format!("--data-dir={}", directory.join("data").display()))
            .arg(format!("--listen-client-urls={}", url(member, 2379)))
            .arg(format!("--listen-peer-urls={}", url(member, 2380)))
            .arg(format!("--initial-cluster={}", list.join(",")));
        let log = File::options().create(true).append(true).open(directory.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.members[member] = Some(command.spawn()?);
        Ok(())
    }

    async fn status(&self, member: usize) -> Option<Status> {
        let call = unary(&self.channels[member], "/etcdserverpb.Maintenance/Status", Empty {});
        tokio::time::timeout(GIVEN_UP_AFTER, call).await.ok()?.ok()
    }

    /// Waits until all members follow one leader and have done so for a second; which one it is.
    async fn settled(&self) -> Outcome<usize> {
        let began = Instant::now();
        let mut same_since: Option<(u64, u64, Instant)> = None;
        while began.elapsed() < PATIENCE {
            let mut seen = Vec::new();
            for member in 0..3 {
                seen.extend(self.status(member).await);
            }
            let (leader, term) = seen.first().map_or((0, 0), |it| (it.leader, it.raft_term));
            let agree = |it: &Status| it.leader == leader && it.raft_term == term;
            if leader == 0 || seen.len() < 3 || !seen.iter().all(agree) {
                same_since = None;
            } else if let Some((_, _, since)) =
                same_since.filter(|same| (same.0, same.1) == (leader, term))
            {
                if since.elapsed() > Duration::from_secs(1) {
                    let leads =
                        |it: &Status| it.header.as_ref().is_some_and(|it| it.member_id == leader);
                    return seen.iter().position(leads).ok_or_else(|| "a stranger leads".into());
                }
            } else {
                same_since = Some((leader, term, Instant::now()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("{}: the members do not agree on a leader", self.name).into())
    }

    fn signal(&self, member: usize, signal: Signal) -> Outcome<()> {
        let child = self.members[member].as_ref().ok_or("it does not run")?;
        // `ip netns exec` becomes the program.
        let process = Pid::from_raw(i32::try_from(child.id())?).ok_or("no such process")?;
        Ok(kill_process(process, signal)?)
    }

    /// What `from` sends to `to` goes nowhere, or arrives again.
    fn cut(&self, from: usize, to: usize, is_cut: bool) -> Outcome<()> {
        let what = if is_cut { "add" } else { "del" };
        let to = format!("{}/32", self.address(to));
        ip(&["-n", &self.namespace(from), "route", what, "blackhole", &to])
    }

    fn set(&mut self, fault: Fault, leader: usize, is_on: bool) -> Outcome<()> {
        let others = (0..3).filter(|&other| other != leader);
        match (fault, is_on) {
            (Fault::Kill, true) => {
                self.signal(leader, Signal::KILL)?;
                if let Some(mut child) = self.members[leader].take() {
                    child.wait()?;
                }
            }
            (Fault::Kill, false) => self.start_member(leader)?,
            (Fault::Pause, true) => self.signal(leader, Signal::STOP)?,
            (Fault::Pause, false) => self.signal(leader, Signal::CONT)?,
            (Fault::Partition, _) => {
                for other in others {
                    self.cut(leader, other, is_on)?;
                    self.cut(other, leader, is_on)?;
                }
            }
            (Fault::Deaf, _) => {
                for other in others {
                    self.cut(other, leader, is_on)?;
                }
            }
        }
        Ok(())
    }

    /// The longest time without an acknowledged put that this fault causes.
    async fn gap(&mut self, fault: Fault) -> Outcome<Duration> {
        let leader = self.settled().await?;
        let began = Instant::now();
        {
            let mut acknowledged = lock(&self.acknowledged);
            *acknowledged = Acknowledged { last: began, longest_gap: Duration::ZERO, count: 0 };
        }
        self.set(fault, leader, true)?;
        // Until writes have gone on for as long as the fault is to last.
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let (last, longest) = {
                let acknowledged = lock(&self.acknowledged);
                (acknowledged.last, acknowledged.longest_gap)
            };
            let is_back =
                longest > Duration::from_millis(200) && last.elapsed() < Duration::from_millis(200);
            if began.elapsed() > LASTS && (is_back || began.elapsed() > 3 * LASTS) {
                break;
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("{}: no put is acknowledged", self.name).into());
            }
        }
        let gap = lock(&self.acknowledged).longest_gap;
        self.set(fault, leader, false)?;
        Ok(gap)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.writers.iter().for_each(JoinHandle::abort);
        for child in self.members.iter_mut().flatten() {
            // It may have ended by itself.
            drop(child.kill());
            drop(child.wait());
        }
        self.remove_network();
    }
}

/// Puts, one after the other, for ever.
async fn write(writer: usize, channel: Channel, acknowledged: Arc<Mutex<Acknowledged>>) {
    let key = format!("writer-{writer}").into_bytes();
    loop {
        let put = Put { key: key.clone(), value: vec![b'x'; 256] };
        let call = unary::<_, Empty>(&channel, "/etcdserverpb.KV/Put", put);
        if let Ok(Ok(Empty {})) = tokio::time::timeout(GIVEN_UP_AFTER, call).await {
            let mut acknowledged = lock(&acknowledged);
            let now = Instant::now();
            let gap = now.saturating_duration_since(acknowledged.last);
            acknowledged.longest_gap = acknowledged.longest_gap.max(gap);
            acknowledged.last = now;
            acknowledged.count += 1;
        }
        // A few hundred puts a second are enough to see a gap by, and leave the processor to the members.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn unary<Q, A>(channel: &Channel, path: &'static str, request: Q) -> Outcome<A>
where
    Q: prost::Message + Default + 'static,
    A: prost::Message + Default + 'static,
{
    let mut client = Grpc::new(channel.clone());
    client.ready().await?;
    let path = PathAndQuery::from_static(path);
    let codec: ProstCodec<Q, A> = ProstCodec::default();
    Ok(client.unary(tonic::Request::new(request), path, codec).await?.into_inner())
}

fn ip(arguments: &[&str]) -> Outcome<()> {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`ip {}`: {}", arguments.join(" "), said.trim()).into())
}

fn lock(acknowledged: &Mutex<Acknowledged>) -> std::sync::MutexGuard<'_, Acknowledged> {
    acknowledged.lock().expect("no writer panics while it holds this")
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let directory = PathBuf::from(arguments.first().ok_or("which directory?")?).join("failover");
    let times: usize = arguments.get(1).map_or(Ok(100), |text| text.parse())?;
    let program =
        std::env::var_os("LATTICE").map_or_else(|| "target/release/lattice".into(), PathBuf::from);
    drop(fs::remove_dir_all(&directory));
    fs::create_dir_all(&directory)?;
    let outcome = Runtime::new()?.block_on(compare(&program, &directory, times));
    fs::remove_dir_all(&directory)?;
    outcome
}

async fn compare(program: &Path, directory: &Path, times: usize) -> Outcome<()> {
    let mut clusters = vec![Cluster::start("lattice", program, directory, 1).await?];
    match Command::new("etcd").arg("--version").output() {
        Ok(version) => {
            let version = String::from_utf8_lossy(&version.stdout).into_owned();
            println!("Beside {}.", version.lines().next().unwrap_or("etcd"));
            clusters.push(Cluster::start("etcd", Path::new("etcd"), directory, 2).await?);
        }
        Err(_) => println!("etcd is not installed: ours alone."),
    }
    println!(
        "Three processes, fsync on, each in a network namespace; {} writers of 256 bytes; {times} times each; election \
         timeouts as they come (ours 1 to 1.5 s, etcd's 1 to 2 s). Milliseconds without an acknowledged put:\n",
        3 * WRITERS_A_MEMBER
    );
    let mut table = Table::new(&["the leader is", "system", "p50", "p90", "max"]);
    for fault in FAULTS {
        let mut gaps = vec![Vec::new(); clusters.len()];
        for _ in 0..times {
            for (cluster, gaps) in clusters.iter_mut().zip(&mut gaps) {
                gaps.push(cluster.gap(fault).await?.as_millis());
            }
        }
        for (cluster, gaps) in clusters.iter().zip(&mut gaps) {
            gaps.sort_unstable();
            let at = |percent: usize| gaps[(gaps.len() - 1) * percent / 100].to_string();
            let what = match fault {
                Fault::Kill => "killed",
                Fault::Pause => "stopped",
                Fault::Partition => "cut off",
                Fault::Deaf => "deaf",
            };
            table.row(vec![what.into(), cluster.name.into(), at(50), at(90), at(100)]);
        }
    }
    print!("{}", table.render());
    Ok(())
}
