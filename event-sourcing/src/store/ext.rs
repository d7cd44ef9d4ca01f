//! What every backend can do because it can append and read.

use std::future::Future;
use std::sync::Arc;

use futures::Stream;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Map, Value};

use crate::append::{Append, AppendError, Committed, Conflict, FailedCheck};
use crate::condition::Expected;
use crate::error::InvalidAppend;
use crate::event::{Position, Recorded, StreamName, Version};
use crate::read::{Direction, Page, Read, ReadError, Source};
use crate::retention::Retention;
use crate::store::{EventStore, StreamInfo};
use crate::subscription::{Subscribe, Subscription};

/// How often a change that is made of reading and writing is tried again when somebody else was quicker.
pub const CHANGE_ATTEMPTS: usize = 16;

/// What can be done with any store. It is there for every [`EventStore`], an `Arc<dyn EventStore>` too.
pub trait EventStoreExt: EventStore {
    /// The events of a read, as many pages as it takes, up to what was the last position when it began.
    ///
    /// Each page is of its own moment: events that are deleted meanwhile may be missing from later pages. After an error it has
    /// ended.
    fn events(&self, read: Read) -> impl Stream<Item = Result<Arc<Recorded>, ReadError>> + Send {
        let begin = Some((read, None));
        stream::try_unfold(begin, move |state| async move {
            let Some((read, until)) = state else {
                return Ok(None);
            };
            let Page { mut events, next, head, .. } = EventStore::read(self, read.clone()).await?;
            let until = until.unwrap_or(head);
            let mut next = next.map(|next| read.from(next));
            if events.last().is_some_and(|last| last.position > until) {
                events.retain(|event| event.position <= until);
                // Going backward, what came since is at the beginning.
                next = next.filter(|next| next.direction == Direction::Backward);
            }
            Ok(Some((stream::iter(events).map(Ok), next.map(|next| (next, Some(until))))))
        })
        .try_flatten()
    }

    /// All events of [`events`](Self::events), in memory.
    fn read_to_end(
        &self,
        read: Read,
    ) -> impl Future<Output = Result<Vec<Arc<Recorded>>, ReadError>> + Send {
        self.events(read).try_collect()
    }

    /// All events of a stream, in memory, as long as they can be seen.
    fn read_stream(
        &self,
        stream: StreamName,
    ) -> impl Future<Output = Result<Vec<Arc<Recorded>>, ReadError>> + Send {
        self.read_to_end(Read::forward(Source::Stream(stream)))
    }

    /// The last event of a source that can be seen; `None` too if the source is a stream that does not exist.
    fn read_last(
        &self,
        source: Source,
    ) -> impl Future<Output = Result<Option<Arc<Recorded>>, ReadError>> + Send {
        async move {
            let mut events = std::pin::pin!(self.events(Read::backward(source).count(1)));
            match events.next().await {
                None | Some(Err(ReadError::NoStream { .. })) => Ok(None),
                Some(Ok(event)) => Ok(Some(event)),
                Some(Err(error)) => Err(error),
            }
        }
    }

    /// Follows events from a position on.
    fn subscribe(self, subscribe: Subscribe) -> Subscription<Self>
    where
        Self: Sized,
    {
        Subscription::new(self, subscribe)
    }

    /// What was decided about a stream.
    fn retention(
        &self,
        stream: StreamName,
    ) -> impl Future<Output = Result<Retention, ReadError>> + Send {
        async move { Ok(Said::about(self, &stream).await?.retention) }
    }

    /// Changes what is to be kept of a stream, which need not exist yet. `change` is given what holds, and may be called several
    /// times if somebody else changes it at the same time.
    ///
    /// What is hidden stays hidden: if less is to be hidden from now on, the stream is truncated at its first event of now.
    ///
    /// Returns `None` if nothing was to be changed.
    fn change_retention(
        &self,
        stream: StreamName,
        change: impl Fn(Retention) -> Retention + Send + Sync,
    ) -> impl Future<Output = Result<Option<Committed>, AppendError>> + Send {
        async move {
            let mut attempts = CHANGE_ATTEMPTS;
            loop {
                let said = Said::about(self, &stream).await.map_err(AppendError::Read)?;
                let info = self.stream(stream.clone()).await.map_err(AppendError::Read)?;
                let mut wanted = change(said.retention).in_whole_seconds();
                let first = info.map_or(Version(0), |info| info.first);
                if !wanted.hides_at_least(&said.retention) && first > Version(0) {
                    wanted.truncate_before = wanted.truncate_before.max(Some(first));
                }
                if wanted == said.retention {
                    return Ok(None);
                }
                attempts -= 1;
                match self.append(said.change(wanted)?).await {
                    // Somebody else has said something, or more has become hidden meanwhile.
                    Err(
                        AppendError::Conflict(_) | AppendError::Invalid(InvalidAppend::Reserved(_)),
                    ) if attempts > 0 => {}
                    answer => return answer.map(Some),
                }
            }
        }
    }

    /// Sets what is to be kept of a stream: [`change_retention`](Self::change_retention) to this.
    fn set_retention(
        &self,
        stream: StreamName,
        retention: Retention,
    ) -> impl Future<Output = Result<Option<Committed>, AppendError>> + Send {
        self.change_retention(stream, move |_| retention)
    }

    /// Truncates a stream: its events below `version`, which may be one more than the last, are gone. Returns `None` if they are
    /// already.
    fn truncate_before(
        &self,
        stream: StreamName,
        version: Version,
    ) -> impl Future<Output = Result<Option<Committed>, AppendError>> + Send {
        let truncate = move |retention: Retention| Retention {
            truncate_before: retention.truncate_before.max(Some(version)),
            ..retention
        };
        self.change_retention(stream, truncate)
    }

    /// Deletes a stream softly: its events are gone, and its numbering goes on when it is written to again. Returns `None` if there is
    /// nothing to delete.
    ///
    /// # Errors
    ///
    /// [`AppendError::Conflict`] if the stream is not as `expected`.
    fn delete(
        &self,
        stream: StreamName,
        expected: Expected,
    ) -> impl Future<Output = Result<Option<Committed>, AppendError>> + Send {
        async move {
            let mut attempts = CHANGE_ATTEMPTS;
            loop {
                let info = self.stream(stream.clone()).await.map_err(AppendError::Read)?;
                let said = Said::about(self, &stream).await.map_err(AppendError::Read)?;
                if said.retention.tombstoned {
                    return Err(AppendError::Tombstoned { stream });
                }
                let Some(StreamInfo { last, .. }) =
                    info.filter(|info| info.retention.exists(info.last))
                else {
                    return match expected {
                        Expected::Any | Expected::NoStream => Ok(None),
                        Expected::StreamExists | Expected::Exact(_) => {
                            Err(not_as_expected(stream, expected, self.head()))
                        }
                    };
                };
                let end = Retention { truncate_before: Some(last.next()), ..said.retention };
                let append = said
                    .change(end)?
                    .require(stream.clone(), expected)
                    .require(stream.clone(), Expected::Exact(last));
                attempts -= 1;
                match self.append(append).await {
                    Err(AppendError::Conflict(conflict))
                        if attempts > 0 && !conflict.is_about(&stream, expected) => {}
                    answer => return answer.map(Some),
                }
            }
        }
    }

    /// Closes a stream for ever: its events are gone, and nothing can be written to it again.
    ///
    /// # Errors
    ///
    /// [`AppendError::Conflict`] if the stream is not as `expected`; [`AppendError::Tombstoned`] if it is closed.
    fn tombstone(
        &self,
        stream: StreamName,
        expected: Expected,
    ) -> impl Future<Output = Result<Committed, AppendError>> + Send {
        async move {
            let describing = describing(&stream)?;
            let closed = Retention { tombstoned: true, ..Retention::default() };
            let append = Append::to(describing, Expected::Any, [closed.to_event(Map::new())]);
            self.append(append.require(stream, expected)).await
        }
    }
}

impl<S: EventStore + ?Sized> EventStoreExt for S {}

/// What was said about a stream, and what of it a change has to keep.
struct Said {
    /// The stream in which it was said.
    describing: Option<StreamName>,
    /// How that stream must be for the change to be of what was read.
    expected: Expected,
    retention: Retention,
    /// The object that was last said.
    object: Map<String, Value>,
}

impl Said {
    async fn about<S: EventStore + ?Sized>(
        store: &S,
        stream: &StreamName,
    ) -> Result<Self, ReadError> {
        let Ok(describing) = stream.metadata_stream() else {
            let (retention, object) = (Retention::default(), Map::new());
            return Ok(Self { describing: None, expected: Expected::Any, retention, object });
        };
        let last = store.read_last(Source::Stream(describing.clone())).await?;
        let describing = Some(describing);
        Ok(match last {
            None => Self {
                describing,
                expected: Expected::NoStream,
                retention: Retention::default(),
                object: Map::new(),
            },
            Some(last) => Self {
                describing,
                expected: Expected::Exact(last.version),
                retention: Retention::decided_by(&last.event),
                object: serde_json::from_slice(&last.event.data).unwrap_or_default(),
            },
        })
    }

    /// The append that says something else, if this is still what was said last.
    fn change(self, retention: Retention) -> Result<Append, AppendError> {
        let Some(describing) = self.describing else {
            let why = "what describes a stream is always kept".to_owned();
            return Err(AppendError::Invalid(InvalidAppend::Reserved(why)));
        };
        Ok(Append::to(describing, self.expected, [retention.to_event(self.object)]))
    }
}

fn describing(stream: &StreamName) -> Result<StreamName, AppendError> {
    let reserved = |error: crate::error::InvalidName| InvalidAppend::Reserved(error.to_string());
    stream.metadata_stream().map_err(|error| AppendError::Invalid(reserved(error)))
}

fn not_as_expected(stream: StreamName, expected: Expected, head: Position) -> AppendError {
    let failed = vec![FailedCheck::Stream { stream, expected, actual: None }];
    AppendError::Conflict(Box::new(Conflict { failed, winners: Vec::new(), complete: false, head }))
}

impl Conflict {
    /// Whether this expectation of a stream is among what failed.
    #[must_use]
    pub fn is_about(&self, stream: &StreamName, expected: Expected) -> bool {
        self.failed.iter().any(|failed| match failed {
            FailedCheck::Stream { stream: other, expected: what, .. } => {
                other == stream && *what == expected
            }
            FailedCheck::Match { .. } => false,
        })
    }
}
