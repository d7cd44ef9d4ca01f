//! Many Raft groups in one process.
//!
//! A [`Process`] starts groups on one data directory and one transport, and takes three costs off them that would grow with their number:
//!
//! - **Connections**: the transport's, one stream and one connection for snapshots to each peer, whatever the number of groups.
//! - **Heartbeats**: those that nobody waits for travel together (`transport::grpc`, `Timing::gather`).
//! - **Idle groups** go quiet (`raft_node/quiet.rs`): they send nothing, and what they no longer watch is watched once for all of
//!   them, by the process ([`crate::liveness`]).
//!
//! A group costs what its node costs: its log and its state, and its threads, unless it is in memory and applies inline.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use raft_consensus::driver::{NodeOptions, Process, ProcessOptions};
//! # use raft_consensus::state_machine::{BoxError, DurableStateMachine, Simple, StateMachine};
//! # use raft_consensus::transport::Transport;
//! # use raft_consensus::types::{GroupId, NodeId};
//! # struct Counter;
//! # impl StateMachine for Counter {
//! #     fn apply(&mut self, _: &[u8]) -> Result<Vec<u8>, BoxError> { Ok(Vec::new()) }
//! # }
//! # fn run(transport: Arc<dyn Transport>) -> Result<(), BoxError> {
//! let founders = [1, 2, 3].map(NodeId);
//! let node = NodeOptions::on_disk(NodeId(1), founders, "data".as_ref())?;
//! let process = Process::start(ProcessOptions::new(node), transport);
//! for group in 0..1000 {
//!     let _raft = process.start_group(GroupId(group), Simple::new(Counter))?;
//! }
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::liveness::{Liveness, LivenessEffect, LivenessTiming, ProcessId};
use crate::message::Envelope;
use crate::raft_node::QuietStanding;
use crate::replica::Input;
use crate::state_machine::DurableStateMachine;
use crate::transport::{Inbox, Transport};
use crate::types::{GroupId, NodeId};

use super::options::random;
use super::{NodeOptions, Raft, StartError, clock, start};

/// How a process runs its groups.
#[derive(Clone, Debug)]
pub struct ProcessOptions {
    /// The data directory, the timing and the limits of each group. Its group is not looked at.
    pub node: NodeOptions,
    /// A group that has been idle for so long goes quiet, if all its members agree; never if `None`. The same on all nodes.
    pub quiet_after: Option<Duration>,
}

impl ProcessOptions {
    /// Groups go quiet after ten heartbeats without anything to do.
    #[must_use]
    pub fn new(node: NodeOptions) -> Self {
        let quiet_after = Some(10 * node.timing.heartbeat);
        Self { node, quiet_after }
    }
}

/// Starts groups that share a process. Clones are the same process; it watches others as long as one of them or a group lives.
#[derive(Clone, Debug)]
pub struct Process {
    options: ProcessOptions,
    transport: Arc<dyn Transport>,
    watch: Arc<Watch>,
}

impl Process {
    /// Begins to watch other processes. Must be called in a tokio runtime with time enabled.
    #[must_use]
    pub fn start(options: ProcessOptions, transport: Arc<dyn Transport>) -> Self {
        let identity = options.node.directory.identity();
        let process =
            ProcessId { cluster: identity.cluster, node: identity.node, store: identity.store };
        let timing = &options.node.timing;
        let timing = LivenessTiming::new(timing.heartbeat, &timing.election_timeout);
        let boot = u64::try_from(random() >> 64).expect("64 bits");
        let watch = Arc::new(Watch {
            state: Mutex::new(State {
                liveness: Liveness::new(process, timing, boot),
                groups: BTreeMap::new(),
            }),
            changed: Arc::default(),
            transport: Arc::clone(&transport),
        });
        if options.quiet_after.is_some() {
            watch.run();
        }
        Self { options, transport, watch }
    }

    /// Starts a group's node, as [`Raft::start`] does.
    ///
    /// # Errors
    ///
    /// See [`StartError`]; [`StartError::GroupRuns`] also for the one id that is no group's, [`GroupId::PROCESS`].
    pub fn start_group<M: DurableStateMachine>(
        &self,
        group: GroupId,
        machine: M,
    ) -> Result<Raft<M::Reader>, StartError> {
        let options = self.options.node.for_group(group);
        let (watch, inputs) = (Arc::clone(&self.watch), mpsc::unbounded_channel());
        let watched = watch.join(group, inputs.0.clone()).ok_or(StartError::GroupRuns(group))?;
        let member = Member { watched, quiet_after: self.options.quiet_after, inputs };
        start::start(options, machine, Arc::clone(&self.transport), Some(member))
    }

    /// The groups of this process that are quiet or have asked for it.
    #[must_use]
    pub fn quiet_groups(&self) -> usize {
        self.watch.lock().liveness.standings()
    }
}

/// What watches other processes for the groups of this one.
pub(super) struct Watch {
    state: Mutex<State>,
    /// The next deadline may be another one.
    changed: Arc<Notify>,
    transport: Arc<dyn Transport>,
}

struct State {
    liveness: Liveness,
    /// Where each group takes its inputs. Few: one for each change of an epoch, or of a group's own standing.
    groups: BTreeMap<GroupId, UnboundedSender<Input>>,
}

/// Messages of processes that wait to be looked at; there is one from each in a heartbeat's time.
const MESSAGES_MAX: usize = 1024;

impl Watch {
    /// Runs until nobody holds the watch any more.
    fn run(self: &Arc<Self>) {
        let (sender, mut messages) = mpsc::channel::<Envelope>(MESSAGES_MAX);
        // What does not fit is lost, as on a network.
        let deliver = move |envelope| drop(sender.try_send(envelope));
        self.transport.register(GroupId::PROCESS, Inbox::new(deliver));
        let (watch, changed) = (Arc::downgrade(self), Arc::clone(&self.changed));
        tokio::spawn(async move {
            // A transport that was closed lets go of the inbox. Then silence is all there is to notice.
            let mut is_open = true;
            while let Some(next) = watch.upgrade().map(|watch| watch.handle_timeout()) {
                let now = clock::now();
                let pause = next.map_or(Duration::from_secs(3600), |at| at.saturating_sub(now));
                tokio::select! {
                    message = messages.recv(), if is_open => match message {
                        None => is_open = false,
                        Some(envelope) => {
                            let Some(watch) = watch.upgrade() else { return };
                            watch.handle(|liveness, out| {
                                liveness.handle_message(clock::now(), &envelope, out);
                            });
                        }
                    },
                    () = changed.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
    }

    /// A group begins; returns what looks after it until it ends. `None` if it runs already, or cannot.
    fn join(self: Arc<Self>, group: GroupId, inputs: UnboundedSender<Input>) -> Option<Watched> {
        let mut state = self.lock();
        if group == GroupId::PROCESS || state.groups.contains_key(&group) {
            return None;
        }
        let epoch = state.liveness.epoch();
        let _: Result<(), mpsc::error::SendError<Input>> = inputs.send(Input::NodeEpoch(epoch));
        state.groups.insert(group, inputs);
        drop(state);
        Some(Watched { watch: self, group })
    }

    /// Does what is due; returns when something will be.
    fn handle_timeout(&self) -> Option<Duration> {
        self.handle(|liveness, out| {
            let now = clock::now();
            if liveness.next_deadline().is_some_and(|deadline| deadline <= now) {
                liveness.handle_timeout(now, out);
            }
        });
        self.lock().liveness.next_deadline()
    }

    fn handle(&self, change: impl FnOnce(&mut Liveness, &mut Vec<LivenessEffect>)) {
        let mut effects = Vec::new();
        let mut state = self.lock();
        change(&mut state.liveness, &mut effects);
        let mut messages = Vec::new();
        // A group that has ended hears nothing, and needs nothing.
        for effect in effects {
            match effect {
                LivenessEffect::Send(envelope) => messages.push(envelope),
                LivenessEffect::Wake(group) => {
                    if let Some(inputs) = state.groups.get(&group) {
                        drop(inputs.send(Input::LeaderSilent));
                    }
                }
                LivenessEffect::Epoch(epoch) => {
                    for inputs in state.groups.values() {
                        drop(inputs.send(Input::NodeEpoch(epoch)));
                    }
                }
            }
        }
        drop(state);
        for envelope in messages {
            self.transport.send(envelope);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("groups", &self.lock().groups.len()).finish_non_exhaustive()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Its task has nothing to do any more.
        self.changed.notify_one();
    }
}

/// What a group of a process is started with besides its options.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) watched: Watched,
    pub(super) quiet_after: Option<Duration>,
    /// The queue of its inputs, into which the watch speaks.
    pub(super) inputs: (UnboundedSender<Input>, UnboundedReceiver<Input>),
}

/// A group's place in the watch. When it goes, for whatever reason, so does what the group had agreed.
#[derive(Debug)]
pub(super) struct Watched {
    watch: Arc<Watch>,
    group: GroupId,
}

impl Watched {
    /// The group's standing is another one.
    pub(super) fn standing(&self, standing: QuietStanding) {
        let group = self.group;
        self.watch.handle(|liveness, out| {
            liveness.handle_standing(clock::now(), group, standing, out);
        });
        self.watch.changed.notify_one();
    }

    /// The group has asked this node for quiet.
    pub(super) fn asked(&self, node: NodeId) {
        self.watch.lock().liveness.handle_asked(clock::now(), self.group, node);
        self.watch.changed.notify_one();
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.lock().groups.remove(&self.group);
        self.standing(QuietStanding::Awake);
    }
}
