//! SIGSTOP and SIGCONT: a leader that sleeps, wakes up, and believes for a moment that it still leads.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::task::JoinSet;

use super::load::{Load, REGISTER, get, put};
use super::nodes::Processes;

/// Reads that wait at the sleeper's door for it to wake.
const WAITING_READS: usize = 64;

/// How long the leader sleeps at least; `LATTICE_PAUSE_MS` asks for another time.
fn pause() -> Duration {
    let ms = std::env::var("LATTICE_PAUSE_MS").map_or(2_500, |ms| ms.parse().expect("a number"));
    Duration::from_millis(ms)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_slept_serves_no_stale_read() {
    sleep_and_wake(Processes::start(3).await).await;
}

/// It sends nobody anything before it answers: only its clock tells it that its time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_lease_that_slept_serves_no_stale_read() {
    for policy in ["lease", "lease-guard"] {
        let mut cluster = Processes::new(3);
        for node in &mut cluster.nodes {
            node.args.push(format!("--read-policy={policy}"));
        }
        cluster.start_all();
        cluster.leader().await;
        sleep_and_wake(cluster).await;
    }
}

async fn sleep_and_wake(cluster: Processes) {
    let mut load = Load::start(&cluster, 4, 8);
    load.acknowledges_more(100).await;

    let leader = cluster.leader().await;
    let client = cluster.nodes[leader].client().await;
    let start = Instant::now();
    cluster.nodes[leader].signal(Signal::STOP);
    let next = cluster.leader_other_than(leader).await;
    let elected = start.elapsed();
    let fresh = cluster.nodes[next].client().await;
    put(&fresh, REGISTER.into(), "written while the leader slept".into(), load.record()).await;
    let gap = load.acknowledges_after(start).await;
    // The first clients come to wait for the sleeper one by one; these do not know it.
    let mut awake = cluster.urls();
    awake.remove(leader);
    load.add(awake, 2, 4);
    // The others have written. These reads are sent now, and the old leader finds them when it wakes.
    let mut reads = JoinSet::new();
    for _ in 0..WAITING_READS {
        let (client, record) = (client.clone(), load.record().clone());
        reads.spawn(async move { get(&client, REGISTER, &record).await });
    }
    tokio::time::sleep(pause().saturating_sub(start.elapsed())).await;
    cluster.nodes[leader].signal(Signal::CONT);
    while let Some(read) = reads.join_next().await {
        read.unwrap();
    }
    cluster.caught_up(leader).await;
    let summary = load.stop().await.check_at_the_end(&cluster).await;
    println!(
        "n{leader} slept; n{next} led after {elected:.2?} and wrote after {gap:.2?}; {summary}"
    );
}
