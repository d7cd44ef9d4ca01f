//! A name that nobody else has, everywhere (dcb.events): claimed, given back, and free again for others after a while.
//!
//! No table of names with a unique index, and no reservation that has to be cleaned up: the events of one name are the boundary.
//!
//! `cargo run -p event-sourcing --example dcb_unique_username`
#![expect(clippy::print_stdout, reason = "an example that prints what happens")]

use std::error::Error;

use event_sourcing::condition::{Query, QueryItem};
use event_sourcing::error::InvalidName;
use event_sourcing::testing::given;
use event_sourcing::{
    Boundary, Decider, DomainStore, EventContent, ExecuteError, Labels, MemoryStore, domain_events,
};
use serde::{Deserialize, Serialize};

/// For so many days a name that was given back belongs to nobody, so that nobody is taken for somebody else.
const QUARANTINE_DAYS: u32 = 3;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct NameClaimed {
    name: String,
    user: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct NameReleased {
    name: String,
    day: u32,
}

impl EventContent for NameClaimed {
    const TYPE: &'static str = "username.claimed";

    fn labels(&self, labels: &mut Labels) {
        labels.add(format!("username:{}", self.name));
    }
}

impl EventContent for NameReleased {
    const TYPE: &'static str = "username.released";

    fn labels(&self, labels: &mut Labels) {
        labels.add(format!("username:{}", self.name));
    }
}

domain_events! {
    /// What happens to a name.
    #[derive(Clone, Debug, PartialEq)]
    enum NameEvent {
        Claimed(NameClaimed),
        Released(NameReleased),
    }
}

/// Decides about one name.
struct Username;

/// The day comes with the command: a decision reads no clock.
#[derive(Debug)]
enum NameCommand {
    Claim { user: u64, day: u32 },
    Release { user: u64, day: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Refusal {
    Taken,
    InQuarantine,
    NotYours,
}

#[derive(Debug, PartialEq)]
enum Holder {
    Nobody,
    User(u64),
    NobodySince(u32),
}

impl Decider for Username {
    const NAME: &'static str = "username";

    type Id = String;
    type State = (String, Holder);
    type Command = NameCommand;
    type Event = NameEvent;
    type Rejection = Refusal;

    fn boundary(name: &String) -> Result<Boundary, InvalidName> {
        let types = [NameClaimed::TYPE, NameReleased::TYPE];
        let item = QueryItem::of(types, [format!("username:{name}")])?;
        Ok(Boundary::query(Query::item(item)))
    }

    fn initial(name: &String) -> Self::State {
        (name.clone(), Holder::Nobody)
    }

    fn evolve((_, holder): &mut Self::State, event: &NameEvent) {
        *holder = match event {
            NameEvent::Claimed(claimed) => Holder::User(claimed.user),
            NameEvent::Released(released) => Holder::NobodySince(released.day),
        };
    }

    fn decide(
        (name, holder): &Self::State,
        command: &NameCommand,
    ) -> Result<Vec<NameEvent>, Refusal> {
        let name = name.clone();
        match (command, holder) {
            (NameCommand::Claim { user, .. }, Holder::User(owner)) if user == owner => {
                Ok(Vec::new())
            }
            (NameCommand::Claim { .. }, Holder::User(_)) => Err(Refusal::Taken),
            (NameCommand::Claim { day, .. }, Holder::NobodySince(since))
                if day.saturating_sub(*since) < QUARANTINE_DAYS =>
            {
                Err(Refusal::InQuarantine)
            }
            (&NameCommand::Claim { user, .. }, Holder::Nobody | Holder::NobodySince(_)) => {
                Ok(vec![NameClaimed { name, user }.into()])
            }
            (&NameCommand::Release { user, day }, Holder::User(owner)) if user == *owner => {
                Ok(vec![NameReleased { name, day }.into()])
            }
            (NameCommand::Release { .. }, _) => Err(Refusal::NotYours),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let name = || "ada".to_owned();
    let claimed = |user| NameEvent::from(NameClaimed { name: name(), user });
    let released = |day| NameEvent::from(NameReleased { name: name(), day });
    let claim = |user, day| NameCommand::Claim { user, day };
    given::<Username>([]).on(name()).when(claim(1, 0)).then_events([claimed(1)]);
    given::<Username>([claimed(1)]).on(name()).when(claim(2, 0)).then_rejected(Refusal::Taken);
    given::<Username>([claimed(1)]).on("bob").when(claim(2, 0)).then_events([NameClaimed {
        name: "bob".to_owned(),
        user: 2,
    }
    .into()]);
    given::<Username>([claimed(1)])
        .on(name())
        .when(NameCommand::Release { user: 1, day: 10 })
        .then_events([released(10)]);
    given::<Username>([claimed(1)])
        .on(name())
        .when(NameCommand::Release { user: 2, day: 10 })
        .then_rejected(Refusal::NotYours);
    given::<Username>([claimed(1), released(10)])
        .on(name())
        .when(claim(2, 12))
        .then_rejected(Refusal::InQuarantine);
    given::<Username>([claimed(1), released(10)])
        .on(name())
        .when(claim(2, 13))
        .then_events([claimed(2)]);

    // Eight want the same name at once.
    let store = MemoryStore::default();
    let winners: Vec<u64> = std::thread::scope(|scope| {
        let racers: Vec<_> = (1..=8)
            .map(|user| {
                let store = &store;
                scope.spawn(move || {
                    let claim = NameCommand::Claim { user, day: 0 };
                    match store.execute::<Username>(claim).on("ada").retry(8).wait() {
                        Ok(_) => Some(user),
                        Err(ExecuteError::Rejected(Refusal::Taken)) => None,
                        Err(error) => panic!("user {user}: {error:?}"),
                    }
                })
            })
            .collect();
        racers.into_iter().filter_map(|racer| racer.join().expect("no racer panics")).collect()
    });
    println!("of eight users who claimed \"ada\", {winners:?} has it");
    assert_eq!(winners.len(), 1);
    Ok(())
}
