//! Carrying out commands: load, decide, append, and again if somebody else was faster.
//!
//! ```
//! # use event_sourcing::{Boundary, Decider, EventContent, domain_events};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! # struct Counted { by: u64 }
//! # impl EventContent for Counted { const TYPE: &'static str = "counter.counted"; }
//! # domain_events! { #[derive(Debug, PartialEq)] enum CounterEvent { Counted(Counted) } }
//! # struct Counter;
//! # struct Count(u64);
//! # impl Decider for Counter {
//! #     const NAME: &'static str = "counter";
//! #     type Id = String; type State = u64; type Command = Count; type Event = CounterEvent; type Rejection = ();
//! #     fn boundary(id: &String) -> Result<Boundary, event_sourcing::error::InvalidName> { Boundary::stream("counter", id) }
//! #     fn initial(_: &String) -> u64 { 0 }
//! #     fn evolve(state: &mut u64, event: &CounterEvent) { let CounterEvent::Counted(counted) = event; *state += counted.by; }
//! #     fn decide(_: &u64, command: &Count) -> Result<Vec<CounterEvent>, ()> { Ok(vec![Counted { by: command.0 }.into()]) }
//! # }
//! use event_sourcing::execute::DomainStore;
//!
//! # async fn shown(store: &dyn event_sourcing::EventStore) {
//! let done = store.execute::<Counter>(Count(5)).on("visits").retry(3).idempotency("request-77").await;
//! # }
//! ```
//!
//! # Exactly once
//!
//! Whoever loses an answer cannot know whether the command was carried out. With an idempotency key they can simply ask again. The
//! key goes with the append, so the log itself knows it, for ever; the ids of the events are derived from it. What a command comes to
//! depends on the state, and the state has changed if the command was carried out: asked again it may be refused (*the account is open
//! already*) or come to something else. So whenever a decision does not simply end in an append, the key is looked for; and if it is
//! there, the state before those events is made again and the command decided again on it. `decide` is pure, so if it comes to the
//! same events it was the same command, and its first outcome is returned. If not, somebody has used one key for two things, and is
//! told so.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use uuid::Uuid;

use crate::append::{Append, AppendError, Committed, Conflict, IdempotencyKey};
use crate::codec::CodecError;
use crate::condition::{Check, Expected};
use crate::decider::{Boundary, Decider, DomainEvent};
use crate::event::{
    EventId, EventType, Metadata, NewEvent, Position, Recorded, StreamName, Version,
};
use crate::load::{LoadError, Loaded, Until, load};
use crate::read::{From, Read, ReadError, Source};
use crate::snapshot::{Keeper, SnapshotError, SnapshotUse, Snapshots};
use crate::store::EventStore;
use crate::time_travel::Moment;

/// How often a command is decided again after a conflict, unless told otherwise.
pub const RETRIES: u32 = 3;

/// Where ids of events are derived from idempotency keys.
const DERIVED_IDS: Uuid = Uuid::from_u128(0x8a1f_6c02_54d7_4b5e_9d0c_3f0e_b7a2_61c4);

/// What can be done with any store by means of domain code.
pub trait DomainStore: EventStore {
    /// Begins to carry out a command. Nothing happens before the [`Execute`] is awaited.
    fn execute<D: Decider>(&self, command: D::Command) -> Command<'_, Self, D> {
        Command { store: self, command, decider: PhantomData }
    }

    /// The state of a decider, with everything in it that is durable now.
    fn load<D: Decider>(
        &self,
        id: impl Into<D::Id>,
    ) -> impl Future<Output = Result<Loaded<D>, LoadError>> + Send {
        self.state_at(id, Moment::Now)
    }

    /// The state of a decider at an earlier moment. At a later one than the log has it is the last one.
    ///
    /// Events that retention hides today are not in it, even if they could be seen at the time.
    fn state_at<D: Decider>(
        &self,
        id: impl Into<D::Id>,
        moment: Moment,
    ) -> impl Future<Output = Result<Loaded<D>, LoadError>> + Send {
        let id = id.into();
        async move {
            let boundary = D::boundary(&id)?;
            load(self, &id, &boundary, moment.into(), None).await
        }
    }

    /// The state of a decider, by way of its snapshot if there is one that can be trusted. None is written.
    fn load_with<D: Decider>(
        &self,
        id: impl Into<D::Id>,
        snapshots: &Snapshots,
    ) -> impl Future<Output = Result<Loaded<D>, LoadError>> + Send
    where
        D::State: Serialize + DeserializeOwned,
    {
        let (id, keeper) = (id.into(), Keeper::new(snapshots.clone()));
        async move {
            let boundary = D::boundary(&id)?;
            load(self, &id, &boundary, Until::Now, Some(&keeper)).await
        }
    }
}

impl<S: EventStore + ?Sized> DomainStore for S {}

/// A command that does not know yet whom it is for.
#[must_use = "nothing happens before it is awaited"]
#[derive(Debug)]
pub struct Command<'s, S: ?Sized, D: Decider> {
    store: &'s S,
    command: D::Command,
    decider: PhantomData<fn() -> D>,
}

impl<'s, S: EventStore + ?Sized, D: Decider> Command<'s, S, D> {
    /// Which one is to carry it out.
    pub fn on(self, id: impl Into<D::Id>) -> Execute<'s, S, D> {
        Execute {
            store: self.store,
            command: self.command,
            id: id.into(),
            retries: RETRIES,
            key: None,
            metadata: Metadata::default(),
            keeper: None,
        }
    }
}

/// A command on its way. It is carried out when it is awaited, on whatever runtime, or without any by [`Execute::wait`].
///
/// If the future is dropped before it ends, the command may or may not be carried out: see [`Execute::idempotency`].
#[must_use = "nothing happens before it is awaited"]
pub struct Execute<'s, S: ?Sized, D: Decider> {
    store: &'s S,
    command: D::Command,
    id: D::Id,
    retries: u32,
    key: Option<Arc<str>>,
    metadata: Metadata,
    keeper: Option<Keeper<D>>,
}

impl<S: ?Sized, D: Decider> std::fmt::Debug for Execute<'_, S, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Execute")
            .field("decider", &D::NAME)
            .field("retries", &self.retries)
            .field("key", &self.key)
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

impl<S: EventStore + ?Sized, D: Decider> Execute<'_, S, D> {
    /// How often it is decided again after others were faster; [`RETRIES`] unless told otherwise. With 0 it is tried once.
    pub fn retry(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Names the command, for ever. However often it is repeated under this key it is carried out once, and its first outcome is
    /// returned. A refusal is no outcome: a command that was refused may be accepted later.
    ///
    /// The key is the store's, not the decider's: two commands must not share one, whomever they are for.
    pub fn idempotency(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The conversation that it belongs to.
    pub fn correlation(mut self, correlation: impl Into<Box<str>>) -> Self {
        self.metadata.correlation = Some(correlation.into());
        self
    }

    /// What caused it.
    pub fn causation(mut self, causation: impl Into<Box<str>>) -> Self {
        self.metadata.causation = Some(causation.into());
        self
    }

    /// The event that caused it. It belongs to the same conversation, or opens one.
    pub fn caused_by(self, recorded: &Recorded) -> Self {
        let cause = recorded.event.id.to_string();
        let conversation = recorded.event.metadata.correlation.clone();
        self.correlation(conversation.unwrap_or_else(|| cause.clone().into())).causation(cause)
    }

    /// On whose behalf.
    pub fn user(mut self, user: impl Into<Box<str>>) -> Self {
        self.metadata.user = Some(user.into());
        self
    }

    /// Anything else that is to accompany the events, by convention JSON.
    pub fn custom(mut self, custom: impl Into<Bytes>) -> Self {
        self.metadata.custom = custom.into();
        self
    }

    /// Loads from snapshots, and writes one when it is due.
    pub fn snapshots(mut self, snapshots: &Snapshots) -> Self
    where
        D::State: Serialize + DeserializeOwned,
    {
        self.keeper = Some(Keeper::new(snapshots.clone()));
        self
    }

    /// Carries it out on this thread, which waits until that is done: for programs without a runtime. Inside of one, await it.
    ///
    /// # Errors
    ///
    /// As when it is awaited.
    pub fn wait(self) -> Result<Done<D>, ExecuteError<D::Rejection>> {
        futures::executor::block_on(self.into_future())
    }
}

impl<'s, S: EventStore + ?Sized, D: Decider> IntoFuture for Execute<'s, S, D> {
    type Output = Result<Done<D>, ExecuteError<D::Rejection>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 's>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.run().await })
    }
}

/// An event that a command came to, in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed<E> {
    /// What happened.
    pub event: E,
    /// Its id.
    pub id: EventId,
    /// Its home stream.
    pub stream: StreamName,
    /// Its version there.
    pub version: Version,
    /// Its position.
    pub position: Position,
}

/// What a command came to.
pub struct Done<D: Decider> {
    /// The state after its events.
    pub state: D::State,
    /// Its events; none if everything was already as asked for.
    pub events: Vec<Placed<D::Event>>,
    /// Where the log stood for the decision: the position of the last event, and if there is none what the state was read up to. Waiting
    /// until a read model has reached it makes the command's effect visible there.
    pub position: Position,
    /// It had been carried out before, under the same key: this is its outcome of then.
    pub repeated: bool,
    /// How often it was decided.
    pub attempts: u32,
    /// What became of the snapshot; `None` if none was looked for.
    pub snapshot: Option<SnapshotUse>,
    /// Position of the snapshot that was written afterwards, or why none was; `None` if none was due.
    pub written_snapshot: Option<Result<Position, SnapshotError>>,
}

impl<D: Decider> std::fmt::Debug for Done<D>
where
    D::State: std::fmt::Debug,
    D::Event: std::fmt::Debug,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Done")
            .field("state", &self.state)
            .field("events", &self.events)
            .field("position", &self.position)
            .field("repeated", &self.repeated)
            .field("attempts", &self.attempts)
            .field("snapshot", &self.snapshot)
            .field("written_snapshot", &self.written_snapshot)
            .finish()
    }
}

/// Why a command was not carried out.
///
/// After any of these but [`AppendError::Unknown`] it is certain that it was not.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExecuteError<R> {
    /// It was refused.
    #[error("the command was refused: {0}")]
    Rejected(R),
    /// Others were faster, each time.
    #[error("the command was decided {attempts} times, and each time others were faster")]
    Conflict {
        /// How often it was decided.
        attempts: u32,
        /// The last conflict.
        conflict: Box<Conflict>,
    },
    /// The idempotency key stands for another command, or for one whose events are no longer visible.
    #[error(
        "the idempotency key stands for another command, whose events begin at position {position}"
    )]
    KeyReused {
        /// Where the key stands.
        position: Position,
    },
    /// The state could not be loaded.
    #[error("the state could not be loaded")]
    Load(#[from] LoadError),
    /// An event could not be written.
    #[error("an event could not be written")]
    Codec(#[from] CodecError),
    /// The store did not record the events.
    #[error("the events were not recorded")]
    Store(#[source] AppendError),
}

impl<S: EventStore + ?Sized, D: Decider> Execute<'_, S, D> {
    async fn run(self) -> Result<Done<D>, ExecuteError<D::Rejection>> {
        let boundary = D::boundary(&self.id).map_err(LoadError::from)?;
        let (mut loaded, mut took) = self.load(&boundary).await?;
        let mut attempts = 1;
        loop {
            let decided = D::decide(&loaded.state, &self.command);
            let events = match decided {
                Ok(events) if !events.is_empty() => events,
                Ok(_) | Err(_) => {
                    if let Some(position) = self.find_key(&boundary).await? {
                        return self.recall(&boundary, position, attempts).await;
                    }
                    decided.map_err(ExecuteError::Rejected)?;
                    return Ok(Done::nothing(loaded, attempts));
                }
            };
            let encoded = self.encode(&boundary, &events)?;
            let ids: Vec<EventId> = encoded.iter().map(|event| event.id).collect();
            match self.store.append(self.append(&boundary, &loaded, encoded)).await {
                Ok(committed) if committed.repeated => {
                    return self.recall(&boundary, committed.first, attempts).await;
                }
                Ok(committed) => {
                    let placed = place(&mut loaded, events, &ids, &committed);
                    let written_snapshot = match &self.keeper {
                        Some(keeper) => keeper.keep(self.store, &loaded, took).await,
                        None => None,
                    };
                    let Loaded { state, seen: position, snapshot, .. } = loaded;
                    return Ok(Done {
                        state,
                        events: placed,
                        position,
                        repeated: false,
                        attempts,
                        snapshot,
                        written_snapshot,
                    });
                }
                Err(AppendError::Conflict(conflict)) => {
                    if attempts > self.retries {
                        return Err(ExecuteError::Conflict { attempts, conflict });
                    }
                    attempts += 1;
                    // Winners say what came, and not whether what was there before was taken away.
                    let is_current = loaded.catch_up(&conflict)?
                        && loaded.is_visible(self.store).await.map_err(LoadError::from)?;
                    if !is_current {
                        (loaded, took) = self.load(&boundary).await?;
                    }
                }
                Err(error) => match standing_place(&error) {
                    Some(position) if self.key.is_some() => {
                        return self.recall(&boundary, position, attempts).await;
                    }
                    _ => return Err(ExecuteError::Store(error)),
                },
            }
        }
    }

    /// The state, and how long loading it took, if anybody wants to know.
    async fn load(
        &self,
        boundary: &Boundary,
    ) -> Result<(Loaded<D>, Option<std::time::Duration>), LoadError> {
        let keeper = self.keeper.as_ref();
        let begun = keeper.and_then(Keeper::time);
        let loaded = load(self.store, &self.id, boundary, Until::Now, keeper).await?;
        let ended = keeper.and_then(Keeper::time);
        Ok((loaded, ended.zip(begun).map(|(ended, begun)| ended.saturating_sub(begun))))
    }

    /// The events as they are to be recorded. With an idempotency key their ids follow from it.
    fn encode(
        &self,
        boundary: &Boundary,
        events: &[D::Event],
    ) -> Result<Vec<NewEvent>, CodecError> {
        let encode = |(index, event): (usize, &D::Event)| {
            let mut encoded = event.encode(D::CODEC)?;
            if let Some(key) = &self.key {
                let name = format!("{key}\0{}\0{}\0{index}", D::NAME, boundary.home());
                encoded.id = EventId::derived(DERIVED_IDS, name.as_bytes());
            }
            encoded.metadata = self.metadata.clone();
            Ok(encoded)
        };
        events.iter().enumerate().map(encode).collect()
    }

    fn append(&self, boundary: &Boundary, loaded: &Loaded<D>, events: Vec<NewEvent>) -> Append {
        let home = boundary.home();
        Append {
            events: events.into_iter().map(|event| (home.clone(), event)).collect(),
            checks: vec![boundary.unchanged(loaded.last, loaded.seen)],
            key: self.key.clone().map(IdempotencyKey),
        }
    }

    /// Where the events of this command's key begin, if it has one and they are there.
    ///
    /// The store is asked by an append that cannot take effect, for its checks contradict each other; a key is looked for before
    /// checks are.
    async fn find_key(
        &self,
        boundary: &Boundary,
    ) -> Result<Option<Position>, ExecuteError<D::Rejection>> {
        let Some(key) = &self.key else { return Ok(None) };
        let question = EventType::new("idempotency.question").map_err(CodecError::from)?;
        let home = boundary.home().clone();
        let append = Append {
            events: vec![(home.clone(), NewEvent::bytes(question, Bytes::new()))],
            checks: [Expected::NoStream, Expected::StreamExists]
                .map(|expected| Check::Stream { stream: home.clone(), expected })
                .into(),
            key: Some(IdempotencyKey(key.clone())),
        };
        match self.store.append(append).await {
            Ok(committed) => Ok(Some(committed.first)),
            Err(AppendError::Conflict(_)) => Ok(None),
            Err(error) => match standing_place(&error) {
                Some(position) => Ok(Some(position)),
                None => Err(ExecuteError::Store(error)),
            },
        }
    }

    /// The outcome of the command when it was carried out first, by the events that stand at `position`.
    async fn recall(
        &self,
        boundary: &Boundary,
        position: Position,
        attempts: u32,
    ) -> Result<Done<D>, ExecuteError<D::Rejection>> {
        let reused = ExecuteError::KeyReused { position };
        let Some(recorded) = self.recorded_at(position).await? else { return Err(reused) };
        let first = recorded.first().map_or(position, |recorded| recorded.position);
        let until = Until::Before(first);
        let mut loaded: Loaded<D> = load(self.store, &self.id, boundary, until, None).await?;
        let Ok(events) = D::decide(&loaded.state, &self.command) else { return Err(reused) };
        let encoded = self.encode(boundary, &events)?;
        let is_same = encoded.len() == recorded.len()
            && encoded.iter().zip(&recorded).all(|(ours, theirs)| {
                theirs.stream == *boundary.home() && says_the_same(ours, &theirs.event)
            });
        if !is_same {
            return Err(reused);
        }
        let mut placed = Vec::with_capacity(events.len());
        for (event, recorded) in events.into_iter().zip(recorded) {
            D::evolve(&mut loaded.state, &event);
            placed.push(Placed {
                event,
                id: recorded.event.id,
                stream: recorded.stream.clone(),
                version: recorded.version,
                position: recorded.position,
            });
        }
        Ok(Done {
            state: loaded.state,
            position: placed.last().map_or(position, |last| last.position),
            events: placed,
            repeated: true,
            attempts,
            snapshot: None,
            written_snapshot: None,
        })
    }

    /// All events of the append that recorded the one at `position`; `None` if some of them are no longer visible.
    async fn recorded_at(
        &self,
        position: Position,
    ) -> Result<Option<Vec<Arc<Recorded>>>, LoadError> {
        match self.visible(position, 1).await?.as_deref() {
            Some([one]) => Ok(self.visible(one.append_start(), one.place.count).await?),
            _ => Ok(None),
        }
    }

    /// The `count` events from `first` on, if all of them are visible.
    async fn visible(
        &self,
        first: Position,
        count: u32,
    ) -> Result<Option<Vec<Arc<Recorded>>>, ReadError> {
        let count = usize::try_from(count).expect("32 bits fit");
        let mut events = Vec::new();
        let mut next = Some(From::Position(first));
        while let Some(from) = next.filter(|_| events.len() < count) {
            let read = Read::forward(Source::All).from(from).count(count - events.len());
            let page = self.store.read(read).await?;
            events.extend(page.events);
            next = page.next;
        }
        let is_dense = events.iter().zip(first.0..).all(|(event, at)| event.position.0 == at);
        Ok((is_dense && events.len() == count).then_some(events))
    }
}

impl<D: Decider> Done<D> {
    /// Nothing had to happen.
    fn nothing(loaded: Loaded<D>, attempts: u32) -> Self {
        Self {
            state: loaded.state,
            events: Vec::new(),
            position: loaded.seen,
            repeated: false,
            attempts,
            snapshot: loaded.snapshot,
            written_snapshot: None,
        }
    }
}

/// Takes events that were recorded into the state, and says where they stand.
fn place<D: Decider>(
    loaded: &mut Loaded<D>,
    events: Vec<D::Event>,
    ids: &[EventId],
    committed: &Committed,
) -> Vec<Placed<D::Event>> {
    let home = loaded.boundary.home().clone();
    let last = committed.streams.iter().find(|(stream, _)| *stream == home);
    let last = last.map_or(Version(0), |(_, last)| *last);
    let count = u64::try_from(events.len()).expect("a length fits");
    let numbered = (0..count).zip(events).zip(ids);
    numbered
        .map(|((index, event), &id)| {
            let position = Position(committed.first.0 + index);
            let version = Version((last.0 + 1 + index).saturating_sub(count));
            D::evolve(&mut loaded.state, &event);
            loaded.count(position, &home, version);
            Placed { event, id, stream: home.clone(), version, position }
        })
        .collect()
}

/// Where events stand that have the ids or the key of an append that says something else.
fn standing_place(error: &AppendError) -> Option<Position> {
    match error {
        AppendError::KeyReused { position }
        | AppendError::IdReused { position, .. }
        | AppendError::PartlyRecorded { position, .. } => Some(*position),
        _ => None,
    }
}

fn says_the_same(ours: &NewEvent, theirs: &NewEvent) -> bool {
    let mut labels = ours.labels.clone();
    labels.sort_unstable();
    labels.dedup();
    ours.event_type == theirs.event_type
        && ours.schema == theirs.schema
        && ours.content_type == theirs.content_type
        && ours.data == theirs.data
        && labels == theirs.labels
}
