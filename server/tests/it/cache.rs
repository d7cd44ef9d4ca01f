//! The cache of a node: Redis's protocol on its own port, the command line, and what operators see of it.

use std::process::{Command, Output};

use lattice::Config;
use lattice::config::{ConfigError, Settings};

use crate::cluster::alone_with_cache;

const LATTICE: &str = env!("CARGO_BIN_EXE_lattice");

fn cache(server: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(LATTICE);
    command.arg("cache").args(arguments).args(["--server", server]);
    command.env_remove("LATTICE_CACHE").env_remove("LATTICE_CACHE_PASSWORD");
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn the_command_line_uses_a_nodes_cache() {
    let (node, _directory) = alone_with_cache(None).await;
    let server = node.cache_address().unwrap().to_string();
    assert_eq!(text(&cache(&server, &["set", "greeting", "hello", "--ttl", "100"])), "OK\n");
    assert_eq!(text(&cache(&server, &["get", "greeting"])), "hello\n");
    let left: f64 =
        text(&cache(&server, &["ttl", "greeting"])).replace(" s\n", "").parse().unwrap();
    assert!((1.0..=100.0).contains(&left), "{left}");
    let absent = cache(&server, &["get", "absent"]);
    assert_eq!((absent.status.code(), text(&absent)), (Some(7), "(not found)\n".into()));
    assert_eq!(text(&cache(&server, &["del", "greeting", "absent"])), "1 deleted\n");
    let stats: serde_json::Value =
        serde_json::from_str(&text(&cache(&server, &["stats", "-o", "json"]))).unwrap();
    let stat = |name: &str| {
        let stats = stats["stats"].as_array().unwrap();
        stats.iter().find(|stat| stat["name"] == name).unwrap()["value"].clone()
    };
    assert_eq!((stat("keyspace_hits"), stat("keyspace_misses_never_seen")), (1.into(), 1.into()));
    let table = text(&cache(&server, &["ring", "show"]));
    assert!(table.contains("n1") && table.contains("16384"), "{table}");
    let plan = text(&cache(&server, &["ring", "plan", "add", "n2"]));
    assert!(plan.starts_with("50.00 %"), "{plan}");
    assert!(cache(&server, &["hotkeys"]).status.success());
    node.shutdown().await;
    let gone = cache(&server, &["get", "greeting"]);
    assert_eq!(gone.status.code(), Some(3), "{}", String::from_utf8_lossy(&gone.stderr));
}

#[tokio::test]
async fn a_password_keeps_others_out() {
    let (node, _directory) = alone_with_cache(Some("secret")).await;
    let server = node.cache_address().unwrap().to_string();
    let refused = cache(&server, &["get", "key"]);
    assert_eq!(refused.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("NOAUTH"));
    let admitted = cache(&server, &["get", "key", "--password", "secret"]);
    assert_eq!(admitted.status.code(), Some(7), "{}", String::from_utf8_lossy(&admitted.stderr));
    node.shutdown().await;
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let refused = |settings: Settings| Config::new(settings).unwrap_err();
    let settings = Settings { cache_maxmemory: Some("much".into()), ..Settings::default() };
    assert!(matches!(refused(settings), ConfigError::Value { setting: "cache-maxmemory", .. }));
    let settings = Settings { cache_policy: Some("lru".into()), ..Settings::default() };
    assert!(matches!(refused(settings), ConfigError::Value { setting: "cache-policy", .. }));
    let none = Settings { cache_listen: Some("none".into()), ..Settings::default() };
    assert!(Config::new(none).unwrap().cache.is_none());
}
