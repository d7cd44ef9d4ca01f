//! What clients asked and were told, in the order in which it happened.

use std::collections::BTreeMap;
use std::time::Duration;

/// An operation of a history, by its place in it: operations are numbered in the order of their calls.
pub type OperationId = usize;

/// A call or a return. Moments are ordered by `order`; two of the same time still have an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// How many calls and returns there were before it.
    pub order: u32,
    /// When it was, for people.
    pub at: Duration,
}

/// What became of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<O> {
    /// Nobody knows: it may take effect at any time after its call, or never.
    Open,
    /// It took effect, and this was said.
    Done(O),
    /// It has no effect, now or later.
    NoEffect,
}

/// An operation and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded<I, O> {
    /// Who asked.
    pub client: u64,
    /// For what.
    pub input: I,
    /// When.
    pub called: Moment,
    /// When the client had an answer, or gave up waiting for one.
    pub ended: Option<Moment>,
    /// The answer.
    pub answer: Answer<O>,
}

impl<I, O> Recorded<I, O> {
    /// The output and its moment, if there are any by `through`; a later one does not count yet.
    pub(super) fn done_by(&self, through: u32) -> Option<(&O, Moment)> {
        match (&self.answer, self.ended) {
            (Answer::Done(output), Some(ended)) if ended.order <= through => Some((output, ended)),
            _ => None,
        }
    }

    /// The output, if it is known.
    pub fn output(&self) -> Option<&O> {
        match &self.answer {
            Answer::Done(output) => Some(output),
            Answer::Open | Answer::NoEffect => None,
        }
    }
}

/// A history. Calls and returns are recorded as they happen; the order of the method calls is the real-time order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History<I, O> {
    operations: Vec<Recorded<I, O>>,
    moments: u32,
}

impl<I, O> Default for History<I, O> {
    fn default() -> Self {
        Self { operations: Vec::new(), moments: 0 }
    }
}

impl<I, O> History<I, O> {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A client asks for something.
    ///
    /// # Panics
    /// After 2³² calls and returns.
    pub fn call(&mut self, client: u64, at: Duration, input: I) -> OperationId {
        let called = self.moment(at);
        let answer = Answer::Open;
        self.operations.push(Recorded { client, input, called, ended: None, answer });
        self.operations.len() - 1
    }

    /// It took effect, and this is what the client was told.
    ///
    /// # Panics
    /// If the operation has ended already, as in all methods that end one.
    pub fn done(&mut self, operation: OperationId, at: Duration, output: O) {
        self.end(operation, at, Answer::Done(output));
    }

    /// The client was told that it has no effect, now or later.
    pub fn no_effect(&mut self, operation: OperationId, at: Duration) {
        self.end(operation, at, Answer::NoEffect);
    }

    /// The client gave up. The operation stays open.
    pub fn gave_up(&mut self, operation: OperationId, at: Duration) {
        self.end(operation, at, Answer::Open);
    }

    fn end(&mut self, operation: OperationId, at: Duration, answer: Answer<O>) {
        let ended = self.moment(at);
        let recorded = &mut self.operations[operation];
        assert!(recorded.ended.is_none(), "an operation ends once");
        (recorded.ended, recorded.answer) = (Some(ended), answer);
    }

    fn moment(&mut self, at: Duration) -> Moment {
        let order = self.moments;
        self.moments = order.checked_add(1).expect("four thousand million moments");
        Moment { order, at }
    }

    /// All operations, in the order of their calls.
    pub fn operations(&self) -> &[Recorded<I, O>] {
        &self.operations
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The same history without some operations.
    #[must_use]
    pub fn without(mut self, mut is_out: impl FnMut(&Recorded<I, O>) -> bool) -> Self {
        self.operations.retain(|operation| !is_out(operation));
        self
    }

    /// The same history in other words.
    pub fn map<J, P>(
        self,
        mut input: impl FnMut(I) -> J,
        mut output: impl FnMut(&J, O) -> P,
    ) -> History<J, P> {
        let operations = self.operations.into_iter().map(|recorded| {
            let Recorded { client, input: asked, called, ended, answer } = recorded;
            let asked = input(asked);
            let answer = match answer {
                Answer::Open => Answer::Open,
                Answer::Done(told) => Answer::Done(output(&asked, told)),
                Answer::NoEffect => Answer::NoEffect,
            };
            Recorded { client, input: asked, called, ended, answer }
        });
        History { operations: operations.collect(), moments: self.moments }
    }

    /// One history for each key, with the moments of the whole.
    pub fn by_key<K: Ord>(self, key: impl Fn(&I) -> K) -> BTreeMap<K, Self> {
        let mut parts: BTreeMap<K, Self> = BTreeMap::new();
        for operation in self.operations {
            let part = parts.entry(key(&operation.input)).or_default();
            part.moments = self.moments;
            part.operations.push(operation);
        }
        parts
    }
}
