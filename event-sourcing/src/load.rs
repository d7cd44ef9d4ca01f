//! How the state of a decider comes out of a log: from a snapshot, if there is one that can be trusted, and the events after it.
//!
//! Pages are read until the end. Each is of one moment, and what one page has shown no later one takes back, so the state is that
//! of the whole boundary up to [`Loaded::seen`]. The one thing that can disturb a loading is that the beginning of its stream is
//! taken away meanwhile; that shows as a gap between two pages, and then the loading begins anew.

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use crate::append::{Conflict, FailedCheck};
use crate::codec::CodecError;
use crate::decider::{Boundary, Decider, DomainEvent, Unknown};
use crate::error::InvalidName;
use crate::event::{Position, Recorded, StreamName, Timestamp, Version};
use crate::read::{From, Read, ReadError, Source};
use crate::snapshot::{Keeper, SnapshotUse};
use crate::store::EventStore;

/// How often a loading begins anew before it is given up: each time, the beginning of the stream was taken away under it.
const RESTARTS_MAX: usize = 16;

/// Why no state was loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The id does not make a name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The log could not be read.
    #[error("the log could not be read")]
    Read(#[from] ReadError),
    /// An event could not be read.
    #[error("the event at position {position} could not be read")]
    Codec {
        /// Its position.
        position: Position,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// The beginning of the stream was taken away again and again while it was read.
    #[error("the stream was truncated {RESTARTS_MAX} times while it was read")]
    Unsteady,
    /// A version was asked for of what is not one stream.
    #[error("only a stream has versions: ask for a position or a time")]
    NoVersions,
}

/// A state, and how much of the log is in it.
pub struct Loaded<D: Decider> {
    /// The state.
    pub state: D::State,
    /// What it was made of.
    pub boundary: Boundary,
    /// If the boundary is a stream: version of the last event that was ever in it, visible or not.
    pub last: Option<Version>,
    /// Every event of the boundary up to this position is in the state, if it is visible.
    pub seen: Position,
    /// How many events are in the state, those that are in it by way of a snapshot included.
    pub events: u64,
    /// What became of the snapshot; `None` if none was looked for.
    pub snapshot: Option<SnapshotUse>,
    /// How many of the events are not in the snapshot that was used.
    pub(crate) since_snapshot: u64,
    /// Version of the snapshot that stands in the snapshots' stream, trusted or not.
    pub(crate) standing_snapshot: Option<Version>,
    /// The version of the oldest event in the state, by home stream.
    pub(crate) homes: BTreeMap<StreamName, Version>,
}

impl<D: Decider> std::fmt::Debug for Loaded<D>
where
    D::State: std::fmt::Debug,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("state", &self.state)
            .field("boundary", &self.boundary)
            .field("last", &self.last)
            .field("seen", &self.seen)
            .field("events", &self.events)
            .field("snapshot", &self.snapshot)
            .finish_non_exhaustive()
    }
}

/// Up to where events are taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// To the end of the log.
    Now,
    /// Before this position.
    Before(Position),
    /// To this version of the stream.
    Version(Version),
    /// To this time.
    Time(Timestamp),
}

impl Until {
    fn takes(self, recorded: &Recorded) -> bool {
        match self {
            Self::Now => true,
            Self::Before(position) => recorded.position < position,
            Self::Version(version) => recorded.version <= version,
            Self::Time(time) => recorded.timestamp <= time,
        }
    }
}

impl<D: Decider> Loaded<D> {
    pub(crate) fn initial(id: &D::Id, boundary: &Boundary) -> Self {
        Self {
            state: D::initial(id),
            boundary: boundary.clone(),
            last: None,
            seen: Position::BEGINNING,
            events: 0,
            snapshot: None,
            since_snapshot: 0,
            standing_snapshot: None,
            homes: BTreeMap::new(),
        }
    }

    /// Takes in an event of the log.
    fn fold(&mut self, recorded: &Recorded) -> Result<(), LoadError> {
        match D::Event::schema().decode(&recorded.event) {
            Ok(event) => D::evolve(&mut self.state, &event),
            Err(CodecError::UnknownType { .. } | CodecError::UnknownSchema { .. })
                if D::UNKNOWN == Unknown::Skip => {}
            Err(source) => {
                return Err(LoadError::Codec { position: recorded.position, source });
            }
        }
        self.count(recorded.position, &recorded.stream, recorded.version);
        Ok(())
    }

    /// Notes that an event is in the state.
    pub(crate) fn count(&mut self, position: Position, stream: &StreamName, version: Version) {
        if matches!(self.boundary, Boundary::Stream(_)) {
            self.last = Some(version);
        }
        if !self.homes.contains_key(stream) {
            self.homes.insert(stream.clone(), version);
        }
        self.seen = position;
        self.events += 1;
        self.since_snapshot += 1;
    }

    /// Whether an event of the stream comes right after the last one.
    fn is_next(&self, recorded: &Recorded) -> bool {
        match (&self.boundary, self.last) {
            (Boundary::Stream(_), Some(last)) => recorded.version == last.next(),
            (Boundary::Stream(_), None) | (Boundary::Query { .. }, _) => true,
        }
    }

    /// Whether all events in the state are still visible. What a stream hides is its beginning, so its oldest event tells.
    pub(crate) async fn is_visible<S: EventStore + ?Sized>(
        &self,
        store: &S,
    ) -> Result<bool, ReadError> {
        for (home, oldest) in &self.homes {
            if store.stream(home.clone()).await?.is_none_or(|info| info.first > *oldest) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes in the events that won against an append. `false`, with nothing taken in, if they are not all there.
    pub(crate) fn catch_up(&mut self, conflict: &Conflict) -> Result<bool, LoadError> {
        if !conflict.complete || !self.are_all(conflict) {
            return Ok(false);
        }
        for winner in &conflict.winners {
            self.fold(winner)?;
        }
        self.seen = conflict.head;
        Ok(true)
    }

    /// Whether the winners are what was added to the boundary, without a gap.
    fn are_all(&self, conflict: &Conflict) -> bool {
        let winners = &conflict.winners;
        let are_ours =
            winners.iter().all(|winner| self.boundary.holds(&winner.stream, &winner.event));
        match (&self.boundary, conflict.failed.as_slice()) {
            (Boundary::Stream(_), [FailedCheck::Stream { actual: Some(actual), .. }]) => {
                let first = self.last.map_or(0, |last| last.0 + 1);
                let versions = winners.iter().map(|winner| winner.version.0);
                are_ours && versions.eq(first..=actual.0)
            }
            (Boundary::Query { .. }, [FailedCheck::Match { .. }]) => {
                are_ours && winners.first().is_some_and(|first| first.position > self.seen)
            }
            _ => false,
        }
    }
}

/// The state of a decider.
pub(crate) async fn load<D: Decider, S: EventStore + ?Sized>(
    store: &S,
    id: &D::Id,
    boundary: &Boundary,
    until: Until,
    keeper: Option<&Keeper<D>>,
) -> Result<Loaded<D>, LoadError> {
    if matches!((boundary, until), (Boundary::Query { .. }, Until::Version(_))) {
        return Err(LoadError::NoVersions);
    }
    for _ in 0..RESTARTS_MAX {
        if let Some(loaded) = try_load(store, id, boundary, until, keeper).await? {
            return Ok(loaded);
        }
    }
    Err(LoadError::Unsteady)
}

/// A state that a snapshot claims, to be compared when the replay gets there.
struct Claim {
    position: Position,
    state: Value,
}

/// The state, or `None` if the stream lost its beginning meanwhile.
async fn try_load<D: Decider, S: EventStore + ?Sized>(
    store: &S,
    id: &D::Id,
    boundary: &Boundary,
    until: Until,
    keeper: Option<&Keeper<D>>,
) -> Result<Option<Loaded<D>>, LoadError> {
    let mut loaded = Loaded::initial(id, boundary);
    let mut claim = None;
    if let Some(keeper) = keeper {
        keeper.begin(store, &mut loaded).await?;
        if keeper.is_to_be_verified(store, &loaded) {
            let position = loaded.seen;
            let claimed = std::mem::replace(&mut loaded, Loaded::initial(id, boundary));
            claim = Some(Claim { position, state: keeper.value_of(&claimed.state) });
            loaded.standing_snapshot = claimed.standing_snapshot;
        }
    }
    let mut next = Some(beginning_of(&loaded));
    'pages: while let Some(from) = next {
        let page = match store.read(Read::forward(source_of(boundary)).from(from)).await {
            Ok(page) => page,
            Err(ReadError::NoStream { .. }) if loaded.events == 0 => break,
            Err(ReadError::NoStream { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        for recorded in &page.events {
            if !until.takes(recorded) {
                break 'pages;
            }
            if !loaded.is_next(recorded) {
                return Ok(None);
            }
            if claim.as_ref().is_some_and(|claim| recorded.position > claim.position) {
                settle(claim.take(), keeper, &mut loaded);
            }
            loaded.fold(recorded)?;
        }
        loaded.seen = page.scanned;
        next = page.next;
    }
    settle(claim, keeper, &mut loaded);
    if let (Boundary::Stream(stream), None) = (boundary, loaded.last)
        && let Some(info) = store.stream(stream.clone()).await?
    {
        if info.first <= info.last && until == Until::Now {
            // It was written to since the read found nothing.
            return Ok(None);
        }
        loaded.last = Some(info.last);
    }
    Ok(Some(loaded))
}

fn source_of(boundary: &Boundary) -> Source {
    match boundary {
        Boundary::Stream(stream) => Source::Stream(stream.clone()),
        Boundary::Query { query, .. } => Source::Query(query.clone()),
    }
}

/// Where reading goes on after what the state has.
fn beginning_of<D: Decider>(loaded: &Loaded<D>) -> From {
    match (&loaded.boundary, loaded.last) {
        (Boundary::Stream(_), Some(last)) => From::Version(last.next()),
        (Boundary::Query { .. }, _) if loaded.seen > Position::BEGINNING => {
            From::Position(loaded.seen.next())
        }
        _ => From::Edge,
    }
}

/// Compares what the replay came to with what the snapshot claims.
fn settle<D: Decider>(claim: Option<Claim>, keeper: Option<&Keeper<D>>, loaded: &mut Loaded<D>) {
    let (Some(claim), Some(keeper)) = (claim, keeper) else { return };
    let replayed = keeper.value_of(&loaded.state);
    if replayed == claim.state {
        loaded.snapshot = Some(SnapshotUse::Verified);
        loaded.since_snapshot = 0;
    } else {
        let differences = crate::time_travel::differences(&claim.state, &replayed);
        loaded.snapshot = Some(SnapshotUse::Wrong { differences });
    }
}
