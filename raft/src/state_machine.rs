//! What the cluster replicates: the user's state machine.
//!
//! [`StateMachine`] is the simple trait: state in memory, one command at a time, a snapshot as bytes. [`DurableStateMachine`] is what the
//! driver runs; [`Simple`] adapts the one to the other.
//!
//! Every replica applies the same commands in the same order, so `apply` must be a function of state and command and of
//! nothing else: no clock, no random source, no hash order. An `Err` from it is a **deterministic refusal**: every replica refuses alike, the
//! state is unchanged, the proposer gets the error and the log goes on. What is *not* a function of state and
//! command (a disk that failed, a broken invariant) is a [`Fatal`] error, or a panic: the node stops before it can
//! diverge.

use std::error::Error;
use std::fmt::{self, Debug};
use std::sync::{Arc, RwLock};

use bytes::Bytes;

use crate::types::{EntryId, SessionId};

mod cut;
pub mod sessions;

pub use sessions::{SessionReader, Sessions};

use cut::Cuts;

/// Any error of a user's state machine.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A replicated state machine in memory.
pub trait StateMachine: Send + Sync + 'static {
    /// Applies a committed command and returns the reply for its proposer. See the head of the module for what an error
    /// means.
    fn apply(&mut self, command: &[u8]) -> Result<Vec<u8>, BoxError>;

    /// The whole state as bytes, from which [`Self::restore`] can make it again. `Ok(None)`, the default, means that there are no
    /// snapshots: the log is then kept for ever, and replayed at each start.
    fn snapshot(&self) -> Result<Option<Vec<u8>>, BoxError> {
        Ok(None)
    }

    /// Replaces the state by that of a snapshot.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        let _ = snapshot;
        Err("this state machine takes no snapshots".into())
    }
}

/// An error of a state machine that is not a function of its input: the node stops.
///
/// Return it boxed from `apply`: `Err(Box::new(Fatal::new(error)))`.
#[derive(Debug)]
pub struct Fatal(BoxError);

/// A committed entry, for [`DurableStateMachine::apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its identity.
    pub id: EntryId,
    /// Exactly-once identity, if the client gave one.
    pub session: Option<SessionId>,
    /// The command; `None` for entries of Raft's own, which only move [`DurableStateMachine::applied`] on.
    pub command: Option<Bytes>,
}

/// The answer to one command: what its proposer gets.
pub type Reply = Result<Bytes, BoxError>;

/// A piece of a snapshot: immutable, of any size up to 64 MiB, about one MiB at best.
///
/// A part is known by its bytes: one that a receiver has, or that an earlier snapshot of this node has, is neither sent nor written again.
/// So a machine does well to keep a part's bytes equal while what is in it does not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What the part is, in the machine's own words; unique in its snapshot.
    pub name: String,
    /// Its bytes.
    pub data: Bytes,
}

/// A state as of one moment, which can be read while the machine goes on.
pub trait SnapshotView: Send {
    /// The next part, or `None` after the last. Called on a thread of its own.
    fn next_part(&mut self) -> Result<Option<Part>, BoxError>;
}

/// The parts of a snapshot, in the order in which they were given.
pub trait SnapshotParts {
    /// The next part, verified, or `None` after the last.
    fn next_part(&mut self) -> Result<Option<Part>, BoxError>;
}

/// Makes applied entries durable beside `apply`; returns the last of them, for whoever calls it: the node only asks whether it failed.
pub type SyncJob = Box<dyn FnOnce() -> Result<EntryId, BoxError> + Send>;

/// The state machine as the driver runs it: on one worker, beside the node's own task.
pub trait DurableStateMachine: Send + 'static {
    /// A handle for reads, which never waits for `apply` longer than for one entry.
    type Reader: Clone + Send + Sync + 'static;

    /// A reader of the state as it is at the time of each call on it.
    fn reader(&self) -> Self::Reader;

    /// Applies a run of consecutive committed entries and pushes one reply for each entry *that has a command*. An `Err`
    /// stops the node.
    fn apply(&mut self, entries: &[Committed], replies: &mut Vec<Reply>) -> Result<(), Fatal>;

    /// The last entry applied; [`EntryId::ZERO`] for an empty machine.
    fn applied(&self) -> EntryId;

    /// The last entry whose effect survives a crash of the machine by itself. A machine in memory says
    /// [`EntryId::ZERO`]: it lives on the node's snapshots.
    ///
    /// The node does not go by it. Its log is compacted only behind the latest snapshot, before which [`Self::sync`] is done, and a
    /// machine that [has applied](Self::applied) less than that when the node starts is restored from it.
    fn durable(&self) -> EntryId;

    /// A job that makes what is applied now durable; `None` if there is nothing to do. Done before each snapshot, beside the machine.
    fn sync(&mut self) -> Option<SyncJob> {
        None
    }

    /// The state as of now; `None` if this machine has no snapshots.
    fn view(&self) -> Result<Option<Box<dyn SnapshotView>>, BoxError>;

    /// Replaces the state by that of a snapshot whose last entry is `last`.
    fn restore(&mut self, last: EntryId, parts: &mut dyn SnapshotParts) -> Result<(), BoxError>;
}

/// Runs a [`StateMachine`] as a [`DurableStateMachine`].
///
/// Its snapshot is cut into parts where the content says so: a follower that has most of the state, and the node's own next snapshot, take
/// the parts that did not change from what is there. Encode the state in a stable order, so that a small change stays one.
#[derive(Debug)]
pub struct Simple<M> {
    machine: Arc<RwLock<M>>,
    applied: EntryId,
    cuts: Cuts,
}

/// Reads a [`Simple`] machine.
#[derive(Debug)]
pub struct SimpleReader<M> {
    machine: Arc<RwLock<M>>,
}

impl Fatal {
    /// Wraps the error that must stop the node.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the state machine failed: {}", self.0)
    }
}

impl Error for Fatal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}

impl<M: StateMachine> Simple<M> {
    /// Wraps a machine in its initial state.
    pub fn new(machine: M) -> Self {
        let cuts = Cuts::of(cut::AVERAGE);
        Self { machine: Arc::new(RwLock::new(machine)), applied: EntryId::ZERO, cuts }
    }

    /// Cuts snapshots into parts of about `average` bytes, instead of 1 MiB: between 256 bytes and 16 MiB. Parts vary from a quarter
    /// of it to four times as much.
    #[must_use]
    pub fn parts_of(mut self, average: usize) -> Self {
        self.cuts = Cuts::of(average);
        self
    }
}

impl<M> SimpleReader<M> {
    /// Calls `read` with the machine as it is now. Applying waits meanwhile, so be short.
    ///
    /// # Panics
    ///
    /// If the machine has panicked while it applied: its state may be half of one, and its node stops. `driver::Raft::read` gives out no
    /// reader then, but one that was given out before comes here.
    pub fn with<T>(&self, read: impl FnOnce(&M) -> T) -> T {
        read(&self.machine.read().expect(POISON))
    }
}

impl<M> Clone for SimpleReader<M> {
    fn clone(&self) -> Self {
        Self { machine: Arc::clone(&self.machine) }
    }
}

/// A panic in `apply` stops the node: nobody may go on with what it left, a reader that was given out before no more than we.
const POISON: &str = "the state machine panicked";

struct SimpleView {
    snapshot: Bytes,
    cuts: Cuts,
    parts: usize,
}

impl SnapshotView for SimpleView {
    fn next_part(&mut self) -> Result<Option<Part>, BoxError> {
        // The first part is there even if the snapshot is empty, so that there is something to restore.
        if self.snapshot.is_empty() && self.parts > 0 {
            return Ok(None);
        }
        let data = self.cuts.take(&mut self.snapshot);
        self.parts += 1;
        Ok(Some(Part { name: format!("state-{}", self.parts), data }))
    }
}

impl<M: StateMachine> DurableStateMachine for Simple<M> {
    type Reader = SimpleReader<M>;

    fn reader(&self) -> SimpleReader<M> {
        SimpleReader { machine: Arc::clone(&self.machine) }
    }

    fn apply(&mut self, entries: &[Committed], replies: &mut Vec<Reply>) -> Result<(), Fatal> {
        for entry in entries {
            if let Some(command) = &entry.command {
                let result = self.machine.write().expect(POISON).apply(command);
                replies.push(match result {
                    Ok(reply) => Ok(reply.into()),
                    Err(error) => match error.downcast::<Fatal>() {
                        Ok(fatal) => return Err(*fatal),
                        Err(refusal) => Err(refusal),
                    },
                });
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
        let snapshot = self.machine.read().expect(POISON).snapshot()?;
        let view = |snapshot: Vec<u8>| {
            Box::new(SimpleView { snapshot: snapshot.into(), cuts: self.cuts, parts: 0 }) as Box<_>
        };
        Ok(snapshot.map(view))
    }

    fn restore(&mut self, last: EntryId, parts: &mut dyn SnapshotParts) -> Result<(), BoxError> {
        let mut snapshot = Vec::new();
        while let Some(part) = parts.next_part()? {
            snapshot.extend_from_slice(&part.data);
        }
        self.machine.write().expect(POISON).restore(&snapshot)?;
        self.applied = last;
        Ok(())
    }
}
