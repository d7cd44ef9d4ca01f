//! The sessions in a snapshot. Drawn in `docs/formats.md`.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Outcome, REPLY_BYTES_MAX, SESSIONS_MAX, Session, Table};
use crate::state_machine::{BoxError, SnapshotParts};

const VERSION: u8 = 1;
/// More than any table takes: a length that a part may not claim.
const TABLE_BYTES_MAX: u64 = 4 << 30;

impl Table {
    /// Its length, then the sessions in ascending order.
    pub(super) fn encode(&self) -> Bytes {
        let mut table = BytesMut::new();
        table.put_u64_le(0);
        table.put_u8(VERSION);
        table.put_u64_le(self.now);
        table.put_u64_le(self.sessions.len() as u64);
        for (id, session) in &self.sessions {
            table.put_u64_le(*id);
            table.put_u64_le(session.idle_ms);
            table.put_u64_le(session.used_at);
            table.put_u64_le(session.acknowledged);
            table.put_u64_le(session.outcomes.len() as u64);
            for (number, outcome) in &session.outcomes {
                let (kind, data): (u8, &[u8]) = match outcome {
                    Outcome::Reply(reply) => (0, reply),
                    Outcome::Refused(text) => (1, text.as_bytes()),
                    Outcome::Dropped => (2, &[]),
                };
                table.put_u64_le(*number);
                table.put_u8(kind);
                table.put_u64_le(data.len() as u64);
                table.put_slice(data);
            }
        }
        let length = table.len() as u64;
        table[..8].copy_from_slice(&length.to_le_bytes());
        table.freeze()
    }

    /// Takes the table from the first parts of a snapshot.
    pub(super) fn restore(parts: &mut dyn SnapshotParts) -> Result<Self, BoxError> {
        let mut bytes = BytesMut::new();
        loop {
            let part = parts.next_part()?.ok_or("a snapshot without the end of its sessions")?;
            bytes.extend_from_slice(&part.data);
            let length = bytes.first_chunk::<8>().map_or(u64::MAX, |l| u64::from_le_bytes(*l));
            if length > TABLE_BYTES_MAX || bytes.len() as u64 > length {
                return Err("a snapshot with sessions of another length than it says".into());
            }
            if bytes.len() as u64 == length {
                let table = bytes.freeze().split_off(8);
                return Self::decode(table).ok_or_else(|| "sessions cannot be read".into());
            }
        }
    }

    fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        let mut table = Self { now: bytes.try_get_u64_le().ok()?, ..Self::default() };
        let count = bytes.try_get_u64_le().ok()?;
        if count > SESSIONS_MAX as u64 {
            return None;
        }
        for _ in 0..count {
            let id = bytes.try_get_u64_le().ok()?;
            let session = Session::decode(&mut bytes)?;
            table.expiries.insert((session.expires_at(), id));
            if table.sessions.insert(id, session).is_some() {
                return None;
            }
        }
        bytes.is_empty().then_some(table)
    }
}

impl Session {
    fn decode(bytes: &mut Bytes) -> Option<Self> {
        let mut session = Self {
            idle_ms: bytes.try_get_u64_le().ok()?,
            used_at: bytes.try_get_u64_le().ok()?,
            acknowledged: bytes.try_get_u64_le().ok()?,
            outcomes: BTreeMap::new(),
            bytes: 0,
        };
        for _ in 0..bytes.try_get_u64_le().ok()? {
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
