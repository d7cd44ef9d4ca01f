//! One machine with a log of its own, for the tests.

use bytes::Bytes;
use lattice_kv::{
    Command, DeleteRange, KvError, KvMachine, KvReader, Operation, Outcome, Put, RangeRequest,
};
use raft_consensus::state_machine::{
    BoxError, Committed, DurableStateMachine, Part, SnapshotParts,
};
use raft_consensus::types::{EntryId, LogIndex, Term};

/// A machine and the index of its next entry.
#[derive(Default)]
pub(crate) struct Replica {
    pub(crate) machine: KvMachine,
}

impl Replica {
    /// Appends a command to the log and applies it.
    pub(crate) fn run(&mut self, operation: Operation) -> Result<Outcome, KvError> {
        let index = self.machine.applied().index.next();
        let command = Command { wall_clock_ms: index.0, operation };
        self.run_bytes(command.encode())
    }

    /// Appends bytes to the log and applies them.
    pub(crate) fn run_bytes(&mut self, command: Bytes) -> Result<Outcome, KvError> {
        let id = EntryId::new(Term(1), self.machine.applied().index.next());
        let entry = Committed { id, session: None, command: Some(command) };
        let mut replies = Vec::new();
        self.machine.apply(&[entry], &mut replies).unwrap();
        let [reply] = &mut replies[..] else { panic!("one command, one reply") };
        match std::mem::replace(reply, Ok(Bytes::new())) {
            Ok(bytes) => Ok(Outcome::decode(bytes).unwrap()),
            Err(error) => Err(*error.downcast().expect("refusals are KvErrors")),
        }
    }

    pub(crate) fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let put = Put { key: key.into(), value: value.into(), ..Put::default() };
        self.run(Operation::Put(put)).unwrap();
    }

    pub(crate) fn delete(&mut self, key: impl Into<Bytes>, range_end: impl Into<Bytes>) {
        let (key, range_end) = (key.into(), range_end.into());
        self.run(Operation::DeleteRange(DeleteRange { key, range_end, prev_kv: false })).unwrap();
    }

    pub(crate) fn reader(&self) -> KvReader {
        self.machine.reader()
    }

    /// All parts of a snapshot of now.
    pub(crate) fn snapshot(&self) -> Vec<Part> {
        let mut view = self.machine.view().unwrap().unwrap();
        std::iter::from_fn(|| view.next_part().unwrap()).collect()
    }

    /// Restores a snapshot as of `index`.
    pub(crate) fn restore(&mut self, index: u64, parts: &[Part]) -> Result<(), BoxError> {
        let last = EntryId::new(Term(1), LogIndex(index));
        self.machine.restore(last, &mut Carried(parts.iter()))
    }
}

struct Carried<'a>(std::slice::Iter<'a, Part>);

impl SnapshotParts for Carried<'_> {
    fn next_part(&mut self) -> Result<Option<Part>, BoxError> {
        Ok(self.0.next().cloned())
    }
}

/// Every key, as of now.
pub(crate) fn everything() -> RangeRequest {
    RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() }
}
