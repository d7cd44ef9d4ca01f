//! Subscriptions: events as they come, from any position on.
//!
//! A subscription reads pages behind what it has scanned until there are none, waits until the log is longer, and reads on. Catching
//! up and being live are the same code, and so there is no switch between them at which an event could be lost or come twice.
//!
//! Nothing is sent to a subscriber: it takes. What is held for one that is slow is one page; how slow it is costs nobody else
//! anything.
//!
//! # Resuming
//!
//! The position of every event, [`Delivery::Checkpoint`] and [`Delivery::CaughtUp`] is a point to resume from, with
//! [`Subscribe::after`]: all matches up to it were delivered before it. A filtered subscription that finds nothing for long says so by
//! checkpoints, so that it need not look through the same events again.
//!
//! ```
//! use event_sourcing::{Append, Delivery, EventStore, EventStoreExt, EventType, Expected, MemoryStore};
//! use event_sourcing::{NewEvent, Source, StreamName, Subscribe};
//! use futures::executor::block_on;
//! use std::sync::Arc;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Arc::new(MemoryStore::default());
//! let event = NewEvent::json(EventType::new("account.opened")?, "{}");
//! block_on(store.append(Append::to(StreamName::new("account-1")?, Expected::Any, [event])))?;
//!
//! let mut subscription = Arc::clone(&store).subscribe(Subscribe::to(Source::All));
//! assert!(matches!(block_on(subscription.next())?, Delivery::Event(_)));
//! let Delivery::CaughtUp(position) = block_on(subscription.next())? else { panic!("there is no more") };
//! // Later, from here on:
//! let resumed = store.subscribe(Subscribe::to(Source::All).after(position));
//! # drop(resumed);
//! # Ok(())
//! # }
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::{FutureExt, Stream, StreamExt};

use crate::event::{Position, Recorded};
use crate::filter::Filter;
use crate::read::{From, PAGE_BYTES, PAGE_COUNT, Page, Read, ReadError, Source};
use crate::store::{EventStore, Pending};

/// What to follow.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// Which events. A stream need not exist yet.
    pub source: Source,
    /// Of those, the ones that pass this.
    pub filter: Filter,
    /// Events behind this position: [`Position::BEGINNING`] for all, [`EventStore::head`] for those to come.
    pub after: Position,
    /// After so many events that were looked at without a delivery there is a checkpoint. 0 counts as 1.
    pub checkpoint_every: u64,
    /// The most events that are held.
    pub count_max: usize,
    /// The most bytes of events that are held; one event is held even if it is larger.
    pub bytes_max: usize,
}

/// The usual distance of checkpoints.
pub const CHECKPOINT_EVERY: u64 = 1024;

impl Subscribe {
    /// All events of a source from the beginning.
    #[must_use]
    pub fn to(source: Source) -> Self {
        Self {
            source,
            filter: Filter::default(),
            after: Position::BEGINNING,
            checkpoint_every: CHECKPOINT_EVERY,
            count_max: PAGE_COUNT,
            bytes_max: PAGE_BYTES,
        }
    }

    /// Sets where to begin: behind this position.
    #[must_use]
    pub fn after(mut self, after: Position) -> Self {
        self.after = after;
        self
    }

    /// Sets the filter.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// Sets after how many events that were looked at there is a checkpoint.
    #[must_use]
    pub fn checkpoint_every(mut self, events: u64) -> Self {
        self.checkpoint_every = events;
        self
    }
}

/// What a subscriber is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// An event. Its position is a checkpoint.
    Event(Arc<Recorded>),
    /// Every match up to this position was delivered.
    Checkpoint(Position),
    /// Every match of the whole log, which ended here, was delivered. What comes now is new.
    CaughtUp(Position),
    /// More has come than was taken: what follows is behind, until [`Delivery::CaughtUp`] says that it is not. Every match up to
    /// this position was delivered.
    FellBehind(Position),
}

/// Events as they come. It is also a [`Stream`], which ends only with the store.
pub struct Subscription<S> {
    store: S,
    subscribe: Subscribe,
    /// Every match up to here is delivered or held.
    scanned: Position,
    /// The last position that the subscriber was told of.
    told: Position,
    held: VecDeque<Delivery>,
    live: bool,
    doing: Doing,
}

// The store is only called, and never pinned.
impl<S> Unpin for Subscription<S> {}

enum Doing {
    /// Will read the next page.
    Next,
    /// Reads a page; the log was at least so long when it began.
    Read(Pending<Result<Page, ReadError>>, Position),
    /// Waits for the log to become longer.
    Wait(Pending<Result<Position, ReadError>>),
    /// There will be nothing more.
    Ended,
}

impl<S: EventStore> Subscription<S> {
    /// Follows a store.
    pub fn new(store: S, subscribe: Subscribe) -> Self {
        let (scanned, told) = (subscribe.after, subscribe.after);
        let held = VecDeque::new();
        Self { store, subscribe, scanned, told, held, live: false, doing: Doing::Next }
    }

    /// The next delivery; waits for it. Whoever stops waiting misses nothing.
    ///
    /// # Errors
    ///
    /// [`ReadError::Tombstoned`], [`ReadError::Closed`] and [`ReadError::Invalid`] (a position beyond the log, for one) are the end.
    /// After any other the next call tries again: past damage leads [`skip_to`](Self::skip_to).
    pub async fn next(&mut self) -> Result<Delivery, ReadError> {
        StreamExt::next(self).await.unwrap_or(Err(ReadError::Closed))
    }

    /// Goes on behind `position`, leaving out what is before it.
    pub fn skip_to(&mut self, position: Position) {
        self.held.retain(|delivery| match delivery {
            Delivery::Event(event) => event.position > position,
            Delivery::Checkpoint(at) | Delivery::CaughtUp(at) | Delivery::FellBehind(at) => {
                *at >= position
            }
        });
        if position > self.scanned {
            self.scanned = position;
            self.told = position;
            self.doing = Doing::Next;
            self.live = false;
        }
    }

    /// Whether everything was delivered up to the log's end as it was last seen.
    pub fn is_live(&self) -> bool {
        self.live && self.held.is_empty()
    }

    fn read(&self) -> Doing {
        let Subscribe { source, filter, count_max, bytes_max, .. } = &self.subscribe;
        let read = Read {
            filter: filter.clone(),
            count_max: *count_max,
            bytes_max: *bytes_max,
            ..Read::forward(source.clone())
                .from(From::Position(Position(self.scanned.0.saturating_add(1))))
        };
        let head = self.store.head();
        Doing::Read(self.store.read(read), head)
    }

    /// Takes in what was read when the log had at least the length `head`.
    fn take_in(&mut self, page: Result<Page, ReadError>, head: Position) -> Result<(), ReadError> {
        let page = match page {
            Ok(page) => page,
            // It may come yet. Up to `head`, the end before it was looked for, it has no events.
            Err(ReadError::NoStream { .. }) => {
                Page { events: Vec::new(), next: None, scanned: head, head }
            }
            Err(error) => return Err(error),
        };
        if self.scanned > page.head {
            return Err(ReadError::Invalid(format!(
                "position {} is beyond the end of the log, {}",
                self.scanned, page.head
            )));
        }
        let is_end = page.next.is_none();
        if self.live && !is_end {
            self.live = false;
            self.told = self.scanned;
            self.held.push_back(Delivery::FellBehind(self.scanned));
        }
        if let Some(last) = page.events.last() {
            self.told = last.position;
        }
        self.held.extend(page.events.into_iter().map(Delivery::Event));
        let goes_live = is_end && !self.live;
        let scanned = match () {
            () if planted!(GapAtLiveSwitch) && goes_live => self.store.head(),
            () if planted!(CheckpointPastMatch) && !is_end => page.head,
            () => page.scanned,
        };
        self.scanned = scanned.max(self.scanned);
        if is_end && !self.live {
            self.live = true;
            self.told = self.scanned;
            self.held.push_back(Delivery::CaughtUp(self.scanned));
        } else if self.scanned.0 - self.told.0 >= self.subscribe.checkpoint_every.max(1) {
            self.told = self.scanned;
            self.held.push_back(Delivery::Checkpoint(self.scanned));
        }
        self.doing =
            if is_end { Doing::Wait(self.store.wait_beyond(page.head)) } else { Doing::Next };
        Ok(())
    }

    fn fail(&mut self, error: ReadError) -> Poll<Option<Result<Delivery, ReadError>>> {
        self.doing = match error {
            ReadError::Tombstoned { .. } | ReadError::Closed | ReadError::Invalid(_) => {
                Doing::Ended
            }
            ReadError::NoStream { .. } | ReadError::Damaged { .. } | ReadError::Io(_) => {
                Doing::Next
            }
        };
        Poll::Ready(Some(Err(error)))
    }
}

impl<S: EventStore> Stream for Subscription<S> {
    type Item = Result<Delivery, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(delivery) = self.held.pop_front() {
                return Poll::Ready(Some(Ok(delivery)));
            }
            match &mut self.doing {
                Doing::Next => self.doing = self.read(),
                Doing::Read(page, head) => {
                    let head = *head;
                    let page = ready!(page.poll_unpin(cx));
                    self.doing = Doing::Next;
                    if let Err(error) = self.take_in(page, head) {
                        return self.fail(error);
                    }
                    if self.held.is_empty() && matches!(self.doing, Doing::Next) {
                        // Others have their turn before the next page without a match.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Doing::Wait(longer) => match ready!(longer.poll_unpin(cx)) {
                    Ok(_) => self.doing = Doing::Next,
                    Err(error) => return self.fail(error),
                },
                Doing::Ended => return Poll::Ready(None),
            }
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Subscription<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("store", &self.store)
            .field("subscribe", &self.subscribe)
            .field("scanned", &self.scanned)
            .field("held", &self.held.len())
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}
