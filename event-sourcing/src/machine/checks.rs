//! Whether the checks of an append hold, and if not, which events stood against them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::append::{Append, AppendError, Conflict, FailedCheck, WINNERS_BYTES_MAX, WINNERS_MAX};
use crate::condition::{Check, Expected};
use crate::error::InvalidAppend;
use crate::event::{Position, Recorded, StreamName};
use crate::filter::Filter;
use crate::machine::scan::{Budget, Found, Scan, Visibility};
use crate::machine::{Entry, Index};
use crate::read::{Direction, ReadError, Source};
use crate::record;

/// Terms and events that are looked at for the winners of an append that is refused already.
const WINNERS_WORK: u64 = 1 << 14;

/// Looks at all checks. Queries look at events after `evaluated_to` only. Once one does not hold, the work of finding more winners is
/// bounded.
pub(super) fn check<I: Index>(
    index: &I,
    append: &Append,
    evaluated_to: Position,
) -> Result<(), AppendError> {
    let head = index.head();
    for check in &append.checks {
        if let Check::NoMatch { after, .. } = check
            && *after > head
        {
            return Err(AppendError::Invalid(InvalidAppend::AfterHead { after: *after, head }));
        }
    }
    let mut failed = Vec::new();
    let mut winners =
        Winners { events: BTreeMap::new(), bytes: 0, complete: true, budget: Budget::unbounded() };
    // A query that was found to match, when they were looked at before, does so right behind: it goes first.
    let known = known_match(index, append, evaluated_to).map_err(AppendError::Read)?;
    let others = (0..append.checks.len()).filter(|place| Some(*place) != known);
    for place in known.into_iter().chain(others) {
        let check = &append.checks[place];
        let failure = match check {
            Check::Stream { stream, expected } => {
                check_stream(index, stream, *expected, &mut winners)
            }
            Check::NoMatch { query, after } => {
                let after = evaluated_to.min(head).max(*after);
                let source = Source::Query(query.clone());
                winners.add_all(index, &source, after.next()).map(|(first, _)| {
                    first.map(|position| FailedCheck::Match { check: place, position })
                })
            }
        };
        if let Some(failure) = failure.map_err(AppendError::Read)? {
            winners.bound();
            failed.push((place, failure));
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    failed.sort_by_key(|(place, _)| *place);
    let failed = failed.into_iter().map(|(_, failure)| failure).collect();
    let Winners { events, complete, .. } = winners;
    let winners = events.into_values().collect();
    Err(AppendError::Conflict(Box::new(Conflict { failed, winners, complete, head })))
}

/// A check whose query matches the event right behind `evaluated_to`, if there is one.
fn known_match<I: Index>(
    index: &I,
    append: &Append,
    evaluated_to: Position,
) -> Result<Option<usize>, ReadError> {
    let next = evaluated_to.next();
    if evaluated_to == Position::BEGINNING || next > index.head() {
        return Ok(None);
    }
    let asks = |check: &Check| matches!(check, Check::NoMatch { after, .. } if *after < next);
    if !append.checks.iter().any(asks) {
        return Ok(None);
    }
    let Entry::Event(event) = index.event(next)? else { return Ok(None) };
    let matches = |check: &Check| match check {
        Check::NoMatch { query, .. } => asks(check) && query.matches(&event.stream, &event.event),
        Check::Stream { .. } => false,
    };
    let Some(known) = append.checks.iter().position(matches) else { return Ok(None) };
    Ok(Visibility::new(index)?.shows(&event)?.then_some(known))
}

fn check_stream<I: Index>(
    index: &I,
    stream: &StreamName,
    expected: Expected,
    winners: &mut Winners,
) -> Result<Option<FailedCheck>, ReadError> {
    let last = index.last_of(stream)?.map(|(version, _)| version);
    let retention = match last {
        Some(_) => index.retention(stream)?,
        None => crate::retention::Retention::default(),
    };
    let actual = last.filter(|last| retention.exists(*last));
    let holds = match expected {
        Expected::Any => true,
        Expected::NoStream => actual.is_none(),
        Expected::StreamExists => actual.is_some(),
        // The numbering of a deleted stream goes on; that of a closed one does not.
        Expected::Exact(version) => last == Some(version) && !retention.tombstoned,
    };
    if holds {
        return Ok(None);
    }
    // From which version on the writer had not reckoned with events. Where it had reckoned with more than there is, no event explains it.
    let from = match (expected, last) {
        (Expected::NoStream, Some(last)) => Some((retention.first_by_number(last), last)),
        (Expected::Exact(version), Some(last)) if version < last => Some((version.next(), last)),
        _ => None,
    };
    match from {
        Some((from, last)) if from <= last => {
            let start = index.position_of(stream, from)?.unwrap_or(index.head().next());
            winners.bound();
            let (_, count) = winners.add_all(index, &Source::Stream(stream.clone()), start)?;
            // An event between those that is not visible any more may have been what counted; and what nothing visible explains
            // takes reading.
            let hidden = u64::try_from(count) != Ok(last.0 - from.0 + 1);
            winners.complete &= count > 0 && !(hidden && matches!(expected, Expected::Exact(_)));
        }
        _ => winners.complete = false,
    }
    Ok(Some(FailedCheck::Stream { stream: stream.clone(), expected, actual }))
}

/// Events that stood against the append: the first ones, of all checks together.
struct Winners {
    events: BTreeMap<Position, Arc<Recorded>>,
    bytes: usize,
    complete: bool,
    /// How much may still be looked at.
    budget: Budget,
}

impl Winners {
    /// Adds the visible events of a source from a position on. Returns the first and how many were added, which is all of them or as
    /// many as are ever carried and one more.
    fn add_all<I: Index>(
        &mut self,
        index: &I,
        source: &Source,
        from: Position,
    ) -> Result<(Option<Position>, usize), ReadError> {
        let filter = Filter::default();
        let mut scan = Scan::new(index, source, &filter, from, Direction::Forward)?;
        let (mut first, mut count, mut bytes) = (None, 0, 0);
        while count <= WINNERS_MAX && bytes <= WINNERS_BYTES_MAX {
            match scan.next(&mut self.budget)? {
                Found::Here(recorded) => {
                    self.bound();
                    first.get_or_insert(recorded.position);
                    count += 1;
                    bytes += record::size(&recorded.stream, &recorded.event);
                    self.carry(recorded);
                }
                Found::Nothing => return Ok((first, count)),
                // The append is refused, whatever else there is.
                Found::NotBefore(_) => break,
            }
        }
        self.complete = false;
        Ok((first, count))
    }

    /// Something does not hold: what is looked at from here on only says more about it.
    fn bound(&mut self) {
        self.budget.0 = self.budget.0.min(WINNERS_WORK);
    }

    /// Takes in an event, and lets go of the last ones if there are more than are carried.
    fn carry(&mut self, recorded: Arc<Recorded>) {
        let size = |recorded: &Recorded| record::size(&recorded.stream, &recorded.event);
        let bytes = size(&recorded);
        if self.events.insert(recorded.position, recorded).is_none() {
            self.bytes += bytes;
        }
        // One is carried however large it is: it says whom the writer has lost to.
        while self.events.len() > WINNERS_MAX
            || (self.bytes > WINNERS_BYTES_MAX && self.events.len() > 1)
        {
            let (_, last) = self.events.pop_last().expect("it has more than one");
            self.bytes -= size(&last);
            self.complete = false;
        }
    }
}
