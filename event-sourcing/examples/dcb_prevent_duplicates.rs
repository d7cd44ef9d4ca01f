//! A form that is sent twice (dcb.events): the page draws a token when it is opened, and each token makes one order.
//!
//! Shown in two ways. As a rule of the domain, the second order is *refused*: the token is in the events, and in the boundary. As an
//! idempotency key it is *answered like the first*, and the domain knows nothing of it. The first is right if the user should be
//! told; the second if a program repeats what it had no answer to.
//!
//! `cargo run -p event-sourcing --example dcb_prevent_duplicates`
#![expect(clippy::print_stdout, reason = "an example that prints what happens")]

use std::error::Error;

use event_sourcing::condition::{Query, QueryItem};
use event_sourcing::error::InvalidName;
use event_sourcing::testing::given;
use event_sourcing::{
    Boundary, Decider, DomainStore, EventContent, EventStore, ExecuteError, Labels, MemoryStore,
    Position, domain_events,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OrderPlaced {
    order: String,
    token: String,
}

impl EventContent for OrderPlaced {
    const TYPE: &'static str = "order.placed";

    fn labels(&self, labels: &mut Labels) {
        labels.add(format!("order:{}", self.order));
        labels.add(format!("token:{}", self.token));
    }
}

domain_events! {
    /// What happens to an order.
    #[derive(Clone, Debug, PartialEq)]
    enum OrderEvent {
        Placed(OrderPlaced),
    }
}

/// Takes an order: its boundary is the token.
struct Form;

#[derive(Debug)]
struct Place {
    order: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct SentAlready;

impl Decider for Form {
    const NAME: &'static str = "order-form";

    /// The token.
    type Id = String;
    type State = (String, bool);
    type Command = Place;
    type Event = OrderEvent;
    type Rejection = SentAlready;

    fn boundary(token: &String) -> Result<Boundary, InvalidName> {
        let item = QueryItem::of([OrderPlaced::TYPE], [format!("token:{token}")])?;
        Ok(Boundary::query(Query::item(item)))
    }

    fn initial(token: &String) -> Self::State {
        (token.clone(), false)
    }

    fn evolve((_, sent): &mut Self::State, OrderEvent::Placed(_): &OrderEvent) {
        *sent = true;
    }

    fn decide((token, sent): &Self::State, place: &Place) -> Result<Vec<OrderEvent>, SentAlready> {
        if *sent {
            return Err(SentAlready);
        }
        Ok(vec![OrderPlaced { order: place.order.clone(), token: token.clone() }.into()])
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let place = || Place { order: "o1".to_owned() };
    let placed = |token: &str| {
        OrderEvent::from(OrderPlaced { order: "o1".to_owned(), token: token.to_owned() })
    };
    given::<Form>([]).on("t1").when(place()).then_events([placed("t1")]);
    given::<Form>([placed("t1")]).on("t1").when(place()).then_rejected(SentAlready);
    given::<Form>([placed("t1")]).on("t2").when(place()).then_events([placed("t2")]);

    let store = MemoryStore::default();
    let send = || store.execute::<Form>(place()).on("t1").wait();
    send().map_err(|error| format!("{error:?}"))?;
    let again = send();
    assert!(matches!(again, Err(ExecuteError::Rejected(SentAlready))), "{again:?}");
    println!("the same form again: refused, as the domain has it");

    let send = || store.execute::<Form>(place()).on("t2").idempotency("request-77").wait();
    let first = send().map_err(|error| format!("{error:?}"))?;
    let again = send().map_err(|error| format!("{error:?}"))?;
    assert_eq!((again.repeated, &again.events), (true, &first.events));
    println!("the same request again: the first answer, {}", again.events[0].position);
    assert_eq!(store.head(), Position(2));
    Ok(())
}
