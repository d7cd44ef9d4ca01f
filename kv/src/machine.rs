//! The state machine as Raft runs it, and the handle that reads it.
//!
//! The state stands behind a lock. Applying takes it for one command at a time; reads and snapshots
//! take it for one slice at a time. Neither therefore keeps the other waiting for long, with one
//! exception: a delete of a range is one command, and holds the lock for as long as its keys take,
//! about a microsecond each.
//!
//! A restored snapshot comes as a new state beside the old one: who is reading the old one (a range
//! read between two slices, a snapshot on its way) keeps it until the end and never sees a mixture.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use raft_consensus::state_machine::{
    BoxError, Committed, DurableStateMachine, Fatal, Reply, SnapshotParts, SnapshotView,
};
use raft_consensus::types::{EntryId, NodeId};

use crate::command::{Command, CommandError, Limits};
use crate::error::KvError;
use crate::member::MemberAttributes;
use crate::range::{Progress, RangeRequest, RangeResponse};
use crate::snapshot;
use crate::state::State;
use crate::state_hash::StateHash;
use crate::store::{MemoryStore, StateStore, StoreSize};

/// How many keys a read looks at before it lets go of the lock: some tens of microseconds.
const SLICE_KEYS: usize = 512;

/// A panic while applying stops the node, so nobody goes on with a poisoned lock.
const POISON: &str = "applying a command panicked";

pub(crate) type SharedState<S> = Arc<RwLock<State<S>>>;

/// etcd's data model as a replicated state machine.
pub struct KvMachine<S: StateStore = MemoryStore> {
    state: SharedState<S>,
    reader: KvReader<S>,
}

/// Reads a [`KvMachine`], from any thread. What it reads is the state of *this* replica; whether
/// that is recent enough is for Raft to say, before the read.
pub struct KvReader<S: StateStore = MemoryStore> {
    /// The state of the machine now: another one after a restore.
    current: Arc<RwLock<SharedState<S>>>,
    limits: Limits,
}

/// A range read under way, which shows one revision however long it takes.
pub struct RangeReading<S: StateStore = MemoryStore> {
    /// The state that it began with; a restore does not take it away.
    state: SharedState<S>,
    progress: Progress,
}

impl<S: StateStore> KvMachine<S> {
    /// An empty machine. Of the limits only [`Limits::response_bytes_max`] matters here: what is
    /// committed is applied, whatever its size, for all replicas must do the same.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let state = Arc::new(RwLock::new(State::new()));
        let current = Arc::new(RwLock::new(Arc::clone(&state)));
        Self { state, reader: KvReader { current, limits } }
    }

    /// Applies one entry of the log.
    fn apply_entry(&self, entry: &Committed) -> Result<Option<Reply>, Fatal> {
        let command = match entry.command.clone().map(Command::decode).transpose() {
            Ok(command) => Ok(command),
            Err(CommandError::Malformed) => Err(KvError::MalformedCommand),
            Err(newer @ CommandError::UnknownVersion(_)) => return Err(Fatal::new(newer)),
        };
        let outcome = {
            let mut state = self.state.write().expect(POISON);
            if entry.id.index != state.applied.index.next() {
                let text = format!("entry {} came after entry {}", entry.id, state.applied);
                return Err(Fatal::new(text));
            }
            state.applied = entry.id;
            match command {
                Ok(None) => return Ok(None),
                Ok(Some(command)) => state.apply(&command),
                Err(refusal) => Err(refusal),
            }
        };
        Ok(Some(outcome.map(|outcome| outcome.encode()).map_err(BoxError::from)))
    }
}

impl<S: StateStore> KvReader<S> {
    /// Reads keys. The whole answer is of one revision, however long it takes.
    ///
    /// # Errors
    ///
    /// [`KvError::KeyNotProvided`], [`KvError::FutureRevision`], and [`KvError::ResponseTooLarge`]
    /// beyond [`Limits::response_bytes_max`].
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        let mut reading = self.start_range(request.clone())?;
        while reading.advance()? {}
        reading.finish()
    }

    /// Begins to read keys, for a caller that has something to do between the slices. Reads nothing
    /// yet.
    ///
    /// # Errors
    ///
    /// [`KvError::KeyNotProvided`] and [`KvError::FutureRevision`].
    pub fn start_range(&self, request: RangeRequest) -> Result<RangeReading<S>, KvError> {
        let state = self.state();
        let current = lock(&state).revision;
        let progress = Progress::new(request, current, self.limits.response_bytes_max)?;
        Ok(RangeReading { state, progress })
    }

    /// The store's revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        lock(&self.state()).revision
    }

    /// The last entry applied.
    #[must_use]
    pub fn applied(&self) -> EntryId {
        lock(&self.state()).applied
    }

    /// The replicated time: the latest wall clock of any applied command, in milliseconds since the
    /// Unix epoch.
    #[must_use]
    pub fn wall_clock_ms(&self) -> u64 {
        lock(&self.state()).wall_clock_ms
    }

    /// The hash of the state and the entry it belongs to.
    #[must_use]
    pub fn hash(&self) -> StateHash {
        lock(&self.state()).hash()
    }

    /// How much the store holds.
    #[must_use]
    pub fn size(&self) -> StoreSize {
        lock(&self.state()).store.size()
    }

    /// What a member has published, if it has.
    #[must_use]
    pub fn member(&self, id: NodeId) -> Option<MemberAttributes> {
        lock(&self.state()).members.get(&id).cloned()
    }

    /// What all members have published, by id.
    #[must_use]
    pub fn members(&self) -> Vec<MemberAttributes> {
        lock(&self.state()).members.values().cloned().collect()
    }

    fn state(&self) -> SharedState<S> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S: StateStore> RangeReading<S> {
    /// Reads the next few hundred keys, which takes some tens of microseconds unless the answer has
    /// to be sorted. Returns whether there is more to read.
    ///
    /// # Errors
    ///
    /// [`KvError::ResponseTooLarge`] beyond [`Limits::response_bytes_max`]; the read is over then.
    pub fn advance(&mut self) -> Result<bool, KvError> {
        let Self { state, progress } = self;
        progress
            .advance(|interval, at, visit| lock(state).store.scan(interval, at, SLICE_KEYS, visit))
    }

    /// What the pairs found so far weigh, in bytes; see [`KeyValue::weight`](crate::KeyValue::weight).
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.progress.held_bytes()
    }

    /// The answer.
    ///
    /// # Errors
    ///
    /// [`KvError::ResponseTooLarge`] beyond [`Limits::response_bytes_max`].
    ///
    /// # Panics
    ///
    /// If there is more to read.
    pub fn finish(self) -> Result<RangeResponse, KvError> {
        self.progress.finish()
    }
}

pub(crate) fn lock<S>(state: &RwLock<State<S>>) -> RwLockReadGuard<'_, State<S>> {
    state.read().expect(POISON)
}

impl<S: StateStore> DurableStateMachine for KvMachine<S> {
    type Reader = KvReader<S>;

    fn reader(&self) -> KvReader<S> {
        self.reader.clone()
    }

    fn apply(&mut self, entries: &[Committed], replies: &mut Vec<Reply>) -> Result<(), Fatal> {
        for entry in entries {
            replies.extend(self.apply_entry(entry)?);
        }
        Ok(())
    }

    fn applied(&self) -> EntryId {
        lock(&self.state).applied
    }

    /// The state is in memory: it survives as a snapshot or not at all.
    fn durable(&self) -> EntryId {
        EntryId::ZERO
    }

    fn view(&self) -> Result<Option<Box<dyn SnapshotView>>, BoxError> {
        Ok(Some(Box::new(snapshot::View::new(Arc::clone(&self.state)))))
    }

    fn restore(&mut self, last: EntryId, parts: &mut dyn SnapshotParts) -> Result<(), BoxError> {
        let mut restored = snapshot::restore(parts)?;
        restored.applied = last;
        self.state = Arc::new(RwLock::new(restored));
        *self.reader.current.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::clone(&self.state);
        Ok(())
    }
}

impl<S: StateStore> Default for KvMachine<S> {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl<S: StateStore> Clone for KvReader<S> {
    fn clone(&self) -> Self {
        Self { current: Arc::clone(&self.current), limits: self.limits }
    }
}

/// Without the contents, which may be gigabytes of other people's data.
impl<S: StateStore> fmt::Debug for KvMachine<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvMachine").field("reader", &self.reader).finish()
    }
}

/// Without the contents, which may be gigabytes of other people's data.
impl<S: StateStore> fmt::Debug for KvReader<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvReader").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Without the contents, which may be gigabytes of other people's data.
impl<S: StateStore> fmt::Debug for RangeReading<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeReading")
            .field("held_bytes", &self.held_bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft_consensus::types::{LogIndex, Term};

    use super::*;
    use crate::command::{DeleteRange, Operation, Put};
    use crate::key_value::KeyValue;
    use crate::lease::LeaseId;
    use crate::outcome::{Outcome, Response};

    fn entry(index: u64, command: Option<Bytes>) -> Committed {
        Committed { id: EntryId::new(Term(1), LogIndex(index)), session: None, command }
    }

    /// A machine with a log of its own.
    struct Log {
        machine: KvMachine,
        next: u64,
    }

    impl Log {
        fn new() -> Self {
            Self { machine: KvMachine::default(), next: 1 }
        }

        fn apply(&mut self, command: Option<Bytes>) -> Option<Reply> {
            let mut replies = Vec::new();
            self.machine.apply(&[entry(self.next, command)], &mut replies).unwrap();
            self.next += 1;
            assert!(replies.len() <= 1);
            replies.pop()
        }

        fn run_at(&mut self, clock: u64, operation: Operation) -> Result<Outcome, KvError> {
            let command = Command { wall_clock_ms: clock, operation };
            match self.apply(Some(command.encode())).expect("a command has a reply") {
                Ok(bytes) => Ok(Outcome::decode(bytes).unwrap()),
                Err(error) => Err(*error.downcast().expect("refusals are KvErrors")),
            }
        }

        fn put(&mut self, put: Put) -> Result<(i64, Option<KeyValue>), KvError> {
            let Outcome { revision, response } = self.run_at(0, Operation::Put(put))?;
            let Response::Put { prev_kv } = response else { panic!("{response:?}") };
            Ok((revision, prev_kv))
        }

        fn delete(&mut self, key: &str, end: &str) -> Result<(i64, i64, Vec<KeyValue>), KvError> {
            let delete = DeleteRange {
                key: key.to_owned().into(),
                range_end: end.to_owned().into(),
                prev_kv: true,
            };
            let outcome = self.run_at(0, Operation::DeleteRange(delete))?;
            let Response::DeleteRange { deleted, prev_kvs } = outcome.response else {
                panic!("{outcome:?}")
            };
            Ok((outcome.revision, deleted, prev_kvs))
        }

        fn get_at(&self, key: &'static str, revision: i64) -> Option<KeyValue> {
            let request = RangeRequest { key: key.into(), revision, ..RangeRequest::default() };
            self.machine.reader().range(&request).unwrap().kvs.pop()
        }
    }

    fn put(key: &'static str, value: &'static str) -> Put {
        Put { key: key.into(), value: value.into(), ..Put::default() }
    }

    fn pair(
        key: &'static str,
        value: &'static str,
        create: i64,
        changed: i64,
        version: i64,
    ) -> KeyValue {
        KeyValue {
            key: key.into(),
            create_revision: create,
            mod_revision: changed,
            version,
            value: value.into(),
            lease: LeaseId::NONE,
        }
    }

    #[test]
    fn an_empty_store_is_at_revision_1_and_the_first_write_makes_2() {
        let mut log = Log::new();
        assert_eq!(log.machine.reader().revision(), 1);
        assert_eq!(log.put(put("k", "v")), Ok((2, None)));
        assert_eq!(log.machine.reader().revision(), 2);
        assert_eq!(log.get_at("k", 0), Some(pair("k", "v", 2, 2, 1)));
    }

    #[test]
    fn versions_count_from_the_creation_and_again_after_a_delete() {
        let mut log = Log::new();
        log.put(put("k", "1")).unwrap();
        log.put(put("k", "2")).unwrap();
        assert_eq!(log.get_at("k", 0), Some(pair("k", "2", 2, 3, 2)));
        log.delete("k", "").unwrap();
        assert_eq!(log.get_at("k", 0), None);
        log.put(put("k", "3")).unwrap();
        assert_eq!(log.get_at("k", 0), Some(pair("k", "3", 5, 5, 1)));
        // All of the past is still there.
        let past = [None, Some("1"), Some("2"), None, Some("3")];
        for (revision, value) in (1..).zip(past) {
            let found = log.get_at("k", revision).map(|kv| kv.value);
            assert_eq!(found, value.map(Bytes::from), "at {revision}");
        }
    }

    #[test]
    fn a_delete_of_many_is_one_revision_and_of_nothing_is_none() {
        let mut log = Log::new();
        for key in ["a", "b", "c"] {
            log.put(put(key, "v")).unwrap();
        }
        let gone = vec![pair("a", "v", 2, 2, 1), pair("b", "v", 3, 3, 1)];
        assert_eq!(log.delete("a", "c"), Ok((5, 2, gone)));
        assert_eq!(log.delete("a", "c"), Ok((5, 0, vec![])));
        assert_eq!(log.delete("z", "a"), Ok((5, 0, vec![])));
        assert_eq!(log.delete("\0", "\0"), Ok((6, 1, vec![pair("c", "v", 4, 4, 1)])));
    }

    #[test]
    fn prev_kv_is_the_key_before_the_put() {
        let mut log = Log::new();
        let asking = |value| Put { prev_kv: true, ..put("k", value) };
        assert_eq!(log.put(asking("1")), Ok((2, None)));
        assert_eq!(log.put(asking("2")), Ok((3, Some(pair("k", "1", 2, 2, 1)))));
        log.delete("k", "").unwrap();
        assert_eq!(log.put(asking("3")), Ok((5, None)), "a deleted key is no key");
    }

    #[test]
    fn what_is_ignored_is_kept() {
        let mut log = Log::new();
        let keeping = |ignore_value, ignore_lease, value| Put {
            ignore_value,
            ignore_lease,
            ..put("k", value)
        };
        assert_eq!(log.put(keeping(true, false, "")), Err(KvError::KeyNotFound));
        assert_eq!(log.put(keeping(false, true, "v")), Err(KvError::KeyNotFound));
        log.put(put("k", "v")).unwrap();
        log.put(keeping(true, false, "")).unwrap();
        assert_eq!(log.get_at("k", 0), Some(pair("k", "v", 2, 3, 2)));
        log.put(keeping(false, true, "w")).unwrap();
        assert_eq!(log.get_at("k", 0), Some(pair("k", "w", 2, 4, 3)));
        log.delete("k", "").unwrap();
        assert_eq!(log.put(keeping(true, false, "")), Err(KvError::KeyNotFound));
    }

    #[test]
    fn a_refusal_changes_nothing_but_the_place_in_the_log() {
        let mut log = Log::new();
        log.put(put("k", "v")).unwrap();
        let reader = log.machine.reader();
        let before = reader.hash();
        let refused = [
            (Put { lease: LeaseId(1), ..put("k", "w") }, KvError::LeaseNotFound),
            (Put { ignore_value: true, ..put("x", "") }, KvError::KeyNotFound),
            (Put { ignore_value: true, ..put("k", "w") }, KvError::ValueProvided),
            (Put { ignore_lease: true, lease: LeaseId(1), ..put("k", "") }, KvError::LeaseProvided),
            (put("", "v"), KvError::KeyNotProvided),
        ];
        for (put, error) in refused {
            let operation = Operation::Put(put);
            assert_eq!(log.run_at(u64::MAX, operation), Err(error));
        }
        let garbage = log.apply(Some("\x01garbage".into())).unwrap().unwrap_err();
        assert_eq!(garbage.downcast_ref(), Some(&KvError::MalformedCommand));
        let after = reader.hash();
        assert_eq!((after.hash, after.revision), (before.hash, before.revision));
        assert_eq!(after.applied.index, LogIndex(7));
        assert_eq!(reader.wall_clock_ms(), 0);
    }

    #[test]
    fn time_never_runs_backwards() {
        let mut log = Log::new();
        for (clock, expected) in [(5, 5), (3, 5), (9, 9), (9, 9), (0, 9)] {
            log.run_at(clock, Operation::Put(put("k", "v"))).unwrap();
            assert_eq!(log.machine.reader().wall_clock_ms(), expected);
        }
    }

    #[test]
    fn a_read_between_two_slices_keeps_its_revision() {
        let mut log = Log::new();
        for number in 0..=SLICE_KEYS {
            let key = Bytes::from(format!("k{number:05}"));
            log.put(Put { key, ..put("", "old") }).unwrap();
        }
        let all =
            RangeRequest { key: "k".into(), range_end: "l".into(), ..RangeRequest::default() };
        let mut reading = log.machine.reader().start_range(all).unwrap();
        assert_eq!(reading.held_bytes(), 0);
        assert_eq!(reading.advance(), Ok(true));
        let held = reading.held_bytes();
        log.delete("k", "l").unwrap();
        assert_eq!(reading.advance(), Ok(false));
        assert!(reading.held_bytes() > held);
        let response = reading.finish().unwrap();
        assert_eq!(response.kvs.len(), SLICE_KEYS + 1, "what was deleted later is there");
        assert!(response.kvs.iter().all(|kv| kv.value == "old"));
    }

    #[test]
    fn members_are_published_without_a_revision() {
        let mut log = Log::new();
        let member = |id, name: &str| MemberAttributes {
            id: NodeId(id),
            name: name.into(),
            peer_urls: vec![],
            client_urls: vec![],
        };
        let hash = log.machine.reader().hash().hash;
        for published in [member(2, "two"), member(1, "one"), member(2, "zwei")] {
            let outcome = log.run_at(1, Operation::PublishMember(published)).unwrap();
            assert_eq!(outcome, Outcome { revision: 1, response: Response::PublishMember });
        }
        let reader = log.machine.reader();
        assert_eq!(reader.members(), [member(1, "one"), member(2, "zwei")]);
        assert_eq!(reader.member(NodeId(2)), Some(member(2, "zwei")));
        assert_eq!(reader.member(NodeId(3)), None);
        assert_ne!(reader.hash().hash, hash);
    }

    #[test]
    fn entries_of_rafts_own_move_the_log_on_and_get_no_reply() {
        let mut log = Log::new();
        assert!(log.apply(None).is_none());
        assert_eq!(log.machine.applied(), EntryId::new(Term(1), LogIndex(1)));
        assert_eq!(log.machine.durable(), EntryId::ZERO);
    }

    #[test]
    fn a_gap_in_the_log_stops_the_node() {
        let mut log = Log::new();
        log.put(put("k", "v")).unwrap();
        for index in [1, 3] {
            let result = log.machine.apply(&[entry(index, None)], &mut Vec::new());
            assert!(result.is_err(), "entry {index} after entry 1");
        }
    }

    /// Refusing would diverge from replicas that know the newer version.
    #[test]
    fn a_command_of_a_newer_build_stops_the_node() {
        let mut log = Log::new();
        let command = Command { wall_clock_ms: 0, operation: Operation::Put(put("k", "v")) };
        let mut bytes = command.encode().to_vec();
        bytes[0] += 1;
        let result = log.machine.apply(&[entry(1, Some(bytes.into()))], &mut Vec::new());
        assert!(result.is_err());
        assert_eq!(log.machine.applied(), EntryId::ZERO);
    }

    #[test]
    fn a_delete_that_would_return_too_much_is_refused_before_it_deletes() {
        let mut log = Log::new();
        let value = Bytes::from(vec![0; 1 << 20]);
        for index in 0..65 {
            let key = Bytes::from(format!("k{index}"));
            log.put(Put { key, value: value.clone(), ..Put::default() }).unwrap();
        }
        assert_eq!(log.delete("k", "l"), Err(KvError::ResponseTooLarge));
        assert_eq!(log.machine.reader().revision(), 66);
        log.delete("k0", "").unwrap();
        log.delete("k1", "").unwrap();
        assert_eq!(log.delete("k", "l").map(|(_, deleted, _)| deleted), Ok(63));
    }
}
