//! The built program: `lattice serve` and its clients, as processes.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use lattice::client::Client;
use lattice::url::Url;
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;

use crate::cluster::{PATIENCE, get, put};

const LATTICE: &str = env!("CARGO_BIN_EXE_lattice");

/// A `lattice serve`; killed when dropped.
struct Served {
    child: Child,
    url: Url,
    admin: Option<Url>,
}

impl Served {
    /// One node alone on ports that the system chooses, which its log tells.
    fn start(data_dir: &Path) -> Self {
        Self::spawn(Command::new(LATTICE), data_dir, "none")
    }

    /// `command` is the program, or another one that becomes it.
    fn spawn(mut command: Command, data_dir: &Path, admin: &str) -> Self {
        let mut child = command
            .args(["serve", "--log-format=json", "--admin-listen", admin, "--cache-listen=none"])
            .args(["--listen-client-urls=http://127.0.0.1:0"])
            .args(["--listen-peer-urls=http://127.0.0.1:0"])
            .args(["--heartbeat-interval=50", "--election-timeout=300"])
            .arg("--data-dir")
            .arg(data_dir)
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (url, admin) = lines
            .by_ref()
            .map(Result::unwrap)
            .find_map(|line| {
                let event: serde_json::Value = serde_json::from_str(&line).unwrap();
                let url = event["clients"].as_str()?.parse().unwrap();
                Some((url, event["admin"].as_str().unwrap().parse().ok()))
            })
            .expect("the node tells where it listens");
        // Somebody has to read the rest, or the node would block on a full pipe.
        thread::spawn(move || lines.for_each(drop));
        Self { child, url, admin }
    }

    async fn client(&self) -> Client {
        Client::connect(std::slice::from_ref(&self.url), PATIENCE).await.unwrap()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _may_have_ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Clients that write until the server is gone; returns what was acknowledged, while `trouble` happens to it.
async fn write_until_gone(server: &mut Served, signal: Signal) -> (Vec<String>, Option<i32>) {
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let client = server.client().await;
        let acknowledged = Arc::clone(&acknowledged);
        writers.spawn(async move {
            for number in 0.. {
                let key = format!("key-{writer}-{number}");
                if put(&client, &key, &key).await.is_err() {
                    return;
                }
                acknowledged.lock().unwrap().push(key);
            }
        });
    }
    while acknowledged.lock().unwrap().len() < 100 {
        tokio::task::yield_now().await;
    }
    server.signal(signal);
    while writers.join_next().await.is_some() {}
    let code = server.child.wait().unwrap().code();
    let acknowledged = std::mem::take(&mut *acknowledged.lock().unwrap());
    (acknowledged, code)
}

#[tokio::test]
async fn a_signal_under_load_loses_nothing_that_was_acknowledged() {
    for (signal, expected) in [(Signal::TERM, Some(0)), (Signal::KILL, None)] {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let mut server = Served::start(&data_dir);
        let (acknowledged, code) = write_until_gone(&mut server, signal).await;
        assert_eq!(code, expected, "{signal:?}");
        let server = Served::start(&data_dir);
        let client = server.client().await;
        for key in &acknowledged {
            assert_eq!(get(&client, key).await.as_ref(), Some(key), "after {signal:?}");
        }
    }
}

/// The log needs files too: had clients taken them all, the node would have to stop.
#[tokio::test]
async fn no_number_of_connections_takes_the_files_of_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 128; exec \"$0\" \"$@\"", LATTICE]);
    let server = Served::spawn(limited, &directory.path().join("data"), "127.0.0.1:0");
    let client = server.client().await;
    put(&client, "first", "value").await.unwrap();
    let mut silent = Vec::new();
    for url in [&server.url, server.admin.as_ref().unwrap()] {
        for _ in 0..100 {
            silent.push(TcpStream::connect((url.host(), url.port())).unwrap());
        }
    }
    // More than a segment, so that the log opens another one.
    for number in 0..12 {
        put(&client, format!("large{number}"), vec![b'x'; 512 << 10]).await.unwrap();
    }
    // Those who say nothing make room for those who do.
    assert!(get(&server.client().await, "first").await.is_some());
}

fn lattice(args: &[&str]) -> Output {
    Command::new(LATTICE)
        .args(args)
        .env_remove("LATTICE_ENDPOINTS")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn the_command_line_reads_and_writes_with_its_exit_codes() {
    let directory = tempfile::tempdir().unwrap();
    let server = Served::start(&directory.path().join("data"));
    // Waits for the leader.
    put(&server.client().await, "first", "1").await.unwrap();
    let endpoints = format!("--endpoints={}", server.url);
    let run = |args: &[&str]| {
        let mut all = args.to_vec();
        all.push(&endpoints);
        let output = lattice(&all);
        (output.status.code(), text(&output.stdout).to_owned(), text(&output.stderr).to_owned())
    };
    assert_eq!(run(&["kv", "put", "greeting", "hello"]), (Some(0), "OK\n".into(), String::new()));
    let (code, out, _) = run(&["kv", "get", "greeting", "--print-value-only"]);
    assert_eq!((code, out.as_str()), (Some(0), "hello\n"));
    let (code, out, _) = run(&["kv", "get", "gr", "--prefix", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!((&json["schema"], &json["kvs"][0]["value"]), (&1.into(), &"hello".into()));
    assert_eq!(run(&["kv", "get", "missing"]).0, Some(7));
    assert_eq!(run(&["kv", "del", "greeting"]).1, "1 deleted\n");
    assert_eq!(run(&["kv", "get", "x", "--rev", "999"]).0, Some(4));
    let (code, out, _) = run(&["cluster", "status", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(0), "{out}");
    assert_eq!((&json["margin"], &json["members"][0]["role"]), (&0.into(), &"leader".into()));
    let bench = ["bench", "kv", "--clients=2", "--seconds=0.2", "--keys=10", "-o", "jsonl"];
    let (code, out, _) = run(&bench);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["errors"]), (Some(0), &0.into()));
    drop(server);
    assert_eq!(run(&["kv", "get", "x"]).0, Some(3));
}

#[test]
fn settings_that_cannot_work_are_usage_errors() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("node.toml");
    std::fs::write(&file, "hart-beat-interval = 5").unwrap();
    let config = format!("--config={}", file.display());
    for (args, expected) in [
        (["serve", config.as_str()], "did you mean `heartbeat-interval`?"),
        (["serve", "--heartbeat-interval=0"], "--heartbeat-interval"),
        (["serve", "--naem=x"], "--name"),
        (["serve", "--listen-client-urls=http://203.0.113.1:1"], "--insecure-no-auth"),
    ] {
        let output = lattice(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(expected), "{args:?}: {}", text(&output.stderr));
    }
}

#[tokio::test]
async fn a_journal_can_be_looked_at_after_its_node_has_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let mut server = Served::start(&data_dir);
    put(&server.client().await, "find-me", "here").await.unwrap();
    server.signal(Signal::TERM);
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let log = data_dir.join("group-0/log");
    let output = lattice(&["debug", "journal", log.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("find-me"), "{}", text(&output.stdout));
    let output = lattice(&["debug", "journal", directory.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
}

/// Reads until the end, for programs that print and exit.
#[test]
fn the_demo_starts_tells_its_addresses_and_stops() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(LATTICE)
        .args(["demo", "--nodes=3", "--data-dir"])
        .arg(directory.path().join("demo"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("Ctrl-C stops it.") {
        assert!(out.read_line(&mut seen).unwrap() > 0, "ended early: {seen}");
    }
    assert_eq!(seen.matches("clients http://127.0.0.1:").count(), 3, "{seen}");
    assert_eq!(seen.matches("(leader)").count(), 1, "{seen}");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    out.read_to_string(&mut seen).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{seen}");
    assert!(directory.path().join("demo/demo.toml").exists());
}
