//! What the clients of a simulation do, and on what machine: the part that users write themselves.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use lattice_sim::ChaCha8Rng;
use lattice_sim::check::{Judgement, Story};
use lattice_sim::random::{Rng, below};

use super::judge::{self, ClientHistory};
use crate::state_machine::sessions::SessionCommand;
use crate::state_machine::{
    BoxError, DurableStateMachine, SessionReader, Sessions, Simple, SimpleReader, StateMachine,
};

/// One request of a client, in the user's own encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A command, to be applied once by every replica.
    Write(Bytes),
    /// A query, to be answered by one replica, linearizably.
    Read(Bytes),
}

/// A state machine under test, and what its clients ask of it.
///
/// Nothing has to be said about right and wrong answers: the same commands, applied in the order of the log to a machine that never
/// failed, give the answers that are expected. Only what *every* run must hold besides is up to [`Workload::check`].
pub trait Workload: Clone + fmt::Debug + Send + Sync + 'static {
    /// The machine.
    type Machine: DurableStateMachine;

    /// A machine in its initial state.
    fn machine(&self) -> Self::Machine;

    /// What client number `client` does next. Each client has a clone of the workload, and so counters of its own.
    fn operation(&mut self, client: u64, rng: &mut ChaCha8Rng) -> Operation;

    /// Answers a query from the machine's present state, without changing it.
    fn read(
        &self,
        machine: &<Self::Machine as DurableStateMachine>::Reader,
        query: &[u8],
    ) -> Vec<u8>;

    /// Checks the state of the machine that never failed, after all commands of the run.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    fn check(
        &self,
        machine: &<Self::Machine as DurableStateMachine>::Reader,
    ) -> Result<(), String> {
        let _ = machine;
        Ok(())
    }

    /// Searches what the clients saw for an order that explains it, key by key, knowing nothing of logs. It is asked
    /// once in the end, and may be left out: then only the places in the log are checked.
    fn judge(&self, history: &ClientHistory) -> Judgement {
        let _ = history;
        Judgement::default()
    }

    /// Whether clients send a write again, as the same operation, until they know its outcome. The machine has to apply it once.
    fn retries(&self) -> bool {
        false
    }

    /// What the log holds for a write of a client; the entry bears the client's address and the operation's number as its session.
    fn wrap(&self, operation: u64, command: Bytes) -> Bytes {
        let _ = operation;
        command
    }

    /// What the clients were about when something broke that they had not seen yet, for the page of the violation.
    fn story(&self, history: &ClientHistory) -> Option<Story> {
        let _ = history;
        None
    }
}

/// The workload of the project's own campaigns: a few registers, swapped and read.
#[derive(Clone, Debug, Default)]
pub struct Swaps {
    /// Numbers the values of one client.
    written: u64,
}

/// Registers whose writes answer with the value that was there before, so that a lost, repeated or reordered command
/// shows in the next answer.
#[derive(Debug, Default)]
pub struct Registers {
    values: BTreeMap<u64, u64>,
    /// Depends on every command and on their order.
    history: u64,
    refused: u64,
}

/// Small, so that snapshots have several parts.
const PART_BYTES: usize = 512;
/// Bytes of the machine's state that never change: an attic.
const ATTIC: usize = 4_096;
/// Few, so that operations meet.
const REGISTERS: u64 = 4;
/// One command in so many is refused by the machine.
pub(super) const REFUSED: u64 = 16;

impl Workload for Swaps {
    type Machine = Simple<Registers>;

    fn machine(&self) -> Simple<Registers> {
        Simple::new(Registers::default()).parts_of(PART_BYTES)
    }

    fn operation(&mut self, client: u64, rng: &mut ChaCha8Rng) -> Operation {
        let register = below(rng, REGISTERS);
        if below(rng, 3) == 0 {
            return Operation::Read(register.to_le_bytes().to_vec().into());
        }
        self.written += 1;
        let mut command = register.to_le_bytes().to_vec();
        command.extend_from_slice(&(client << 32 | self.written).to_le_bytes());
        // Mostly small; now and then so large that it fills an append message or a segment by itself.
        let padding = match below(rng, 20) {
            0 => below(rng, 6_000),
            _ => below(rng, 100),
        };
        command.resize(command.len() + usize::try_from(padding).expect("small"), 0x5a);
        Operation::Write(command.into())
    }

    fn read(&self, machine: &SimpleReader<Registers>, query: &[u8]) -> Vec<u8> {
        let register = u64::from_le_bytes(query.try_into().expect("queries are made above"));
        machine.with(|registers| registers.get(register).to_le_bytes().to_vec())
    }

    fn judge(&self, history: &ClientHistory) -> Judgement {
        judge::judge(history)
    }

    fn story(&self, history: &ClientHistory) -> Option<Story> {
        judge::story(history)
    }
}

/// The same, by clients with sessions, who send again what got no answer.
#[derive(Clone, Debug, Default)]
pub struct Retried {
    swaps: Swaps,
    /// With a planted bug: snapshots leave the sessions out.
    forgets: bool,
}

impl Retried {
    /// The workload; with a planted bug, by which snapshots leave out what sessions remember, if it `forgets`.
    #[must_use]
    pub fn new(forgets: bool) -> Self {
        Self { swaps: Swaps::default(), forgets }
    }
}

impl Workload for Retried {
    type Machine = Sessions<Simple<Registers>>;

    fn machine(&self) -> Self::Machine {
        Sessions::opened(self.swaps.machine(), 101..=110, self.forgets)
    }

    fn operation(&mut self, client: u64, rng: &mut ChaCha8Rng) -> Operation {
        self.swaps.operation(client, rng)
    }

    fn read(&self, machine: &SessionReader<SimpleReader<Registers>>, query: &[u8]) -> Vec<u8> {
        self.swaps.read(machine, query)
    }

    fn retries(&self) -> bool {
        true
    }

    fn wrap(&self, operation: u64, command: Bytes) -> Bytes {
        // A client has one operation under way.
        let acknowledged = operation - 1;
        SessionCommand::Apply { time_ms: 0, acknowledged, command }.encode()
    }

    fn judge(&self, history: &ClientHistory) -> Judgement {
        judge::judge(history)
    }

    fn story(&self, history: &ClientHistory) -> Option<Story> {
        judge::story(history)
    }
}

impl Registers {
    fn get(&self, register: u64) -> u64 {
        self.values.get(&register).copied().unwrap_or_default()
    }
}

impl StateMachine for Registers {
    fn apply(&mut self, command: &[u8]) -> Result<Vec<u8>, BoxError> {
        let (number, rest) = command.split_first_chunk::<8>().ok_or("no register")?;
        let value = u64::from_le_bytes(*rest.first_chunk::<8>().ok_or("no value")?);
        if value % REFUSED == 0 {
            self.refused += 1;
            return Err(format!("no value may be divisible by {REFUSED}").into());
        }
        self.history = digest(self.history, command);
        let before = self.values.insert(u64::from_le_bytes(*number), value);
        Ok(before.unwrap_or_default().to_le_bytes().to_vec())
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>, BoxError> {
        let mut snapshot = Vec::new();
        for number in [self.history, self.refused] {
            snapshot.extend_from_slice(&number.to_le_bytes());
        }
        for (register, value) in &self.values {
            snapshot.extend_from_slice(&register.to_le_bytes());
            snapshot.extend_from_slice(&value.to_le_bytes());
        }
        // Long enough to travel in several pieces, and for parts that stay as they are from snapshot to snapshot.
        snapshot.extend_from_slice(&attic());
        Ok(Some(snapshot))
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        let content = snapshot.strip_suffix(attic().as_slice()).unwrap_or_default();
        let numbers: Vec<u64> = content
            .chunks_exact(8)
            .map(|chunk| u64::from_le_bytes(chunk.try_into().expect("eight bytes")))
            .collect();
        let [history, refused, pairs @ ..] = numbers.as_slice() else {
            return Err("the snapshot is too short".into());
        };
        (self.history, self.refused) = (*history, *refused);
        self.values = pairs.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        Ok(())
    }
}

fn attic() -> Vec<u8> {
    let words = (0..ATTIC as u64 / 8).map(|number| digest(number, b"attic"));
    words.flat_map(u64::to_le_bytes).collect()
}

/// Folds bytes into a digest (FNV-1a).
pub(super) fn digest(seed: u64, bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    })
}

/// Draws one of several numbers.
pub(super) fn one_of<T: Copy>(rng: &mut impl Rng, choices: &[T]) -> T {
    choices[lattice_sim::random::index(rng, choices.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swap(register: u64, value: u64) -> Vec<u8> {
        [register.to_le_bytes(), value.to_le_bytes()].concat()
    }

    #[test]
    fn registers_answer_with_what_was_there_and_refuse_by_value() {
        let mut machine = Registers::default();
        assert_eq!(machine.apply(&swap(1, 7)).unwrap(), 0u64.to_le_bytes());
        assert_eq!(machine.apply(&swap(1, 9)).unwrap(), 7u64.to_le_bytes());
        assert!(machine.apply(&swap(1, 32)).is_err());
        assert_eq!(machine.get(1), 9);
        assert!(machine.apply(&swap(1, 9)[..15]).is_err());
    }

    #[test]
    fn a_restored_machine_goes_on_as_the_original() {
        let (mut original, mut copy) = (Registers::default(), Registers::default());
        for value in 1..40 {
            let _ = original.apply(&swap(value % REGISTERS, value));
        }
        copy.restore(&original.snapshot().unwrap().unwrap()).unwrap();
        assert_eq!(copy.snapshot().unwrap(), original.snapshot().unwrap());
        assert_eq!(copy.apply(&swap(1, 99)).unwrap(), original.apply(&swap(1, 99)).unwrap());
        assert!(copy.restore(&[1; 9]).is_err());
    }
}
