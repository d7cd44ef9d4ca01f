//! Domain code: what may happen, and what is then the case.
//!
//! A *decider* is a pair of pure functions around a state. `decide` takes the state and a command and returns the events that carry
//! it out, or why it is refused; `evolve` takes the state and an event and returns the next state. Neither reads a clock, draws a random
//! number or talks to anybody: what a decision depends on comes with the command, so that deciding again, after somebody else was
//! faster, is always right.
//!
//! What a decision depends on in the log is its *boundary*. For an aggregate that is one stream; for a rule that spans several
//! things, such as "a course has 30 seats and a student takes ten courses", it is a query (Dynamic Consistency Boundaries,
//! dcb.events). The difference ends here: [`execute`](crate::execute) treats both alike.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::{Codec, CodecError};
use crate::condition::{Check, Expected, Query};
use crate::error::InvalidName;
use crate::event::{NewEvent, Position, StreamName, Version};
use crate::schema::Schema;

/// An event as domain code knows it: usually an enum with a variant for each type, made by [`domain_events!`](crate::domain_events).
pub trait DomainEvent: Sized + Send + Sync + 'static {
    /// Which types there are and how each is read. Put together once and kept:
    ///
    /// ```ignore
    /// static SCHEMA: OnceLock<Schema<MyEvent>> = OnceLock::new();
    /// SCHEMA.get_or_init(|| Schema::new().event(MyEvent::Opened).event(MyEvent::Closed))
    /// ```
    fn schema() -> &'static Schema<Self>;

    /// Writes the event, as [`Schema::encode`] does it for the content of a variant.
    ///
    /// # Errors
    ///
    /// If it does not go into the format, or has a label that cannot be one.
    fn encode(&self, codec: Codec) -> Result<NewEvent, CodecError>;
}

/// Makes an enum a [`DomainEvent`]: each variant holds an [`EventContent`](crate::schema::EventContent), and can be made from it.
///
/// ```
/// use event_sourcing::{EventContent, domain_events};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Serialize, Deserialize)]
/// pub struct AccountOpened { pub owner: String }
/// impl EventContent for AccountOpened {
///     const TYPE: &'static str = "account.opened";
/// }
///
/// #[derive(Debug, Serialize, Deserialize)]
/// pub struct MoneyDeposited { pub cents: u64 }
/// impl EventContent for MoneyDeposited {
///     const TYPE: &'static str = "account.deposited";
/// }
///
/// domain_events! {
///     /// What happens to an account.
///     #[derive(Debug)]
///     pub enum AccountEvent {
///         Opened(AccountOpened),
///         Deposited(MoneyDeposited),
///     }
/// }
///
/// let event: AccountEvent = MoneyDeposited { cents: 5 }.into();
/// # assert!(matches!(event, AccountEvent::Deposited(_)));
/// ```
#[macro_export]
macro_rules! domain_events {
    ($(#[$about:meta])* $visibility:vis enum $name:ident {
        $($(#[$about_variant:meta])* $variant:ident($content:ty)),+ $(,)?
    }) => {
        $(#[$about])*
        $visibility enum $name {
            $(
                #[doc = concat!("What [`", stringify!($content), "`] says.")]
                $(#[$about_variant])*
                $variant($content),
            )+
        }

        impl $crate::decider::DomainEvent for $name {
            fn schema() -> &'static $crate::schema::Schema<Self> {
                static SCHEMA: ::std::sync::OnceLock<$crate::schema::Schema<$name>> =
                    ::std::sync::OnceLock::new();
                SCHEMA.get_or_init(|| {
                    $crate::schema::Schema::new()$(.event(Self::$variant))+
                })
            }

            fn encode(
                &self,
                codec: $crate::codec::Codec,
            ) -> ::std::result::Result<$crate::event::NewEvent, $crate::codec::CodecError> {
                match self {
                    $(Self::$variant(content) => {
                        <Self as $crate::decider::DomainEvent>::schema().encode(content, codec)
                    })+
                }
            }
        }

        $(
            impl ::std::convert::From<$content> for $name {
                fn from(content: $content) -> Self {
                    Self::$variant(content)
                }
            }
        )+
    };
}

/// Decides on commands. The type that implements it is a name only, such as `struct Account;`.
pub trait Decider: 'static {
    /// Its name, for ever: streams and snapshots are called by it.
    const NAME: &'static str;

    /// Which one: the number of an account, or all that a boundary of queries is about.
    type Id: Send + Sync;
    /// What decisions are made on.
    type State: Send + Sync;
    /// What is asked for. It holds everything that a decision depends on and the events do not say, such as the time.
    type Command: Send + Sync;
    /// What happens.
    type Event: DomainEvent;
    /// Why a command is refused.
    type Rejection: Send;

    /// Version of [`evolve`](Decider::evolve) and of the form of the state. Raise it whenever either changes: snapshots of
    /// other versions are then ignored.
    const FOLD_VERSION: u32 = 1;
    /// The format in which its events are written. Those in other formats are read all the same.
    const CODEC: Codec = Codec::Json;
    /// What becomes of events in the boundary that this program does not know.
    const UNKNOWN: Unknown = Unknown::Stop;

    /// Events that a decision depends on, and where those that it makes belong.
    ///
    /// # Errors
    ///
    /// If the id does not make a name.
    fn boundary(id: &Self::Id) -> Result<Boundary, InvalidName>;

    /// The state before any event.
    fn initial(id: &Self::Id) -> Self::State;

    /// Brings the state up to an event. What happened has happened: there is nothing to refuse here.
    fn evolve(state: &mut Self::State, event: &Self::Event);

    /// The events that carry out a command, all of them or none; none at all if everything is already as asked for.
    ///
    /// # Errors
    ///
    /// If the command is refused in this state.
    fn decide(
        state: &Self::State,
        command: &Self::Command,
    ) -> Result<Vec<Self::Event>, Self::Rejection>;
}

/// What becomes of an event whose type, or whose schema's version, is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Nothing is decided: the event might matter.
    Stop,
    /// It is left out. Right where other programs write into the same boundary what is no concern of this one.
    Skip,
}

/// The events that a decision depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Boundary {
    /// Those of one stream, to which new ones are added.
    Stream(StreamName),
    /// Those that match a query. It has to match every type that the decision depends on, and usually the events that it makes.
    Query {
        /// The query.
        query: Query,
        /// Home stream of new events.
        home: StreamName,
    },
}

/// Home stream of events that were decided on by a query.
pub const DCB_HOME: &str = "dcb";

impl Boundary {
    /// The stream `category-id`.
    ///
    /// # Errors
    ///
    /// If that is no name of a stream.
    pub fn stream(category: &str, id: impl fmt::Display) -> Result<Self, InvalidName> {
        StreamName::new(format!("{category}-{id}")).map(Self::Stream)
    }

    /// The events that match a query. New ones go to the stream [`DCB_HOME`].
    #[must_use]
    pub fn query(query: Query) -> Self {
        Self::Query { query, home: StreamName::new(DCB_HOME).expect("a name without fault") }
    }

    /// The stream to which new events are added.
    #[must_use]
    pub fn home(&self) -> &StreamName {
        match self {
            Self::Stream(stream) | Self::Query { home: stream, .. } => stream,
        }
    }

    /// The check that nothing was added to the boundary since it was read.
    pub(crate) fn unchanged(&self, last: Option<Version>, seen: Position) -> Check {
        match self {
            Self::Stream(stream) => {
                let expected = last.map_or(Expected::NoStream, Expected::Exact);
                Check::Stream { stream: stream.clone(), expected }
            }
            Self::Query { query, .. } => Check::NoMatch { query: query.clone(), after: seen },
        }
    }

    /// Whether an event in `stream` is in it.
    pub(crate) fn holds(&self, stream: &StreamName, event: &NewEvent) -> bool {
        match self {
            Self::Stream(own) => own == stream,
            Self::Query { query, .. } => query.matches(stream, event),
        }
    }
}
