//! The async edge: runs a [`Replica`](crate::replica::Replica) on tokio, moves bytes, and writes the logs.
//!
//! One task owns the replica and decides nothing by itself: it takes what arrived, samples the clock *afterwards* (so that a process that was
//! stopped for a while does not act on an old time), lets the replica handle it, and hands on what comes out. Around it:
//!
//! - one thread writes the log (`log_thread`): it takes all that queued while the last fsync ran, writes it, syncs once, and
//!   reports the highest token. That is group commit without a timer;
//! - one thread applies (`apply_thread`) and takes snapshots; a slow machine delays neither heartbeats nor the log;
//! - a log in memory is written by the task itself, and so is what a machine applies that its owner calls quick
//!   ([`NodeOptions::apply_inline`]): for them a switch of threads would be most of the work;
//! - one thread reads and writes pieces of snapshots, and old entries for followers that are behind (`transfer_thread`).
//!
//! [`Process`] starts many groups that share connections, and lets them be quiet while nobody asks them for anything.
//!
//! [`Raft`] is the handle: cheap to clone, and everything that goes through it is bounded. A caller that gives up waiting loses nothing: its
//! command goes on to its end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use crate::effects::{FatalError, OrderError, Rejection};
use crate::membership::ConfChange;
use crate::replica::ProposalError;
use crate::state_machine::{BoxError, DurableStateMachine};
use crate::transport::Transport;
use crate::types::{EntryId, NodeId, SessionId, SnapshotMeta, Term};

mod apply_thread;
mod clock;
mod groups;
mod inbox;
mod log_thread;
mod logs;
mod options;
pub mod salvage;
mod session;
mod start;
mod status;
mod task;
mod transfer_thread;
mod waiters;

pub use groups::{Process, ProcessOptions};
pub use options::{Limits, NodeOptions, Timing};
pub use session::Session;
pub use start::StartError;
pub use status::{Counters, PeerStatus, Status};

/// How much a read must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Everything that was acknowledged before the read was asked for, by whomever. Costs a round of heartbeats, shared by all
    /// reads that wait; works on any node.
    Linearizable,
    /// What this node happens to have applied. Costs nothing and may be old.
    Stale,
}

/// A command took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its place in the log.
    pub id: EntryId,
    /// The state machine's reply.
    pub reply: Bytes,
}

/// How to propose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProposeOptions {
    /// The command gives space back: it is taken even when the disk is nearly full.
    pub reclaims_space: bool,
    /// The session and number of a [`SessionCommand`](crate::state_machine::sessions::SessionCommand); most callers want a
    /// [`Session`] instead.
    pub session: Option<SessionId>,
}

/// Why a command has no reply. After [`Self::Unknown`] it may take effect, and after [`Self::ReplyDropped`] it has; all others say that
/// what was proposed has no effect, now or later.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Ask the leader.
    #[error("this node does not lead{}", hint(*leader))]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// The state machine refused it, on every replica alike; nothing changed. To those who send a command again by themselves, a
    /// [`SessionError`](crate::state_machine::sessions::SessionError) says what is known of the copies that they sent before.
    #[error("refused: {0}")]
    Refused(Arc<dyn std::error::Error + Send + Sync>),
    /// Another leader's entry took its place. It has no effect; propose it again.
    #[error("not applied: another leader's entry took its place")]
    Superseded,
    /// Too much is under way. Try again later.
    #[error("overloaded: too many bytes are under way, or the state machine is behind")]
    Overloaded,
    /// The disk is nearly full.
    #[error("no space: the log's disk is nearly full")]
    NoSpace,
    /// The command is larger than the limit.
    #[error("a command of {size} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// Its length in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A [`Session`] sent it again, and found that it was applied, and that its reply is no longer kept: it was too long.
    #[error("applied, but its reply was too long to be kept")]
    ReplyDropped,
    /// It may or may not take effect: this node stopped, or a snapshot passed over its place.
    #[error("outcome unknown: the command may or may not take effect")]
    Unknown,
    /// The node has stopped, and did not take the command.
    #[error("the node has stopped")]
    Stopped,
}

/// Why a read could not be served.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// No leader could confirm it in time, or too many reads wait.
    #[error("no leader could confirm the read{}", hint(*leader))]
    Unconfirmed {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// Why no snapshot was taken.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotRequestError {
    /// The state machine has none.
    #[error("this state machine takes no snapshots")]
    Unsupported,
    /// Nothing was applied yet: there is nothing to take one of.
    #[error("nothing was applied yet")]
    Empty,
    /// It could not be made or written; the log says why.
    #[error("the snapshot could not be written; see the node's log")]
    Failed,
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// A handle to a running node. `R` is the state machine's [`DurableStateMachine::Reader`].
pub struct Raft<R> {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    reader: R,
}

/// What a handle asks of the task.
#[derive(Debug)]
enum Command {
    Propose {
        command: Bytes,
        options: ProposeOptions,
        reply: oneshot::Sender<Result<Applied, ProposeError>>,
    },
    Read {
        reply: oneshot::Sender<Result<(), ReadError>>,
    },
    ChangeMembership {
        change: ConfChange,
        reply: oneshot::Sender<Result<(), OrderError>>,
    },
    TransferLeader {
        to: Option<NodeId>,
        reply: oneshot::Sender<Result<(), OrderError>>,
    },
    Snapshot {
        reply: oneshot::Sender<Result<SnapshotMeta, SnapshotRequestError>>,
    },
    Shutdown {
        reply: oneshot::Sender<()>,
    },
}

/// How long [`Raft::shutdown`] waits for what is under way.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

impl<R: Clone + Send + Sync + 'static> Raft<R> {
    /// Starts a node: opens its log, restores its state machine, and runs it until it is shut down or fails. Blocks on the disk
    /// meanwhile; must be called in a tokio runtime with time enabled.
    ///
    /// # Errors
    ///
    /// See [`StartError`]: the directory is damaged, or not this node's, or the options contradict themselves.
    pub fn start<M: DurableStateMachine<Reader = R>>(
        options: NodeOptions,
        machine: M,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, StartError> {
        start::start(options, machine, transport, None)
    }

    /// Puts a command into the log and waits until it is committed and applied here.
    ///
    /// A leader that is cut off once it has the command can only answer when it hears from the others again, or from the operator: callers
    /// that do not want to wait for that watch [`Self::status`], as a [`Session`] does, or the clock.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`], which tells what certainly has no effect from what may have one.
    pub async fn propose(&self, command: impl Into<Bytes>) -> Result<Applied, ProposeError> {
        self.propose_with(command, ProposeOptions::default()).await
    }

    /// [`Self::propose`] with options.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`].
    pub async fn propose_with(
        &self,
        command: impl Into<Bytes>,
        options: ProposeOptions,
    ) -> Result<Applied, ProposeError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Propose { command: command.into(), options, reply };
        if self.commands.send(command).await.is_err() {
            return Err(ProposeError::Stopped);
        }
        // The task ended without an answer: it may have taken the command.
        answer.await.unwrap_or(Err(ProposeError::Unknown))
    }

    /// [`Self::propose_with`] for many commands, which are queued in this order and waited for together: one wake-up of the caller
    /// instead of many. Each has a result of its own, in the same order; some may take effect and others not.
    pub async fn propose_all(
        &self,
        commands: impl IntoIterator<Item = (Bytes, ProposeOptions), IntoIter: Send> + Send,
    ) -> Vec<Result<Applied, ProposeError>> {
        let mut answers = Vec::new();
        for (command, options) in commands {
            let (reply, answer) = oneshot::channel();
            let queued = self.commands.send(Command::Propose { command, options, reply }).await;
            answers.push(queued.map(|()| answer).or(Err(ProposeError::Stopped)));
        }
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            results.push(match answer {
                Ok(answer) => answer.await.unwrap_or(Err(ProposeError::Unknown)),
                Err(stopped) => Err(stopped),
            });
        }
        results
    }

    /// A reader of the state machine that sees at least what `consistency` demands. On any node.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unconfirmed`] if nobody could confirm a linearizable read within [`Timing::read_timeout`]; [`ReadError::Stopped`] once
    /// the node has stopped, whatever is demanded.
    pub async fn read(&self, consistency: Consistency) -> Result<R, ReadError> {
        if consistency == Consistency::Linearizable {
            let (reply, answer) = oneshot::channel();
            let sent = self.commands.send(Command::Read { reply }).await;
            sent.or(Err(ReadError::Stopped))?;
            answer.await.unwrap_or(Err(ReadError::Stopped))?;
        } else if self.commands.is_closed() {
            return Err(ReadError::Stopped);
        }
        Ok(self.reader.clone())
    }

    /// A reader of the state machine as this node has it, also when it has stopped.
    #[must_use]
    pub fn reader(&self) -> R {
        self.reader.clone()
    }

    /// How the node is doing: at most some tens of milliseconds old, role and term current.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The node's current term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.status.borrow().term
    }

    /// Follows [`Self::status`].
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Takes a snapshot of all that is applied now, or of more, and compacts the log behind it. If nothing was applied since the last one,
    /// that one is returned.
    ///
    /// # Errors
    ///
    /// See [`SnapshotRequestError`].
    pub async fn snapshot(&self) -> Result<SnapshotMeta, SnapshotRequestError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Snapshot { reply }).await;
        sent.or(Err(SnapshotRequestError::Stopped))?;
        answer.await.unwrap_or(Err(SnapshotRequestError::Stopped))
    }

    /// Changes the members, and waits until that is committed and no membership in between is in force any more. On the leader only.
    /// [`Status::membership`] says who the members are, and which id the next one may have.
    ///
    /// A caller that gives up waiting does not stop the change; [`ConfChange::Cancel`] takes back one that cannot be committed.
    ///
    /// # Errors
    ///
    /// See [`OrderError`]; after [`OrderError::Unknown`] the members tell what became of it.
    pub async fn change_membership(&self, change: ConfChange) -> Result<(), OrderError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::ChangeMembership { change, reply }).await;
        sent.or(Err(OrderError::Stopped))?;
        answer.await.unwrap_or(Err(OrderError::Unknown))
    }

    /// Hands leadership over to a voter, or to whichever is most up to date if `to` is `None`, and waits until this node leads no more: within an
    /// election timeout. On the leader only; proposals are refused meanwhile.
    ///
    /// # Errors
    ///
    /// See [`OrderError`]; this node then leads on, or never did. [`OrderError::NotLeader`] also comes if it lost its office on the way, to
    /// whomever: `leader` tells to whom.
    pub async fn transfer_leader(&self, to: Option<NodeId>) -> Result<(), OrderError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::TransferLeader { to, reply }).await;
        sent.or(Err(OrderError::Stopped))?;
        answer.await.unwrap_or(Err(OrderError::Stopped))
    }

    /// Stops the node and closes its log. Bounded in time: what is still under way after some seconds is left behind, as a crash would.
    pub async fn shutdown(&self) {
        let (reply, done) = oneshot::channel();
        let ask_and_wait = async {
            if self.commands.send(Command::Shutdown { reply }).await.is_ok() {
                let _: Result<(), oneshot::error::RecvError> = done.await;
            }
        };
        let _: Result<(), tokio::time::error::Elapsed> =
            tokio::time::timeout(SHUTDOWN_MAX, ask_and_wait).await;
    }

    /// Waits until the node has stopped, and says why if it was not asked to.
    pub async fn stopped(&self) -> Option<FatalError> {
        let mut status = self.status.clone();
        loop {
            let (is_stopped, fatal) = {
                let status = status.borrow_and_update();
                (status.is_stopped, status.fatal.clone())
            };
            if is_stopped || status.changed().await.is_err() {
                return fatal;
            }
        }
    }

    /// Waits until `condition` holds of the status, for at most `limit`. For tests and programs that wait for a leader.
    pub async fn wait_for(
        &self,
        limit: Duration,
        condition: impl FnMut(&Status) -> bool + Send,
    ) -> Option<Status> {
        let mut status = self.status.clone();
        let found = tokio::time::timeout(limit, status.wait_for(condition)).await;
        found.ok().and_then(Result::ok).map(|status| status.clone())
    }
}

impl<R: Clone> Clone for Raft<R> {
    fn clone(&self) -> Self {
        Self {
            commands: self.commands.clone(),
            status: self.status.clone(),
            reader: self.reader.clone(),
        }
    }
}

impl<R> fmt::Debug for Raft<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raft").field("node", &self.status.borrow().node).finish_non_exhaustive()
    }
}

impl From<ProposalError> for ProposeError {
    fn from(error: ProposalError) -> Self {
        match error {
            ProposalError::Rejected(Rejection::NotLeader { leader }) => Self::NotLeader { leader },
            // Who asks there may have to wait a little.
            ProposalError::Rejected(Rejection::Transferring { to }) => {
                Self::NotLeader { leader: Some(to) }
            }
            ProposalError::Rejected(Rejection::Overloaded) => Self::Overloaded,
            ProposalError::Rejected(Rejection::TooLarge { size, limit }) => {
                Self::TooLarge { size, limit }
            }
            ProposalError::NoSpace => Self::NoSpace,
            ProposalError::Superseded => Self::Superseded,
            ProposalError::Unknown => Self::Unknown,
        }
    }
}

fn hint(leader: Option<NodeId>) -> String {
    leader
        .map_or_else(|| ", and knows of no leader".to_owned(), |leader| format!("; {leader} does"))
}

fn refusal(error: BoxError) -> ProposeError {
    ProposeError::Refused(error.into())
}

#[cfg(test)]
mod tests;
