//! The machine that a history is held against, one operation at a time.

use std::fmt::Debug;
use std::hash::Hash;

/// What an operation does to a state, given what was said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<S> {
    /// In this state the machine would not have said that.
    Refused,
    /// It would, and stays in the state.
    Same,
    /// It would, and is in this state then.
    To(S),
}

/// A machine that does one operation at a time, as it should be.
///
/// The next state is a function of state and input: what the machine may choose has to be part of the output.
pub trait Model {
    /// Its state. States are compared exactly; equal ones have equal hashes.
    type State: Clone + Eq + Hash + Debug;
    /// What it is asked.
    type Input;
    /// What it answers.
    type Output;

    /// The state before the first operation.
    fn initial(&self) -> Self::State;

    /// What an operation does in a state. Without an output anything may have been said.
    fn step(
        &self,
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Next<Self::State>;

    /// Whether such an operation changes *no* state at all, whatever it is done in. Then it can be put into an order as
    /// soon as a state allows it, which saves searching. To say no is always right.
    fn is_read(&self, input: &Self::Input, output: Option<&Self::Output>) -> bool {
        let _ = (input, output);
        false
    }
}

/// How a model talks of its operations and states, to people.
pub trait Tell: Model {
    /// An operation in a few characters: `read → 4`.
    fn label(&self, input: &Self::Input, output: Option<&Self::Output>) -> String;

    /// What a client did, in the past tense and without the client: `read x = 4`.
    fn deed(&self, input: &Self::Input, output: Option<&Self::Output>) -> String;

    /// A state, as a clause: `x = 7`.
    fn state(&self, state: &Self::State) -> String;

    /// How to read labels, for those who have not seen any. One or two sentences, or none.
    fn legend(&self) -> String {
        String::new()
    }
}

/// One register, zero at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Register;

/// What a [`Register`] can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Its value.
    Read,
    /// To take a value.
    Write(u64),
    /// To take a value, and to say which it had.
    Swap(u64),
    /// To take the second value if it has the first, and to say whether it had.
    CompareAndSwap(u64, u64),
}

/// What a [`Register`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A write is done.
    Done,
    /// The value of a read, or the one before a swap.
    Value(u64),
    /// Whether values were compared and swapped.
    Swapped(bool),
}

impl Model for Register {
    type State = u64;
    type Input = Ask;
    type Output = Reply;

    fn initial(&self) -> u64 {
        0
    }

    fn step(&self, state: &u64, input: &Ask, output: Option<&Reply>) -> Next<u64> {
        let (right, value) = match *input {
            Ask::Read => (Reply::Value(*state), *state),
            Ask::Write(value) => (Reply::Done, value),
            Ask::Swap(value) => (Reply::Value(*state), value),
            Ask::CompareAndSwap(expected, value) if expected == *state => {
                (Reply::Swapped(true), value)
            }
            Ask::CompareAndSwap(..) => (Reply::Swapped(false), *state),
        };
        if output.is_some_and(|output| *output != right) {
            Next::Refused
        } else if value == *state {
            Next::Same
        } else {
            Next::To(value)
        }
    }

    fn is_read(&self, input: &Ask, output: Option<&Reply>) -> bool {
        matches!(input, Ask::Read) || output == Some(&Reply::Swapped(false))
    }
}

impl Tell for Register {
    fn label(&self, input: &Ask, output: Option<&Reply>) -> String {
        match (*input, output) {
            (Ask::Read, Some(Reply::Value(value))) => format!("read → {value}"),
            (Ask::Read, _) => "read".to_owned(),
            (Ask::Write(value), _) => format!("write {value}"),
            (Ask::Swap(value), Some(Reply::Value(before))) => format!("swap {value} → {before}"),
            (Ask::Swap(value), _) => format!("swap {value}"),
            (Ask::CompareAndSwap(old, new), Some(Reply::Swapped(swapped))) => {
                format!("cas {old}, {new} → {}", if *swapped { "yes" } else { "no" })
            }
            (Ask::CompareAndSwap(old, new), _) => format!("cas {old}, {new}"),
        }
    }

    fn deed(&self, input: &Ask, output: Option<&Reply>) -> String {
        match (*input, output) {
            (Ask::Read, Some(Reply::Value(value))) => format!("read x = {value}"),
            (Ask::Read, _) => "read x".to_owned(),
            (Ask::Write(value), _) => format!("wrote x = {value}"),
            (Ask::Swap(value), Some(Reply::Value(before))) => {
                format!("wrote x = {value} in place of {before}")
            }
            (Ask::Swap(value), _) => format!("wrote x = {value}"),
            (Ask::CompareAndSwap(old, new), Some(Reply::Swapped(false))) => {
                format!("did not write x = {new}, since x was not {old},")
            }
            (Ask::CompareAndSwap(old, new), _) => format!("wrote x = {new} in place of {old}"),
        }
    }

    fn state(&self, state: &u64) -> String {
        format!("x = {state}")
    }
}
