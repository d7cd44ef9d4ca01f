//! Members come and go under load: what an operator does by command line, with processes.

use std::process::Output;
use std::time::Instant;

use tokio::process::Command;

use super::load::Load;
use super::nodes::{LATTICE, Processes};
use super::until;

const CANNOT_CONNECT: i32 = 3;
const PRECONDITION: i32 = 6;
const NOT_FOUND: i32 = 7;
const NO_LEADER: i32 = 8;
const TIMEOUT: i32 = 124;

/// `LATTICE_MEMBER_ROUNDS` times the cluster grows and shrinks; once in CI.
fn rounds() -> usize {
    std::env::var("LATTICE_MEMBER_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// `lattice cluster …`, asked of a node; its output, whatever came of it.
async fn cluster(cluster: &Processes, ask: usize, args: &[&str]) -> Output {
    let endpoint = format!("--endpoints={}", cluster.nodes[ask].client);
    let command = Command::new(LATTICE).arg("cluster").args(args).arg(endpoint).output();
    command.await.unwrap()
}

/// As [`cluster`], until it is done. What passes by itself is waited for: an election, another change, members that are not heard from yet,
/// a leader that is none any more when it is asked. Everything else is an error; only after an answer that was lost may a removal find
/// nobody to remove.
pub(super) async fn done(processes: &Processes, ask: usize, args: &[&str]) -> String {
    let what = format!("`lattice cluster {}` to succeed", args.join(" "));
    let mut is_answer_lost = false;
    until(&what, async || {
        let output = cluster(processes, ask, args).await;
        let error = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return Some(String::from_utf8(output.stdout).unwrap());
        }
        println!("{args:?}: {error}");
        match output.status.code() {
            Some(NO_LEADER | CANNOT_CONNECT) => {}
            Some(TIMEOUT) => is_answer_lost = true,
            Some(PRECONDITION) if error.contains("not enough started members") => {}
            Some(PRECONDITION) if error.contains("not leader") => {}
            Some(NOT_FOUND) if args[0] == "remove" && is_answer_lost => return Some(String::new()),
            code => panic!("{args:?}: {code:?} {error}"),
        }
        None
    })
    .await
}

/// Waits until so many members vote, as the node with this index sees it.
pub(super) async fn voters(processes: &Processes, ask: usize, count: usize) {
    until(&format!("{count} voters"), async || {
        let output = cluster(processes, ask, &["members", "-o=json"]).await;
        let list: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let members = list["members"].as_array()?;
        let voters = members.iter().filter(|member| member["learner"] == false);
        (voters.count() == count && members.len() == count).then_some(())
    })
    .await;
}

/// The members' ids, as all have committed them.
async fn ids(processes: &Processes, ask: usize) -> Vec<u64> {
    let client = processes.nodes[ask].client().await;
    let list = async || client.members(true).await.ok();
    let members = until("a list of members", list).await.members;
    members.iter().map(|member| member.id).collect()
}

pub(super) fn field(json: &str, name: &str) -> serde_json::Value {
    serde_json::from_str::<serde_json::Value>(json).unwrap()[name].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_to_five_and_shrinks_to_three_under_load() {
    let mut processes = Processes::start(3).await;
    let mut load = Load::start(&processes, 4, 3);
    load.acknowledges_more(100).await;
    for _ in 0..rounds() {
        let ask = processes.members().next().unwrap();
        let (first, second) = (processes.prepare(), processes.prepare());
        for new in [first, second] {
            let (name, url) = (format!("n{new}"), processes.nodes[new].peer.to_string());
            done(&processes, ask, &["add", &name, &url]).await;
            processes.nodes[new].start();
            load.add(vec![processes.nodes[new].client.clone()], 1, 1);
        }
        voters(&processes, ask, 5).await;
        load.acknowledges_after(Instant::now()).await;

        // Two of the old ones go, the leader first if it is one of those.
        let leader = processes.leader().await;
        let other = processes.members().find(|index| *index != leader && *index != ask).unwrap();
        for gone in [leader, other] {
            let ask = processes.members().find(|index| *index != gone).unwrap();
            let name = format!("n{gone}");
            done(&processes, ask, &["remove", &name]).await;
            let status = processes.nodes[gone].ended().await;
            assert_eq!(status.code(), Some(6), "n{gone}");
            load.acknowledges_after(Instant::now()).await;
        }
        let ask = processes.members().next().unwrap();
        voters(&processes, ask, 3).await;
        // A removed node says so again.
        processes.nodes[other].start();
        assert_eq!(processes.nodes[other].ended().await.code(), Some(6));
        processes.nodes[other].says("was removed from the cluster for good").await;
        // Also if it has forgotten all and would found the cluster with the others of its list.
        std::fs::remove_dir_all(&processes.nodes[other].data_dir).unwrap();
        processes.nodes[other].start();
        assert_eq!(processes.nodes[other].ended().await.code(), Some(6));
    }
    let summary = load.stop().await.check_at_the_end(&processes).await;
    println!("{summary}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_is_refused_until_it_is_replaced() {
    let mut processes = Processes::start(3).await;
    let load = Load::start(&processes, 3, 2);
    load.acknowledges_more(50).await;
    voters(&processes, 0, 3).await;
    let wiped = (processes.leader().await + 1) % 3;
    let ask = (wiped + 1) % 3;
    processes.nodes[wiped].kill();
    std::fs::remove_dir_all(&processes.nodes[wiped].data_dir).unwrap();
    // It cannot found the cluster a second time, nor come back as itself.
    processes.nodes[wiped].start();
    assert_eq!(processes.nodes[wiped].ended().await.code(), Some(6));
    processes.nodes[wiped].says("knows this node under data directory").await;
    processes.nodes[wiped].args.push("--initial-cluster-state=existing".into());
    std::fs::remove_dir_all(&processes.nodes[wiped].data_dir).unwrap();
    processes.nodes[wiped].start();
    assert_eq!(processes.nodes[wiped].ended().await.code(), Some(6));
    processes.nodes[wiped].says("lattice cluster replace").await;

    let (name, url) = (format!("n{wiped}"), processes.nodes[wiped].peer.to_string());
    done(&processes, ask, &["replace", &name, &name, &url]).await;
    processes.nodes[wiped].start();
    voters(&processes, ask, 3).await;
    processes.caught_up(wiped).await;
    // Whoever did not see the answer asks again: nobody is replaced twice.
    let before = ids(&processes, ask).await;
    done(&processes, ask, &["replace", &name, &name, &url]).await;
    assert_eq!(ids(&processes, ask).await, before);
    // It has the founders' list, and is none of them.
    processes.nodes[wiped].kill();
    processes.nodes[wiped].start();
    processes.caught_up(wiped).await;
    let summary = load.stop().await.check_at_the_end(&processes).await;
    println!("{summary}");
}

/// The others know its name from the list that they were founded with, or from the log: it need not have had the time to tell it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_lost_at_once_is_replaced_by_name_after_the_others_restarted() {
    let mut processes = Processes::start(3).await;
    for index in 0..3 {
        processes.nodes[index].kill();
    }
    std::fs::remove_dir_all(&processes.nodes[2].data_dir).unwrap();
    for index in [0, 1] {
        processes.nodes[index].start();
    }
    processes.leader().await;
    let url = processes.nodes[2].peer.to_string();
    let other = processes.nodes[1].peer.to_string();
    let refused = until("an answer", async || {
        let output = cluster(&processes, 0, &["replace", "n2", "n2", &other]).await;
        (!matches!(output.status.code(), Some(NO_LEADER | TIMEOUT))).then_some(output)
    });
    assert_eq!(refused.await.status.code(), Some(PRECONDITION));
    assert_eq!(ids(&processes, 0).await.len(), 3, "nothing was changed");
    let first = done(&processes, 0, &["replace", "n2", "n2", &url, "-o=json"]).await;
    // The new one has told no name, and is found by its address.
    let again = done(&processes, 1, &["replace", "n2", "n2", &url, "-o=json"]).await;
    assert_eq!(field(&first, "added"), field(&again, "added"));
    processes.nodes[2].args.push("--initial-cluster-state=existing".into());
    processes.nodes[2].start();
    voters(&processes, 0, 3).await;
    processes.caught_up(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_under_load() {
    let processes = Processes::start(3).await;
    let load = Load::start(&processes, 4, 3);
    load.acknowledges_more(50).await;
    for _ in 0..3 {
        let leader = processes.leader().await;
        let to = format!("n{}", (leader + 1) % 3);
        done(&processes, leader, &["transfer", &to]).await;
        load.acknowledges_after(Instant::now()).await;
    }
    let summary = load.stop().await.check_at_the_end(&processes).await;
    println!("{summary}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_cluster_says_who_is_missing_and_begins_when_all_are_there() {
    let mut processes = Processes::new(3);
    processes.nodes[0].start();
    processes.nodes[1].start();
    let told = processes.nodes[0].says("the cluster is not founded yet").await;
    assert!(told.contains("n2 (") && !told.contains("n0 ("), "{told}");
    processes.nodes[2].start();
    processes.leader().await;
    voters(&processes, 2, 3).await;
}
