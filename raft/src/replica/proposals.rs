//! Who waits for which place in the log.

use std::collections::VecDeque;

use crate::effects::ProposalId;
use crate::types::{EntryId, LogIndex, Term};

/// Proposals in the log, by place. They come in at the end and are answered from the front, but for a few when leaders change.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    waiting: VecDeque<(LogIndex, Term, ProposalId)>,
}

impl Proposals {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// `id` waits for `entry`. Returns who has waited for that place until now.
    pub(super) fn insert(&mut self, entry: EntryId, id: ProposalId) -> Option<ProposalId> {
        let waits = (entry.index, entry.term, id);
        if self.waiting.back().is_none_or(|&(last, ..)| last < entry.index) {
            self.waiting.push_back(waits);
            return None;
        }
        match self.find(entry.index) {
            Ok(place) => Some(std::mem::replace(&mut self.waiting[place], waits).2),
            Err(place) => {
                self.waiting.insert(place, waits);
                None
            }
        }
    }

    /// Who waits for this place, and in which term they put something there.
    pub(super) fn remove(&mut self, index: LogIndex) -> Option<(Term, ProposalId)> {
        let is_next = self.waiting.front().is_some_and(|&(first, ..)| first == index);
        let place = if is_next { 0 } else { self.find(index).ok()? };
        self.waiting.remove(place).map(|(_, term, id)| (term, id))
    }

    /// The first that waits for a place up to `through`.
    pub(super) fn pop_first(&mut self, through: LogIndex) -> Option<ProposalId> {
        self.waiting.pop_front_if(|&mut (index, ..)| index <= through).map(|(.., id)| id)
    }

    /// The last that waits for a place behind `last`.
    pub(super) fn pop_last(&mut self, last: LogIndex) -> Option<ProposalId> {
        self.waiting.pop_back_if(|&mut (index, ..)| index > last).map(|(.., id)| id)
    }

    fn find(&self, index: LogIndex) -> Result<usize, usize> {
        self.waiting.binary_search_by_key(&index, |&(index, ..)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, term: u64) -> EntryId {
        EntryId::new(Term(term), LogIndex(index))
    }

    #[test]
    fn a_later_leaders_entry_takes_the_place_of_an_earlier_one() {
        let mut proposals = Proposals::default();
        for (index, id) in [(3, 1), (4, 2), (6, 3)] {
            assert_eq!(proposals.insert(at(index, 1), ProposalId(id)), None);
        }
        assert_eq!(proposals.insert(at(4, 2), ProposalId(9)), Some(ProposalId(2)));
        assert_eq!(proposals.insert(at(5, 2), ProposalId(10)), None);
        assert_eq!(proposals.remove(LogIndex(5)), Some((Term(2), ProposalId(10))));
        assert_eq!(proposals.remove(LogIndex(5)), None);
        assert_eq!(proposals.pop_last(LogIndex(5)), Some(ProposalId(3)));
        assert_eq!(proposals.pop_last(LogIndex(5)), None);
        assert_eq!(proposals.pop_first(LogIndex(3)), Some(ProposalId(1)));
        assert_eq!(proposals.pop_first(LogIndex(3)), None);
        assert_eq!(proposals.remove(LogIndex(4)), Some((Term(2), ProposalId(9))));
        assert_eq!(proposals.len(), 0);
    }
}
