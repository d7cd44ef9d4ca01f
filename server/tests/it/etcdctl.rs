//! etcd's own command line against this server. Skipped, with a word, where it is not installed; `LATTICE_REQUIRE_TOOLS=1`
//! makes that a failure.

use std::process::Command;

use crate::cluster::Cluster;

fn is_installed() -> bool {
    let installed = Command::new("etcdctl").arg("version").output().is_ok();
    if !installed {
        let required = std::env::var("LATTICE_REQUIRE_TOOLS").is_ok_and(|value| value == "1");
        assert!(!required, "etcdctl is required and not installed");
        println!("skipped: etcdctl is not installed");
    }
    installed
}

async fn etcdctl(endpoint: &str, args: &[&str]) -> String {
    let output = tokio::process::Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .arg("--endpoints")
        .arg(endpoint)
        .args(args)
        .output()
        .await
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "etcdctl {args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn etcdctl_reads_and_writes_on_any_node() {
    if !is_installed() {
        return;
    }
    let cluster = Cluster::start(3).await;
    let endpoints: Vec<String> = cluster.urls().iter().map(ToString::to_string).collect();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let key = format!("dir/key{index}");
        assert_eq!(etcdctl(endpoint, &["put", &key, "value"]).await, "OK\n");
        for other in &endpoints {
            assert_eq!(etcdctl(other, &["get", &key]).await, format!("{key}\nvalue\n"));
        }
    }
    let listed = etcdctl(&endpoints[1], &["get", "dir/", "--prefix", "--keys-only"]).await;
    assert_eq!(listed.split_whitespace().count(), 3, "{listed}");
    assert_eq!(etcdctl(&endpoints[2], &["del", "dir/", "--prefix"]).await, "3\n");
    let all = endpoints.join(",");
    let status = etcdctl(&all, &["endpoint", "status"]).await;
    assert_eq!(status.lines().count(), 3, "{status}");
    assert_eq!(status.matches(", true,").count(), 1, "one leads: {status}");
    let status = etcdctl(&endpoints[0], &["endpoint", "status", "--cluster"]).await;
    assert_eq!(status.lines().count(), 3, "{status}");
    let members = etcdctl(&endpoints[0], &["member", "list"]).await;
    assert_eq!(members.matches("started").count(), 3, "{members}");
}
