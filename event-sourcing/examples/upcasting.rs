//! Events of three generations of a program in one log, all of them read by the youngest.
//!
//! Version 1 of a deposit had whole euros. Version 2 has cents. Version 3 has a currency too.
//!
//! `cargo run -p event-sourcing --example upcasting`
#![expect(clippy::print_stdout, reason = "an example that prints what happens")]

use std::collections::BTreeMap;
use std::error::Error;

use event_sourcing::error::InvalidName;
use event_sourcing::schema::check_schema;
use event_sourcing::upcast::Chain;
use event_sourcing::{
    Append, Boundary, Codec, Decider, DomainEvent, DomainStore, EventContent, EventStore,
    EventType, Expected, MemoryStore, NewEvent, StreamName, domain_events,
};
use futures::executor::block_on;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct DepositedV1 {
    euros: u32,
}

#[derive(Serialize, Deserialize)]
struct DepositedV2 {
    cents: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Deposited {
    cents: u64,
    currency: String,
}

impl From<DepositedV1> for DepositedV2 {
    fn from(old: DepositedV1) -> Self {
        Self { cents: u64::from(old.euros) * 100 }
    }
}

impl From<DepositedV2> for Deposited {
    fn from(old: DepositedV2) -> Self {
        Self { cents: old.cents, currency: "EUR".to_owned() }
    }
}

impl EventContent for Deposited {
    const TYPE: &'static str = "account.deposited";

    // The version that is written is the length of the chain, and a step left out does not compile.
    fn history() -> Chain<Self> {
        Chain::<DepositedV1>::first().then(DepositedV2::from).then(Self::from)
    }
}

domain_events! {
    /// What happens to an account, as the program of today knows it.
    #[derive(Debug, PartialEq)]
    enum AccountEvent {
        Deposited(Deposited),
    }
}

/// An account whose state is what is in it, by currency.
struct Account;

impl Decider for Account {
    const NAME: &'static str = "account";

    type Id = String;
    type State = BTreeMap<String, u64>;
    type Command = (u64, &'static str);
    type Event = AccountEvent;
    type Rejection = std::convert::Infallible;

    fn boundary(id: &String) -> Result<Boundary, InvalidName> {
        Boundary::stream(Self::NAME, id)
    }

    fn initial(_: &String) -> Self::State {
        BTreeMap::new()
    }

    // One form of a deposit, whatever generation it is of.
    fn evolve(state: &mut Self::State, AccountEvent::Deposited(event): &AccountEvent) {
        *state.entry(event.currency.clone()).or_default() += event.cents;
    }

    fn decide(
        _: &Self::State,
        (cents, currency): &Self::Command,
    ) -> Result<Vec<AccountEvent>, std::convert::Infallible> {
        let event = Deposited { cents: *cents, currency: (*currency).to_owned() };
        Ok(vec![event.into()])
    }
}

/// An event as an older program wrote it.
fn old(schema: u32, content: &impl Serialize) -> Result<NewEvent, Box<dyn Error>> {
    let event_type = EventType::new(Deposited::TYPE)?;
    Ok(NewEvent { schema, ..NewEvent::json(event_type, Codec::Json.encode(content)?) })
}

fn main() -> Result<(), Box<dyn Error>> {
    let store = MemoryStore::default();
    let stream = StreamName::new("account-ada")?;
    let events = [old(1, &DepositedV1 { euros: 5 })?, old(2, &DepositedV2 { cents: 250 })?];
    block_on(store.append(Append::to(stream.clone(), Expected::NoStream, events)))?;

    let done = store.execute::<Account>((100, "USD")).on("ada").wait()?;
    println!("versions 1, 2 and 3 together: {:?}", done.state);
    assert_eq!(done.state, [("EUR".to_owned(), 750), ("USD".to_owned(), 100)].into());

    // What every program should ask before it serves.
    let known = AccountEvent::schema().known();
    assert_eq!(block_on(check_schema(&store, &known))?, []);
    println!("every event in the log can be read");

    // An event by a program of tomorrow, and one by somebody else.
    let stranger = NewEvent::json(EventType::new("account.audited")?, "{}");
    let events = [old(4, &"who knows")?, stranger];
    block_on(store.append(Append::to(stream, Expected::StreamExists, events)))?;
    let gaps = block_on(check_schema(&store, &known))?;
    for gap in &gaps {
        println!("cannot be read: {gap}");
    }
    assert_eq!(gaps.len(), 2);
    let refused = block_on(store.load::<Account>("ada")).err().ok_or("it was read")?;
    println!("loading the account: {refused}");
    Ok(())
}
