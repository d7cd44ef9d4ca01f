//! What clients of [`super::Swaps`] saw, held against registers: the check that knows nothing of Raft.

use std::collections::BTreeMap;

use bytes::Bytes;
use lattice_sim::check::{History, Judgement, Limits, Model, Next, Story, Tell};

use super::workload::{Operation, REFUSED};

/// What the clients of a run saw: requests, and replies or refusals, in their own encoding. Clients are called by their
/// addresses.
pub type ClientHistory = History<Operation, Result<Bytes, String>>;

/// One register of a few.
#[derive(Clone, Copy, Debug)]
struct Swapped {
    number: u64,
}

/// What it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Read,
    Swap(u64),
}

/// What it answers: the value, for a swap the one before; or none, if it refused to take a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Value(u64),
    Refused,
    /// Eight bytes were expected, and it was something else.
    Nonsense,
}

/// Searches the history of each register for an order.
pub(super) fn judge(history: &ClientHistory) -> Judgement {
    Judgement::of(&registers(history), |number| Swapped { number: *number }, Limits::default())
}

/// What the clients did last.
pub(super) fn story(history: &ClientHistory) -> Option<Story> {
    let model = |number: &u64| Swapped { number: *number };
    Judgement::last_of(&registers(history), model, Limits::default())
}

fn registers(history: &ClientHistory) -> BTreeMap<u64, History<Asked, Told>> {
    let parts = history.clone().by_key(|wanted| match wanted {
        Operation::Read(query) => number(query, 0),
        Operation::Write(command) => number(command, 0),
    });
    let decode = |part: ClientHistory| {
        part.map(
            |wanted| match wanted {
                Operation::Read(_) => Asked::Read,
                Operation::Write(command) => Asked::Swap(number(&command, 8).unwrap_or_default()),
            },
            |_, reply| match reply {
                Ok(value) if value.len() == 8 => Told::Value(number(&value, 0).unwrap_or_default()),
                Ok(_) => Told::Nonsense,
                Err(_) => Told::Refused,
            },
        )
    };
    parts.into_iter().filter_map(|(number, part)| Some((number?, decode(part)))).collect()
}

/// The number at a place of an encoding.
fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|number| u64::from_le_bytes(*number))
}

impl Model for Swapped {
    type State = u64;
    type Input = Asked;
    type Output = Told;

    fn initial(&self) -> u64 {
        0
    }

    fn step(&self, state: &u64, asked: &Asked, told: Option<&Told>) -> Next<u64> {
        let (right, next) = match *asked {
            Asked::Swap(value) if value % REFUSED == 0 => (Told::Refused, Next::Same),
            Asked::Swap(value) => (Told::Value(*state), Next::To(value)),
            Asked::Read => (Told::Value(*state), Next::Same),
        };
        if told.is_none_or(|told| *told == right) { next } else { Next::Refused }
    }

    fn is_read(&self, asked: &Asked, _told: Option<&Told>) -> bool {
        match asked {
            Asked::Read => true,
            Asked::Swap(value) => value % REFUSED == 0,
        }
    }
}

/// The client that wrote a value, and which of its values it is: `101.7`.
fn value(value: u64) -> String {
    if value == 0 {
        return "0".to_owned();
    }
    format!("{}.{}", super::cluster::CLIENTS + (value >> 32), value & u64::from(u32::MAX))
}

impl Tell for Swapped {
    fn label(&self, asked: &Asked, told: Option<&Told>) -> String {
        let asked = match asked {
            Asked::Read => "read".to_owned(),
            Asked::Swap(new) => format!("swap {}", value(*new)),
        };
        match told {
            None => asked,
            Some(Told::Value(told)) => format!("{asked} → {}", value(*told)),
            Some(Told::Refused) => format!("{asked} → refused"),
            Some(Told::Nonsense) => format!("{asked} → nonsense"),
        }
    }

    fn deed(&self, asked: &Asked, told: Option<&Told>) -> String {
        let register = self.number;
        match (asked, told) {
            (Asked::Read, Some(Told::Value(told))) => {
                format!("read register {register} = {}", value(*told))
            }
            (Asked::Read, None) => format!("asked for register {register}"),
            (Asked::Read, Some(Told::Refused | Told::Nonsense)) => {
                format!("asked for register {register} and was told no value")
            }
            (Asked::Swap(new), Some(Told::Value(told))) => {
                let (new, told) = (value(*new), value(*told));
                format!("set register {register} = {new} in place of {told}")
            }
            (Asked::Swap(new), None) => format!("set register {register} = {}", value(*new)),
            (Asked::Swap(new), Some(Told::Refused)) => {
                format!("was refused to set register {register} = {}", value(*new))
            }
            (Asked::Swap(new), Some(Told::Nonsense)) => {
                format!("set register {register} = {} and was told no value", value(*new))
            }
        }
    }

    fn state(&self, state: &u64) -> String {
        format!("register {} = {}", self.number, value(*state))
    }

    fn legend(&self) -> String {
        let client = super::cluster::CLIENTS;
        format!(
            "“swap a → b” sets the register to a, and is told that it was b before. The value {client}.7 is the seventh \
             that client {client} wrote; 0 is what every register begins with."
        )
    }
}
