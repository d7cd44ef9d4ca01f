//! Snapshots: states that were worked out once, so that loading need not begin with the first event.
//!
//! A snapshot is a cache and never more. It changes how long loading takes, and must never change what is loaded. So one is used
//! only if all of this holds, and else ignored, as if it were not there:
//!
//! - Its *fingerprint* is ours: name and fold version of the decider, its format, and the event types with their versions. A snapshot by
//!   an older program does not know what newer events mean; one by a newer program has a state that we do not know.
//! - It is of the same boundary, and not of a later moment than the log.
//! - Every event that it was made of is still visible. Whoever truncates a stream wants its beginning forgotten, and a snapshot must
//!   not remember it. What a stream hides is always its beginning, so the oldest event of each stream tells.
//!
//! A snapshot is an event of type `$snapshot` in a stream of the store's own, `$snapshot-DECIDER-STREAM`, whose retention keeps
//! the last one. It is written after the command's own events, and if that fails the command has still succeeded.
//!
//! ```
//! # use event_sourcing::{Boundary, Decider, DomainStore, EventContent, MemoryStore, domain_events, error::InvalidName};
//! # use futures::executor::block_on;
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Serialize, Deserialize)]
//! # struct Counted { by: u64 }
//! # impl EventContent for Counted { const TYPE: &'static str = "counter.counted"; }
//! # domain_events! { enum CounterEvent { Counted(Counted) } }
//! # struct Counter;
//! # impl Decider for Counter {
//! #     const NAME: &'static str = "counter";
//! #     type Id = String; type State = u64; type Command = u64; type Event = CounterEvent; type Rejection = std::convert::Infallible;
//! #     fn boundary(id: &String) -> Result<Boundary, InvalidName> { Boundary::stream("counter", id) }
//! #     fn initial(_: &String) -> u64 { 0 }
//! #     fn evolve(state: &mut u64, event: &CounterEvent) { let CounterEvent::Counted(counted) = event; *state += counted.by; }
//! #     fn decide(_: &u64, by: &u64) -> Result<Vec<CounterEvent>, Self::Rejection> { Ok(vec![Counted { by: *by }.into()]) }
//! # }
//! use event_sourcing::snapshot::{SnapshotUse, Snapshots};
//!
//! let store = MemoryStore::default();
//! let policy = Snapshots::every(100).verify_sample(0.001);
//! for _ in 0..120 {
//!     store.execute::<Counter>(1).on("visits").snapshots(&policy).wait()?;
//! }
//! let loaded = block_on(store.load_with::<Counter>("visits", &policy))?;
//! assert_eq!(loaded.state, 120);
//! # let used = loaded.snapshot == Some(SnapshotUse::Used { events: 100 }) || loaded.snapshot == Some(SnapshotUse::Verified);
//! # assert!(used);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::append::{Append, AppendError};
use crate::codec::{Codec, CodecError};
use crate::condition::Expected;
use crate::decider::{Boundary, Decider, DomainEvent};
use crate::event::{
    EventId, EventType, Metadata, NAME_SIZE_MAX, NewEvent, Position, StreamName, Version,
};
use crate::load::Loaded;
use crate::read::{Read, ReadError, Source};
use crate::retention::METADATA_TYPE;
use crate::store::EventStore;
use crate::time_travel::Difference;

/// Type of the event that holds a snapshot.
pub const SNAPSHOT_TYPE: &str = "$snapshot";
/// The streams of snapshots begin with this.
pub const SNAPSHOT_STREAM: &str = "$snapshot-";
/// A state made from events of more home streams than this is not kept: it would have to be compared with each of them.
const HOMES_MAX: usize = 16;

/// When snapshots are made, and how far they are believed. Without any of the methods below, never.
#[derive(Clone, Default)]
pub struct Snapshots {
    every: Option<u64>,
    slow: Option<(Duration, Stopwatch)>,
    verified: f64,
}

/// The time since any fixed moment. It must not go back.
type Stopwatch = Arc<dyn Fn() -> Duration + Send + Sync>;

impl Snapshots {
    /// As soon as `events` events are in the state and not in its snapshot.
    #[must_use]
    pub fn every(events: u64) -> Self {
        Self { every: Some(events.max(1)), ..Self::default() }
    }

    /// Also if loading took longer than `time` by `stopwatch`, which says how much time has passed since any fixed moment.
    #[must_use]
    pub fn or_after(
        mut self,
        time: Duration,
        stopwatch: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        self.slow = Some((time, Arc::new(stopwatch)));
        self
    }

    /// Compares this share of the uses, from 0 to 1, with a full replay. If a snapshot is found to be wrong, the replay counts, a new
    /// snapshot is written, and the answer says so: [`SnapshotUse::Wrong`].
    ///
    /// Which uses that are depends on the boundary and on the length of the log, and so is the same in every run.
    #[must_use]
    pub fn verify_sample(mut self, share: f64) -> Self {
        self.verified = share;
        self
    }
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots")
            .field("every", &self.every)
            .field("slow", &self.slow.as_ref().map(|(time, _)| time))
            .field("verified", &self.verified)
            .finish()
    }
}

/// What became of the snapshot of a state that was loaded.
#[derive(Clone, Debug, PartialEq)]
pub enum SnapshotUse {
    /// There was none.
    Missing,
    /// There was one that was not to be trusted.
    Ignored(Ignored),
    /// It stood for this many events.
    Used {
        /// How many.
        events: u64,
    },
    /// All events were replayed, and came to the same state.
    Verified,
    /// All events were replayed, and came to another state: that one was used.
    Wrong {
        /// The differences, from the snapshot to the replay.
        differences: Vec<Difference>,
    },
}

/// Why a snapshot was not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// What it says of itself cannot be read.
    Unreadable,
    /// It was made by another version of the program.
    Fingerprint,
    /// It is of another boundary.
    Boundary,
    /// Events that it was made of are not visible any more.
    Hidden,
    /// It is of a later moment than the log.
    Future,
    /// Its state cannot be read.
    State,
}

/// Why a snapshot that was due was not written. The command has succeeded all the same.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The state does not go into the format.
    #[error("the state does not go into a snapshot")]
    Codec(#[from] CodecError),
    /// The store did not take it.
    #[error("the snapshot was not recorded")]
    Append(#[from] AppendError),
}

/// What a snapshot says of itself: JSON, in the metadata of its event. The content of the event is the state.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    fingerprint: String,
    boundary: Boundary,
    /// If the boundary is a stream: version of the last event in the state.
    last: Option<Version>,
    /// Every event of the boundary up to here is in the state.
    seen: Position,
    /// How many these are.
    events: u64,
    /// The version of the oldest of them, by home stream.
    homes: BTreeMap<StreamName, Version>,
}

/// Reads and writes the snapshots of a decider.
pub(crate) struct Keeper<D: Decider> {
    policy: Snapshots,
    encode: fn(&D::State) -> Result<bytes::Bytes, CodecError>,
    decode: fn(&NewEvent) -> Result<D::State, CodecError>,
    value: fn(&D::State) -> Option<Value>,
}

impl<D: Decider> fmt::Debug for Keeper<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keeper").field(&self.policy).finish()
    }
}

impl<D: Decider> Keeper<D> {
    pub(crate) fn new(policy: Snapshots) -> Self
    where
        D::State: Serialize + DeserializeOwned,
    {
        Self {
            policy,
            encode: |state| D::CODEC.encode(state),
            decode: |event| Codec::of(&event.content_type)?.decode(&event.data),
            value: |state| serde_json::to_value(state).ok(),
        }
    }

    /// What the stopwatch says, if there is one.
    pub(crate) fn time(&self) -> Option<Duration> {
        self.policy.slow.as_ref().map(|(_, stopwatch)| stopwatch())
    }

    /// Whether a loading that took so long was slow.
    fn is_slow(&self, took: Option<Duration>) -> bool {
        let limit = self.policy.slow.as_ref().map(|(limit, _)| *limit);
        took.zip(limit).is_some_and(|(took, limit)| took > limit)
    }

    /// A state in a form that can be compared: as JSON, where the order in a map does not count, or as its bytes if it has no such form.
    pub(crate) fn value_of(&self, state: &D::State) -> Value {
        (self.value)(state).unwrap_or_else(|| {
            (self.encode)(state).map_or(Value::Null, |bytes| Value::from(bytes.to_vec()))
        })
    }

    /// Whether the snapshot in `loaded` belongs to the sample that is compared with a full replay.
    pub(crate) fn is_to_be_verified<S: EventStore + ?Sized>(
        &self,
        store: &S,
        loaded: &Loaded<D>,
    ) -> bool {
        if !matches!(loaded.snapshot, Some(SnapshotUse::Used { .. })) {
            return false;
        }
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(D::NAME.as_bytes());
        hasher.update(loaded.boundary.home().as_str().as_bytes());
        hasher.update(&loaded.seen.0.to_le_bytes());
        hasher.update(&store.head().0.to_le_bytes());
        let drawn = u32::try_from(hasher.digest() >> 32).expect("the upper half of 64 bits");
        f64::from(drawn) < self.policy.verified * (f64::from(u32::MAX) + 1.0)
    }

    /// Begins a loading with the snapshot, if there is one that can be trusted.
    pub(crate) async fn begin<S: EventStore + ?Sized>(
        &self,
        store: &S,
        loaded: &mut Loaded<D>,
    ) -> Result<(), ReadError> {
        let stream = stream_of::<D>(&loaded.boundary);
        let page = match store.read(Read::backward(Source::Stream(stream)).count(1)).await {
            Ok(page) => page,
            Err(ReadError::NoStream { .. }) => {
                loaded.snapshot = Some(SnapshotUse::Missing);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let Some(recorded) = page.events.first() else {
            loaded.snapshot = Some(SnapshotUse::Missing);
            return Ok(());
        };
        loaded.standing_snapshot = Some(recorded.version);
        loaded.snapshot = Some(match self.trust(store, &recorded.event, loaded).await? {
            Ok((header, state)) => {
                loaded.state = state;
                loaded.last = header.last;
                loaded.seen = header.seen;
                loaded.events = header.events;
                loaded.homes = header.homes;
                SnapshotUse::Used { events: header.events }
            }
            Err(why) => SnapshotUse::Ignored(why),
        });
        Ok(())
    }

    /// The snapshot's state, if it can be trusted.
    async fn trust<S: EventStore + ?Sized>(
        &self,
        store: &S,
        event: &NewEvent,
        loaded: &Loaded<D>,
    ) -> Result<Result<(Header, D::State), Ignored>, ReadError> {
        let Ok(header) = serde_json::from_slice::<Header>(&event.metadata.custom) else {
            return Ok(Err(Ignored::Unreadable));
        };
        if header.fingerprint != fingerprint::<D>() && !planted!(NewerSnapshotTrusted) {
            return Ok(Err(Ignored::Fingerprint));
        }
        if header.boundary != loaded.boundary {
            return Ok(Err(Ignored::Boundary));
        }
        if header.homes.len() > HOMES_MAX {
            return Ok(Err(Ignored::Unreadable));
        }
        if header.seen > store.head() {
            return Ok(Err(Ignored::Future));
        }
        for (home, oldest) in &header.homes {
            let Some(info) = store.stream(home.clone()).await? else {
                return Ok(Err(Ignored::Future));
            };
            if header.last.is_some_and(|last| last > info.last) {
                return Ok(Err(Ignored::Future));
            }
            if info.first > *oldest {
                return Ok(Err(Ignored::Hidden));
            }
        }
        Ok((self.decode)(event).map(|state| (header, state)).or(Err(Ignored::State)))
    }

    /// Writes a snapshot if one is due; `None` if none is. `took` is how long loading took by [`Keeper::time`].
    pub(crate) async fn keep<S: EventStore + ?Sized>(
        &self,
        store: &S,
        loaded: &Loaded<D>,
        took: Option<Duration>,
    ) -> Option<Result<Position, SnapshotError>> {
        let is_wrong = matches!(loaded.snapshot, Some(SnapshotUse::Wrong { .. }));
        let is_due = self.policy.every.is_some_and(|every| loaded.since_snapshot >= every)
            || self.is_slow(took) && loaded.since_snapshot > 0;
        if !(is_wrong || is_due) || loaded.homes.len() > HOMES_MAX {
            return None;
        }
        self.write(store, loaded).await.transpose()
    }

    /// Writes a snapshot, unless somebody else just did.
    async fn write<S: EventStore + ?Sized>(
        &self,
        store: &S,
        loaded: &Loaded<D>,
    ) -> Result<Option<Position>, SnapshotError> {
        let header = Header {
            fingerprint: fingerprint::<D>(),
            boundary: loaded.boundary.clone(),
            last: loaded.last,
            seen: loaded.seen,
            events: loaded.events,
            homes: loaded.homes.clone(),
        };
        let snapshot = NewEvent {
            id: EventId::random(),
            event_type: EventType::new(SNAPSHOT_TYPE).map_err(CodecError::from)?,
            schema: 1,
            content_type: D::CODEC.content_type(),
            data: (self.encode)(&loaded.state)?,
            metadata: Metadata { custom: Codec::Json.encode(&header)?, ..Metadata::default() },
            labels: Vec::new(),
        };
        let stream = stream_of::<D>(&loaded.boundary);
        let append = match loaded.standing_snapshot {
            Some(version) => Append::to(stream, Expected::Exact(version), [snapshot]),
            None => {
                let about = stream.metadata_stream().map_err(CodecError::from)?;
                let metadata_type = EventType::new(METADATA_TYPE).map_err(CodecError::from)?;
                let keep_last = NewEvent::json(metadata_type, r#"{"$maxCount":1}"#);
                Append::to(stream, Expected::NoStream, [snapshot]).and_to(
                    about,
                    Expected::Any,
                    [keep_last],
                )
            }
        };
        match store.append(append).await {
            Ok(committed) => Ok(Some(committed.first)),
            Err(AppendError::Conflict(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The stream of the snapshots of a boundary. Names that would be too long are replaced by their hash; the snapshot itself says of
/// which boundary it is.
#[must_use]
pub(crate) fn stream_of<D: Decider>(boundary: &Boundary) -> StreamName {
    // Room for "$$" before the name, in the stream that describes it.
    let size_max = NAME_SIZE_MAX - 2;
    let plain = match boundary {
        Boundary::Stream(stream) => format!("{SNAPSHOT_STREAM}{}-{stream}", D::NAME),
        Boundary::Query { .. } => String::new(),
    };
    let name = if plain.is_empty() || plain.len() > size_max {
        let boundary = serde_json::to_vec(boundary).expect("names and numbers have a form in JSON");
        let mut sha = Sha256::new();
        sha.update(D::NAME.as_bytes());
        sha.update([0]);
        sha.update(&boundary);
        format!("{SNAPSHOT_STREAM}{}", hex(&sha.finalize()))
    } else {
        plain
    };
    StreamName::new(name).expect("what it is made of are names, and it is short enough")
}

/// What a snapshot's state depends on, beside the events.
#[must_use]
pub(crate) fn fingerprint<D: Decider>() -> String {
    let mut sha = Sha256::new();
    let mut add = |part: &[u8]| {
        sha.update(u64::try_from(part.len()).expect("a length fits").to_le_bytes());
        sha.update(part);
    };
    add(D::NAME.as_bytes());
    add(&D::FOLD_VERSION.to_le_bytes());
    add(D::CODEC.content_type().as_str().as_bytes());
    add(&[u8::from(D::UNKNOWN == crate::decider::Unknown::Skip)]);
    for (event_type, schema) in D::Event::schema().known().types {
        add(event_type.as_str().as_bytes());
        add(&schema.to_le_bytes());
    }
    hex(&sha.finalize())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}
