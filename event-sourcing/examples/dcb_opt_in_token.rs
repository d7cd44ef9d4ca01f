//! Confirming an address by a token that was sent there (dcb.events): right once, for an hour, and for nobody else.
//!
//! There is no table of tokens. What was sent is an event, what was confirmed is one, and both bear the token's label.
//!
//! `cargo run -p event-sourcing --example dcb_opt_in_token`
#![expect(clippy::print_stdout, reason = "an example that prints what happens")]

use std::error::Error;

use event_sourcing::condition::{Query, QueryItem};
use event_sourcing::error::InvalidName;
use event_sourcing::testing::given;
use event_sourcing::{
    Boundary, Decider, DomainStore, EventContent, ExecuteError, Labels, MemoryStore, domain_events,
};
use serde::{Deserialize, Serialize};

/// For so many minutes a token can be used.
const LIFETIME_MINUTES: u32 = 60;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SignUpBegun {
    address: String,
    token: String,
    minute: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SignUpConfirmed {
    address: String,
    token: String,
}

impl EventContent for SignUpBegun {
    const TYPE: &'static str = "sign-up.begun";

    fn labels(&self, labels: &mut Labels) {
        labels.add(format!("address:{}", self.address));
        labels.add(format!("token:{}", self.token));
    }
}

impl EventContent for SignUpConfirmed {
    const TYPE: &'static str = "sign-up.confirmed";

    fn labels(&self, labels: &mut Labels) {
        labels.add(format!("address:{}", self.address));
        labels.add(format!("token:{}", self.token));
    }
}

domain_events! {
    /// What happens when somebody signs up.
    #[derive(Clone, Debug, PartialEq)]
    enum SignUpEvent {
        Begun(SignUpBegun),
        Confirmed(SignUpConfirmed),
    }
}

/// Decides about one address and one token.
struct SignUp;

#[derive(Debug)]
enum SignUpCommand {
    /// A token was drawn, and is to be sent. It comes with the command: a decision draws nothing.
    Begin {
        minute: u32,
    },
    Confirm {
        minute: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Refusal {
    NoSuchToken,
    UsedAlready,
    TooLate,
}

#[derive(Debug, PartialEq)]
enum Token {
    Unknown,
    Sent { minute: u32 },
    Used,
}

impl Decider for SignUp {
    const NAME: &'static str = "sign-up";

    /// Address and token.
    type Id = (String, String);
    type State = (String, String, Token);
    type Command = SignUpCommand;
    type Event = SignUpEvent;
    type Rejection = Refusal;

    fn boundary((address, token): &Self::Id) -> Result<Boundary, InvalidName> {
        let labels = [format!("address:{address}"), format!("token:{token}")];
        let item = QueryItem::of([SignUpBegun::TYPE, SignUpConfirmed::TYPE], labels)?;
        Ok(Boundary::query(Query::item(item)))
    }

    fn initial((address, token): &Self::Id) -> Self::State {
        (address.clone(), token.clone(), Token::Unknown)
    }

    fn evolve((_, _, token): &mut Self::State, event: &SignUpEvent) {
        *token = match event {
            SignUpEvent::Begun(begun) => Token::Sent { minute: begun.minute },
            SignUpEvent::Confirmed(_) => Token::Used,
        };
    }

    fn decide(
        (address, token, state): &Self::State,
        command: &SignUpCommand,
    ) -> Result<Vec<SignUpEvent>, Refusal> {
        let (address, token) = (address.clone(), token.clone());
        match (command, state) {
            (&SignUpCommand::Begin { minute }, Token::Unknown) => {
                Ok(vec![SignUpBegun { address, token, minute }.into()])
            }
            (SignUpCommand::Begin { .. }, _) => Ok(Vec::new()),
            (SignUpCommand::Confirm { .. }, Token::Unknown) => Err(Refusal::NoSuchToken),
            (SignUpCommand::Confirm { .. }, Token::Used) => Err(Refusal::UsedAlready),
            (SignUpCommand::Confirm { minute }, Token::Sent { minute: sent })
                if minute.saturating_sub(*sent) > LIFETIME_MINUTES =>
            {
                Err(Refusal::TooLate)
            }
            (SignUpCommand::Confirm { .. }, Token::Sent { .. }) => {
                Ok(vec![SignUpConfirmed { address, token }.into()])
            }
        }
    }
}

fn of(address: &str, token: &str) -> (String, String) {
    (address.to_owned(), token.to_owned())
}

fn main() -> Result<(), Box<dyn Error>> {
    let begun = |token: &str, minute| {
        let (address, token) = of("ada@example.org", token);
        SignUpEvent::from(SignUpBegun { address, token, minute })
    };
    let confirmed = |token: &str| {
        let (address, token) = of("ada@example.org", token);
        SignUpEvent::from(SignUpConfirmed { address, token })
    };
    let on = |token| of("ada@example.org", token);
    let confirm = |minute| SignUpCommand::Confirm { minute };
    given::<SignUp>([begun("1111", 0)])
        .on(on("1111"))
        .when(confirm(60))
        .then_events([confirmed("1111")]);
    given::<SignUp>([begun("1111", 0)])
        .on(on("1111"))
        .when(confirm(61))
        .then_rejected(Refusal::TooLate);
    given::<SignUp>([begun("1111", 0), confirmed("1111")])
        .on(on("1111"))
        .when(confirm(5))
        .then_rejected(Refusal::UsedAlready);
    given::<SignUp>([begun("1111", 0)])
        .on(on("2222"))
        .when(confirm(5))
        .then_rejected(Refusal::NoSuchToken);
    given::<SignUp>([begun("1111", 0)])
        .on(of("bob@example.org", "1111"))
        .when(confirm(5))
        .then_rejected(Refusal::NoSuchToken);

    let store = MemoryStore::default();
    let ask = |command| store.execute::<SignUp>(command).on(on("4242")).wait();
    ask(SignUpCommand::Begin { minute: 0 }).map_err(|error| format!("{error:?}"))?;
    ask(confirm(10)).map_err(|error| format!("{error:?}"))?;
    println!("confirmed with token 4242");
    let again = ask(confirm(11));
    assert!(matches!(again, Err(ExecuteError::Rejected(Refusal::UsedAlready))), "{again:?}");
    println!("the same token again: refused");
    Ok(())
}
