//! A decider and its successor, which make different states of the same events: snapshots of one must never be used by the other.

use std::convert::Infallible;

use crate::decider::{Boundary, Decider, Unknown};
use crate::domain_events;
use crate::error::InvalidName;
use crate::event::EventType;
use crate::schema::EventContent;
use serde::{Deserialize, Serialize};

/// A number was added.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Added {
    pub(super) by: u64,
}

impl EventContent for Added {
    const TYPE: &'static str = "added";
}

domain_events! {
    /// What happens to a tally.
    #[derive(Debug)]
    pub(super) enum TallyEvent {
        Added(Added),
    }
}

macro_rules! tally {
    ($(#[$about:meta])* $name:ident, $version:literal, $weight:literal) => {
        $(#[$about])*
        pub(super) struct $name;

        impl Decider for $name {
            const NAME: &'static str = "tally";
            const FOLD_VERSION: u32 = $version;
            const UNKNOWN: Unknown = Unknown::Stop;
            type Id = String;
            type State = u64;
            type Command = u64;
            type Event = TallyEvent;
            type Rejection = Infallible;

            fn boundary(id: &String) -> Result<Boundary, InvalidName> {
                Boundary::stream("tally", id)
            }

            fn initial(_: &String) -> u64 {
                0
            }

            fn evolve(state: &mut u64, event: &TallyEvent) {
                let TallyEvent::Added(added) = event;
                *state += $weight * added.by;
            }

            fn decide(_: &u64, by: &u64) -> Result<Vec<TallyEvent>, Infallible> {
                Ok(vec![Added { by: *by }.into()])
            }
        }
    };
}

tally!(
    /// The sum.
    Sum, 1, 1
);
tally!(
    /// The next program: three times the sum.
    Triple, 2, 3
);

/// The type of its events.
pub(super) fn event_type() -> EventType {
    EventType::new(Added::TYPE).expect("the name is valid")
}
