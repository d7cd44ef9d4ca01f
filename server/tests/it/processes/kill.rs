//! SIGKILL: the leader, again and again, and then all at once.

use std::time::{Duration, Instant};

use super::load::Load;
use super::nodes::Processes;

/// How long the others may need to go on: three seconds on a machine of one's own, and this on one that runs other tests.
const GAP_MAX: Duration = Duration::from_secs(10);

/// Kills of a leader in one test; `LATTICE_KILLS` asks for a longer campaign.
fn kills() -> usize {
    std::env::var("LATTICE_KILLS")
        .map_or(3, |kills| kills.parse().expect("LATTICE_KILLS is a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_leaders_lose_nothing_that_was_acknowledged() {
    kill_leaders(Processes::start(3).await).await;
}

/// A leader that goes by the age of its log asks nobody before it answers; what it answers is checked with everything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_leaders_with_lease_guards_answer_nothing_old() {
    let mut cluster = Processes::new(3);
    for node in &mut cluster.nodes {
        node.args.push("--read-policy=lease-guard".into());
    }
    cluster.start_all();
    cluster.leader().await;
    kill_leaders(cluster).await;
}

async fn kill_leaders(mut cluster: Processes) {
    let load = Load::start(&cluster, 6, 4);
    load.acknowledges_more(200).await;
    let mut gaps = Vec::new();
    for _ in 0..kills() {
        let leader = cluster.leader().await;
        cluster.nodes[leader].kill();
        let gap = load.acknowledges_after(Instant::now()).await;
        println!("killed n{leader}: the next write was acknowledged {gap:.2?} later");
        assert!(gap < GAP_MAX, "no write for {gap:?}");
        gaps.push(gap);
        cluster.nodes[leader].start();
        cluster.caught_up(leader).await;
        load.acknowledges_more(200).await;
    }
    for node in &mut cluster.nodes {
        node.kill();
    }
    let all_dead = Instant::now();
    cluster.start_all();
    let gap = load.acknowledges_after(all_dead).await;
    println!("killed all and started them: the next write was acknowledged {gap:.2?} later");
    let summary = load.stop().await.check_at_the_end(&cluster).await;
    println!("longest gap {:.2?}; {summary}", gaps.iter().max().unwrap());
}
