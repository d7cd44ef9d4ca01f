//! The last events of the log, in memory: what most readers ask for.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use crate::event::{Position, Recorded};
use crate::record;

/// What an event costs beside what it carries, roughly.
const OVERHEAD: usize = 256;

/// Events at consecutive positions, the last one being the last durable event; bounded in bytes.
#[derive(Debug)]
pub(super) struct Tail {
    bytes_max: usize,
    held: RwLock<Held>,
}

#[derive(Debug, Default)]
struct Held {
    events: VecDeque<Arc<Recorded>>,
    bytes: usize,
}

impl Tail {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, held: RwLock::default() }
    }

    /// Adds the events that have become durable.
    pub(super) fn extend<'a>(&self, events: impl Iterator<Item = &'a Arc<Recorded>>) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            debug_assert!(held.events.back().is_none_or(|last| last.position < event.position));
            held.bytes += cost(event);
            held.events.push_back(Arc::clone(event));
        }
        while held.bytes > self.bytes_max {
            let Some(first) = held.events.pop_front() else { break };
            held.bytes -= cost(&first);
        }
    }

    /// The event at a position, if it is held.
    pub(super) fn get(&self, position: Position) -> Option<Arc<Recorded>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let first = held.events.front()?.position.0;
        let at = usize::try_from(position.0.checked_sub(first)?).ok()?;
        held.events.get(at).map(Arc::clone)
    }
}

fn cost(event: &Recorded) -> usize {
    record::size(&event.stream, &event.event) + OVERHEAD
}
