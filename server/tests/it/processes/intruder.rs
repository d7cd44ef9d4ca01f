//! Connections that mean no good, or end badly: nobody else notices.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use lattice::client::Client;
use lattice::proto::etcdserverpb::PutRequest;
use lattice::url::Url;
use tokio::task::JoinSet;

use super::PATIENCE;
use super::history::Outcome;
use super::load::{Load, Record, VANISHED};
use super::nodes::Processes;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// What arrives at a port: a sequence of bytes, and then the connection closes.
fn garbage() -> Vec<Vec<u8>> {
    let noise = |seed: u8| {
        (0..=255_u8).cycle().take(64 << 10).map(|byte| byte.wrapping_mul(seed)).collect()
    };
    let frame = |kind: u8, flags: u8, length: [u8; 3], body: &[u8]| {
        let mut bytes = [PREFACE, SETTINGS].concat();
        bytes.extend(length);
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend(body);
        bytes
    };
    vec![
        Vec::new(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0x16, 3, 1, 2, 0],
        noise(7),
        noise(31),
        [PREFACE, &[0xFF; 4096]].concat(),
        // DATA on a stream that nobody opened; headers that are no headers; a length that is a lie.
        frame(0, 1, [0, 0, 4], &[1, 2, 3, 4]),
        frame(1, 5, [0, 0, 4], &[0xFF; 4]),
        frame(1, 5, [0xFF, 0xFF, 0xFF], &[0; 100]),
    ]
}

/// Sends it, and waits until the server has had enough or says nothing more.
fn intrude(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The server may hang up at any time; that is what it should do.
    let _hung_up = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    let _hung_up = stream.read_to_end(&mut answer);
}

fn address(url: &Url) -> SocketAddr {
    url.resolve().unwrap()[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_vanishing_clients_disturb_nobody() {
    let cluster = Processes::start(3).await;
    let before = cluster.nodes[0].status().await.unwrap().raft_term;
    let load = Load::start(&cluster, 4, 4);
    load.acknowledges_more(50).await;
    let mut intruders = JoinSet::new();
    for node in &cluster.nodes {
        for address in [address(&node.peer), address(&node.client)] {
            for bytes in garbage() {
                intruders.spawn_blocking(move || intrude(address, &bytes));
            }
        }
    }
    while let Some(intruder) = intruders.join_next().await {
        intruder.unwrap();
    }
    vanish(&cluster, load.record()).await;
    load.acknowledges_more(50).await;

    let record = load.stop().await;
    let failed = record.ops().into_iter().find(|op| match &op.outcome {
        Outcome::Refused(_) => true,
        Outcome::Unknown(why) => why != VANISHED,
        Outcome::Put { .. } | Outcome::Got { .. } => false,
    });
    assert!(failed.is_none(), "somebody was disturbed: {failed:?}");
    let term = cluster.nodes[0].status().await.unwrap().raft_term;
    assert_eq!(term, before, "the leader lost its office");
    for node in &cluster.nodes {
        let panicked = node.log().iter().find(|line| line.contains("panicked")).cloned();
        assert_eq!(panicked, None);
    }
    record.check_at_the_end(&cluster).await;
}

/// Clients that send requests and are gone before the answer.
async fn vanish(cluster: &Processes, record: &Record) {
    for (index, url) in cluster.urls().into_iter().enumerate() {
        let client = Client::connect(&[url], PATIENCE).await.unwrap();
        let mut requests = JoinSet::new();
        for number in 0..100 {
            let (client, key) = (client.clone(), format!("vanished/{index}-{number}"));
            record.put_and_vanish(&key);
            requests.spawn(async move {
                let value = key.clone().into();
                client.put(PutRequest { key: key.into(), value, ..PutRequest::default() }).await
            });
        }
        // One answer shows that the requests are under way.
        requests.join_next().await.unwrap().unwrap().unwrap();
        requests.shutdown().await;
    }
}
