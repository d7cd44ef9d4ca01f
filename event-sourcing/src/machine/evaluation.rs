//! Looking at the queries of an append before its turn comes, in pieces: so that one whose query takes long holds up nobody.
//!
//! The outcome is a position for [`EventMachine::apply`](super::EventMachine::apply): what stands against the append is behind it.
//! Where a query matches, that is the place before the match, and not a refusal: who decides is the machine, in the order of the
//! appends, for the append may turn out to be a repetition, or the match be hidden by then.

use crate::append::Append;
use crate::condition::Check;
use crate::event::Position;
use crate::filter::Filter;
use crate::machine::Index;
use crate::machine::scan::{Budget, Found, Scan};
use crate::read::{Direction, ReadError, Source};

/// How far the queries of an append have been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evaluation {
    /// No query matches an event up to here, as was known before.
    from: Position,
    /// Nothing beyond is looked at: the end of the log, or the place before the first match that was found.
    to: Position,
    /// The check under way.
    check: usize,
    /// It matches no event up to here.
    at: Position,
}

impl Evaluation {
    /// Begins to look at the events behind `from`, up to `to`.
    pub(crate) fn new(from: Position, to: Position) -> Self {
        Self { from, to, check: 0, at: from }
    }

    /// Goes on in a log that has its events up to the end at least. When all is looked at, returns the place up to which no event
    /// stands against the append, and none ever will; `None` if the work was used up before.
    ///
    /// # Errors
    ///
    /// If an event cannot be read.
    pub(crate) fn go_on<I: Index>(
        &mut self,
        index: &I,
        append: &Append,
        work: u64,
    ) -> Result<Option<Position>, ReadError> {
        let mut budget = Budget(work);
        while let Some(check) = append.checks.get(self.check) {
            if let Check::NoMatch { query, after } = check {
                let (source, filter) = (Source::Query(query.clone()), Filter::default());
                let from = self.at.max(*after).next();
                let mut scan = Scan::new(index, &source, &filter, from, Direction::Forward)?;
                match if from > self.to { Found::Nothing } else { scan.next(&mut budget)? } {
                    Found::Here(event) if event.position <= self.to => {
                        if !planted!(EvaluatedPastMatch) {
                            self.to = Position(event.position.0 - 1);
                        }
                    }
                    Found::NotBefore(next) if next <= self.to => {
                        self.at = Position(next.0 - 1);
                        return Ok(None);
                    }
                    Found::Here(_) | Found::NotBefore(_) | Found::Nothing => {}
                }
            }
            (self.check, self.at) = (self.check + 1, self.from);
        }
        Ok(Some(self.to))
    }
}
