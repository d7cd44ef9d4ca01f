//! Clients that write and read without a pause for thought, and record it.
//!
//! Each write has a value of its own. Half of them go to keys of their own, half to one key that all fight for; reads are of
//! that one, linearizable, from a node drawn anew each time. What a client was not told is recorded as unknown, never
//! as failed, unless the error says that nothing was done.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lattice::client::{Client, ClientError};
use lattice::proto::etcdserverpb::{PutRequest, RangeRequest};
use lattice::proto::mvccpb::KeyValue;
use lattice::url::Url;
use tokio::task::JoinSet;
use tonic::Code;

use super::history::{Action, Found, Op, Outcome, Summary, check};
use super::nodes::Processes;
use super::until;

/// The key that all writers write and all readers read.
pub(super) const REGISTER: &str = "register";
/// Why the outcome of a write is unknown whose client is gone.
pub(super) const VANISHED: &str = "the client vanished";
/// What a client waits for an answer; longer than any fault of a test, so that late answers are recorded too.
const REQUEST: Duration = Duration::from_secs(10);
/// Between two requests of a client: enough of them to see everything, and cycles left for the nodes.
const THINK: Duration = Duration::from_millis(2);

/// Writers and readers at work.
#[derive(Debug)]
pub(super) struct Load {
    clients: JoinSet<()>,
    /// Clients so far, which numbers them.
    started: u64,
    record: Record,
    stop: Arc<AtomicBool>,
}

/// What was recorded so far. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Record(Arc<Mutex<Vec<Op>>>);

impl Load {
    /// Starts clients of all nodes.
    pub(super) fn start(cluster: &Processes, writers: u64, readers: u64) -> Self {
        let mut load = Self {
            clients: JoinSet::new(),
            started: 0,
            record: Record::default(),
            stop: Arc::default(),
        };
        load.add(cluster.urls(), writers, readers);
        load
    }

    /// Starts more clients, of these nodes only.
    pub(super) fn add(&mut self, urls: Vec<Url>, writers: u64, readers: u64) {
        let urls: Arc<[Url]> = urls.into();
        for _ in 0..writers {
            let worker = self.worker(&urls);
            self.clients.spawn(worker.write());
        }
        for _ in 0..readers {
            let worker = self.worker(&urls);
            self.clients.spawn(worker.read());
        }
    }

    fn worker(&mut self, urls: &Arc<[Url]>) -> Worker {
        let number = self.started;
        self.started += 1;
        Worker {
            number,
            urls: Arc::clone(urls),
            clients: BTreeMap::new(),
            // Any odd number makes a sequence that is as good as random here.
            random: number.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15),
            record: self.record.clone(),
            stop: Arc::clone(&self.stop),
        }
    }

    /// What was recorded so far.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Waits for a write that was sent after `moment` and acknowledged; returns how long after that moment the answer came.
    pub(super) async fn acknowledges_after(&self, moment: Instant) -> Duration {
        let answer =
            until("an acknowledged write", async || self.record.first_acknowledged_after(moment));
        answer.await.duration_since(moment)
    }

    /// Waits until this many more writes have been acknowledged.
    pub(super) async fn acknowledges_more(&self, count: usize) {
        let count = self.record.acknowledged() + count;
        until("writes to be acknowledged", async || {
            (self.record.acknowledged() >= count).then_some(())
        })
        .await;
    }

    /// Lets every client finish its request, and stops them.
    pub(super) async fn stop(mut self) -> Record {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(client) = self.clients.join_next().await {
            client.unwrap();
        }
        self.record
    }
}

impl Record {
    fn push(&self, op: Op) {
        self.0.lock().unwrap().push(op);
    }

    /// Records a write whose client does not wait for the answer.
    pub(super) fn put_and_vanish(&self, key: &str) {
        let now = Instant::now();
        let action = Action::Put { key: key.into(), value: key.into() };
        self.push(Op {
            sent: now,
            answered: now,
            action,
            outcome: Outcome::Unknown(VANISHED.into()),
        });
    }

    /// Everything so far.
    pub(super) fn ops(&self) -> Vec<Op> {
        self.0.lock().unwrap().clone()
    }

    fn acknowledged(&self) -> usize {
        let ops = self.0.lock().unwrap();
        ops.iter().filter(|op| matches!(op.outcome, Outcome::Put { .. })).count()
    }

    fn first_acknowledged_after(&self, moment: Instant) -> Option<Instant> {
        let ops = self.0.lock().unwrap();
        let acknowledged =
            ops.iter().filter(|op| op.sent >= moment && matches!(op.outcome, Outcome::Put { .. }));
        acknowledged.map(|op| op.answered).min()
    }

    /// Reads everything from every node, linearizably, and checks the whole history with it. All nodes must show the same.
    pub(super) async fn check_at_the_end(&self, cluster: &Processes) -> Summary {
        let mut shown = Vec::new();
        for node in cluster.nodes.iter().filter(|node| node.is_running()) {
            let client = node.client().await;
            shown.push(read_everything(&client, self).await);
        }
        assert!(shown.windows(2).all(|pair| pair[0] == pair[1]), "the nodes differ");
        check(&self.ops()).unwrap_or_else(|broken| panic!("{broken}"))
    }
}

/// Reads all keys at once, as one linearizable read of every key that was ever written.
async fn read_everything(client: &Client, record: &Record) -> Vec<KeyValue> {
    let all =
        RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..RangeRequest::default() };
    let (sent, response) = until("a read of everything", async || {
        let sent = Instant::now();
        client.range(all.clone()).await.ok().map(|response| (sent, response))
    })
    .await;
    let answered = Instant::now();
    let revision = response.header.as_ref().unwrap().revision;
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    for kv in &response.kvs {
        found.insert(text(&kv.key), found_in(kv));
    }
    let keys = record.ops().into_iter().filter_map(|op| match op.action {
        Action::Put { key, .. } => Some(key),
        Action::Get { .. } => None,
    });
    let mut keys: Vec<String> = keys.chain(found.keys().cloned()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let outcome = Outcome::Got { revision, found: found.get(&key).cloned() };
        record.push(Op { sent, answered, action: Action::Get { key }, outcome });
    }
    response.kvs
}

/// One client.
struct Worker {
    number: u64,
    urls: Arc<[Url]>,
    clients: BTreeMap<usize, Client>,
    random: u64,
    record: Record,
    stop: Arc<AtomicBool>,
}

impl Worker {
    async fn write(mut self) {
        for round in 0_u64.. {
            let value = format!("{}-{round}", self.number);
            let key =
                if round.is_multiple_of(2) { format!("own/{value}") } else { REGISTER.into() };
            let Some(client) = self.client().await else { return };
            put(&client, key, value, &self.record).await;
            tokio::time::sleep(THINK).await;
        }
    }

    async fn read(mut self) {
        while let Some(client) = self.client().await {
            get(&client, REGISTER, &self.record).await;
            tokio::time::sleep(THINK).await;
        }
    }

    /// A client of some node that can be connected to; `None` once the load is to stop.
    async fn client(&mut self) -> Option<Client> {
        while !self.stop.load(Ordering::Relaxed) {
            let index = self.draw();
            if let Some(client) = self.clients.get(&index) {
                return Some(client.clone());
            }
            if let Ok(client) = Client::connect(&self.urls[index..=index], REQUEST).await {
                self.clients.insert(index, client.clone());
                return Some(client);
            }
            tokio::time::sleep(THINK).await;
        }
        None
    }

    /// A node's index, drawn by Marsaglia's xorshift.
    fn draw(&mut self) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let nodes = u64::try_from(self.urls.len()).unwrap();
        usize::try_from((self.random >> 32) % nodes).unwrap()
    }
}

/// Writes and records it.
pub(super) async fn put(client: &Client, key: String, value: String, record: &Record) {
    let request = PutRequest {
        key: key.clone().into(),
        value: value.clone().into(),
        ..PutRequest::default()
    };
    let sent = Instant::now();
    let outcome = match client.put(request).await {
        Ok(response) => Outcome::Put { revision: response.header.unwrap().revision },
        Err(error) => failure(&error),
    };
    let answered = Instant::now();
    record.push(Op { sent, answered, action: Action::Put { key, value }, outcome });
}

/// Reads linearizably and records it.
pub(super) async fn get(client: &Client, key: &str, record: &Record) {
    let request = RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() };
    let sent = Instant::now();
    let outcome = match client.range(request).await {
        Ok(response) => Outcome::Got {
            revision: response.header.unwrap().revision,
            found: response.kvs.first().map(found_in),
        },
        Err(error) => failure(&error),
    };
    let answered = Instant::now();
    record.push(Op { sent, answered, action: Action::Get { key: key.into() }, outcome });
}

/// What an error tells. Only those that promise that nothing was done are taken for a refusal.
fn failure(error: &ClientError) -> Outcome {
    let text = error.to_string();
    let promises = match (error.code(), text.as_str()) {
        (Some(Code::Unavailable), "etcdserver: no leader" | "etcdserver: server stopped") => true,
        (Some(Code::ResourceExhausted), _) => true,
        (Some(_), _) => false,
        (None, _) => matches!(error, ClientError::Connect { .. }),
    };
    if promises { Outcome::Refused(text) } else { Outcome::Unknown(text) }
}

fn found_in(kv: &KeyValue) -> Found {
    Found { value: text(&kv.value), written: kv.mod_revision }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
