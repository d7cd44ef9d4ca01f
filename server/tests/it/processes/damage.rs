//! Bits that flip on disks: a node says what it lost, gets it back from the others, and nothing that was acknowledged is missing.

use std::fs;
use std::path::{Path, PathBuf};

use lattice::proto::etcdserverpb::{PutRequest, RangeRequest};

use super::nodes::Processes;
use super::until;

/// Keys that are written one after another, so that each is in a frame of its own.
const KEYS: usize = 30;

fn key(number: usize) -> String {
    format!("damage/{number:04}")
}

fn value(number: usize) -> String {
    format!("the value of key {number:04}, which is in each log once")
}

pub(super) async fn put_all(cluster: &Processes) {
    let leader = cluster.leader().await;
    let client = cluster.nodes[leader].client().await;
    for number in 0..KEYS {
        let (key, value) = (key(number).into(), value(number).into());
        let put = PutRequest { key, value, ..PutRequest::default() };
        until("a write", async || client.put(put.clone()).await.ok()).await;
    }
    for index in 0..cluster.nodes.len() {
        cluster.caught_up(index).await;
    }
}

/// What this node has, whatever the others have.
async fn holds_all(cluster: &Processes, index: usize) {
    cluster.caught_up(index).await;
    let client = cluster.nodes[index].client().await;
    for number in 0..KEYS {
        let request =
            RangeRequest { key: key(number).into(), serializable: true, ..RangeRequest::default() };
        let answer = client.range(request).await.unwrap();
        let values: Vec<_> = answer.kvs.into_iter().map(|pair| pair.value).collect();
        assert_eq!(values, [value(number).into_bytes()], "n{index}, {}", key(number));
    }
}

fn segments_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(segments_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "seg") {
            found.push(path);
        }
    }
    found
}

/// Flips one bit of this key's value in the log below `directory`.
pub(super) fn flip_a_bit(directory: &Path, number: usize) {
    let wanted = value(number).into_bytes();
    let flipped = segments_below(directory).into_iter().any(|path| {
        let mut content = fs::read(&path).unwrap();
        let found = content.windows(wanted.len()).position(|window| window == wanted);
        if let Some(at) = found {
            content[at + 7] ^= 1;
            fs::write(&path, content).unwrap();
        }
        found.is_some()
    });
    assert!(flipped, "{} is in the log", key(number));
}

fn count(cluster: &Processes, index: usize, words: &str) -> usize {
    cluster.nodes[index].log().iter().filter(|line| line.contains(words)).count()
}

const FOUND: &str = "The log is damaged in entries";
const REPAIRED: &str = "Repaired entries";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_repairs_a_flipped_bit_in_the_middle_of_its_log() {
    let mut cluster = Processes::start(3).await;
    put_all(&cluster).await;
    let follower = (cluster.leader().await + 1) % 3;
    cluster.nodes[follower].kill();
    flip_a_bit(&cluster.nodes[follower].data_dir, KEYS / 2);
    cluster.nodes[follower].start();
    println!("{}", cluster.nodes[follower].says(FOUND).await);
    println!("{}", cluster.nodes[follower].says(REPAIRED).await);
    holds_all(&cluster, follower).await;

    // It is repaired on the disk: the next start finds nothing.
    cluster.nodes[follower].kill();
    cluster.nodes[follower].start();
    holds_all(&cluster, follower).await;
    assert_eq!(count(&cluster, follower, FOUND), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_all_damaged_at_different_entries_repair_one_another() {
    let mut cluster = Processes::start(3).await;
    put_all(&cluster).await;
    for node in &mut cluster.nodes {
        node.kill();
    }
    for (index, number) in [(0, 5), (1, 12), (2, 20), (0, 21)] {
        flip_a_bit(&cluster.nodes[index].data_dir, number);
    }
    cluster.start_all();
    for node in &cluster.nodes {
        println!("{}", node.says(FOUND).await);
        println!("{}", node.says(REPAIRED).await);
    }
    cluster.leader().await;
    for index in 0..3 {
        holds_all(&cluster, index).await;
    }
    // And they go on as ever.
    put_all(&cluster).await;
}
