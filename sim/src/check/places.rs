//! The second checker: an order is given, is it one?
//!
//! Many systems say with an answer *where* it stands: a revision, an index of the log. Sorted by those places, the history
//! is linearizable if the machine gives the same answers in that order, and if the order agrees with real time: what was
//! called after another had returned has a later place, or the same if it only read. The latter needs but one number,
//! the highest place of all that have returned.

use crate::check::history::{Answer, History, OperationId};
use crate::check::model::{Model, Next};

/// What is wrong with a history in its places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misplaced<S> {
    /// It was answered and has no place, or it had no effect and has one.
    Place(OperationId),
    /// Two operations that may change the state have the same place.
    Shared(OperationId, OperationId),
    /// It was called after the other had returned, and stands before it.
    Backwards(OperationId, OperationId),
    /// In the state at its place the machine would have answered otherwise.
    Refused(OperationId, S),
}

/// Checks a history whose operations have places in an order: those that write each their own, reads that of the last
/// write which they saw. An open operation that has a place took effect there, and one that has none did not.
///
/// # Errors
/// The first thing that is found wrong.
pub fn in_places<M: Model>(
    model: &M,
    history: &History<M::Input, M::Output>,
    place: impl Fn(OperationId) -> Option<u64>,
) -> Result<(), Misplaced<M::State>> {
    // Sorted: by place, what writes before what reads it.
    let mut sorted = Vec::with_capacity(history.len());
    let mut moments = Vec::with_capacity(2 * history.len());
    for (id, recorded) in history.operations().iter().enumerate() {
        let is_done = matches!(recorded.answer, Answer::Done(_));
        let is_read = model.is_read(&recorded.input, recorded.output());
        match (&recorded.answer, place(id)) {
            (Answer::Done(_), None) | (Answer::NoEffect, Some(_)) => {
                return Err(Misplaced::Place(id));
            }
            (Answer::Open | Answer::NoEffect, None) => {}
            (Answer::Done(_) | Answer::Open, Some(place)) => {
                sorted.push((place, is_read, id));
                moments.push((recorded.called.order, None, (place, is_read, id)));
                if let Some(ended) = recorded.ended.filter(|_| is_done) {
                    moments.push((ended.order, Some(()), (place, is_read, id)));
                }
            }
        }
    }
    moments.sort_unstable();
    let mut highest: Option<(u64, OperationId)> = None;
    for (_, returned, (place, is_read, id)) in moments {
        match (returned, highest) {
            (Some(()), _) => highest = highest.max(Some((place, id))),
            (None, Some((before, other))) if place < before || place == before && !is_read => {
                return Err(Misplaced::Backwards(id, other));
            }
            (None, _) => {}
        }
    }
    sorted.sort_unstable();
    let mut state = model.initial();
    let mut last_write: Option<(u64, OperationId)> = None;
    for (place, is_read, id) in sorted {
        if !is_read
            && let Some((before, other)) = last_write.replace((place, id))
            && before == place
        {
            return Err(Misplaced::Shared(other, id));
        }
        let recorded = &history.operations()[id];
        match model.step(&state, &recorded.input, recorded.output()) {
            Next::Same => {}
            Next::To(next) => state = next,
            Next::Refused => return Err(Misplaced::Refused(id, state)),
        }
    }
    Ok(())
}
