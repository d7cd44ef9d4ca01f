//! SIGTERM under load: nodes end in time, with exit code 0, and nothing acknowledged is missing.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::load::Load;
use super::nodes::Processes;

/// A node promises to stop within ten seconds.
const STOP_MAX: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_told_to_stop_under_load_stops_and_comes_back() {
    let mut cluster = Processes::start(3).await;
    let load = Load::start(&cluster, 6, 4);
    load.acknowledges_more(100).await;
    let leader = cluster.leader().await;
    let told = Instant::now();
    cluster.nodes[leader].signal(Signal::TERM);
    let status = cluster.nodes[leader].ended().await;
    let took = told.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!(took < STOP_MAX, "took {took:?}");
    let gap = load.acknowledges_after(told).await;
    println!(
        "n{leader} stopped in {took:.2?}; the next write was acknowledged {gap:.2?} after the signal"
    );
    cluster.nodes[leader].start();
    cluster.caught_up(leader).await;

    for node in &cluster.nodes {
        node.signal(Signal::TERM);
    }
    for node in &mut cluster.nodes {
        assert_eq!(node.ended().await.code(), Some(0));
    }
    cluster.start_all();
    load.acknowledges_after(Instant::now()).await;
    let summary = load.stop().await.check_at_the_end(&cluster).await;
    println!("{summary}");
}
