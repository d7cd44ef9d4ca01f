//! What clients did and were told, and the rules that it must keep.
//!
//! Every answer carries the revision of the store, and every value the revision that it was written at. With that the
//! order of all writes is in the record itself, and linearizability needs no search. It is to say that
//!
//! - **time**: an answer shows at least the revision of every answer that was there before its request was sent, and a
//!   write a greater one (reads do not go back, on whichever node);
//! - **place**: no two writes have one revision;
//! - **values**: a read at revision *r* shows, of its key, the newest write up to *r*: nothing older than a write that was
//!   acknowledged with a revision up to *r*, nothing that was never sent or that was refused, and under one revision
//!   always one value.
//!
//! A read of everything at the end is held against the same rules, which then say that nothing acknowledged is missing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

/// One request and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Op {
    pub(super) sent: Instant,
    /// When the answer came, or the client gave up.
    pub(super) answered: Instant,
    pub(super) action: Action,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Put { key: String, value: String },
    Get { key: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The write took effect at this revision.
    Put { revision: i64 },
    /// The store at this revision had this under the key.
    Got { revision: i64, found: Option<Found> },
    /// It was not carried out, and never will be.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

/// A value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) value: String,
    /// The revision that it was written at.
    pub(super) written: i64,
}

/// What the record comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) acknowledged: usize,
    pub(super) reads: usize,
    pub(super) refused: usize,
    pub(super) unknown: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, reads, refused, unknown } = self;
        write!(
            f,
            "{acknowledged} writes acknowledged, {reads} reads, {refused} refused, {unknown} unknown"
        )
    }
}

impl Op {
    fn revision(&self) -> Option<i64> {
        match self.outcome {
            Outcome::Put { revision } | Outcome::Got { revision, .. } => Some(revision),
            Outcome::Refused(_) | Outcome::Unknown(_) => None,
        }
    }
}

/// Holds a history against the rules. The error says which one is broken, and by what.
pub(super) fn check(history: &[Op]) -> Result<Summary, String> {
    time(history)?;
    values(history)?;
    let count = |pick: fn(&Outcome) -> bool| history.iter().filter(|op| pick(&op.outcome)).count();
    Ok(Summary {
        acknowledged: count(|outcome| matches!(outcome, Outcome::Put { .. })),
        reads: count(|outcome| matches!(outcome, Outcome::Got { .. })),
        refused: count(|outcome| matches!(outcome, Outcome::Refused(_))),
        unknown: count(|outcome| matches!(outcome, Outcome::Unknown(_))),
    })
}

/// No answer is behind one that came before its request.
fn time(history: &[Op]) -> Result<(), String> {
    let mut by_sent: Vec<(&Op, i64)> =
        history.iter().filter_map(|op| Some((op, op.revision()?))).collect();
    let mut by_answered = by_sent.clone();
    by_sent.sort_by_key(|(op, _)| op.sent);
    by_answered.sort_by_key(|(op, _)| op.answered);
    let mut answers = by_answered.into_iter().peekable();
    let mut newest: Option<(&Op, i64)> = None;
    for (op, revision) in by_sent {
        while let Some(answer) = answers.next_if(|(answer, _)| answer.answered < op.sent) {
            newest = newest.max_by_revision(answer);
        }
        let Some((earlier, seen)) = newest else { continue };
        let is_put = matches!(op.outcome, Outcome::Put { .. });
        if revision < seen || (is_put && revision == seen) {
            return Err(format!("back in time: {op:?}\nwas sent after the answer to\n{earlier:?}"));
        }
    }
    Ok(())
}

trait Newest<'a> {
    fn max_by_revision(self, other: (&'a Op, i64)) -> Self;
}

impl<'a> Newest<'a> for Option<(&'a Op, i64)> {
    fn max_by_revision(self, other: (&'a Op, i64)) -> Self {
        Some(self.filter(|(_, revision)| *revision >= other.1).unwrap_or(other))
    }
}

/// All that was written to one key, or may have been.
#[derive(Debug, Default)]
struct Writes<'a> {
    /// By value: each is written once.
    sent: BTreeMap<&'a str, &'a Op>,
    /// What is known to stand at a revision.
    at: BTreeMap<i64, &'a str>,
    acknowledged: BTreeMap<i64, &'a Op>,
}

/// Every read shows the newest write of its time, every revision one write.
fn values(history: &[Op]) -> Result<(), String> {
    let mut keys: BTreeMap<&str, Writes<'_>> = BTreeMap::new();
    let mut places: BTreeMap<i64, &Op> = BTreeMap::new();
    for op in history {
        let Action::Put { key, value } = &op.action else { continue };
        let writes = keys.entry(key).or_default();
        assert!(writes.sent.insert(value, op).is_none(), "a client writes {value} only once");
        if let Outcome::Put { revision } = op.outcome {
            if let Some(other) = places.insert(revision, op) {
                return Err(format!("one revision, two writes: {op:?}\nand\n{other:?}"));
            }
            writes.at.insert(revision, value);
            writes.acknowledged.insert(revision, op);
        }
    }
    for op in history {
        let (Action::Get { key }, Outcome::Got { revision, found }) = (&op.action, &op.outcome)
        else {
            continue;
        };
        let writes = keys.entry(key).or_default();
        let newest = writes.acknowledged.range(..=revision).next_back();
        match found {
            None if newest.is_some() => return Err(missing(op, newest)),
            None => {}
            Some(found) if newest.is_some_and(|(at, _)| *at > found.written) => {
                return Err(missing(op, newest));
            }
            Some(found) => was_written(op, found, *revision, writes)?,
        }
        if let Some(found) = found {
            let known = writes.at.entry(found.written).or_insert(&found.value);
            if *known != found.value {
                return Err(format!("two values at one revision: {known} and {op:?}"));
            }
        }
    }
    Ok(())
}

fn missing(op: &Op, newest: Option<(&i64, &&Op)>) -> String {
    format!("an acknowledged write is missing: {op:?}\ndoes not show\n{newest:?}")
}

/// What was read was sent, before it was read, and not refused; and it stands where its writer was told.
fn was_written(op: &Op, found: &Found, revision: i64, writes: &Writes<'_>) -> Result<(), String> {
    let Some(write) = writes.sent.get(found.value.as_str()) else {
        return Err(format!("nobody wrote this: {op:?}"));
    };
    let agrees = match &write.outcome {
        Outcome::Put { revision } => *revision == found.written,
        Outcome::Unknown(_) => true,
        Outcome::Refused(_) | Outcome::Got { .. } => false,
    };
    if !agrees || write.sent > op.answered || found.written > revision {
        return Err(format!("this cannot be read: {op:?}\nof the write\n{write:?}"));
    }
    Ok(())
}

/// The checker itself: it must find what is wrong, and only that.
mod tests {
    use std::time::Duration;

    use super::*;

    /// Times in milliseconds.
    fn op(epoch: Instant, sent: u64, answered: u64, action: Action, outcome: Outcome) -> Op {
        let at = |ms| epoch + Duration::from_millis(ms);
        Op { sent: at(sent), answered: at(answered), action, outcome }
    }

    fn put(value: &str) -> Action {
        Action::Put { key: "k".into(), value: value.into() }
    }

    fn get() -> Action {
        Action::Get { key: "k".into() }
    }

    fn got(revision: i64, found: Option<(&str, i64)>) -> Outcome {
        let found = found.map(|(value, written)| Found { value: value.into(), written });
        Outcome::Got { revision, found }
    }

    #[track_caller]
    fn broken(rule: &str, ops: &[(u64, u64, Action, Outcome)]) {
        let epoch = Instant::now();
        let ops: Vec<Op> = ops
            .iter()
            .map(|(sent, answered, action, outcome)| {
                op(epoch, *sent, *answered, action.clone(), outcome.clone())
            })
            .collect();
        match check(&ops) {
            Ok(_) => assert_eq!(rule, "", "the checker did not notice"),
            Err(error) => assert!(!rule.is_empty() && error.starts_with(rule), "{error}"),
        }
    }

    fn acked(revision: i64) -> Outcome {
        Outcome::Put { revision }
    }

    #[test]
    fn a_history_that_keeps_the_rules_passes() {
        let lost = Outcome::Unknown("lost".into());
        broken(
            "",
            &[
                (0, 10, put("a"), acked(2)),
                // Sent before the answer: may see it or not.
                (5, 12, get(), got(1, None)),
                (20, 90, put("b"), lost),
                (30, 40, get(), got(2, Some(("a", 2)))),
                (50, 60, get(), got(3, Some(("b", 3)))),
                (70, 80, put("c"), acked(4)),
                (100, 110, get(), got(4, Some(("c", 4)))),
                (120, 130, put("d"), Outcome::Refused("no".into())),
            ],
        );
    }

    #[test]
    fn a_read_that_goes_back_in_time_is_found() {
        broken("back in time", &[(0, 10, put("a"), acked(2)), (11, 20, get(), got(1, None))]);
        broken("back in time", &[(0, 1, get(), got(2, None)), (5, 6, get(), got(1, None))]);
        broken("back in time", &[(0, 1, put("a"), acked(2)), (5, 6, put("b"), acked(2))]);
    }

    #[test]
    fn a_write_that_is_missing_is_found() {
        let a = (0, 10, put("a"), acked(2));
        broken("an acknowledged", &[a.clone(), (11, 20, get(), got(5, None))]);
        let b = (11, 20, put("b"), acked(3));
        broken("an acknowledged", &[a, b, (21, 30, get(), got(5, Some(("a", 2))))]);
    }

    #[test]
    fn a_value_out_of_nowhere_is_found() {
        broken("nobody", &[(0, 1, get(), got(2, Some(("x", 2))))]);
        let refused = (0, 1, put("a"), Outcome::Refused("no".into()));
        broken("this cannot", &[refused, (2, 3, get(), got(2, Some(("a", 2))))]);
        let later = (9, 10, put("a"), Outcome::Unknown("lost".into()));
        broken("this cannot", &[later, (2, 3, get(), got(2, Some(("a", 2))))]);
        let moved = (0, 1, put("a"), acked(2));
        broken("this cannot", &[moved, (2, 3, get(), got(4, Some(("a", 3))))]);
    }

    #[test]
    fn one_revision_has_one_write() {
        let two = [(0, 9, put("a"), acked(2)), (0, 9, put("b"), acked(2))];
        broken("one revision", &two);
        let lost = Outcome::Unknown("lost".into());
        let reads = [
            (0, 9, put("a"), lost.clone()),
            (0, 9, put("b"), lost),
            (10, 20, get(), got(2, Some(("a", 2)))),
            (10, 20, get(), got(2, Some(("b", 2)))),
        ];
        broken("two values", &reads);
    }
}
