//! Health, version and metrics over HTTP, for probes and scrapers.
//!
//! `/livez` asks whether restarting this process would help: it never depends on other nodes. `/readyz` asks whether to
//! send clients here: there is a leader, and this node can confirm a read with it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use raft_consensus::driver::Consistency;

use super::etcd::ETCD_VERSION;
use crate::node::Shared;

/// A check that hangs this long has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Prometheus asks for this format.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes of the admin port.
pub(crate) fn router(node: Arc<Shared>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/health", get(health))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .with_state(node)
}

/// The same on the clients' port, where etcd has them and probes and scrapers look for them, beside what else is served there.
pub(crate) fn beside(others: Router, node: Arc<Shared>) -> Router {
    others.merge(router(node)).fallback(nothing_here)
}

/// A method that gRPC does not find, or a path that HTTP does not.
async fn nothing_here(headers: HeaderMap) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    if kind.starts_with(b"application/grpc") {
        return tonic::Status::unimplemented("").into_http();
    }
    (StatusCode::NOT_FOUND, "there are /health, /livez, /readyz, /version and /metrics here\n")
        .into_response()
}

/// The outcome of one check: its name, and what is wrong.
type Check = (&'static str, Result<(), String>);

async fn livez(State(node): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    report(&[running(&node), event_loop(&node).await], query.as_deref())
}

async fn readyz(State(node): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let checks =
        [running(&node), event_loop(&node).await, serving(&node), leader(&node), read(&node).await];
    report(&checks, query.as_deref())
}

/// etcd's own form: text values, and a reason if the answer is no.
async fn health(State(node): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let local = query.as_deref().is_some_and(|query| has(query, "serializable"));
    let mut checks = vec![running(&node)];
    if !query.as_deref().is_some_and(|query| query.split('&').any(|it| it == "exclude=NOSPACE")) {
        checks.push(space(&node));
    }
    if !local {
        checks.push(leader(&node));
        checks.push(read(&node).await);
    }
    let reason = checks.into_iter().find_map(|(_, result)| result.err()).unwrap_or_default();
    let healthy = reason.is_empty();
    let reason = reason.replace(['"', '\\'], "'");
    let body = format!("{{\"health\":\"{healthy}\",\"reason\":\"{reason}\"}}");
    (status(healthy), [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn version() -> Response {
    let body = format!(
        "{{\"etcdserver\":\"{ETCD_VERSION}\",\"etcdcluster\":\"{ETCD_VERSION}\",\"lattice\":\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn metrics(State(node): State<Arc<Shared>>) -> Response {
    match node.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn running(node: &Shared) -> Check {
    let status = node.raft.watch();
    let fatal = status.borrow().fatal.as_ref().map(ToString::to_string);
    ("running", fatal.map_or(Ok(()), Err))
}

/// Whether the thread that runs Raft takes up work.
async fn event_loop(node: &Shared) -> Check {
    let no_op = node.peer_runtime.spawn(async {});
    let result = match tokio::time::timeout(CHECK_TIMEOUT, no_op).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_gone)) => Err("the thread of Raft has ended".into()),
        Err(_elapsed) => Err(format!("the thread of Raft did not answer in {CHECK_TIMEOUT:?}")),
    };
    ("event-loop", result)
}

fn serving(node: &Shared) -> Check {
    ("serving", if node.is_draining() { Err("the node is stopping".into()) } else { Ok(()) })
}

fn space(node: &Shared) -> Check {
    let is_low = node.raft.watch().borrow().low_space;
    ("space", if is_low { Err("ALARM NOSPACE".into()) } else { Ok(()) })
}

fn leader(node: &Shared) -> Check {
    let known = node.raft.watch().borrow().leader.is_some();
    ("leader", if known { Ok(()) } else { Err("no leader is known".into()) })
}

/// Whether the node can confirm a linearizable read: it is then caught up with the leader as well.
async fn read(node: &Shared) -> Check {
    let reading = node.raft.read(Consistency::Linearizable);
    let result = match tokio::time::timeout(CHECK_TIMEOUT, reading).await {
        Ok(Ok(_reader)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err(format!("a read was not confirmed in {CHECK_TIMEOUT:?}")),
    };
    ("read", result)
}

/// As Kubernetes' own components answer: `ok`, or each check with a sign when it fails or `?verbose` is asked.
fn report(checks: &[Check], query: Option<&str>) -> Response {
    let healthy = checks.iter().all(|(_, result)| result.is_ok());
    let verbose = query.is_some_and(|query| has(query, "verbose"));
    let mut body = String::new();
    if verbose || !healthy {
        for (name, result) in checks {
            match result {
                Ok(()) => body.push_str(&format!("[+]{name} ok\n")),
                Err(reason) => body.push_str(&format!("[-]{name} failed: {reason}\n")),
            }
        }
    }
    body.push_str(if healthy { "ok\n" } else { "not ok\n" });
    (status(healthy), body).into_response()
}

fn status(healthy: bool) -> StatusCode {
    if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// Whether a query has this name, with any value but `false`.
fn has(query: &str, name: &str) -> bool {
    query.split('&').any(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        key == name && value != "false"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_by_name() {
        assert!(has("verbose", "verbose") && has("a=1&verbose=true", "verbose"));
        assert!(!has("verbose=false", "verbose") && !has("verbosely", "verbose"));
    }

    #[test]
    fn one_failed_check_fails_the_report() {
        let ok: Check = ("a", Ok(()));
        assert_eq!(report(std::slice::from_ref(&ok), None).status(), StatusCode::OK);
        let bad: Check = ("b", Err("reason".into()));
        assert_eq!(report(&[ok, bad], None).status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
