//! The store's decisions, as a pure state machine: whether an append's checks hold, whether it is a repetition, and which places its
//! events get. Every backend runs it, and a Raft group will.
//!
//! What it has to know of the events so far it asks an [`Index`], of which each backend has its own. It decides about one append at a
//! time, in this order:
//!
//! 1. An append that is none, whatever the log says, is [`Invalid`](AppendError::Invalid).
//! 2. A *repetition* is answered with the places of its first time, whatever has become of its checks since.
//! 3. A stream with a tombstone takes nothing.
//! 4. All checks are looked at. If one does not hold, it is a [`Conflict`](AppendError::Conflict).
//! 5. What the append says about retention must not bring back what was hidden: see [`retention`](crate::retention).
//! 6. Then its events get the next positions, all of them or none.
//!
//! # Deciding twice
//!
//! A leader can look at the checks before it proposes an append to its group, with [`EventMachine::evaluate`], and say with the
//! proposal to which position it looked. Whoever applies it looks at the events behind that position only
//! ([`EventMachine::apply`]), so that the long part of the work is done once. This is right because what matched nothing up to a
//! position never will: events do not change, and what is hidden stays hidden.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::append::{Append, AppendError, Committed};
use crate::event::{AppendPlace, NewEvent, Position, Recorded, StreamName, Timestamp, Version};

#[cfg(feature = "journal")]
pub(crate) use self::index::first_at_within;
pub use self::index::{Entry, Index, IndexMut, Postings, Stub, Term};
pub use self::limits::Limits;
pub use self::memory::{MemoryIndex, MemoryPostings};

mod checks;
#[cfg(feature = "journal")]
pub(crate) mod evaluation;
mod index;
mod limits;
mod memory;
mod repetition;
pub(crate) mod scan;
mod settings;
#[cfg(test)]
mod tests;

/// The state machine over an index.
#[derive(Clone, Debug, Default)]
pub struct EventMachine<I> {
    index: I,
    limits: Limits,
}

/// What an append came to that was looked at and not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluated {
    /// It had been carried out before.
    Repeated(Committed),
    /// It would be carried out. Up to this position no event stands against it, and none ever will.
    Holds(Position),
}

/// What an append came to that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The answer to the writer.
    pub committed: Committed,
    /// The events, in order of position; none if the append had been carried out before. The index has them already.
    pub recorded: Vec<Arc<Recorded>>,
}

impl<I: Index> EventMachine<I> {
    /// A machine that goes on where the index ends.
    pub fn new(index: I, limits: Limits) -> Self {
        Self { index, limits }
    }

    /// The index.
    pub fn index(&self) -> &I {
        &self.index
    }

    /// The index, for what a backend has to do to it besides: nothing that changes an answer.
    pub fn index_mut(&mut self) -> &mut I {
        &mut self.index
    }

    /// What an append may be.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Looks at an append and changes nothing.
    ///
    /// The work goes by the events after the append's own `after` that have the rarest term of each of its queries, and by the sizes
    /// of the append.
    ///
    /// # Errors
    ///
    /// What [`apply`](Self::apply) would refuse it for now.
    pub fn evaluate(&self, append: &Append) -> Result<Evaluated, AppendError> {
        self.limits.check(append)?;
        Ok(match self.judge(append, Position::BEGINNING)? {
            Some(repeated) => Evaluated::Repeated(repeated),
            None => Evaluated::Holds(self.index.head()),
        })
    }

    /// Decides about an append whose form is right; `Some` if it is a repetition.
    fn judge(
        &self,
        append: &Append,
        evaluated_to: Position,
    ) -> Result<Option<Committed>, AppendError> {
        if let Some(repeated) = repetition::find(&self.index, append)? {
            return Ok(Some(repeated));
        }
        settings::check_open(&self.index, append)?;
        checks::check(&self.index, append, evaluated_to)?;
        settings::check(&self.index, append)?;
        Ok(None)
    }
}

impl<I: IndexMut> EventMachine<I> {
    /// Carries out an append, if it can be: its events get their places, and the index has them.
    ///
    /// `evaluated_to` is what [`evaluate`](Self::evaluate) said on this log, or [`Position::BEGINNING`] to look at all of it. `now`
    /// is what the clock says; events are never stamped with less than the event before them.
    ///
    /// # Errors
    ///
    /// Why it was not carried out. Then nothing has changed.
    pub fn apply(
        &mut self,
        append: Append,
        evaluated_to: Position,
        now: Timestamp,
    ) -> Result<Applied, AppendError> {
        self.limits.check(&append)?;
        if let Some(committed) = self.judge(&append, evaluated_to)? {
            return Ok(Applied { committed, recorded: Vec::new() });
        }
        let Append { events, key, .. } = append;
        let recorded = self.place(events, now)?;
        for (index, event) in recorded.iter().enumerate() {
            self.index.insert(event, key.as_ref().filter(|_| index == 0));
        }
        let committed = committed(recorded.iter().map(|event| (&event.stream, event.version)));
        let (first, last) = match (recorded.first(), recorded.last()) {
            (Some(first), Some(last)) => (first.position, last.position),
            _ => unreachable!("an append without events is invalid"),
        };
        let committed = Committed { first, last, streams: committed, repeated: false };
        Ok(Applied { committed, recorded })
    }

    /// Gives each event its place. Nothing is in the index yet.
    fn place(
        &self,
        events: Vec<(StreamName, NewEvent)>,
        now: Timestamp,
    ) -> Result<Vec<Arc<Recorded>>, AppendError> {
        let timestamp = now.max(self.index.time().map_err(AppendError::Read)?);
        let count = u32::try_from(events.len()).expect("the number of events is limited");
        let mut next: BTreeMap<StreamName, Version> = BTreeMap::new();
        let mut position = self.index.head();
        let mut recorded = Vec::with_capacity(events.len());
        for (index, (stream, mut event)) in (0..count).zip(events) {
            position = position.next();
            let version = match next.get(&stream) {
                Some(version) => *version,
                None => self
                    .index
                    .last_of(&stream)
                    .map_err(AppendError::Read)?
                    .filter(|(last, _)| {
                        let retention = || self.index.retention(&stream).unwrap_or_default();
                        !planted!(VersionReused) || retention().exists(*last)
                    })
                    .map_or(Version(0), |(last, _)| last.next()),
            };
            next.insert(stream.clone(), version.next());
            event.labels.sort_unstable();
            event.labels.dedup();
            let place = AppendPlace { index, count };
            recorded.push(Arc::new(Recorded {
                position,
                stream,
                version,
                timestamp,
                place,
                event,
            }));
        }
        Ok(recorded)
    }
}

/// Each stream with its greatest version, in order of name.
fn committed<'a>(
    written: impl Iterator<Item = (&'a StreamName, Version)>,
) -> Vec<(StreamName, Version)> {
    let mut last: BTreeMap<&StreamName, Version> = BTreeMap::new();
    for (stream, version) in written {
        let known = last.entry(stream).or_insert(version);
        *known = version.max(*known);
    }
    last.into_iter().map(|(stream, version)| (stream.clone(), version)).collect()
}
