//! `lattice serve` as processes: a cluster of them on ports that nobody else gets.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use lattice::client::Client;
use lattice::proto::etcdserverpb::StatusResponse;
use lattice::url::Url;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{PATIENCE, until};

/// The program under test.
pub(super) const LATTICE: &str = env!("CARGO_BIN_EXE_lattice");
/// For questions whose answer is at hand.
const SHORT: Duration = Duration::from_secs(2);
/// Lines of each node's log that a failing test shows.
const LOG_SHOWN: usize = 40;

/// A cluster of processes. All are killed when it is dropped.
#[derive(Debug)]
pub(super) struct Processes {
    pub(super) nodes: Vec<Served>,
    address: Ipv4Addr,
    directory: TempDir,
}

/// One member: its addresses and directory, and the process while there is one.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) data_dir: PathBuf,
    pub(super) client: Url,
    pub(super) peer: Url,
    /// Goes before the program, as `unshare` or `strace` do.
    pub(super) wrapper: Vec<String>,
    pub(super) args: Vec<String>,
    child: Option<Child>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Processes {
    /// `count` members, none of them started.
    pub(super) fn new(count: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = address_of_our_own();
        let peers: Vec<Url> = (0..count).map(|_| Url::of(free_port(address))).collect();
        let list = peers.iter().enumerate().map(|(index, peer)| format!("n{index}={peer}"));
        let list = list.collect::<Vec<_>>().join(",");
        let mut cluster = Self { nodes: Vec::new(), address, directory };
        for peer in peers {
            cluster.push(peer, &list);
        }
        cluster
    }

    fn push(&mut self, peer: Url, list: &str) {
        let index = self.nodes.len();
        let data_dir = self.directory.path().join(format!("n{index}"));
        let client = Url::of(free_port(self.address));
        let args = vec![
            format!("--name=n{index}"),
            format!("--data-dir={}", data_dir.display()),
            format!("--listen-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-cluster={list}"),
            "--admin-listen=none".into(),
            "--cache-listen=none".into(),
        ];
        let log = Arc::default();
        let wrapper = Vec::new();
        self.nodes.push(Served { data_dir, client, peer, wrapper, args, child: None, log });
    }

    /// Prepares one more node, which is to join those that run; returns its index.
    pub(super) fn prepare(&mut self) -> usize {
        let index = self.nodes.len();
        let peer = Url::of(free_port(self.address));
        let own = format!("n{index}={peer}");
        let others = self.members().map(|other| format!("n{other}={}", self.nodes[other].peer));
        let list = others.chain([own]).collect::<Vec<_>>().join(",");
        self.push(peer, &list);
        self.nodes[index].args.push("--initial-cluster-state=existing".into());
        index
    }

    /// The indices of the nodes that run.
    pub(super) fn members(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].is_running())
    }

    /// `count` members that have a leader, with the server's own timing.
    pub(super) async fn start(count: usize) -> Self {
        let mut cluster = Self::new(count);
        cluster.start_all();
        cluster.leader().await;
        cluster
    }

    /// Starts the members that do not run.
    pub(super) fn start_all(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.child.is_none()) {
            node.start();
        }
    }

    /// A directory that goes with the cluster.
    pub(super) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Where clients are served, in the order of the nodes.
    pub(super) fn urls(&self) -> Vec<Url> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    /// Waits for a leader that says so itself, and returns its index.
    pub(super) async fn leader(&self) -> usize {
        self.leader_other_than(usize::MAX).await
    }

    /// Waits for a leader that is not the node with this index, and does not ask that one.
    pub(super) async fn leader_other_than(&self, index: usize) -> usize {
        let running = |other: &usize| *other != index && self.nodes[*other].is_running();
        until("a leader", async || {
            for other in (0..self.nodes.len()).filter(running) {
                let status = self.nodes[other].status().await;
                let leads = |status: StatusResponse| {
                    status.header.is_some_and(|header| header.member_id == status.leader)
                };
                if status.is_some_and(leads) {
                    return Some(other);
                }
            }
            None
        })
        .await
    }

    /// Waits until the node with this index has applied what the others have committed by now.
    pub(super) async fn caught_up(&self, index: usize) {
        let mut goal = 0;
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            goal = goal.max(node.status().await.map_or(0, |status| status.raft_index));
        }
        until("a node to catch up", async || {
            let status = self.nodes[index].status().await?;
            (status.leader != 0 && status.raft_applied_index >= goal).then_some(())
        })
        .await;
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if node.is_running() {
                node.kill();
            }
            if thread::panicking() {
                let log = node.log();
                let shown = log.len().saturating_sub(LOG_SHOWN);
                println!("--- the log of n{index} ends with:\n{}", log[shown..].join("\n"));
            }
        }
    }
}

impl Served {
    /// Starts the process.
    pub(super) fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut words = self.wrapper.iter().map(String::as_str).chain([LATTICE]);
        let mut command = Command::new(words.next().expect("the program at least"));
        let mut child = command
            .args(words)
            .arg("serve")
            .args(&self.args)
            .env_remove("RUST_LOG")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::clone(&self.log);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                log.lock().unwrap().push(line);
            }
        });
        self.child = Some(child);
    }

    /// Whether it was started, and its end not yet been seen by a test.
    pub(super) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    /// All that it has written to standard error, over all its lives.
    pub(super) fn log(&self) -> MutexGuard<'_, Vec<String>> {
        self.log.lock().unwrap()
    }

    /// Waits until its log has a line with these words.
    pub(super) async fn says(&self, words: &str) -> String {
        let find = || self.log().iter().find(|line| line.contains(words)).cloned();
        until(&format!("the log to say `{words}`"), async || find()).await
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// SIGKILL, and waits until the process is gone.
    pub(super) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits until the process has ended by itself.
    pub(super) async fn ended(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it runs");
        let status = until("a process to end", async || child.try_wait().unwrap()).await;
        self.child = None;
        status
    }

    /// What it tells about itself, if it answers at once.
    pub(super) async fn status(&self) -> Option<StatusResponse> {
        let client = Client::connect(std::slice::from_ref(&self.client), SHORT).await.ok()?;
        client.status().await.ok()
    }

    /// A client of this node alone, with much patience.
    pub(super) async fn client(&self) -> Client {
        until("a node to serve", async || {
            Client::connect(std::slice::from_ref(&self.client), PATIENCE).await.ok()
        })
        .await
    }
}

/// An address of the loopback interface that no other cluster uses and no outgoing connection starts from, so that a port
/// stays free while its node is down. On systems that have only one such address, that one.
fn address_of_our_own() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, high.max(1), low, NEXT.fetch_add(1, Ordering::Relaxed));
    match TcpListener::bind((own, 0)) {
        Ok(_) => own,
        Err(_not_here) => Ipv4Addr::LOCALHOST,
    }
}

/// A port that nobody has, and that no other call returns: the system gives out again what was let go, and two nodes would meet.
pub(super) fn free_port(address: Ipv4Addr) -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());
    loop {
        let free = TcpListener::bind((address, 0)).unwrap().local_addr().unwrap();
        if GIVEN.lock().unwrap().insert(free) {
            return free;
        }
    }
}
