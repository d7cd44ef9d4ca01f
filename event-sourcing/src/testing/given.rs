//! Tests of deciders, in the words of the domain: given what happened, when somebody asks for something, then this happens.
//!
//! ```
//! use event_sourcing::testing::given;
//! # use event_sourcing::{Boundary, Decider, EventContent, domain_events, error::InvalidName};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! # struct Opened;
//! # impl EventContent for Opened { const TYPE: &'static str = "door.opened"; }
//! # domain_events! { #[derive(Debug, PartialEq)] enum DoorEvent { Opened(Opened) } }
//! # #[derive(Debug)] struct Open;
//! # #[derive(Debug, PartialEq)] struct IsOpen;
//! # struct Door;
//! # impl Decider for Door {
//! #     const NAME: &'static str = "door";
//! #     type Id = String; type State = bool; type Command = Open; type Event = DoorEvent; type Rejection = IsOpen;
//! #     fn boundary(id: &String) -> Result<Boundary, InvalidName> { Boundary::stream("door", id) }
//! #     fn initial(_: &String) -> bool { false }
//! #     fn evolve(state: &mut bool, _: &DoorEvent) { *state = true; }
//! #     fn decide(state: &bool, _: &Open) -> Result<Vec<DoorEvent>, IsOpen> {
//! #         if *state { Err(IsOpen) } else { Ok(vec![Opened.into()]) }
//! #     }
//! # }
//! given::<Door>([]).when(Open).then_events([Opened.into()]);
//! given::<Door>([Opened.into()]).when(Open).then_rejected(IsOpen);
//! ```
//!
//! No store is needed, and yet the events go the way they go with one: those given are encoded, decoded, and left out if they are not in
//! the boundary of the decider's id; those decided on must come back from their encoding as they were.

use std::fmt::{Debug, Write as _};

use crate::decider::{Decider, DomainEvent};

/// What happened before, in order.
pub fn given<D: Decider>(events: impl IntoIterator<Item = D::Event>) -> Given<D> {
    Given { events: events.into_iter().collect() }
}

/// What happened before.
#[must_use = "nothing is tested yet"]
pub struct Given<D: Decider> {
    events: Vec<D::Event>,
}

/// What happened before, and to whom.
#[must_use = "nothing is tested yet"]
pub struct GivenOn<D: Decider> {
    events: Vec<D::Event>,
    id: D::Id,
}

/// What a command came to.
pub struct Outcome<D: Decider> {
    decided: Result<Vec<D::Event>, D::Rejection>,
    state: D::State,
    /// The story so far, for the text of a failure.
    story: String,
}

impl<D: Decider> Debug for Given<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Given({} events)", self.events.len())
    }
}

impl<D: Decider> Debug for GivenOn<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GivenOn({} events)", self.events.len())
    }
}

impl<D: Decider> Debug for Outcome<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.story)
    }
}

impl<D: Decider> Given<D> {
    /// Which one the story is about.
    pub fn on(self, id: impl Into<D::Id>) -> GivenOn<D> {
        GivenOn { events: self.events, id: id.into() }
    }

    /// Somebody asks for something, of the one with the default id.
    ///
    /// # Panics
    ///
    /// As [`GivenOn::when`].
    #[track_caller]
    #[must_use = "nothing is tested yet"]
    pub fn when(self, command: D::Command) -> Outcome<D>
    where
        D::Id: Default,
        D::Command: Debug,
        D::Event: Debug,
    {
        self.on(D::Id::default()).when(command)
    }
}

impl<D: Decider> GivenOn<D> {
    /// Somebody asks for something.
    ///
    /// # Panics
    ///
    /// If the id makes no boundary, or an event that was given cannot be written and read.
    #[track_caller]
    #[must_use = "nothing is tested yet"]
    pub fn when(self, command: D::Command) -> Outcome<D>
    where
        D::Command: Debug,
        D::Event: Debug,
    {
        let mut story = String::new();
        let boundary = D::boundary(&self.id).expect("the id makes a boundary");
        let mut state = D::initial(&self.id);
        for (index, event) in self.events.iter().enumerate() {
            let encoded = event.encode(D::CODEC);
            let encoded = encoded.unwrap_or_else(|error| panic!("{event:?}: {error}"));
            let is_seen = boundary.holds(boundary.home(), &encoded);
            let word = if index == 0 { "given" } else { "" };
            let aside = if is_seen { "" } else { "  (outside the boundary)" };
            let _ = writeln!(story, "  {word:<7} {event:?}{aside}");
            if is_seen {
                let decoded = D::Event::schema().decode(&encoded);
                let decoded = decoded.unwrap_or_else(|error| panic!("{event:?}: {error}"));
                D::evolve(&mut state, &decoded);
            }
        }
        if self.events.is_empty() {
            story.push_str("  given   nothing\n");
        }
        let _ = writeln!(story, "  when    {command:?}");
        let decided = D::decide(&state, &command);
        for event in decided.iter().flatten() {
            D::evolve(&mut state, event);
        }
        Outcome { decided, state, story }
    }
}

impl<D: Decider> Outcome<D>
where
    D::Event: Debug + PartialEq,
    D::Rejection: Debug + PartialEq,
{
    /// Exactly these events happen, in this order.
    ///
    /// # Panics
    ///
    /// If not, or if one of them does not come back from its encoding as it was.
    #[track_caller]
    pub fn then_events(self, expected: impl IntoIterator<Item = D::Event>) -> Self {
        let expected: Vec<D::Event> = expected.into_iter().collect();
        match &self.decided {
            Ok(events) if *events == expected => {}
            Ok(events) => self.fail(&compare(&expected, events)),
            Err(rejection) => {
                let wanted = expected.iter().map(|event| format!("- {event:?}"));
                let got = format!("+ the command was refused: {rejection:?}");
                self.fail(&wanted.chain([got]).collect::<Vec<_>>());
            }
        }
        for event in self.decided.iter().flatten() {
            let read = event.encode(D::CODEC).and_then(|new| D::Event::schema().decode(&new));
            match read {
                Ok(read) if read == *event => {}
                Ok(read) => {
                    self.fail(&[format!("- {event:?}"), format!("+ {read:?}, when it is read")]);
                }
                Err(error) => self.fail(&[format!("- {event:?}"), format!("+ {error}")]),
            }
        }
        self
    }

    /// Nothing happens: everything is already as asked for.
    ///
    /// # Panics
    ///
    /// If something does, or if the command is refused.
    #[track_caller]
    pub fn then_nothing(self) -> Self {
        self.then_events([])
    }

    /// The command is refused, for this reason.
    ///
    /// # Panics
    ///
    /// If not.
    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "tests write the reason on the spot")]
    pub fn then_rejected(self, expected: D::Rejection) -> Self {
        let wanted = format!("- the command was refused: {expected:?}");
        match &self.decided {
            Err(rejection) if *rejection == expected => {}
            Err(rejection) => {
                self.fail(&[wanted, format!("+ the command was refused: {rejection:?}")]);
            }
            Ok(events) if events.is_empty() => self.fail(&[wanted, "+ nothing happened".into()]),
            Ok(events) => {
                let got = events.iter().map(|event| format!("+ {event:?}"));
                self.fail(&[wanted].into_iter().chain(got).collect::<Vec<_>>());
            }
        }
        self
    }

    /// Afterwards the state is this.
    ///
    /// # Panics
    ///
    /// If not.
    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "tests write the state on the spot")]
    pub fn then_state(self, expected: D::State) -> Self
    where
        D::State: Debug + PartialEq,
    {
        if self.state != expected {
            self.fail(&[format!("- {expected:?}"), format!("+ {:?}", self.state)]);
        }
        self
    }

    #[track_caller]
    fn fail(&self, lines: &[String]) -> ! {
        let mut text = String::from("it did not come as expected (-), but so (+):\n\n");
        text.push_str(&self.story);
        for (index, line) in lines.iter().enumerate() {
            let word = if index == 0 { "then" } else { "" };
            let _ = writeln!(text, "  {word:<5} {line}");
        }
        panic!("{text}")
    }
}

/// Both lists, event by event.
fn compare<E: Debug + PartialEq>(expected: &[E], got: &[E]) -> Vec<String> {
    let mut lines = Vec::new();
    for place in 0..expected.len().max(got.len()) {
        match (expected.get(place), got.get(place)) {
            (Some(wanted), Some(event)) if wanted == event => lines.push(format!("= {event:?}")),
            (wanted, event) => {
                lines.extend(wanted.map(|wanted| format!("- {wanted:?}")));
                lines.extend(event.map(|event| format!("+ {event:?}")));
            }
        }
    }
    lines
}
