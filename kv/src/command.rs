//! What a client may ask the cluster to change, and its form in the log.
//!
//! A command begins with the version of its codec. A node that meets a newer version than it knows
//! must stop, not refuse: the others may well know it and apply it
//! ([`CommandError::UnknownVersion`]). Anything else that does not decode is refused by every
//! replica alike.
//!
//! Each command carries its leader's wall clock. Time in the state machine is the largest clock so
//! far, so it never runs backwards, and it is the same on all replicas.

use bytes::Bytes;

use crate::codec::{Decoder, Malformed, put_bytes, put_i64, put_u64};
use crate::error::KvError;
use crate::lease::LeaseId;
use crate::member::MemberAttributes;
use crate::range::KeyInterval;

/// The version of the codec that this build writes, and the newest that it reads.
pub const CODEC_VERSION: u8 = 1;

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The leader's wall clock when it proposed the command: milliseconds since the Unix epoch.
    pub wall_clock_ms: u64,
    /// What to do.
    pub operation: Operation,
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writes a key.
    Put(Put),
    /// Deletes the keys of an interval.
    DeleteRange(DeleteRange),
    /// Records a member's name and addresses, in place of those it had. Makes no revision.
    PublishMember(MemberAttributes),
}

/// Writes one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// The key; must not be empty.
    pub key: Bytes,
    /// The new value.
    pub value: Bytes,
    /// The lease to hang the key on. [`LeaseId::NONE`] takes the key off its lease.
    pub lease: LeaseId,
    /// Return the key as it was.
    pub prev_kv: bool,
    /// Keep the key's value; it must exist, and `value` must be empty.
    pub ignore_value: bool,
    /// Keep the key's lease; it must exist, and `lease` must be none.
    pub ignore_lease: bool,
}

/// Deletes the keys of an interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRange {
    /// The first key; must not be empty.
    pub key: Bytes,
    /// The end of the interval, with the conventions of [`KeyInterval::new`].
    pub range_end: Bytes,
    /// Return the keys as they were.
    pub prev_kv: bool,
}

/// Limits on one request and its answer. They are a node's own settings, so nothing that decides
/// what a *committed* command does may depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest command, in bytes as encoded. etcd's default: 1.5 MiB.
    pub request_bytes_max: usize,
    /// The largest answer to a range read, in bytes of keys and values and 64 for each pair. A read
    /// beyond it is refused, so that one request cannot take all memory.
    pub response_bytes_max: usize,
}

/// Why bytes are not a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A newer build wrote it. A replica that meets it must stop.
    #[error("command has codec version {0}, this build knows up to {CODEC_VERSION}")]
    UnknownVersion(u8),
    /// It is cut, garbled, or not a command at all. All replicas refuse it alike.
    #[error("malformed command")]
    Malformed,
}

const TAG_PUT: u8 = 1;
const TAG_DELETE_RANGE: u8 = 2;
const TAG_PUBLISH_MEMBER: u8 = 3;

const FLAG_PREV_KV: u8 = 1;
const FLAG_IGNORE_VALUE: u8 = 2;
const FLAG_IGNORE_LEASE: u8 = 4;

impl Default for Limits {
    fn default() -> Self {
        Self { request_bytes_max: 1536 << 10, response_bytes_max: 256 << 20 }
    }
}

impl Command {
    /// The command as it stands in the log.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.capacity());
        out.push(CODEC_VERSION);
        let tag = match &self.operation {
            Operation::Put(_) => TAG_PUT,
            Operation::DeleteRange(_) => TAG_DELETE_RANGE,
            Operation::PublishMember(_) => TAG_PUBLISH_MEMBER,
        };
        out.push(tag);
        put_u64(&mut out, self.wall_clock_ms);
        match &self.operation {
            Operation::Put(put) => put.encode(&mut out),
            Operation::DeleteRange(delete) => delete.encode(&mut out),
            Operation::PublishMember(member) => member.encode(&mut out),
        }
        out.into()
    }

    /// Reads a command. Its keys and values share the memory of `bytes`.
    ///
    /// # Errors
    ///
    /// [`CommandError`] says whether to stop or to refuse.
    pub fn decode(bytes: Bytes) -> Result<Self, CommandError> {
        let mut decoder = Decoder::new(bytes);
        let version = decoder.byte()?;
        if version > CODEC_VERSION {
            return Err(CommandError::UnknownVersion(version));
        }
        if version != CODEC_VERSION {
            return Err(CommandError::Malformed);
        }
        let tag = decoder.byte()?;
        let wall_clock_ms = decoder.u64()?;
        let operation = match tag {
            TAG_PUT => Operation::Put(Put::decode(&mut decoder)?),
            TAG_DELETE_RANGE => Operation::DeleteRange(DeleteRange::decode(&mut decoder)?),
            TAG_PUBLISH_MEMBER => Operation::PublishMember(MemberAttributes::decode(&mut decoder)?),
            _ => return Err(CommandError::Malformed),
        };
        decoder.finish()?;
        Ok(Self { wall_clock_ms, operation })
    }

    /// Checks a request before it is proposed: against this node's limits, and against every rule
    /// that needs no state.
    ///
    /// # Errors
    ///
    /// The error that the client should get.
    pub fn validate(&self, limits: &Limits) -> Result<(), KvError> {
        if self.is_longer_than(limits.request_bytes_max) {
            return Err(KvError::RequestTooLarge);
        }
        self.check()
    }

    /// The rules that need no state. Applying checks them again: a log may hold what an edge forgot
    /// to check.
    pub(crate) fn check(&self) -> Result<(), KvError> {
        match &self.operation {
            Operation::Put(put) => put.check(),
            Operation::DeleteRange(delete) => delete.interval().map(|_| ()),
            Operation::PublishMember(_) => Ok(()),
        }
    }

    /// Compares the encoded length, without encoding where keys and values alone decide.
    fn is_longer_than(&self, len: usize) -> bool {
        let capacity_is_bound = match self.operation {
            Operation::Put(_) | Operation::DeleteRange(_) => true,
            Operation::PublishMember(_) => false,
        };
        if capacity_is_bound && self.capacity() <= len {
            return false;
        }
        self.len_min() > len || self.encode().len() > len
    }

    /// The bytes of keys and values: never more than the encoded length.
    fn len_min(&self) -> usize {
        match &self.operation {
            Operation::Put(put) => put.key.len().saturating_add(put.value.len()),
            Operation::DeleteRange(delete) => {
                delete.key.len().saturating_add(delete.range_end.len())
            }
            Operation::PublishMember(_) => 0,
        }
    }

    /// Keys and values, and the most that the numbers around them can take: version, tag, flags,
    /// and up to four numbers of ten bytes. Of a member's attributes only the numbers.
    fn capacity(&self) -> usize {
        const NUMBERS: usize = 3 + 4 * 10;
        self.len_min().saturating_add(NUMBERS)
    }
}

impl Put {
    fn check(&self) -> Result<(), KvError> {
        if self.key.is_empty() {
            return Err(KvError::KeyNotProvided);
        }
        if self.ignore_value && !self.value.is_empty() {
            return Err(KvError::ValueProvided);
        }
        if self.ignore_lease && self.lease != LeaseId::NONE {
            return Err(KvError::LeaseProvided);
        }
        Ok(())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let mut flags = 0;
        for (is_set, flag) in [
            (self.prev_kv, FLAG_PREV_KV),
            (self.ignore_value, FLAG_IGNORE_VALUE),
            (self.ignore_lease, FLAG_IGNORE_LEASE),
        ] {
            if is_set {
                flags |= flag;
            }
        }
        out.push(flags);
        put_i64(out, self.lease.0);
        put_bytes(out, &self.key);
        put_bytes(out, &self.value);
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, Malformed> {
        let flags = decoder.byte()?;
        if flags & !(FLAG_PREV_KV | FLAG_IGNORE_VALUE | FLAG_IGNORE_LEASE) != 0 {
            return Err(Malformed);
        }
        Ok(Self {
            lease: LeaseId(decoder.i64()?),
            key: decoder.bytes()?,
            value: decoder.bytes()?,
            prev_kv: flags & FLAG_PREV_KV != 0,
            ignore_value: flags & FLAG_IGNORE_VALUE != 0,
            ignore_lease: flags & FLAG_IGNORE_LEASE != 0,
        })
    }
}

impl DeleteRange {
    /// The keys to delete.
    ///
    /// # Errors
    ///
    /// [`KvError::KeyNotProvided`] if the key is empty.
    pub fn interval(&self) -> Result<KeyInterval, KvError> {
        KeyInterval::new(self.key.clone(), self.range_end.clone())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.prev_kv));
        put_bytes(out, &self.key);
        put_bytes(out, &self.range_end);
    }

    fn decode(decoder: &mut Decoder) -> Result<Self, Malformed> {
        Ok(Self { prev_kv: decoder.flag()?, key: decoder.bytes()?, range_end: decoder.bytes()? })
    }
}

impl From<Malformed> for CommandError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

#[cfg(test)]
mod tests {
    use raft_consensus::types::NodeId;

    use super::*;

    fn put(key: &'static str, value: &'static str) -> Put {
        Put { key: key.into(), value: value.into(), ..Put::default() }
    }

    fn command(operation: Operation) -> Command {
        Command { wall_clock_ms: 1_700_000_000_000, operation }
    }

    fn samples() -> Vec<Command> {
        vec![
            command(Operation::Put(put("key", "value"))),
            command(Operation::Put(Put {
                lease: LeaseId(-7),
                prev_kv: true,
                ignore_value: true,
                ignore_lease: true,
                ..put("k", "")
            })),
            command(Operation::DeleteRange(DeleteRange {
                key: "a".into(),
                range_end: "b".into(),
                prev_kv: true,
            })),
            command(Operation::PublishMember(MemberAttributes {
                id: NodeId(3),
                name: "three".into(),
                peer_urls: vec!["http://[::1]:2380".into()],
                client_urls: vec!["http://[::1]:2379".into(), "http://h:1".into()],
            })),
        ]
    }

    #[test]
    fn a_command_comes_back_from_its_bytes() {
        for command in samples() {
            assert_eq!(Command::decode(command.encode()), Ok(command));
        }
    }

    /// The log is read by builds to come: version 1 stays as it is.
    #[test]
    fn version_1_has_these_bytes() {
        let golden: [&[u8]; 4] = [
            b"\x01\x01\x80\xd0\x95\xff\xbc\x31\x00\x00\x03key\x05value",
            b"\x01\x01\x80\xd0\x95\xff\xbc\x31\x07\xf9\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01k\x00",
            b"\x01\x02\x80\xd0\x95\xff\xbc\x31\x01\x01a\x01b",
            b"\x01\x03\x80\xd0\x95\xff\xbc\x31\x03\x05three\x01\x11http://[::1]:2380\
              \x02\x11http://[::1]:2379\x0ahttp://h:1",
        ];
        for (command, bytes) in samples().into_iter().zip(golden) {
            assert_eq!(command.encode(), bytes, "{command:?}");
        }
    }

    #[test]
    fn every_cut_and_every_addition_is_malformed() {
        for command in samples() {
            let bytes = command.encode();
            for cut in 0..bytes.len() {
                assert_eq!(Command::decode(bytes.slice(..cut)), Err(CommandError::Malformed));
            }
            let longer = [&bytes[..], b"x"].concat();
            assert_eq!(Command::decode(longer.into()), Err(CommandError::Malformed));
        }
    }

    #[test]
    fn a_garbled_byte_never_passes_for_the_same_command() {
        for command in samples() {
            let bytes = command.encode();
            for place in 0..bytes.len() {
                for bit in 0..8 {
                    let mut garbled = bytes.to_vec();
                    garbled[place] ^= 1 << bit;
                    let decoded = Command::decode(garbled.clone().into());
                    assert_ne!(decoded, Ok(command.clone()), "bit {bit} of byte {place}");
                    if let Ok(other) = decoded {
                        assert_eq!(other.encode(), garbled, "one command, one form");
                    }
                }
            }
        }
    }

    #[test]
    fn a_newer_version_is_told_from_garbage() {
        let mut bytes = samples()[0].encode().to_vec();
        bytes[0] = 2;
        assert_eq!(Command::decode(bytes.clone().into()), Err(CommandError::UnknownVersion(2)));
        bytes[0] = 0;
        assert_eq!(Command::decode(bytes.into()), Err(CommandError::Malformed));
    }

    #[test]
    fn requests_are_checked_before_they_are_proposed() {
        let ignoring = |value, lease| Put {
            ignore_value: true,
            ignore_lease: true,
            lease: LeaseId(lease),
            ..put("k", value)
        };
        let delete = |key: &'static str| DeleteRange { key: key.into(), ..DeleteRange::default() };
        let table = [
            (Operation::Put(put("k", "v")), Ok(())),
            (Operation::Put(put("", "v")), Err(KvError::KeyNotProvided)),
            (Operation::Put(ignoring("", 0)), Ok(())),
            (Operation::Put(ignoring("v", 0)), Err(KvError::ValueProvided)),
            (Operation::Put(ignoring("", 5)), Err(KvError::LeaseProvided)),
            (Operation::DeleteRange(delete("k")), Ok(())),
            (Operation::DeleteRange(delete("")), Err(KvError::KeyNotProvided)),
        ];
        for (operation, expected) in table {
            let command = command(operation);
            assert_eq!(command.validate(&Limits::default()), expected, "{command:?}");
        }
    }

    #[test]
    fn the_limit_holds_to_the_byte() {
        for operation in samples() {
            let len = operation.encode().len();
            let limits = |request_bytes_max| Limits { request_bytes_max, ..Limits::default() };
            assert_ne!(operation.validate(&limits(len)), Err(KvError::RequestTooLarge));
            assert_eq!(operation.validate(&limits(len - 1)), Err(KvError::RequestTooLarge));
        }
        assert_eq!(Limits::default().request_bytes_max, 1_572_864, "etcd's 1.5 MiB");
    }
}
