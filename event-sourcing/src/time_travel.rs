//! What was the case earlier, and what has changed since.
//!
//! Nothing special is needed for it: the state at any moment is the fold of the events up to that moment. Snapshots are left aside,
//! for only the last one is kept.
//!
//! ```
//! # use event_sourcing::{Boundary, Decider, DomainStore, EventContent, MemoryStore, Version, domain_events, error::InvalidName};
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
//! use event_sourcing::time_travel::{Moment, diff};
//!
//! let store = MemoryStore::default();
//! store.execute::<Counter>(5).on("visits").wait()?;
//! store.execute::<Counter>(2).on("visits").wait()?;
//! let then = block_on(store.state_at::<Counter>("visits", Moment::Version(Version(0))))?;
//! let now = block_on(store.load::<Counter>("visits"))?;
//! assert_eq!(diff(&then.state, &now.state)?[0].to_string(), "/: 5 → 7");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::event::{Position, Timestamp, Version};
use crate::load::Until;

/// A moment in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Right after the event with this version of the stream. Only boundaries of one stream have versions.
    Version(Version),
    /// Right after this position of the log.
    Position(Position),
    /// At the end of this millisecond, by the store's clock.
    Time(Timestamp),
    /// The end of the log.
    Now,
}

impl From<Moment> for Until {
    fn from(moment: Moment) -> Self {
        match moment {
            Moment::Version(version) => Self::Version(version),
            Moment::Position(Position(u64::MAX)) | Moment::Now => Self::Now,
            Moment::Position(position) => Self::Before(position.next()),
            Moment::Time(time) => Self::Time(time),
        }
    }
}

/// One difference between two states.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Where, as a JSON pointer (RFC 6901): empty for the whole.
    pub path: String,
    /// What was there before; `None` if nothing was.
    pub before: Option<Value>,
    /// What is there now; `None` if nothing is.
    pub after: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "/" } else { &self.path };
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "{path}: {before} → {after}"),
            (Some(before), None) => write!(f, "{path}: {before} → nothing"),
            (None, Some(after)) => write!(f, "{path}: nothing → {after}"),
            (None, None) => write!(f, "{path}: nothing"),
        }
    }
}

/// What differs between two states, in order of path. Fields are compared by name, lists place by place.
///
/// # Errors
///
/// If one of them has no form in JSON.
pub fn diff<T: Serialize>(before: &T, after: &T) -> Result<Vec<Difference>, serde_json::Error> {
    Ok(differences(&serde_json::to_value(before)?, &serde_json::to_value(after)?))
}

/// What differs between two values.
#[must_use]
pub fn differences(before: &Value, after: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(String::new(), Some(before), Some(after), &mut found);
    found
}

fn compare(
    path: String,
    before: Option<&Value>,
    after: Option<&Value>,
    found: &mut Vec<Difference>,
) {
    match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let escaped = name.replace('~', "~0").replace('/', "~1");
                compare(format!("{path}/{escaped}"), old.get(name), new.get(name), found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for place in 0..old.len().max(new.len()) {
                compare(format!("{path}/{place}"), old.get(place), new.get(place), found);
            }
        }
        _ if before == after => {}
        _ => found.push(Difference { path, before: before.cloned(), after: after.cloned() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_name_the_place_and_both_values() {
        let before = json!({"owner": "ada", "cents": 5, "cards": [1, 2], "a/b": {"~": true}});
        let after = json!({"owner": "ada", "cents": 7, "cards": [1, 3, 4], "a/b": {}});
        let said: Vec<String> =
            differences(&before, &after).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "/a~1b/~0: true → nothing",
                "/cards/1: 2 → 3",
                "/cards/2: nothing → 4",
                "/cents: 5 → 7",
            ]
        );
        assert_eq!(differences(&before, &before), []);
        assert_eq!(differences(&json!(1), &json!("1"))[0].to_string(), "/: 1 → \"1\"");
    }
}
