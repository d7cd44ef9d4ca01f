//! An aggregate of your own without the macro: every line that the library needs, written out.
//!
//! A parcel is posted, moved, and delivered. Its events are written in postcard instead of JSON.
//!
//! `cargo run -p event-sourcing --example custom_aggregate`
#![expect(clippy::print_stdout, reason = "an example that prints what happens")]

use std::error::Error;
use std::sync::OnceLock;

use event_sourcing::codec::CodecError;
use event_sourcing::error::InvalidName;
use event_sourcing::schema::Schema;
use event_sourcing::testing::given;
use event_sourcing::{
    Boundary, Codec, Decider, DomainEvent, DomainStore, EventContent, ExecuteError, MemoryStore,
    NewEvent,
};
use serde::{Deserialize, Serialize};

/// What happens to a parcel. The enum is written by hand, and so is what the macro would have made of it.
#[derive(Debug, PartialEq)]
enum ParcelEvent {
    Posted(Posted),
    Moved(Moved),
    Delivered(Delivered),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Posted {
    to: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Moved {
    depot: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Delivered;

impl EventContent for Posted {
    const TYPE: &'static str = "parcel.posted";
}

impl EventContent for Moved {
    const TYPE: &'static str = "parcel.moved";
}

impl EventContent for Delivered {
    const TYPE: &'static str = "parcel.delivered";
}

impl DomainEvent for ParcelEvent {
    fn schema() -> &'static Schema<Self> {
        static SCHEMA: OnceLock<Schema<ParcelEvent>> = OnceLock::new();
        SCHEMA.get_or_init(|| {
            Schema::new().event(Self::Posted).event(Self::Moved).event(Self::Delivered)
        })
    }

    fn encode(&self, codec: Codec) -> Result<NewEvent, CodecError> {
        match self {
            Self::Posted(posted) => Self::schema().encode(posted, codec),
            Self::Moved(moved) => Self::schema().encode(moved, codec),
            Self::Delivered(delivered) => Self::schema().encode(delivered, codec),
        }
    }
}

/// A parcel has states rather than fields: what is impossible cannot be written down.
#[derive(Debug, PartialEq)]
enum ParcelState {
    Unknown,
    UnderWay { to: String, depots: Vec<String> },
    Delivered,
}

#[derive(Debug)]
enum ParcelCommand {
    Post { to: String },
    Move { depot: String },
    Deliver,
}

#[derive(Debug, PartialEq)]
enum ParcelRefusal {
    PostedAlready,
    NotUnderWay,
}

struct Parcel;

impl Decider for Parcel {
    const NAME: &'static str = "parcel";
    // Compact, for there are many parcels. Those of last year, in JSON, are read all the same.
    const CODEC: Codec = Codec::Postcard;

    type Id = u64;
    type State = ParcelState;
    type Command = ParcelCommand;
    type Event = ParcelEvent;
    type Rejection = ParcelRefusal;

    fn boundary(id: &u64) -> Result<Boundary, InvalidName> {
        Boundary::stream(Self::NAME, id)
    }

    fn initial(_: &u64) -> ParcelState {
        ParcelState::Unknown
    }

    fn evolve(state: &mut ParcelState, event: &ParcelEvent) {
        match (event, &mut *state) {
            (ParcelEvent::Posted(posted), _) => {
                *state = ParcelState::UnderWay { to: posted.to.clone(), depots: Vec::new() };
            }
            (ParcelEvent::Moved(moved), ParcelState::UnderWay { depots, .. }) => {
                depots.push(moved.depot.clone());
            }
            (ParcelEvent::Moved(_), ParcelState::Unknown | ParcelState::Delivered) => {}
            (ParcelEvent::Delivered(_), _) => *state = ParcelState::Delivered,
        }
    }

    fn decide(
        state: &ParcelState,
        command: &ParcelCommand,
    ) -> Result<Vec<ParcelEvent>, ParcelRefusal> {
        match (state, command) {
            (ParcelState::Unknown, ParcelCommand::Post { to }) => {
                Ok(vec![ParcelEvent::Posted(Posted { to: to.clone() })])
            }
            (_, ParcelCommand::Post { .. }) => Err(ParcelRefusal::PostedAlready),
            // It is there already: nothing has to happen.
            (ParcelState::UnderWay { depots, .. }, ParcelCommand::Move { depot })
                if depots.last() == Some(depot) =>
            {
                Ok(Vec::new())
            }
            (ParcelState::UnderWay { .. }, ParcelCommand::Move { depot }) => {
                Ok(vec![ParcelEvent::Moved(Moved { depot: depot.clone() })])
            }
            (ParcelState::UnderWay { .. }, ParcelCommand::Deliver) => {
                Ok(vec![ParcelEvent::Delivered(Delivered)])
            }
            (_, ParcelCommand::Move { .. } | ParcelCommand::Deliver) => {
                Err(ParcelRefusal::NotUnderWay)
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let posted = || ParcelEvent::Posted(Posted { to: "Oslo".to_owned() });
    let moved = || ParcelEvent::Moved(Moved { depot: "Kiel".to_owned() });
    let to_kiel = || ParcelCommand::Move { depot: "Kiel".to_owned() };
    given::<Parcel>([posted()]).when(to_kiel()).then_events([moved()]);
    given::<Parcel>([posted(), moved()]).when(to_kiel()).then_nothing();
    given::<Parcel>([]).when(ParcelCommand::Deliver).then_rejected(ParcelRefusal::NotUnderWay);
    given::<Parcel>([posted(), ParcelEvent::Delivered(Delivered)])
        .when(to_kiel())
        .then_rejected(ParcelRefusal::NotUnderWay);

    let store = MemoryStore::default();
    let ask = |command| store.execute::<Parcel>(command).on(4711_u64).wait();
    let refused = |error: ExecuteError<ParcelRefusal>| format!("{error:?}");
    ask(ParcelCommand::Post { to: "Oslo".to_owned() }).map_err(refused)?;
    ask(to_kiel()).map_err(refused)?;
    let done = ask(ParcelCommand::Deliver).map_err(refused)?;
    println!("parcel 4711: {:?}, after version {}", done.state, done.events[0].version);
    assert_eq!(done.state, ParcelState::Delivered);
    let error = ask(ParcelCommand::Post { to: "Rome".to_owned() }).map_err(refused);
    assert_eq!(error.err().as_deref(), Some("Rejected(PostedAlready)"));
    println!("posting it again: refused");
    Ok(())
}
