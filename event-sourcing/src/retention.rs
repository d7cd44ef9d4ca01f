//! What becomes of a stream's events: truncation, limits of age and number, deletion, the tombstone.
//!
//! All of it is decided by events of type `$metadata` (or `$tombstone`, the last word) in the stream `$$NAME`, and so by the log alone: two
//! replicas, or the same store before and after a restart, show the same events at the same head. In particular age is measured against the
//! time of the *last event in the log*, never against a clock: what is visible changes only with an append.
//!
//! What is not visible any more is in no read and matches no condition, at once. Its space comes back later, in the
//! background; that changes nothing that can be seen: positions, versions, the ids for idempotency and the hash chain stay.
//!
//! - *Truncated before V*: events below version V are gone.
//! - *Soft deletion* is truncation behind the last event. The stream does not exist then ([`Expected::NoStream`] holds), until it is
//!   written to again, and its numbering goes on.
//! - *At most N*, *at most so old*: the last N events, the events of that age or less.
//! - *Tombstone*: the stream is gone, and can never be written to again.
//!
//! What is hidden stays hidden: a decision that would bring something back is refused, for the space of what was hidden may have come
//! back already. Each `$metadata` event says all that holds from then on, as a JSON object: `$tb` (truncated before this version),
//! `$maxCount`, `$maxAge` (in seconds). Other keys are the user's own, and kept.
//!
//! [`Expected::NoStream`]: crate::condition::Expected::NoStream
//!
//! ```
//! use event_sourcing::retention::Retention;
//! use event_sourcing::{Append, EventStore, EventStoreExt, EventType, Expected, MemoryStore, NewEvent, StreamName, Version};
//! use futures::executor::block_on;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::default();
//! let sensor = StreamName::new("sensor-1")?;
//! for _ in 0..5 {
//!     let event = NewEvent::json(EventType::new("temperature.measured")?, "{}");
//!     block_on(store.append(Append::to(sensor.clone(), Expected::Any, [event])))?;
//! }
//! let last_two = Retention { max_count: Some(2), ..Retention::default() };
//! block_on(store.set_retention(sensor.clone(), last_two))?;
//! assert_eq!(block_on(store.read_stream(sensor.clone()))?[0].version, Version(3));
//!
//! block_on(store.delete(sensor.clone(), Expected::Any))?;
//! assert!(block_on(store.read_stream(sensor)).is_err());
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use serde_json::{Map, Value};

use crate::event::{EventType, NewEvent, Timestamp, Version};

/// What was decided about a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Events below this version are gone.
    pub truncate_before: Option<Version>,
    /// Only so many of the last events are there; at least one.
    pub max_count: Option<u64>,
    /// Only events that are at most so old are there, in whole seconds.
    pub max_age: Option<Duration>,
    /// The stream is closed for ever.
    pub tombstoned: bool,
}

/// Type of the event that says what was decided about a stream.
pub const METADATA_TYPE: &str = "$metadata";
/// The most that can be said about a stream, in bytes. It is read whenever it is asked what of the stream can be seen.
pub const METADATA_SIZE_MAX: usize = 64 << 10;
/// Type of the event that closes a stream for ever.
pub const TOMBSTONE_TYPE: &str = "$tombstone";

const TRUNCATE_BEFORE: &str = "$tb";
const MAX_COUNT: &str = "$maxCount";
const MAX_AGE: &str = "$maxAge";

impl Retention {
    /// What an event of type [`METADATA_TYPE`] or [`TOMBSTONE_TYPE`] decides, all of which was decided before it being overruled;
    /// nothing, if it is another.
    #[must_use]
    pub fn decided_by(event: &NewEvent) -> Self {
        match event.event_type.as_str() {
            TOMBSTONE_TYPE => Self { tombstoned: true, ..Self::default() },
            // None is recorded that says nothing.
            METADATA_TYPE => Self::parse(&event.data).unwrap_or_default(),
            _ => Self::default(),
        }
    }

    /// Reads the content of an event of type [`METADATA_TYPE`].
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub fn parse(content: &[u8]) -> Result<Self, String> {
        let object: Map<String, Value> = serde_json::from_slice(content)
            .map_err(|error| format!("it is no JSON object ({error})"))?;
        let number = |key: &str, least: u64| match object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().filter(|number| *number >= least) {
                Some(number) => Ok(Some(number)),
                None => Err(format!("{key} must be a whole number from {least} on")),
            },
        };
        Ok(Self {
            truncate_before: number(TRUNCATE_BEFORE, 0)?.filter(|before| *before > 0).map(Version),
            max_count: number(MAX_COUNT, 1)?,
            max_age: number(MAX_AGE, 1)?.map(Duration::from_secs),
            tombstoned: false,
        })
    }

    /// The event that says this, to be written to `$$stream`. `others` is what was said there before: its keys that are not about
    /// retention are kept. It is made of [`Map::new`] if there was nothing.
    #[must_use]
    pub fn to_event(&self, mut others: Map<String, Value>) -> NewEvent {
        let event_type =
            |name| EventType::new(name).expect("it is short and has no control characters");
        if self.tombstoned {
            return NewEvent::json(event_type(TOMBSTONE_TYPE), "{}");
        }
        let numbers = [
            (TRUNCATE_BEFORE, self.truncate_before.map(|before| before.0)),
            (MAX_COUNT, self.max_count),
            (MAX_AGE, self.in_whole_seconds().max_age.map(|age| age.as_secs())),
        ];
        for (key, number) in numbers {
            match number {
                Some(number) => others.insert(key.to_owned(), number.into()),
                None => others.remove(key),
            };
        }
        NewEvent::json(event_type(METADATA_TYPE), Value::Object(others).to_string())
    }

    /// The same with an age of whole seconds, at least one, as it can be said: rounded up, so that nothing goes earlier.
    pub(crate) fn in_whole_seconds(self) -> Self {
        let whole = |age: Duration| {
            let second = u64::from(age.subsec_nanos() > 0);
            Duration::from_secs(age.as_secs().saturating_add(second).max(1))
        };
        Self { max_age: self.max_age.map(whole), ..self }
    }

    /// Whether this hides whatever `other` does, in any stream at any time.
    #[must_use]
    pub fn hides_at_least(&self, other: &Self) -> bool {
        fn bounds<T: Ord>(ours: Option<T>, theirs: Option<T>) -> bool {
            theirs.is_none_or(|theirs| ours.is_some_and(|ours| ours <= theirs))
        }
        self.tombstoned
            || (!other.tombstoned
                && self.truncate_before >= other.truncate_before
                && bounds(self.max_count, other.max_count)
                && bounds(self.max_age, other.max_age))
    }

    /// Whether the event with this version and time is visible in a stream whose last event has the version `last`, when the log's
    /// time is `now`.
    #[must_use]
    pub fn shows(
        &self,
        version: Version,
        timestamp: Timestamp,
        last: Version,
        now: Timestamp,
    ) -> bool {
        let age_ms = u128::from(now.0.saturating_sub(timestamp.0));
        version >= self.first_by_number(last)
            && self.max_age.is_none_or(|max| age_ms <= max.as_millis())
    }

    /// The first version that truncation, `max_count` and the tombstone leave visible; one more than `last` if there is none.
    #[must_use]
    pub fn first_by_number(&self, last: Version) -> Version {
        if self.tombstoned {
            return last.next();
        }
        let counted = self.max_count.map_or(0, |count| (last.0 + 1).saturating_sub(count));
        let truncated = self.truncate_before.map_or(0, |before| before.0);
        Version(counted.max(truncated).min(last.0 + 1))
    }

    /// Whether the stream, whose last event has the version `last`, exists for [`Expected`](crate::condition::Expected).
    #[must_use]
    pub fn exists(&self, last: Version) -> bool {
        !self.tombstoned && self.truncate_before.is_none_or(|before| before <= last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn retentions()(
            before in option::of(1..12_u64), count in option::of(1..12_u64), age in option::of(1..12_u64),
            tombstoned in prop::bool::weighted(0.1),
        ) -> Retention {
            Retention {
                truncate_before: before.map(Version),
                max_count: count,
                max_age: age.map(Duration::from_secs),
                tombstoned,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_said_is_understood(retention in retentions()) {
            let others = serde_json::from_str(r#"{"$acl":{"$r":"all"},"$tb":99}"#).unwrap();
            let event = retention.to_event(others);
            let expected = match retention.tombstoned {
                true => Retention { tombstoned: true, ..Retention::default() },
                false => retention,
            };
            prop_assert_eq!(Retention::decided_by(&event), expected);
            if !retention.tombstoned {
                let object: Map<String, Value> = serde_json::from_slice(&event.data).unwrap();
                prop_assert!(object.contains_key("$acl"), "the keys of others are kept");
            }
        }

        /// What is visible is always the end of the stream, and who hides at least as much shows nothing more.
        #[test]
        fn what_is_visible_is_the_end(a in retentions(), b in retentions(), last in 0..15_u64) {
            // One event a second, and the log is a second further.
            let shown = |by: &Retention| -> Vec<u64> {
                let shows = |version: &u64| {
                    let time = Timestamp(version * 1_000);
                    by.shows(Version(*version), time, Version(last), Timestamp((last + 1) * 1_000))
                };
                (0..=last).filter(shows).collect()
            };
            let by_a = shown(&a);
            prop_assert!(by_a.iter().copied().eq(last + 1 - by_a.len() as u64..=last));
            if a.hides_at_least(&b) {
                prop_assert!(by_a.len() <= shown(&b).len());
            }
            let by_number = Retention { max_age: None, ..a };
            let first = shown(&by_number).first().copied().unwrap_or(last + 1);
            prop_assert_eq!(Version(first), a.first_by_number(Version(last)));
        }
    }

    #[test]
    fn parts_of_seconds_are_rounded_up() {
        for (age_ms, said) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (2_000, 2)] {
            let max_age = Some(Duration::from_millis(age_ms));
            let event = Retention { max_age, ..Retention::default() }.to_event(Map::new());
            let max_age = Some(Duration::from_secs(said));
            assert_eq!(
                Retention::decided_by(&event),
                Retention { max_age, ..Retention::default() }
            );
        }
    }
}
