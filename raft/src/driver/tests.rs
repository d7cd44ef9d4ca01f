//! What the handle promises when a machine takes its time: the tests say how long.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::raft_node::Role;
use crate::state_machine::{Committed, Fatal, Part, Reply, SnapshotParts, SnapshotView};
use crate::transport::MemoryNetwork;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
/// A command that takes as long as the test says.
const SLOW: &str = "slow";

/// Says that it has come to what takes time, and goes on when it is told to, or when nobody can tell it any more.
#[derive(Clone)]
struct Gate {
    reached: UnboundedSender<()>,
    opened: Arc<Mutex<Receiver<()>>>,
}

impl Gate {
    fn new() -> (Self, UnboundedReceiver<()>, Sender<()>) {
        let (reached, is_reached) = unbounded_channel();
        let (open, opened) = channel();
        (Self { reached, opened: Arc::new(Mutex::new(opened)) }, is_reached, open)
    }

    fn pass(&self) {
        let _: Result<(), _> = self.reached.send(());
        let _: Result<(), _> = self.opened.lock().unwrap().recv();
    }
}

/// A machine without a state, whose snapshots take time.
struct Machine {
    gate: Gate,
    applied: EntryId,
}

struct View(Option<Gate>);

impl SnapshotView for View {
    fn next_part(&mut self) -> Result<Option<Part>, BoxError> {
        Ok(self.0.take().map(|gate| {
            gate.pass();
            Part { name: "all".to_owned(), data: Bytes::new() }
        }))
    }
}

impl DurableStateMachine for Machine {
    type Reader = ();

    fn reader(&self) {}

    fn apply(&mut self, entries: &[Committed], replies: &mut Vec<Reply>) -> Result<(), Fatal> {
        for entry in entries {
            if let Some(command) = &entry.command {
                if *command == SLOW {
                    self.gate.pass();
                }
                replies.push(Ok(Bytes::new()));
            }
            self.applied = entry.id;
        }
        Ok(())
    }

    fn applied(&self) -> EntryId {
        self.applied
    }

    fn durable(&self) -> EntryId {
        EntryId::ZERO
    }

    fn view(&self) -> Result<Option<Box<dyn SnapshotView>>, BoxError> {
        Ok(Some(Box::new(View(Some(self.gate.clone())))))
    }

    fn restore(&mut self, last: EntryId, _: &mut dyn SnapshotParts) -> Result<(), BoxError> {
        self.applied = last;
        Ok(())
    }
}

/// Node 1 of a cluster of so many, of which the others never start.
fn start(size: u64, gate: Gate) -> Raft<()> {
    let options = NodeOptions::in_memory(NodeId(1), (1..=size).map(NodeId));
    let machine = Machine { gate, applied: EntryId::ZERO };
    Raft::start(options, machine, MemoryNetwork::new().transport(NodeId(1))).unwrap()
}

async fn leader(gate: Gate) -> Raft<()> {
    let node = start(1, gate);
    assert!(node.wait_for(PATIENCE, |status| status.role == Role::Leader).await.is_some());
    node
}

async fn within<T>(wanted: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wanted).await.expect("it comes in time")
}

#[tokio::test]
async fn a_requested_snapshot_has_all_that_was_applied_when_it_was_asked_for() {
    let (gate, mut is_reached, open) = Gate::new();
    let node = leader(gate).await;
    let first = node.propose("first").await.unwrap();
    let early = tokio::spawn({
        let node = node.clone();
        async move { node.snapshot().await }
    });
    within(is_reached.recv()).await.unwrap();
    let second = node.propose("second").await.unwrap();
    let mut late = std::pin::pin!(node.snapshot());
    tokio::select! {
        biased;
        early = &mut late => panic!("{early:?}"),
        () = std::future::ready(()) => {}
    }
    // The node looks at one after the other: it has seen what was asked for before.
    node.propose("third").await.unwrap();
    open.send(()).unwrap();
    let early = within(early).await.unwrap().unwrap();
    assert!((first.id..second.id).contains(&early.last), "{early:?}");
    open.send(()).unwrap();
    let late = within(late).await.unwrap();
    assert!(late.last >= second.id, "{late:?}");
}

#[tokio::test]
async fn a_node_that_has_applied_nothing_has_nothing_to_take_a_snapshot_of() {
    let node = start(2, Gate::new().0);
    assert_eq!(within(node.snapshot()).await, Err(SnapshotRequestError::Empty));
}

#[test]
fn a_machine_that_hangs_does_not_hold_up_the_end_of_the_process() {
    let (gate, mut is_reached, open) = Gate::new();
    let (ended, has_ended) = channel();
    std::thread::scope(|threads| {
        threads.spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.enable_time().build().unwrap();
            runtime.block_on(async {
                let node = leader(gate).await;
                let waits = node.clone();
                tokio::spawn(async move { waits.propose(SLOW).await });
                is_reached.recv().await.unwrap();
                node.shutdown().await;
            });
            drop(runtime);
            ended.send(()).unwrap();
        });
        let result = has_ended.recv_timeout(PATIENCE);
        drop(open);
        result.expect("the runtime ends while the machine hangs");
    });
}
