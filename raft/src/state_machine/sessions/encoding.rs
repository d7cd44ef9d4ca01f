//! The sessions in a snapshot, written and read a part at a time: a full table has hundreds of megabytes of replies. Drawn in
//! `docs/formats.md`.

use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{OUTSTANDING_MAX, Outcome, REPLY_BYTES_MAX, SESSIONS_MAX, Session, Table};
use crate::state_machine::cut::Cuts;
use crate::state_machine::{BoxError, SnapshotParts};

const VERSION: u8 = 2;
/// Without the time that was last heard.
const VERSION_1: u8 = 1;
/// More than any table takes: a length that a part may not claim.
const TABLE_BYTES_MAX: u64 = 4 << 30;
/// Length, version, times, count of sessions.
const HEAD_BYTES: usize = 8 + 1 + 8 + 8 + 8;
/// A session's id, three numbers, and count of outcomes.
const SESSION_BYTES: usize = 5 * 8;
/// An outcome's number, kind and length.
const OUTCOME_BYTES: usize = 8 + 1 + 8;
/// More than any session takes. Outcomes are no more than may be outstanding.
const SESSION_BYTES_MAX: usize = SESSION_BYTES + 256 * OUTCOME_BYTES + REPLY_BYTES_MAX;
const _: () = assert!(OUTSTANDING_MAX == 256, "see above");

/// A table as it was at one moment, on its way into parts. It shares the sessions with the table, which copies those that change
/// meanwhile.
#[derive(Debug)]
pub(super) struct TableParts {
    buffer: BytesMut,
    sessions: btree_map::IntoIter<u64, Arc<Session>>,
}

impl TableParts {
    pub(super) fn of(table: &Table) -> Self {
        let length: usize =
            table.sessions.values().map(|session| session.encoded_len()).sum::<usize>()
                + HEAD_BYTES;
        let mut buffer = BytesMut::with_capacity(HEAD_BYTES);
        buffer.put_u64_le(length as u64);
        buffer.put_u8(VERSION);
        buffer.put_u64_le(table.now);
        buffer.put_u64_le(table.heard);
        buffer.put_u64_le(table.sessions.len() as u64);
        Self { buffer, sessions: table.sessions.clone().into_iter() }
    }

    /// The next part; `None` after the last.
    pub(super) fn next(&mut self, cuts: Cuts) -> Option<Bytes> {
        while self.buffer.len() < cuts.longest() {
            let Some((id, session)) = self.sessions.next() else { break };
            self.buffer.put_u64_le(id);
            session.encode(&mut self.buffer);
        }
        let part = self.buffer.split_to(cuts.length(&self.buffer)).freeze();
        (!part.is_empty()).then_some(part)
    }
}

/// What comes of the parts of a snapshot that are the table's.
struct Source<'a> {
    parts: &'a mut dyn SnapshotParts,
    buffer: BytesMut,
    /// Bytes of the table that are in parts to come.
    left: u64,
}

impl Source<'_> {
    /// Sees to it that `bytes` bytes are there, or all that are left.
    fn need(&mut self, bytes: usize) -> Result<(), BoxError> {
        while self.buffer.len() < bytes && self.left > 0 {
            let part =
                self.parts.next_part()?.ok_or("a snapshot without the end of its sessions")?;
            let taken = part.data.len() as u64;
            self.left = self
                .left
                .checked_sub(taken)
                .ok_or("a snapshot with sessions of another length than it says")?;
            self.buffer.extend_from_slice(&part.data);
        }
        Ok(())
    }
}

impl Table {
    /// Takes the table from the first parts of a snapshot.
    pub(super) fn restore(parts: &mut dyn SnapshotParts) -> Result<Self, BoxError> {
        let mut source = Source { parts, buffer: BytesMut::new(), left: TABLE_BYTES_MAX };
        source.need(8)?;
        let length = source.buffer.first_chunk::<8>().map(|length| u64::from_le_bytes(*length));
        let there = source.buffer.len() as u64;
        source.left = length
            .filter(|&length| length <= TABLE_BYTES_MAX)
            .and_then(|length| length.checked_sub(there))
            .ok_or("a snapshot with sessions of another length than it says")?;
        source.need(HEAD_BYTES)?;
        source.buffer.advance(8);
        let unreadable = || BoxError::from("sessions cannot be read");
        let (mut table, count) = Self::decode_head(&mut source.buffer).ok_or_else(unreadable)?;
        for _ in 0..count {
            source.need(SESSION_BYTES_MAX)?;
            table.decode_session(&mut source.buffer).ok_or_else(unreadable)?;
        }
        if source.left > 0 || !source.buffer.is_empty() {
            return Err(unreadable());
        }
        Ok(table)
    }

    /// The table without its sessions, and how many there are.
    fn decode_head(bytes: &mut BytesMut) -> Option<(Self, u64)> {
        let version = bytes.try_get_u8().ok()?;
        let now = bytes.try_get_u64_le().ok()?;
        let heard = match version {
            VERSION => bytes.try_get_u64_le().ok()?,
            VERSION_1 => now,
            _ => return None,
        };
        let count = bytes.try_get_u64_le().ok()?;
        let table = Self { now, heard, ..Self::default() };
        (count <= SESSIONS_MAX as u64).then_some((table, count))
    }

    fn decode_session(&mut self, bytes: &mut BytesMut) -> Option<()> {
        let id = bytes.try_get_u64_le().ok()?;
        let session = Session::decode(bytes)?;
        self.expiries.insert((session.expires_at(), id));
        self.sessions.insert(id, Arc::new(session)).is_none().then_some(())
    }
}

impl Session {
    /// With its id.
    fn encoded_len(&self) -> usize {
        SESSION_BYTES + self.outcomes.len() * OUTCOME_BYTES + self.bytes
    }

    fn encode(&self, into: &mut BytesMut) {
        into.put_u64_le(self.idle_ms);
        into.put_u64_le(self.used_at);
        into.put_u64_le(self.acknowledged);
        into.put_u64_le(self.outcomes.len() as u64);
        for (number, outcome) in &self.outcomes {
            let (kind, data): (u8, &[u8]) = match outcome {
                Outcome::Reply(reply) => (0, reply),
                Outcome::Refused(text) => (1, text.as_bytes()),
                Outcome::Dropped => (2, &[]),
            };
            into.put_u64_le(*number);
            into.put_u8(kind);
            into.put_u64_le(data.len() as u64);
            into.put_slice(data);
        }
    }

    fn decode(bytes: &mut BytesMut) -> Option<Self> {
        let mut session = Self {
            idle_ms: bytes.try_get_u64_le().ok()?,
            used_at: bytes.try_get_u64_le().ok()?,
            acknowledged: bytes.try_get_u64_le().ok()?,
            outcomes: BTreeMap::new(),
            bytes: 0,
        };
        let count = bytes.try_get_u64_le().ok()?;
        if count > OUTSTANDING_MAX {
            return None;
        }
        for _ in 0..count {
            let number = bytes.try_get_u64_le().ok()?;
            let kind = bytes.try_get_u8().ok()?;
            let length = usize::try_from(bytes.try_get_u64_le().ok()?).ok()?;
            if length > bytes.len() {
                return None;
            }
            let data = bytes.split_to(length);
            let outcome = match kind {
                // A copy, so that one reply does not keep the whole part in memory.
                0 => Outcome::Reply(Bytes::copy_from_slice(&data)),
                1 => Outcome::Refused(String::from_utf8(data.to_vec()).ok()?),
                2 if data.is_empty() => Outcome::Dropped,
                _ => return None,
            };
            session.bytes += outcome.size();
            session.outcomes.insert(number, outcome);
        }
        (session.bytes <= REPLY_BYTES_MAX).then_some(session)
    }
}
