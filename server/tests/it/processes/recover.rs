//! A majority is lost for good: one survivor becomes a new cluster, which has all that the survivor had.

use std::path::Path;
use std::process::Output;

use lattice::proto::etcdserverpb::{PutRequest, RangeRequest};
use tokio::process::Command;

use super::damage::{flip_a_bit, put_all};
use super::members::{done, field, voters};
use super::nodes::{LATTICE, Processes};
use super::until;

const KEYS: usize = 40;
const USAGE: i32 = 2;

fn pair(number: usize) -> (Vec<u8>, Vec<u8>) {
    (format!("kept/{number:03}").into_bytes(), format!("value {number}").into_bytes())
}

async fn recover(from: &Path, to: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(LATTICE);
    command
        .args(["recover", "--new-cluster", "-o=json", "--data-dir"])
        .arg(from)
        .arg("--to")
        .arg(to);
    command.args(args).stdin(std::process::Stdio::null()).output().await.unwrap()
}

/// As `index` answers after it has asked the others, or, if that is `stale`, by itself.
async fn holds_all(processes: &Processes, index: usize, stale: bool) {
    let client = processes.nodes[index].client().await;
    for number in 0..KEYS {
        let (key, value) = pair(number);
        let request =
            RangeRequest { key: key.into(), serializable: stale, ..RangeRequest::default() };
        let found = until("a read", async || client.range(request.clone()).await.ok()).await.kvs;
        let found: Vec<_> = found.into_iter().map(|pair| pair.value).collect();
        assert_eq!(found, [value], "n{index}, key {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_becomes_a_new_cluster_with_everything_that_it_had() {
    let mut processes = Processes::new(3);
    for node in &mut processes.nodes {
        // Some of it is in a snapshot, some behind it.
        node.args.push("--snapshot-count=25".into());
    }
    processes.start_all();
    let leader = processes.leader().await;
    let client = processes.nodes[leader].client().await;
    for number in 0..KEYS {
        let (key, value) = pair(number);
        let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
        until("a write", async || client.put(put.clone()).await.ok()).await;
    }
    processes.caught_up(0).await;
    let (from, to) = (processes.nodes[0].data_dir.clone(), processes.directory().join("new"));

    let running = recover(&from, &to, &["--yes"]).await;
    assert!(!running.status.success());
    let text = String::from_utf8_lossy(&running.stderr).into_owned();
    assert!(text.contains("in use by another process"), "{text}");
    for node in &mut processes.nodes {
        node.kill();
    }
    let asked = recover(&from, &to, &[]).await;
    assert_eq!(asked.status.code(), Some(USAGE));
    let text = String::from_utf8_lossy(&asked.stderr).into_owned();
    for words in ["40 keys", "Lost, if there were any", "Left behind: n", "say --yes"] {
        assert!(text.contains(words), "{text}");
    }
    assert!(!to.exists());

    let made = recover(&from, &to, &["--yes"]).await;
    let json = String::from_utf8(made.stdout).unwrap();
    assert!(made.status.success(), "{json} {}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(field(&json, "keys"), KEYS);
    assert_ne!(field(&json, "cluster"), field(&json, "old_cluster"));
    let again = recover(&from, &to, &["--yes"]).await;
    assert!(!again.status.success(), "what was made is not made again over it");

    // The survivor, with the new directory, on its old ports.
    let old_args = processes.nodes[0].args.clone();
    let is_kept = |arg: &String| !arg.starts_with("--data-dir") && !arg.starts_with("--initial-");
    let mut args: Vec<String> = old_args.into_iter().filter(is_kept).collect();
    args.extend([
        format!("--data-dir={}", to.display()),
        "--initial-cluster-state=existing".to_owned(),
    ]);
    processes.nodes[0].args = args;
    processes.nodes[0].start();
    processes.leader().await;
    holds_all(&processes, 0, false).await;

    // An old member that comes back is not of this cluster, and changes nothing.
    processes.nodes[1].start();
    let before = processes.nodes[0].status().await.unwrap().raft_term;
    processes.nodes[1].says("is cluster").await;
    let left = processes.nodes[1].status().await.map_or(0, |status| status.leader);
    assert_eq!(left, 0, "it finds no leader");
    assert_eq!(processes.nodes[0].status().await.unwrap().raft_term, before);
    processes.nodes[1].kill();

    for _ in 0..2 {
        let new = processes.prepare();
        let (name, url) = (format!("n{new}"), processes.nodes[new].peer.to_string());
        done(&processes, 0, &["add", &name, &url]).await;
        processes.nodes[new].start();
    }
    voters(&processes, 0, 3).await;
    for index in [3, 4] {
        processes.caught_up(index).await;
        holds_all(&processes, index, true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_recovered_up_to_the_damage_if_somebody_says_so() {
    const DAMAGED: usize = 20;
    let mut processes = Processes::start(3).await;
    put_all(&processes).await;
    for node in &mut processes.nodes {
        node.kill();
    }
    let (from, to) = (processes.nodes[0].data_dir.clone(), processes.directory().join("new"));
    flip_a_bit(&from, DAMAGED);
    let refused = recover(&from, &to, &["--yes"]).await;
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("of the log are damaged"), "{text}");
    assert!(!to.exists());
    let made = recover(&from, &to, &["--yes", "--up-to-damage"]).await;
    let json = String::from_utf8(made.stdout).unwrap();
    assert!(made.status.success(), "{json} {}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(field(&json, "keys"), DAMAGED, "those before the damaged one");
    let index = |name| field(&json, name).as_u64().unwrap();
    assert!(index("kept_index") < index("log_end"), "{json}");
}
