//! The verdict on a whole run: all its keys, without their types.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use crate::check::history::History;
use crate::check::linearizable::{Verdict, linearizable};
use crate::check::model::Tell;
use crate::check::search::Limits;
use crate::check::story::Story;

/// How many histories were searched for an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// All of them.
    pub histories: u64,
    /// Those that were too hard within the limits.
    pub unknown: u64,
}

impl Searched {
    /// Whether so few were too hard that the others say something: at most one in a hundred.
    pub fn is_enough(self) -> bool {
        self.unknown.saturating_mul(100) <= self.histories
    }
}

impl AddAssign for Searched {
    fn add_assign(&mut self, other: Self) {
        self.histories += other.histories;
        self.unknown += other.unknown;
    }
}

impl fmt::Display for Searched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} of them undecided", self.histories, self.unknown)
    }
}

/// What was found about the histories of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// How many there were.
    pub searched: Searched,
    /// The story of the one that became impossible first, if one did.
    pub violation: Option<Story>,
}

impl Judgement {
    /// Searches the history of each key for an order. `model` says what the key is held against.
    pub fn of<K: Ord, M: Tell>(
        histories: &BTreeMap<K, History<M::Input, M::Output>>,
        model: impl Fn(&K) -> M,
        limits: Limits,
    ) -> Self {
        let mut judgement = Self::default();
        let mut first = u32::MAX;
        for (key, history) in histories {
            let model = model(key);
            judgement.searched.histories += 1;
            match linearizable(&model, history, limits) {
                Verdict::Linearizable(_) => {}
                Verdict::Unknown => judgement.searched.unknown += 1,
                Verdict::Violation(why) => {
                    if judgement.violation.is_none() || why.through < first {
                        first = why.through;
                        judgement.violation = Some(Story::of(&model, history, &why));
                    }
                }
            }
        }
        judgement
    }

    /// The story of the history in which something happened last, where nothing is impossible: what the clients were
    /// about.
    pub fn last_of<K: Ord, M: Tell>(
        histories: &BTreeMap<K, History<M::Input, M::Output>>,
        model: impl Fn(&K) -> M,
        limits: Limits,
    ) -> Option<Story> {
        let last = |history: &History<M::Input, M::Output>| {
            history.operations().last().map(|recorded| recorded.called)
        };
        let (key, history) = histories.iter().max_by_key(|(_, history)| last(history))?;
        let model = model(key);
        match linearizable(&model, history, limits) {
            Verdict::Linearizable(order) => Some(Story::of_order(&model, history, &order)),
            Verdict::Violation(why) => Some(Story::of(&model, history, &why)),
            Verdict::Unknown => Some(Story::of_order(&model, history, &[])),
        }
    }
}
