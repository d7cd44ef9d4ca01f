//! Range reads at the edge: a large one holds up nobody, and all together hold no more memory than they are given.
//!
//! All clients share one thread. A read of a few hundred keys is quicker than handing it to another thread; what is
//! larger goes on beside, a few reads at a time, and stops when nobody waits for it any more.
//!
//! An answer takes **room** as it grows, out of a budget of the node, and gives it back when its last byte was sent or its
//! client has gone. Without that, each client could have the largest answer at the same time. Small answers take none:
//! whoever asks for large ones and does not fetch them shall not keep others from reading their keys.

use std::sync::Arc;

use lattice_kv::machine::RangeReading;
use lattice_kv::{KvError, RangeResponse};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::{convert, stopped, timed_out};

/// What all large answers of a node may weigh at the same time: two of the largest.
const ANSWERS_BYTES_MAX: usize = 512 << 20;

/// Room is counted in pieces of so many bytes.
const PIECE: usize = 1 << 10;

/// An answer up to this weight takes no room.
const SMALL_BYTES_MAX: usize = 64 << 10;

/// Large reads at a time; more wait for their turn.
const LARGE_READS_MAX: usize = 4;

/// The reads of one node.
#[derive(Debug)]
pub(crate) struct RangeReads {
    budget: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

/// The room that an answer takes, until this is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    budget: Arc<Semaphore>,
    taken: OwnedSemaphorePermit,
}

impl RangeReads {
    pub(crate) fn new() -> Self {
        Self::with_budget(ANSWERS_BYTES_MAX)
    }

    pub(super) fn with_budget(bytes: usize) -> Self {
        Self {
            budget: Arc::new(Semaphore::new(bytes / PIECE)),
            turns: Arc::new(Semaphore::new(LARGE_READS_MAX)),
        }
    }

    /// Room for an answer of which nothing is known yet.
    pub(super) fn room(&self) -> Room {
        let budget = Arc::clone(&self.budget);
        let none = Arc::clone(&budget).try_acquire_many_owned(0).expect("nothing is always there");
        Room { budget, taken: none }
    }

    /// Reads all of it. `into_answer` makes the answer, on whatever thread the read has come to.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        mut reading: RangeReading,
        deadline: Instant,
        into_answer: impl FnOnce(RangeResponse) -> T + Send + 'static,
    ) -> Result<(T, Room), Status> {
        let mut room = self.room();
        if !advance(&mut reading, &mut room)? {
            let response = reading.finish().map_err(convert::kv_error)?;
            return Ok((into_answer(response), room));
        }
        let turn = timeout_at(deadline, Arc::clone(&self.turns).acquire_owned());
        let turn = turn.await.map_err(|_elapsed| timed_out(""))?.expect("never closed");
        let (sender, receiver) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let result = (|| {
                while advance(&mut reading, &mut room)? {
                    if sender.is_closed() {
                        return Err(timed_out(""));
                    }
                }
                let response = reading.finish().map_err(convert::kv_error)?;
                Ok((into_answer(response), room))
            })();
            let _nobody_waits = sender.send(result);
        });
        match timeout_at(deadline, receiver).await {
            Ok(Ok(result)) => result,
            // The thread has gone with its runtime, or with a panic that stops the node.
            Ok(Err(_gone)) => Err(stopped()),
            Err(_elapsed) => Err(timed_out("")),
        }
    }
}

/// The next slice, and room for what it found.
fn advance(reading: &mut RangeReading, room: &mut Room) -> Result<bool, Status> {
    let has_more = reading.advance().map_err(convert::kv_error)?;
    room.grow_to(reading.held_bytes()).map_err(convert::kv_error)?;
    Ok(has_more)
}

impl Room {
    /// Takes what an answer of this weight needs beyond what it has.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), KvError> {
        let pieces = if bytes > SMALL_BYTES_MAX { bytes.div_ceil(PIECE) } else { 0 };
        let missing = pieces.saturating_sub(self.taken.num_permits());
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.budget).try_acquire_many_owned(missing);
        self.taken.merge(more.map_err(|_none_left| KvError::TooManyRequests)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lattice_kv::{Command, KvMachine, Operation, Put, RangeRequest};
    use raft_consensus::state_machine::{Committed, DurableStateMachine as _};
    use raft_consensus::types::{EntryId, LogIndex, Term};
    use tonic::Code;

    use super::*;

    const KEYS: u64 = 2_000;

    /// A store of `KEYS` keys, each with a value of 100 bytes.
    fn store() -> KvMachine {
        let mut machine = KvMachine::default();
        let entries: Vec<Committed> = (1..=KEYS)
            .map(|index| {
                let key = format!("k{index:05}").into();
                let put = Put { key, value: vec![b'v'; 100].into(), ..Put::default() };
                let command = Command { wall_clock_ms: 0, operation: Operation::Put(put) };
                Committed {
                    id: EntryId::new(Term(1), LogIndex(index)),
                    session: None,
                    command: Some(command.encode()),
                }
            })
            .collect();
        machine.apply(&entries, &mut Vec::new()).unwrap();
        machine
    }

    fn all(machine: &KvMachine) -> RangeReading {
        let request = RangeRequest { key: "k".into(), range_end: "l".into(), ..<_>::default() };
        machine.reader().start_range(request).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[tokio::test]
    async fn a_large_read_leaves_its_thread_to_others() {
        let machine = store();
        let reads = RangeReads::new();
        let where_made = |found: RangeResponse| (found.kvs.len(), std::thread::current().id());
        let here = std::thread::current().id();
        let ((found, thread), _room) = reads.read(all(&machine), soon(), where_made).await.unwrap();
        assert_eq!(found, usize::try_from(KEYS).unwrap());
        assert_ne!(thread, here, "a large read held up the thread of all other clients");

        let one = RangeRequest { key: "k00001".into(), ..RangeRequest::default() };
        let one = machine.reader().start_range(one).unwrap();
        let ((found, thread), _room) = reads.read(one, soon(), where_made).await.unwrap();
        assert_eq!((found, thread), (1, here), "a small read is not worth another thread");
    }

    #[tokio::test]
    async fn a_read_that_nobody_waits_for_gives_back_its_turn() {
        let machine = store();
        let reads = RangeReads::new();
        let turns = u32::try_from(LARGE_READS_MAX).unwrap();
        let taken = Arc::clone(&reads.turns).acquire_many_owned(turns).await.unwrap();
        let late = reads.read(all(&machine), Instant::now(), drop).await.unwrap_err();
        assert_eq!(late.message(), "etcdserver: request timed out");
        drop(taken);
        for _ in 0..2 * LARGE_READS_MAX {
            drop(reads.read(all(&machine), Instant::now(), drop).await);
        }
        assert!(reads.read(all(&machine), soon(), drop).await.is_ok());
    }

    #[tokio::test]
    async fn large_answers_share_a_budget_and_small_ones_need_none() {
        let machine = store();
        let (found, room) =
            RangeReads::new().read(all(&machine), soon(), |found| found).await.unwrap();
        let weight: usize = found.kvs.iter().map(lattice_kv::KeyValue::weight).sum();
        drop(room);
        let reads = RangeReads::with_budget(2 * weight + 2 * PIECE);
        let (_, one) = reads.read(all(&machine), soon(), drop).await.unwrap();
        let (_, two) = reads.read(all(&machine), soon(), drop).await.unwrap();
        let refused = reads.read(all(&machine), soon(), drop).await.unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::ResourceExhausted, "etcdserver: too many requests")
        );
        let key = RangeRequest { key: "k00001".into(), ..RangeRequest::default() };
        let small = machine.reader().start_range(key).unwrap();
        assert!(reads.read(small, soon(), drop).await.is_ok());
        drop(one);
        assert!(reads.read(all(&machine), soon(), drop).await.is_ok());
        drop(two);
        assert_eq!(reads.budget.available_permits(), (2 * weight + 2 * PIECE) / PIECE);
    }
}
