//! Remembers the last event of streams in the sealed part of the log, so that asking again costs no search.
//!
//! What is sealed never changes, so nothing is ever taken back here: an answer says up to which position it holds, and whoever asks
//! for a later one has only the segments in between to search.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::event::{Position, StreamName, Version};

/// Streams that are remembered in each of two generations.
const STREAMS_MAX: usize = 16 * 1024;

/// The last event of a stream below a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The answer holds for all events below this position.
    pub(super) below: u64,
    /// Version and position.
    pub(super) last: Option<(Version, Position)>,
}

/// A bounded memory of heads. What was not asked for since as many others were is forgotten.
#[derive(Debug, Default)]
pub(super) struct Heads(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: BTreeMap<StreamName, Head>,
    old: BTreeMap<StreamName, Head>,
}

impl Heads {
    /// What is remembered of a stream.
    pub(super) fn get(&self, stream: &StreamName) -> Option<Head> {
        let mut generations = self.lock();
        if let Some(head) = generations.young.get(stream) {
            return Some(*head);
        }
        let (stream, head) = generations.old.remove_entry(stream)?;
        generations.insert(stream, head);
        Some(head)
    }

    /// Remembers a head, unless a later one is remembered.
    pub(super) fn put(&self, stream: &StreamName, head: Head) {
        let mut generations = self.lock();
        match generations.young.get_mut(stream) {
            Some(held) if held.below < head.below => *held = head,
            Some(_) => {}
            None => generations.insert(stream.clone(), head),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn insert(&mut self, stream: StreamName, head: Head) {
        if self.young.len() >= STREAMS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(stream, head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(number: usize) -> StreamName {
        StreamName::new(format!("s-{number}")).unwrap()
    }

    #[test]
    fn a_later_answer_replaces_an_earlier_one_and_not_the_other_way() {
        let heads = Heads::default();
        let early = Head { below: 10, last: None };
        let late = Head { below: 20, last: Some((Version(0), Position(12))) };
        heads.put(&stream(1), early);
        heads.put(&stream(1), late);
        heads.put(&stream(1), early);
        assert_eq!(heads.get(&stream(1)), Some(late));
        assert_eq!(heads.get(&stream(2)), None);
    }

    #[test]
    fn what_is_asked_for_stays_and_memory_is_bounded() {
        let heads = Heads::default();
        let head = Head { below: 1, last: None };
        for number in 0..5 * STREAMS_MAX {
            heads.put(&stream(number), head);
            assert!(heads.get(&stream(0)).is_some());
        }
        let generations = heads.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * STREAMS_MAX);
    }
}
