//! Identities, terms, indexes and entries: the nouns that every other module speaks in.
//!
//! Each is a newtype, so that a term can never be passed where an index is meant.

use std::fmt;

use bytes::Bytes;

use crate::membership::Membership;

/// A member of a cluster. Shown as `node2`. Zero is not a valid id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// A cluster. Messages of another cluster are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

/// One data directory, for its whole life: 128 random bits written when it is created.
///
/// A node that lost its disk comes back with another store id, and so cannot pass for the node that once voted and
/// acknowledged under the same [`NodeId`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u128);

/// One Raft group among those that share a process and its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

impl GroupId {
    /// No group: what processes say to each other about themselves bears this id.
    pub const PROCESS: Self = Self(u64::MAX);
}

/// Says which life a process is in, to those whose groups are quiet because it leads them (`raft_node/quiet.rs`). Another one after
/// each restart, and whenever it may not lead all of these groups any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeEpoch {
    /// Which start of the process: a number that no other start of it has.
    pub boot: u64,
    /// Counts the epochs of that start.
    pub count: u64,
}

impl NodeEpoch {
    /// Whether what was agreed under `self` holds no more for a process that says that it is in `now`: an earlier epoch of the same
    /// start is only an old message.
    #[must_use]
    pub fn is_over(self, now: Self) -> bool {
        now.boot != self.boot || now.count > self.count
    }
}

/// A term of office (Raft §5.1): grows by one with each election, has at most one leader. Zero precedes all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// A place in the log. The first entry has index 1; zero means *before the first*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(pub u64);

/// An entry's identity. Two entries with the same id hold the same command and follow the same log (Log Matching,
/// Raft §5.3). Ordered by term, then index: that is the order in which logs are compared for a vote (Raft §5.4.1).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The term of the leader that created the entry.
    pub term: Term,
    /// Its place in the log.
    pub index: LogIndex,
}

/// Exactly-once identity of a command: a client's session and its sequence number in it (Raft thesis §6.3). What it is for, and what
/// makes it one: [`Sessions`](crate::state_machine::Sessions).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    /// The session.
    pub session: u64,
    /// The command's number in the session.
    pub sequence: u64,
}

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Payload {
    /// Nothing: a new leader's first entry, which lets it commit what came before (Raft §8).
    Noop,
    /// A command for the state machine.
    Command(Bytes),
    /// The members from this entry on.
    Membership(Membership),
}

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its identity.
    pub id: EntryId,
    /// Exactly-once identity of the command, if its client asked for one.
    pub session: Option<SessionId>,
    /// What it carries.
    pub payload: Payload,
}

/// What a node must remember of its votes (Raft §5.1, "persistent state").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HardState {
    /// The latest term the node has seen.
    pub term: Term,
    /// The candidate that got its vote in that term.
    pub voted_for: Option<NodeId>,
}

/// What a snapshot stands for: every entry up to `last`, and the members at that point.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotMeta {
    /// The last entry whose effect the snapshot holds.
    pub last: EntryId,
    /// The members as of `last`.
    pub membership: Membership,
    /// Length in bytes: its manifest and all parts.
    pub size: u64,
    /// CRC32C of its manifest, which holds a digest of each part.
    pub checksum: u32,
}

impl Term {
    /// The term before any election.
    pub const ZERO: Self = Self(0);

    /// No election gets here: at one a nanosecond it takes almost three centuries.
    pub const MAX: Self = Self(u64::MAX / 2);

    /// The term after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("2^64 elections do not happen"))
    }
}

impl LogIndex {
    /// The place before the first entry.
    pub const ZERO: Self = Self(0);

    /// No log gets here. A place beyond it is one that nobody can mean.
    pub const MAX: Self = Self(u64::MAX / 2);

    /// The place after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("2^64 entries do not happen"))
    }

    /// The place before this one; zero stays zero.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The place `count` after this one.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.checked_add(count).expect("2^64 entries do not happen"))
    }

    /// How many entries lie between `earlier` and this place; zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl EntryId {
    /// What precedes the first entry.
    pub const ZERO: Self = Self { term: Term::ZERO, index: LogIndex::ZERO };

    /// The id of the entry of `term` at `index`.
    #[must_use]
    pub fn new(term: Term, index: LogIndex) -> Self {
        Self { term, index }
    }
}

impl Entry {
    /// What is around an entry's payload, in bytes, more or less.
    pub const OVERHEAD: usize = 32;

    /// What the entry weighs against byte limits: its payload and a constant for everything around it.
    #[must_use]
    pub fn size(&self) -> usize {
        Self::OVERHEAD
            + match &self.payload {
                Payload::Noop => 0,
                Payload::Command(command) => command.len(),
                Payload::Membership(membership) => membership.encoded_len(),
            }
    }
}

/// Small ids are counted by people, and shown as such; large ones are hashes, and shown as etcd's tools show them.
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 <= u64::from(u32::MAX) {
            write!(f, "node{}", self.0)
        } else {
            write!(f, "node-{:x}", self.0)
        }
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// `index@term`, as in the scripts and error texts.
impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
