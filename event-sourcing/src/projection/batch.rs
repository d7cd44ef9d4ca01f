//! Carries a batch of events through the handlers, into writes that are not committed yet.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;

use super::sink::{SinkError, Snapshot};
use super::transaction::Tx;
use super::{Projection, Then};
use crate::clock::Clock;
use crate::event::{Position, Recorded};
use crate::sleep::until;

/// A partition is given a thread if there are at least so many events for each.
const EVENTS_PER_PARTITION: usize = 16;

/// What is known of the events before the batch.
pub(super) struct Before<'a> {
    /// How many events are parked under each key.
    pub(super) parked: &'a BTreeMap<String, usize>,
    /// How often each event of the first append was tried before, if one of them has failed.
    pub(super) attempts: &'a BTreeMap<Position, u32>,
}

/// What a batch came to.
pub(super) struct Ran {
    pub(super) writes: BTreeMap<Bytes, Option<Bytes>>,
    /// So many events, from the front, are in the writes, handled or parked.
    pub(super) done: usize,
    /// Which of them are to be parked.
    pub(super) parked: Vec<Parked>,
    /// The event that ended the batch by failing. It is not among those that are done.
    pub(super) failed: Option<Failed>,
    /// Partitions had touched the same rows, and the batch was run again in order.
    pub(super) clashed: bool,
}

/// An event that is to be parked.
pub(super) struct Parked {
    /// Its place in the batch.
    pub(super) index: usize,
    pub(super) key: String,
    pub(super) attempts: u32,
    pub(super) message: String,
}

/// An event that could not be handled.
pub(super) struct Failed {
    /// Its place in the batch.
    pub(super) index: usize,
    pub(super) attempts: u32,
    pub(super) message: String,
    /// It will not be tried again.
    pub(super) is_final: bool,
    /// It should have been parked, and too many are.
    pub(super) parked_full: bool,
}

/// Runs a batch that ends where an append ends.
pub(super) fn run(
    projection: &Projection,
    base: &dyn Snapshot,
    prefix: &[u8],
    events: &[Arc<Recorded>],
    before: &Before<'_>,
    clock: &dyn Clock,
) -> Result<Ran, SinkError> {
    let partitions = projection.partitions.min(events.len() / EVENTS_PER_PARTITION);
    let clear = before.parked.is_empty() && before.attempts.is_empty();
    if partitions > 1 && clear {
        match side_by_side(projection, base, prefix, events, partitions)? {
            Side::Apart(writes) => {
                let done = events.len();
                return Ok(Ran { writes, done, parked: Vec::new(), failed: None, clashed: false });
            }
            Side::Clash => {
                let ran = in_order(projection, base, prefix, events, before, clock)?;
                return Ok(Ran { clashed: true, ..ran });
            }
            Side::Failed => {}
        }
    }
    in_order(projection, base, prefix, events, before, clock)
}

fn in_order(
    projection: &Projection,
    base: &dyn Snapshot,
    prefix: &[u8],
    events: &[Arc<Recorded>],
    before: &Before<'_>,
    clock: &dyn Clock,
) -> Result<Ran, SinkError> {
    let policy = &projection.failure;
    let began = clock.now();
    let mut tx = Tx::new(base, prefix.to_vec());
    let (mut parked, mut failed) = (Vec::<Parked>::new(), None);
    // Where the append begins that the event belongs to.
    let (mut append, mut append_mark, mut append_parked) = (0, tx.mark(), 0);
    let mut done = events.len();
    for (index, event) in events.iter().enumerate() {
        if index > 0 && event.append_start() != events[index - 1].append_start() {
            (append, append_mark, append_parked) = (index, tx.mark(), parked.len());
            let batch = &projection.batch;
            if tx.size() >= batch.bytes_max || until(began, clock.now()) >= batch.time_max {
                done = index;
                break;
            }
        }
        let key = (projection.key)(event);
        let behind = before.parked.contains_key(&key) || parked.iter().any(|it| it.key == key);
        let mark = tx.mark();
        let result = if behind {
            Err("an earlier event with the same key is parked".to_owned())
        } else {
            handle(projection, &mut tx, event)?
        };
        let Err(message) = result else { continue };
        let attempts = before.attempts.get(&event.position).map_or(1, |attempts| attempts + 1);
        let verdict = if behind { Then::Park } else { policy.then };
        let is_final = behind || attempts > policy.retries;
        let full = before.parked.values().sum::<usize>() + parked.len() >= policy.parked_max;
        if is_final && verdict == Then::Park && !full {
            tx.undo_to(mark);
            let attempts = if behind { 0 } else { attempts };
            parked.push(Parked { index, key, attempts, message });
        } else {
            tx.undo_to(append_mark);
            parked.truncate(append_parked);
            let parked_full = is_final && verdict == Then::Park;
            failed = Some(Failed { index, attempts, message, is_final, parked_full });
            done = append;
            break;
        }
    }
    Ok(Ran { writes: tx.into_writes(), done, parked, failed, clashed: false })
}

/// How partitions went.
enum Side {
    /// They have nothing to do with each other.
    Apart(BTreeMap<Bytes, Option<Bytes>>),
    /// One has touched what another has written.
    Clash,
    /// A handler failed.
    Failed,
}

fn side_by_side(
    projection: &Projection,
    base: &dyn Snapshot,
    prefix: &[u8],
    events: &[Arc<Recorded>],
    partitions: usize,
) -> Result<Side, SinkError> {
    let mut groups = vec![Vec::new(); partitions];
    for event in events {
        let hash = xxhash_rust::xxh3::xxh3_64((projection.key)(event).as_bytes());
        let group = hash % u64::try_from(partitions).expect("there are at most 64");
        groups[usize::try_from(group).expect("it is less than 64")].push(&**event);
    }
    let run = |group: Vec<&Recorded>| {
        let mut tx = Tx::of_partition(base, prefix.to_vec());
        for event in group {
            if handle(projection, &mut tx, event)?.is_err() {
                return Ok(None);
            }
        }
        Ok::<_, SinkError>(Some(tx))
    };
    // The threads end before this returns, and what they do does not depend on when they run.
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            groups.into_iter().map(|group| scope.spawn(move || run(group))).collect();
        let results = threads.into_iter().map(|thread| thread.join());
        results.map(|result| result.expect("panics of handlers are caught")).collect()
    });
    let ran: Option<Vec<_>> = results.into_iter().collect::<Result<_, _>>()?;
    Ok(match ran.map(Tx::merge) {
        Some(Some(writes)) => Side::Apart(writes),
        Some(None) => Side::Clash,
        None => Side::Failed,
    })
}

/// Calls the handlers of one event. An error of the sink is one of the runner's, whatever the handler has made of it.
pub(super) fn handle(
    projection: &Projection,
    tx: &mut Tx<'_>,
    event: &Recorded,
) -> Result<Result<(), String>, SinkError> {
    let Some(handlers) = projection.handlers_of(event) else {
        return Ok(Err(format!("no handler is for events of type {}", event.event.event_type)));
    };
    // What the handler leaves half done in the transaction is undone by the caller.
    let called = catch_unwind(AssertUnwindSafe(|| {
        handlers.iter().try_for_each(|handler| handler(tx, event))
    }));
    if let Some(error) = tx.take_failure() {
        return Err(error);
    }
    Ok(match called {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(chain(&*error)),
        Err(panic) => Err(format!("it panicked: {}", panic_message(&*panic))),
    })
}

/// An error with its causes, in at most [`MESSAGE_SIZE_MAX`] bytes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    shortened(causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}")))
}

/// The longest message that is kept of an error, in bytes.
const MESSAGE_SIZE_MAX: usize = 1024;

fn shortened(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MESSAGE_SIZE_MAX));
    message
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    shortened(text.unwrap_or("without a message").to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::OnFailure;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let policy = OnFailure::stop().after_retries(40, Duration::from_millis(100));
        assert_eq!(policy.pause_after(1), Duration::from_millis(100));
        assert_eq!(policy.pause_after(3), Duration::from_millis(400));
        assert_eq!(policy.pause_after(40), Duration::from_secs(30));
    }
}
