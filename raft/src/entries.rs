//! Runs of entries, shared.
//!
//! The entries that a step appends go to the log store, to each follower and, once committed, to the state machine: the same run, four times.
//! [`Entries`] is that run behind a reference count, so that a copy for each of them costs nothing. `Runs` is where a log gets
//! them: it gives out again what it gave out already if somebody wants the same places, and fills the memory of a run that nobody
//! holds any more with the next one. So a node that is warm allocates nothing for the entries it replicates.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::types::{Entry, LogIndex};

/// Consecutive entries of a log; cloning shares them. Empty ones take no memory.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Entries(Option<Arc<Vec<Entry>>>);

impl Entries {
    /// The entries themselves; copied if somebody else holds this run too.
    #[must_use]
    pub fn into_vec(self) -> Vec<Entry> {
        self.0.map(Arc::unwrap_or_clone).unwrap_or_default()
    }
}

impl Deref for Entries {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        self.0.as_ref().map_or(&[], |entries| entries)
    }
}

impl From<Vec<Entry>> for Entries {
    fn from(entries: Vec<Entry>) -> Self {
        Self((!entries.is_empty()).then(|| Arc::new(entries)))
    }
}

impl FromIterator<Entry> for Entries {
    fn from_iter<T: IntoIterator<Item = Entry>>(entries: T) -> Self {
        Vec::from_iter(entries).into()
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq<[Entry]> for Entries {
    fn eq(&self, other: &[Entry]) -> bool {
        **self == *other
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Runs kept at most: as many as may be under way to a few followers, and more than a step needs.
const KEPT_MAX: usize = 32;
/// A run that nobody holds is not filled anew before there are so many: until then somebody may want it again.
const KEPT_MIN: usize = 8;
/// The memory of a longer run is given back.
const LENGTH_KEPT_MAX: usize = 4096;

/// The latest runs that were given out, oldest first. What is in them is in the log, entry for entry, or is never asked for again.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    given: VecDeque<Arc<Vec<Entry>>>,
    /// The latest run that came from elsewhere, and is for its owner to fill anew.
    adopted: Entries,
}

impl Runs {
    /// The run from `first` to `last`, if it was given out not long ago.
    pub(crate) fn find(&self, first: LogIndex, last: LogIndex) -> Option<Entries> {
        let given = self.given.iter().rev();
        given
            .chain(&self.adopted.0)
            .find(|run| is_from_to(run, first, last))
            .map(|run| Entries(Some(Arc::clone(run))))
    }

    /// Gives out a run that nobody has asked for yet.
    pub(crate) fn give<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) -> Entries {
        let mut run = self.spare().unwrap_or_default();
        Arc::get_mut(&mut run).expect("nobody else holds a spare run").extend(entries.cloned());
        if self.given.len() == KEPT_MAX {
            self.given.pop_front();
        }
        self.given.push_back(Arc::clone(&run));
        Entries(Some(run))
    }

    /// These entries, which came in a run of another log's, are in this one now.
    pub(crate) fn adopt(&mut self, entries: &Entries) {
        self.adopted = entries.clone();
    }

    /// Lets go the entries up to `through`, which are not held in memory any more.
    pub(crate) fn evict(&mut self, through: LogIndex) {
        if self.adopted.last().is_some_and(|last| last.id.index <= through) {
            self.adopted = Entries::default();
        }
        for run in &mut self.given {
            if run.last().is_some_and(|last| last.id.index <= through)
                && let Some(entries) = Arc::get_mut(run)
            {
                entries.clear();
            }
        }
    }

    /// The log is not what it was: nothing of it is given out again.
    pub(crate) fn clear(&mut self) {
        self.given.clear();
        self.adopted = Entries::default();
    }

    /// The memory of the oldest run that nobody holds.
    fn spare(&mut self) -> Option<Arc<Vec<Entry>>> {
        if self.given.len() < KEPT_MIN {
            return None;
        }
        let free = self.given.iter_mut().position(|run| Arc::get_mut(run).is_some())?;
        let mut run = self.given.remove(free)?;
        let entries = Arc::get_mut(&mut run)?;
        entries.clear();
        entries.shrink_to(LENGTH_KEPT_MAX);
        Some(run)
    }
}

fn is_from_to(run: &[Entry], first: LogIndex, last: LogIndex) -> bool {
    run.first().is_some_and(|entry| entry.id.index == first)
        && run.last().is_some_and(|entry| entry.id.index == last)
}

/// A copy of a log gives out runs of its own.
impl Clone for Runs {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{EntryId, Payload, Term};

    fn run(from: u64, through: u64) -> Vec<Entry> {
        let entry = |index| {
            let id = EntryId::new(Term(1), LogIndex(index));
            Entry { id, session: None, payload: Payload::Noop }
        };
        (from..=through).map(entry).collect()
    }

    #[test]
    fn the_same_places_are_the_same_run_and_others_are_not() {
        let mut runs = Runs::default();
        let given = runs.give(run(3, 5).iter());
        let again = runs.find(LogIndex(3), LogIndex(5)).unwrap();
        assert!(std::ptr::eq(&*given, &*again));
        for (first, last) in [(3, 4), (4, 5), (3, 6), (2, 5)] {
            assert_eq!(runs.find(LogIndex(first), LogIndex(last)), None);
        }
        runs.clear();
        assert_eq!(runs.find(LogIndex(3), LogIndex(5)), None);
        assert_eq!(*given, *run(3, 5), "whoever holds it keeps it");
    }

    #[test]
    fn a_run_that_somebody_holds_is_never_filled_anew() {
        let mut runs = Runs::default();
        let held: Vec<_> = (1..=100).map(|index| runs.give(run(index, index).iter())).collect();
        for (entries, index) in held.iter().zip(1..) {
            assert_eq!(**entries, *run(index, index));
        }
        assert_eq!(runs.given.len(), KEPT_MAX);
        drop(held);
        let before = runs.given.len();
        runs.give(run(200, 300).iter());
        assert_eq!(runs.given.len(), before, "the memory of one that was given back");
    }

    #[test]
    fn what_leaves_memory_is_not_held_by_runs() {
        let mut runs = Runs::default();
        let held = runs.give(run(1, 2).iter());
        runs.give(run(3, 4).iter());
        runs.evict(LogIndex(4));
        assert_eq!(runs.find(LogIndex(3), LogIndex(4)), None);
        assert_eq!(*held, *run(1, 2));
    }

    #[test]
    fn entries_come_out_as_they_went_in() {
        let entries = Entries::from(run(1, 3));
        let copy = entries.clone();
        assert_eq!(entries.into_vec(), run(1, 3));
        assert_eq!(copy.into_vec(), run(1, 3));
        assert_eq!(Entries::default(), Entries::from(Vec::new()));
        assert!(Entries::default().into_vec().is_empty());
    }
}
