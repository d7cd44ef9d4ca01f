//! Nodes that stop, lose their majority or meet bad clients.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use lattice::client::{Client, ClientError};
use lattice::founders::Founders;
use lattice::proto::etcdserverpb::RangeRequest;
use lattice::proto::etcdserverpb::kv_client::KvClient;
use lattice::url::Url;
use lattice::{Listeners, Node};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, PATIENCE, config, get, put};

#[tokio::test]
async fn the_rest_goes_on_when_the_leader_stops_and_it_catches_up() {
    let mut cluster = Cluster::start(3).await;
    put(&cluster.client(0).await, "before", "1").await.unwrap();
    let leader = cluster.leader().unwrap();
    let term = cluster.nodes[leader].as_ref().unwrap().status().term;
    cluster.stop(leader).await;
    let other = (leader + 1) % 3;
    let client = cluster.client(other).await;
    // Waits for the new leader by itself.
    put(&client, "after", "2").await.unwrap();
    assert!(cluster.nodes[other].as_ref().unwrap().status().term > term);
    cluster.restart(leader).await;
    let back = cluster.client(leader).await;
    assert_eq!(get(&back, "before").await.as_deref(), Some("1"));
    assert_eq!(get(&back, "after").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn everything_is_there_after_all_have_stopped() {
    let mut cluster = Cluster::start(3).await;
    for number in 0..20 {
        let client = cluster.client(number % 3).await;
        put(&client, format!("key{number:02}"), "value").await.unwrap();
    }
    for index in 0..3 {
        cluster.stop(index).await;
    }
    for index in 0..3 {
        cluster.restart(index).await;
    }
    let client = cluster.client(2).await;
    for number in 0..20 {
        assert_eq!(get(&client, &format!("key{number:02}")).await.as_deref(), Some("value"));
    }
}

#[tokio::test]
async fn without_a_majority_only_serializable_reads_and_livez_answer() {
    let mut cluster = Cluster::start(3).await;
    put(&cluster.client(0).await, "key", "value").await.unwrap();
    // Node 0 has it for certain once it has confirmed a read.
    get(&cluster.client(0).await, "key").await.unwrap();
    cluster.stop(1).await;
    cluster.stop(2).await;
    let client = Client::connect(&cluster.urls()[..1], Duration::from_secs(1)).await.unwrap();
    let read =
        |serializable| RangeRequest { key: "key".into(), serializable, ..RangeRequest::default() };
    let stale = client.range(read(true)).await.unwrap();
    assert_eq!(&stale.kvs[0].value[..], b"value");
    for result in
        [client.range(read(false)).await.map(drop), put(&client, "k", "v").await.map(drop)]
    {
        match result {
            Err(ClientError::Timeout(_)) => {}
            Err(error) => assert_eq!(error.code(), Some(tonic::Code::Unavailable), "{error}"),
            Ok(()) => panic!("answered without a majority"),
        }
    }
    // Who requires a leader is not even told what is old, once the node knows that there is none.
    let channel = tonic::transport::Endpoint::from_shared(cluster.urls()[0].to_string());
    let mut kv = KvClient::new(channel.unwrap().connect().await.unwrap());
    let mut demanding = async || {
        let mut request = tonic::Request::new(read(true));
        request.metadata_mut().insert("hasleader", "true".parse().unwrap());
        kv.range(request).await
    };
    let refused = async {
        loop {
            if let Err(status) = demanding().await {
                return status;
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.unwrap();
    assert_eq!(refused.message(), "etcdserver: no leader");
    let admin = cluster.nodes[0].as_ref().unwrap().admin_url().unwrap();
    assert_eq!(http_get(admin, "/livez").0, 200);
    let (code, body) = http_get(admin, "/readyz");
    assert_eq!(code, 503, "{body}");
    assert!(body.contains("[-]"), "{body}");
}

#[tokio::test]
async fn the_admin_port_tells_health_version_and_metrics() {
    let cluster = Cluster::start(1).await;
    put(&cluster.client(0).await, "key", "value").await.unwrap();
    let admin = cluster.nodes[0].as_ref().unwrap().admin_url().unwrap();
    let clients = &cluster.urls()[0];
    for (path, expected) in [
        ("/livez", "ok"),
        ("/livez?verbose", "[+]event-loop ok"),
        ("/readyz?verbose", "[+]leader ok"),
        ("/health", r#"{"health":"true","reason":""}"#),
        ("/version", r#""etcdserver":"3.6.0""#),
        ("/metrics", "lattice_raft_has_leader 1"),
        ("/metrics", r#"lattice_kv_request_duration_seconds_count{op="put",code="Ok"} 1"#),
        ("/metrics", "lattice_raft_proposals_committed_total"),
    ] {
        let (code, body) = http_get(admin, path);
        // Where etcd has them.
        assert_eq!(http_get(clients, path).0, code, "{path} on the clients' port");
        assert_eq!(code, 200, "{path}: {body}");
        assert!(body.contains(expected), "{path}: {body}");
    }
    for port in [admin, clients] {
        assert_eq!(http_get(port, "/nothing").0, 404);
    }
}

#[tokio::test]
async fn bad_clients_disturb_nobody() {
    let cluster = Cluster::start(1).await;
    let node = cluster.nodes[0].as_ref().unwrap();
    let client_address = address(&node.client_urls()[0]);
    let peer_address = address(&node.peer_urls()[0]);
    for target in [client_address, peer_address] {
        for garbage in [
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".as_slice(),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            &[0x16, 0x03, 0x01, 0x02, 0x00],
            b"",
        ] {
            let mut stream = TcpStream::connect(target).unwrap();
            stream.write_all(garbage).unwrap();
        }
    }
    // Clients that go away in the middle of a request.
    let client = cluster.client(0).await;
    let mut requests = JoinSet::new();
    for number in 0..50 {
        let client = client.clone();
        requests.spawn(async move { put(&client, format!("gone{number}"), "v").await.map(drop) });
    }
    requests.shutdown().await;
    drop(client);
    let client = cluster.client(0).await;
    put(&client, "key", "value").await.unwrap();
    assert_eq!(get(&client, "key").await.as_deref(), Some("value"));
}

/// Each request may hold the beginning of a message in memory for as long as its client likes.
#[tokio::test]
async fn a_client_is_told_how_many_requests_it_may_begin() {
    const SETTINGS: u8 = 4;
    const MAX_CONCURRENT_STREAMS: [u8; 2] = [0, 3];
    let cluster = Cluster::start(1).await;
    let mut stream = TcpStream::connect(address(&cluster.urls()[0])).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[3], SETTINGS, "the first frame");
    let mut settings = vec![0; usize::from(head[2])];
    stream.read_exact(&mut settings).unwrap();
    let streams = settings.chunks(6).find(|setting| setting[..2] == MAX_CONCURRENT_STREAMS);
    assert_eq!(streams.map(|setting| &setting[2..]), Some(&[0, 0, 1, 0][..]), "256");
}

/// A peer port that can fall silent, as when its machine loses its power: connections stay open, and nothing passes.
struct Line {
    url: Url,
    is_cut: watch::Sender<bool>,
}

impl Line {
    async fn to(target: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::of(listener.local_addr().unwrap());
        let (is_cut, cut) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut cut = cut.clone();
                tokio::spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
                    let cut = async { drop(cut.wait_for(|cut| *cut).await) };
                    tokio::select! {
                        biased;
                        () = cut => std::future::pending().await,
                        _closed = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    }
                });
            }
        });
        Self { url, is_cut }
    }
}

#[tokio::test]
async fn writes_do_not_wait_for_a_leader_that_fell_silent() {
    let directory = tempfile::tempdir().unwrap();
    let mut lines = BTreeMap::new();
    let mut listeners = BTreeMap::new();
    for name in ["n1", "n2", "n3"] {
        let bound = Listeners::loopback().unwrap();
        let line = Line::to(address(&bound.peer_urls().unwrap()[0])).await;
        lines.insert(name, line);
        listeners.insert(name, bound);
    }
    let peers = lines.iter().map(|(name, line)| ((*name).to_owned(), vec![line.url.clone()]));
    let founders = Founders::new("test", peers).unwrap();
    let mut nodes = BTreeMap::new();
    for (name, listeners) in listeners {
        let config = config(name, founders.clone(), directory.path().join(name));
        nodes.insert(name, Node::start_on(config, listeners).await.unwrap());
    }
    let node = &nodes["n1"];
    let leads = |name: &str| node.status().leader == founders.get(name).map(|founder| founder.id);
    node.leader().await.unwrap();
    let follower = if leads("n1") { "n2" } else { "n1" };
    let client = Client::connect(nodes[follower].client_urls(), PATIENCE).await.unwrap();
    // Until the follower has a connection to the leader, and everybody has a voice: a founder that came late has none before
    // the log names its store.
    let has_voice =
        |node: &Node| node.status().membership.members().all(|(_, member)| member.store.is_some());
    loop {
        put(&client, "before", "1").await.unwrap();
        if nodes.values().all(has_voice) {
            break;
        }
    }
    let leader = lines.keys().find(|name| leads(name)).unwrap();
    lines[leader].is_cut.send(true).unwrap();
    let lost = put(&client, "lost", "1").await.unwrap_err();
    assert_eq!(
        (lost.code(), lost.to_string().as_str()),
        (
            Some(tonic::Code::Unavailable),
            "etcdserver: request timed out, possibly due to previous leader failure"
        )
    );
    put(&client, "after", "2").await.unwrap();
}

fn address(url: &Url) -> SocketAddr {
    url.resolve().unwrap()[0]
}

/// Status code and body of a plain HTTP request.
fn http_get(url: &Url, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address(url)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
