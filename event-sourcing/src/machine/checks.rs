//! Whether the checks of an append hold, and if not, which events stood against them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::append::{Append, AppendError, Conflict, FailedCheck, WINNERS_BYTES_MAX, WINNERS_MAX};
use crate::condition::{Check, Expected};
use crate::error::InvalidAppend;
use crate::event::{Position, Recorded, StreamName};
use crate::filter::Filter;
use crate::machine::Index;
use crate::machine::scan::{Budget, Found, Scan};
use crate::read::{Direction, ReadError, Source};
use crate::record;

/// Looks at all checks. Queries look at events after `evaluated_to` only.
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
    let mut winners = Winners { events: BTreeMap::new(), bytes: 0, complete: true };
    for (place, check) in append.checks.iter().enumerate() {
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
        failed.extend(failure.map_err(AppendError::Read)?);
    }
    if failed.is_empty() {
        return Ok(());
    }
    let Winners { events, complete, .. } = winners;
    let winners = events.into_values().collect();
    Err(AppendError::Conflict(Box::new(Conflict { failed, winners, complete, head })))
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
        let mut budget = Budget::unbounded();
        while count <= WINNERS_MAX && bytes <= WINNERS_BYTES_MAX {
            match scan.next(&mut budget)? {
                Found::Here(recorded) => {
                    first.get_or_insert(recorded.position);
                    count += 1;
                    bytes += record::size(&recorded.stream, &recorded.event);
                    self.carry(recorded);
                }
                Found::Nothing => return Ok((first, count)),
                Found::NotBefore(_) => unreachable!("the budget has no bound"),
            }
        }
        self.complete = false;
        Ok((first, count))
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
