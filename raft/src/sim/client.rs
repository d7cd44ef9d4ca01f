//! Clients: each does one operation after the other, and notes what it was told.
//!
//! A client that gets no answer to a write does not know whether it took effect, and never finds out: the operation stays open, and the
//! client goes on with another. One that is told *no effect* may try again elsewhere; it is still the same operation.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use lattice_sim::random::index;
use lattice_sim::{Address, Context, Event, Span};
use lattice_trace::kind;

use super::message::{Outcome, SimMessage};
use super::workload::{Operation, Workload};
use crate::types::LogIndex;

/// How patient clients are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Between the end of an operation and the next.
    pub(super) think: Span,
    /// Until an operation is given up.
    pub(super) timeout: Span,
    /// Between two attempts at one operation.
    pub(super) pause: Span,
}

/// Something that a client notes.
#[derive(Clone, Debug)]
pub(super) enum Note {
    /// It begins an operation.
    Invoked { operation: u64, wanted: Operation },
    /// The operation took effect at this place of the log, with this reply.
    Done { operation: u64, index: LogIndex, reply: Result<Bytes, String> },
    /// The operation has no effect, now or later.
    Failed { operation: u64 },
    /// Nobody knows.
    Unknown { operation: u64 },
}

/// How often a write is sent again at most, so that a client goes on when nobody leads for long.
const RETRIES_MAX: u32 = 10;

/// A client. Part of a [`super::SimProcess`].
#[derive(Debug)]
pub struct SimClient<W> {
    number: u64,
    workload: W,
    nodes: Vec<Address>,
    patience: Patience,
    /// The only operations that it does, in a run that was shrunk.
    kept: Option<BTreeSet<u64>>,
    /// Whom it takes for the leader, as a place in `nodes`.
    leader: usize,
    attempts: u64,
    operations: u64,
    state: State,
    is_quiet: bool,
    /// How often the operation's outcome was unknown; it is sent again so many times at most.
    unknown: u32,
    acknowledged: u64,
    /// What was noted during the event that is being handled.
    notes: Vec<Note>,
}

#[derive(Debug)]
enum State {
    /// Until the next operation.
    Thinking { until: Duration },
    /// For an answer to the latest attempt.
    Waiting { wanted: Operation, give_up: Duration },
    /// Before the next attempt.
    Pausing { wanted: Operation, until: Duration, give_up: Duration },
}

impl<W: Workload> SimClient<W> {
    pub(super) fn new(
        number: u64,
        workload: W,
        nodes: Vec<Address>,
        patience: Patience,
        kept: Option<BTreeSet<u64>>,
        now: Duration,
    ) -> Self {
        Self {
            number,
            workload,
            leader: 0,
            nodes,
            patience,
            kept,
            attempts: 0,
            operations: 0,
            state: State::Thinking { until: now },
            is_quiet: false,
            unknown: 0,
            acknowledged: 0,
            notes: Vec::new(),
        }
    }

    /// Operations that it was told took effect.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Operations that it has begun, without those that it left out.
    pub(super) fn begun(&self) -> u64 {
        match &self.kept {
            None => self.operations,
            Some(kept) => kept.range(..=self.operations).map(|_| 1).sum(),
        }
    }

    /// It begins no more operations.
    pub(super) fn fall_silent(&mut self) {
        self.is_quiet = true;
    }

    pub(super) fn notes(&self) -> &[Note] {
        &self.notes
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Thinking { .. } if self.is_quiet => None,
            State::Thinking { until } | State::Pausing { until, .. } => Some(until),
            State::Waiting { give_up, .. } => Some(give_up),
        }
    }

    pub(super) fn handle(
        &mut self,
        event: Event<SimMessage>,
        context: &mut Context<'_, SimMessage>,
    ) {
        self.notes.clear();
        match event {
            Event::Receive { message: SimMessage::Response { attempt, outcome }, .. } => {
                self.answered(attempt, outcome, context);
            }
            Event::Timer => self.timer(context),
            Event::Start | Event::Completed(_) | Event::Receive { .. } => {}
        }
    }

    fn timer(&mut self, context: &mut Context<'_, SimMessage>) {
        let now = context.now();
        match &self.state {
            State::Thinking { until } if *until <= now && !self.is_quiet => self.invoke(context),
            // The attempt that is out may still take effect.
            State::Waiting { wanted: Operation::Write(_), give_up } if *give_up <= now => {
                self.outcome_is_unknown(context);
            }
            State::Pausing { give_up, .. } if *give_up <= now && self.unknown > 0 => {
                self.end(Note::Unknown { operation: self.operations }, context);
            }
            State::Waiting { give_up, .. } | State::Pausing { give_up, .. } if *give_up <= now => {
                self.end(Note::Failed { operation: self.operations }, context);
            }
            State::Pausing { wanted, until, give_up } if *until <= now => {
                let (wanted, give_up) = (wanted.clone(), *give_up);
                self.attempt(wanted, give_up, context);
            }
            State::Thinking { .. } | State::Waiting { .. } | State::Pausing { .. } => {}
        }
    }

    fn invoke(&mut self, context: &mut Context<'_, SimMessage>) {
        self.operations += 1;
        self.unknown = 0;
        let wanted = self.workload.operation(self.number, context.rng());
        let operation = self.operations;
        if let Some(kept) = self.kept.as_ref().filter(|kept| !kept.contains(&operation)) {
            self.is_quiet |= kept.range(operation..).next().is_none();
            let until = context.now() + self.patience.think.draw(context.rng());
            self.state = State::Thinking { until };
            return;
        }
        context.trace(kind::CLIENT_INVOKE, format_args!("{operation}: {wanted:?}"));
        self.notes.push(Note::Invoked { operation, wanted: wanted.clone() });
        if matches!(wanted, Operation::Read(_)) {
            // Any node may be asked.
            self.leader = index(context.rng(), self.nodes.len());
        }
        let give_up = context.now() + self.patience.timeout.draw(context.rng());
        self.attempt(wanted, give_up, context);
    }

    fn attempt(
        &mut self,
        wanted: Operation,
        give_up: Duration,
        context: &mut Context<'_, SimMessage>,
    ) {
        self.attempts += 1;
        let (attempt, operation) = (self.attempts, self.operations);
        let request = SimMessage::Request { attempt, operation, wanted: wanted.clone() };
        context.send(self.nodes[self.leader], request);
        self.state = State::Waiting { wanted, give_up };
    }

    fn answered(&mut self, attempt: u64, outcome: Outcome, context: &mut Context<'_, SimMessage>) {
        let State::Waiting { wanted, give_up } = &self.state else { return };
        if attempt != self.attempts {
            return;
        }
        let operation = self.operations;
        match outcome {
            Outcome::Done { index, reply } => {
                self.acknowledged += 1;
                self.end(Note::Done { operation, index, reply }, context);
            }
            Outcome::NotLeader(hint) => {
                let (wanted, give_up) = (wanted.clone(), *give_up);
                let hinted =
                    hint.and_then(|node| self.nodes.iter().position(|address| address.0 == node.0));
                self.leader = hinted.unwrap_or((self.leader + 1) % self.nodes.len());
                let until = context.now() + self.patience.pause.draw(context.rng());
                self.state = State::Pausing { wanted, until, give_up };
            }
            // The attempt before may yet take effect.
            Outcome::Refused if self.unknown > 0 => self.outcome_is_unknown(context),
            Outcome::Refused => self.end(Note::Failed { operation }, context),
            Outcome::Unknown if matches!(wanted, Operation::Read(_)) => {
                self.end(Note::Failed { operation }, context);
            }
            Outcome::Unknown => self.outcome_is_unknown(context),
        }
    }

    /// Nobody knows what became of a write: it is sent again after a while, if the machine knows it when it sees it.
    fn outcome_is_unknown(&mut self, context: &mut Context<'_, SimMessage>) {
        let (State::Waiting { wanted, .. } | State::Pausing { wanted, .. }) = &self.state else {
            return;
        };
        self.unknown += 1;
        if !self.workload.retries() || self.unknown > RETRIES_MAX {
            return self.end(Note::Unknown { operation: self.operations }, context);
        }
        let wanted = wanted.clone();
        self.leader = (self.leader + 1) % self.nodes.len();
        let until = context.now() + self.patience.pause.draw(context.rng());
        let give_up = until + self.patience.timeout.draw(context.rng());
        self.state = State::Pausing { wanted, until, give_up };
    }

    fn end(&mut self, note: Note, context: &mut Context<'_, SimMessage>) {
        let kind = match &note {
            Note::Done { .. } => kind::CLIENT_OK,
            Note::Unknown { .. } => kind::CLIENT_INFO,
            Note::Failed { .. } | Note::Invoked { .. } => kind::CLIENT_FAIL,
        };
        context.trace(kind, format_args!("{note:?}"));
        if !matches!(note, Note::Done { .. }) {
            self.leader = (self.leader + 1) % self.nodes.len();
        }
        self.notes.push(note);
        let until = context.now() + self.patience.think.draw(context.rng());
        self.state = State::Thinking { until };
    }
}
