//! Exactly-once commands (thesis §6.3): what a client sends again is not applied again.
//!
//! A client whose connection breaks does not know whether its command took effect, and sending it again could make it take effect twice.
//! So a client opens a **session**, numbers its commands in it, and sends a command whose outcome is unknown again under the
//! same number. [`Sessions`] wraps a machine and remembers, per session, the reply to each number until the client says that it
//! has it. A repetition gets the reply of the first time. All of that is part of the replicated state: it is changed by
//! logged commands alone and travels in snapshots.
//!
//! - **A session's id** is the place of the entry that opened it. No other session of the cluster ever has it, so a late repetition of
//!   anything meets the session it belongs to, or none. (A cluster that was begun from what a survivor had, by `driver::salvage`, is another
//!   one, and gives the places of entries that are lost again: its clients open new sessions.) Opening twice leaves a session that nobody
//!   uses, until it expires.
//! - **Numbers** may arrive in any order within [`OUTSTANDING_MAX`] of what is acknowledged, so a client may have several commands under way.
//! - **What is remembered is bounded**: a number that runs too far ahead is refused, and replies beyond [`REPLY_BYTES_MAX`] are dropped,
//!   oldest first. That the command was applied is remembered all the same; a repetition is told [`SessionError::ReplyDropped`].
//! - **Expiry** goes by logged time. Each command of a session carries the wall clock of whoever proposed it, and the table's own time
//!   runs on as the greatest of them does: a replica's clock decides nothing. A session that was not used for as long as it asked for
//!   when it was opened is dropped with the next session command of anybody. Its client is told [`SessionError::Unknown`] and nothing is
//!   applied; what it had sent before may have been.
//!   A command without a time, which is zero, moves nothing.
//! - **A clock that is far off** moves the table's time once, by [`LEAP_MS_MAX`] at most, and is gone on from: when the right time is heard
//!   again, being behind by more than that, it is gone on from that, without the table's time moving. So a wrong clock may
//!   expire sessions early by as much each time that it and a right one take turns; it never ends expiry, and no command is ever
//!   applied twice for it. Where nobody sends a command of a session for longer, sessions are kept longer than they asked for.
//!
//! Entries without a session go to the machine as they are.
//!
//! What the limits are is part of the replicated state too: they are constants of this version of the table, so that all
//! replicas refuse alike.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::cut::{self, Cuts};
use super::{
    BoxError, Committed, DurableStateMachine, Fatal, Part, Reply, SnapshotParts, SnapshotView,
    SyncJob,
};
use crate::types::{EntryId, SessionId};

mod command;
mod encoding;

use encoding::TableParts;

pub use command::SessionCommand;

/// Sessions that are open at once; opening more is refused.
pub const SESSIONS_MAX: usize = 10_000;
/// How far a number may be ahead of what its client has acknowledged.
pub const OUTSTANDING_MAX: u64 = 256;
/// Bytes of replies that are kept for one session.
pub const REPLY_BYTES_MAX: usize = 64 << 10;
/// The longest and the shortest time, in milliseconds, for which a session may ask to be kept without being used.
pub const IDLE_MS: std::ops::RangeInclusive<u64> = 1_000..=7 * 24 * 3_600_000;

/// By how much, in milliseconds, one command may move the time by which sessions expire.
pub const LEAP_MS_MAX: u64 = 10 * 60_000;

/// Why a command of a session was not applied. The same on every replica.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionError {
    /// The session has expired, was closed, or never was. A command sent in it earlier may have been applied.
    #[error("session {0} is not open: it has expired or was closed")]
    Unknown(u64),
    /// The client has said that it has the reply to this number.
    #[error("number {0} was acknowledged before")]
    Acknowledged(u64),
    /// Applied before, and its reply is no longer kept.
    #[error("number {0} was applied before, and its reply is no longer kept")]
    ReplyDropped(u64),
    /// Applied before, and refused by the machine then, for this reason.
    #[error("{0}")]
    RefusedBefore(String),
    /// Too far ahead of what is acknowledged.
    #[error(
        "number {number} is more than {OUTSTANDING_MAX} ahead of {acknowledged}, the last one acknowledged"
    )]
    TooFarAhead {
        /// The command's number.
        number: u64,
        /// The last number up to which the client has all replies.
        acknowledged: u64,
    },
    /// As many sessions are open as there may be.
    #[error("{SESSIONS_MAX} sessions are open")]
    TooMany,
    /// Not a command of a session.
    #[error("not a command of a session")]
    Malformed,
}

/// What is remembered of a command that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Reply(Bytes),
    Refused(String),
    Dropped,
}

impl Outcome {
    fn size(&self) -> usize {
        match self {
            Self::Reply(reply) => reply.len(),
            Self::Refused(text) => text.len(),
            Self::Dropped => 0,
        }
    }

    fn of(reply: &Reply) -> Self {
        match reply {
            Ok(reply) => Self::Reply(reply.clone()),
            Err(refusal) => Self::Refused(refusal.to_string()),
        }
    }

    fn again(&self, number: u64) -> Reply {
        match self {
            Self::Reply(reply) => Ok(reply.clone()),
            Self::Refused(text) => Err(SessionError::RefusedBefore(text.clone()).into()),
            Self::Dropped => Err(SessionError::ReplyDropped(number).into()),
        }
    }
}

/// One session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Session {
    idle_ms: u64,
    used_at: u64,
    /// The client has the replies to all numbers up to this one.
    acknowledged: u64,
    outcomes: BTreeMap<u64, Outcome>,
    /// Bytes of replies in `outcomes`.
    bytes: usize,
}

impl Session {
    fn expires_at(&self) -> u64 {
        self.used_at.saturating_add(self.idle_ms)
    }

    fn acknowledge(&mut self, number: u64) {
        self.acknowledged = self.acknowledged.max(number);
        while let Some(entry) = self.outcomes.first_entry().filter(|e| *e.key() <= number) {
            self.bytes -= entry.remove().size();
        }
    }

    fn remember(&mut self, number: u64, outcome: Outcome) {
        self.bytes += outcome.size();
        self.outcomes.insert(number, outcome);
        if self.bytes <= REPLY_BYTES_MAX {
            return;
        }
        for outcome in self.outcomes.values_mut() {
            self.bytes -= outcome.size();
            *outcome = Outcome::Dropped;
            if self.bytes <= REPLY_BYTES_MAX {
                return;
            }
        }
    }
}

/// All sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Table {
    /// The time by which sessions expire, in milliseconds.
    now: u64,
    /// What a command must be ahead of to move it: the greatest time that one bore, in milliseconds since the UNIX epoch; or a
    /// lesser one, if that was far off.
    heard: u64,
    /// Shared with the snapshots that are being written.
    sessions: BTreeMap<u64, Arc<Session>>,
    /// When each session expires, for the soonest to be found; follows from `sessions`.
    expiries: BTreeSet<(u64, u64)>,
}

/// What is to be done about an entry of a session.
enum Verdict {
    /// Answer so, and apply nothing.
    Answer(Reply),
    /// Apply this command, and remember the outcome.
    Apply(Bytes),
}

impl Table {
    fn judge(&mut self, entry: EntryId, id: SessionId, command: &[u8]) -> Verdict {
        let Some(command) = SessionCommand::decode(command) else {
            return Verdict::Answer(Err(SessionError::Malformed.into()));
        };
        self.hear(command.time_ms());
        self.expire();
        match command {
            SessionCommand::Open { idle_ms, .. } => Verdict::Answer(self.open(entry, idle_ms)),
            SessionCommand::KeepAlive { .. } => Verdict::Answer(self.keep(id.session)),
            SessionCommand::Close { .. } => {
                self.remove(id.session);
                Verdict::Answer(Ok(Bytes::new()))
            }
            SessionCommand::Apply { acknowledged, command, .. } => {
                match self.number(id, acknowledged) {
                    Ok(None) => Verdict::Apply(command),
                    Ok(Some(outcome)) => Verdict::Answer(outcome.again(id.sequence)),
                    Err(error) => Verdict::Answer(Err(error.into())),
                }
            }
        }
    }

    fn hear(&mut self, time: u64) {
        if time == 0 {
            return;
        }
        let ahead = time.saturating_sub(self.heard);
        self.now = self.now.saturating_add(ahead.min(LEAP_MS_MAX));
        if ahead > 0 || self.heard - time > LEAP_MS_MAX {
            self.heard = time;
        }
    }

    fn open(&mut self, entry: EntryId, idle_ms: u64) -> Reply {
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(SessionError::TooMany.into());
        }
        let idle_ms = idle_ms.clamp(*IDLE_MS.start(), *IDLE_MS.end());
        let session = Session { idle_ms, used_at: self.now, ..Session::default() };
        let id = entry.index.0;
        self.expiries.insert((session.expires_at(), id));
        self.sessions.insert(id, Arc::new(session));
        Ok(Bytes::copy_from_slice(&id.to_le_bytes()))
    }

    fn keep(&mut self, id: u64) -> Reply {
        self.used(id).map(|_| Bytes::new()).map_err(BoxError::from)
    }

    /// The session, which is being used now.
    fn used(&mut self, id: u64) -> Result<&mut Session, SessionError> {
        let session = self.sessions.get_mut(&id).ok_or(SessionError::Unknown(id))?;
        let session = Arc::make_mut(session);
        self.expiries.remove(&(session.expires_at(), id));
        session.used_at = self.now;
        self.expiries.insert((session.expires_at(), id));
        Ok(session)
    }

    /// What became of a number when it was applied before.
    fn number(
        &mut self,
        id: SessionId,
        acknowledged: u64,
    ) -> Result<Option<Outcome>, SessionError> {
        let session = self.used(id.session)?;
        let number = id.sequence;
        // Nobody has the reply to a command that is only now being sent.
        session.acknowledge(acknowledged.min(number.saturating_sub(1)));
        if number <= session.acknowledged {
            return Err(SessionError::Acknowledged(number));
        }
        if let Some(outcome) = session.outcomes.get(&number) {
            return Ok(Some(outcome.clone()));
        }
        let acknowledged = session.acknowledged;
        if number - acknowledged > OUTSTANDING_MAX {
            return Err(SessionError::TooFarAhead { number, acknowledged });
        }
        Ok(None)
    }

    fn remember(&mut self, id: SessionId, reply: &Reply) {
        let session = self.sessions.get_mut(&id.session).expect("it was open when it was judged");
        Arc::make_mut(session).remember(id.sequence, Outcome::of(reply));
    }

    fn remove(&mut self, id: u64) {
        if let Some(session) = self.sessions.remove(&id) {
            self.expiries.remove(&(session.expires_at(), id));
        }
    }

    /// Drops what has not been used for long. Each session is dropped once, so that this costs no more than they did.
    fn expire(&mut self) {
        while let Some(&(at, id)) = self.expiries.first() {
            if at >= self.now {
                return;
            }
            self.expiries.pop_first();
            self.sessions.remove(&id);
        }
    }
}

/// A machine whose clients may have sessions. See the head of the module.
#[derive(Debug)]
pub struct Sessions<M> {
    machine: M,
    table: Table,
    /// With a planted bug: snapshots leave the sessions out.
    #[cfg(feature = "sim")]
    forgets: bool,
}

impl<M: DurableStateMachine> Sessions<M> {
    /// Wraps a machine in its initial state.
    ///
    /// # Panics
    ///
    /// If the machine has kept entries by itself: it would have to keep the sessions with them, which this wrapper cannot
    /// see to. Such a machine keeps its own.
    #[must_use]
    pub fn new(machine: M) -> Self {
        assert!(
            machine.applied() == EntryId::ZERO,
            "a machine that keeps itself keeps its sessions"
        );
        Self {
            machine,
            table: Table::default(),
            #[cfg(feature = "sim")]
            forgets: false,
        }
    }

    /// Wraps a machine whose clients have these sessions from the start.
    #[cfg(feature = "sim")]
    pub(crate) fn opened(machine: M, ids: std::ops::RangeInclusive<u64>, forgets: bool) -> Self {
        let mut sessions = Self::new(machine);
        for index in ids.map(crate::types::LogIndex) {
            let entry = EntryId::new(crate::types::Term::ZERO, index);
            sessions.table.open(entry, u64::MAX).expect("they are few");
        }
        sessions.forgets = forgets;
        sessions
    }

    /// The sessions as a snapshot has them.
    fn table_in_snapshot(&self) -> TableParts {
        #[cfg(feature = "sim")]
        if self.forgets {
            let mut table = self.table.clone();
            for session in table.sessions.values_mut() {
                let session = Arc::make_mut(session);
                session.outcomes.clear();
                (session.acknowledged, session.bytes) = (0, 0);
            }
            return TableParts::of(&table);
        }
        TableParts::of(&self.table)
    }

    /// How many sessions are open.
    #[must_use]
    pub fn open_sessions(&self) -> usize {
        self.table.sessions.len()
    }

    fn apply_one(&mut self, entry: &Committed, replies: &mut Vec<Reply>) -> Result<(), Fatal> {
        let (Some(id), Some(command)) = (entry.session, &entry.command) else {
            return self.machine.apply(std::slice::from_ref(entry), replies);
        };
        match self.table.judge(entry.id, id, command) {
            Verdict::Answer(reply) => {
                // The machine moves on without the command.
                let passed = Committed { id: entry.id, session: None, command: None };
                self.machine.apply(&[passed], replies)?;
                replies.push(reply);
            }
            Verdict::Apply(command) => {
                let inner = Committed { id: entry.id, session: Some(id), command: Some(command) };
                self.machine.apply(&[inner], replies)?;
                let reply = replies
                    .last()
                    .ok_or_else(|| Fatal::new("the machine gave no reply to a command"))?;
                self.table.remember(id, reply);
            }
        }
        Ok(())
    }
}

/// Reads a machine that [`Sessions`] is around: the machine's own reader, which this gives out wherever that is wanted.
///
/// That it has another type is what lets nobody open a session with a node whose machine knows of none: it would take the command that opens
/// one for a command of its user's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionReader<R>(R);

impl<R> Deref for SessionReader<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.0
    }
}

impl<M: DurableStateMachine> DurableStateMachine for Sessions<M> {
    type Reader = SessionReader<M::Reader>;

    fn reader(&self) -> SessionReader<M::Reader> {
        SessionReader(self.machine.reader())
    }

    fn apply(&mut self, entries: &[Committed], replies: &mut Vec<Reply>) -> Result<(), Fatal> {
        entries.iter().try_for_each(|entry| self.apply_one(entry, replies))
    }

    fn applied(&self) -> EntryId {
        self.machine.applied()
    }

    /// The sessions live on the node's snapshots.
    fn durable(&self) -> EntryId {
        EntryId::ZERO
    }

    fn sync(&mut self) -> Option<SyncJob> {
        self.machine.sync()
    }

    fn view(&self) -> Result<Option<Box<dyn SnapshotView>>, BoxError> {
        let Some(machine) = self.machine.view()? else { return Ok(None) };
        let view = View { table: Some(self.table_in_snapshot()), parts: 0, machine };
        Ok(Some(Box::new(view)))
    }

    fn restore(&mut self, last: EntryId, parts: &mut dyn SnapshotParts) -> Result<(), BoxError> {
        self.table = Table::restore(parts)?;
        self.machine.restore(last, parts)
    }
}

/// The sessions, then what the machine has.
struct View {
    table: Option<TableParts>,
    parts: usize,
    machine: Box<dyn SnapshotView>,
}

impl SnapshotView for View {
    fn next_part(&mut self) -> Result<Option<Part>, BoxError> {
        let data = self.table.as_mut().and_then(|table| table.next(Cuts::of(cut::AVERAGE)));
        let Some(data) = data else {
            self.table = None;
            return self.machine.next_part();
        };
        self.parts += 1;
        Ok(Some(Part { name: format!("sessions-{}", self.parts), data }))
    }
}

#[cfg(test)]
mod tests;
