//! Which types of events a program knows, in which versions: how it writes them, how it reads them, and whether that is all that a
//! log holds.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Codec, CodecError};
use crate::event::{EventId, EventType, Label, Metadata, NewEvent};
use crate::read::ReadError;
use crate::store::{EventStore, TypeCount};
use crate::upcast::Chain;

/// What one type of event says: a type of its own, with a name that outlives it.
///
/// ```
/// use event_sourcing::schema::{EventContent, Labels};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct StudentSubscribed { student: String, course: String }
///
/// impl EventContent for StudentSubscribed {
///     const TYPE: &'static str = "student.subscribed";
///
///     fn labels(&self, labels: &mut Labels) {
///         labels.add(format!("student:{}", self.student));
///         labels.add(format!("course:{}", self.course));
///     }
/// }
/// ```
pub trait EventContent: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Name of the event type: an explicit string, in the past tense, such as `account.opened`.
    const TYPE: &'static str;

    /// How each version of its schema was written, up to this one. One that was never changed has only the first.
    #[must_use]
    fn history() -> Chain<Self> {
        Chain::first()
    }

    /// Labels by which queries across streams find the event.
    fn labels(&self, labels: &mut Labels) {
        let _ = labels;
    }
}

/// Collects the labels of an event. One that cannot be a label is an error when the event is written, not here, so that domain code
/// need not care.
#[derive(Debug, Default)]
pub struct Labels {
    labels: Vec<Label>,
    refused: Option<CodecError>,
}

impl Labels {
    /// Adds a label.
    pub fn add(&mut self, label: impl AsRef<str>) {
        match Label::new(label) {
            Ok(label) => self.labels.push(label),
            Err(error) => self.refused = self.refused.take().or(Some(error.into())),
        }
    }

    /// The labels, in the order in which they were added.
    ///
    /// # Errors
    ///
    /// If one of them cannot be a label.
    pub fn finish(self) -> Result<Vec<Label>, CodecError> {
        self.refused.map_or(Ok(self.labels), Err)
    }
}

/// The types of event that are read as an `E`.
///
/// It is put together once, in [`DomainEvent::schema`](crate::decider::DomainEvent::schema).
pub struct Schema<E> {
    types: BTreeMap<&'static str, Entry<E>>,
}

struct Entry<E> {
    name: EventType,
    chain: Chain<E>,
}

impl<E: 'static> Schema<E> {
    /// No types.
    #[must_use]
    pub fn new() -> Self {
        Self { types: BTreeMap::new() }
    }

    /// Adds a type.
    ///
    /// # Panics
    ///
    /// If the name is there already, cannot be one, or begins with `$`: mistakes of the program, found when it starts.
    #[must_use]
    pub fn event<T: EventContent>(self, wrap: impl Fn(T) -> E + Send + Sync + 'static) -> Self {
        self.named(T::TYPE, T::history(), wrap)
    }

    /// Adds a type under a name of its own: one that is no longer written, and is read as something that is.
    ///
    /// # Panics
    ///
    /// As [`Schema::event`].
    #[must_use]
    pub fn named<T: 'static>(
        mut self,
        name: &'static str,
        history: Chain<T>,
        wrap: impl Fn(T) -> E + Send + Sync + 'static,
    ) -> Self {
        let event_type = EventType::new(name).expect("the name of an event type can be one");
        assert!(!event_type.is_system(), "event type {name} would be one of the store's own");
        let entry = Entry { name: event_type, chain: history.map(wrap) };
        assert!(self.types.insert(name, entry).is_none(), "event type {name} is there twice");
        self
    }

    /// Writes an event: with a random id, and the latest version of its schema.
    ///
    /// # Errors
    ///
    /// If the type was not added, if the content does not go into the format, or if a label cannot be one.
    pub fn encode<T: EventContent>(
        &self,
        content: &T,
        codec: Codec,
    ) -> Result<NewEvent, CodecError> {
        let Some(entry) = self.types.get(T::TYPE) else {
            return Err(CodecError::UnknownType { event_type: EventType::new(T::TYPE)? });
        };
        let mut labels = Labels::default();
        content.labels(&mut labels);
        Ok(NewEvent {
            id: EventId::random(),
            event_type: entry.name.clone(),
            schema: entry.chain.latest(),
            content_type: codec.content_type(),
            data: codec.encode(content)?,
            metadata: Metadata::default(),
            labels: labels.finish()?,
        })
    }

    /// Reads an event, whatever the version of its schema.
    ///
    /// # Errors
    ///
    /// If its type, version or format is not known, or its content is not what it should be.
    pub fn decode(&self, event: &NewEvent) -> Result<E, CodecError> {
        let Some(entry) = self.types.get(event.event_type.as_str()) else {
            return Err(CodecError::UnknownType { event_type: event.event_type.clone() });
        };
        let Some(read) = entry.chain.reader(event.schema) else {
            return Err(CodecError::UnknownSchema {
                event_type: event.event_type.clone(),
                schema: event.schema,
                known: entry.chain.latest(),
            });
        };
        read(Codec::of(&event.content_type)?, &event.data)
    }

    /// The types, each with the latest version of its schema, in order of name.
    #[must_use]
    pub fn known(&self) -> Known {
        let types = self.types.values().map(|entry| (entry.name.clone(), entry.chain.latest()));
        Known { types: types.collect() }
    }
}

impl<E: 'static> Default for Schema<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: 'static> fmt::Debug for Schema<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schema").field(&self.known().types).finish()
    }
}

/// The event types of a program, each with the latest version of its schema: all versions from 1 to that one are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Latest version by type.
    pub types: BTreeMap<EventType, u32>,
}

impl Known {
    /// Together with the types of another part of the program. Of a type that both have, the later version counts.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for (event_type, schema) in other.types {
            let latest = self.types.entry(event_type).or_default();
            *latest = schema.max(*latest);
        }
        self
    }

    /// What is in a log and cannot be read. The store's own types are left out.
    #[must_use]
    pub fn gaps(&self, in_log: &[TypeCount]) -> Vec<Gap> {
        let ours = in_log.iter().filter(|found| !found.event_type.is_system());
        ours.filter_map(|found| {
            let known = self.types.get(&found.event_type).copied();
            let is_read = known.is_some_and(|latest| (1..=latest).contains(&found.schema));
            (!is_read).then(|| Gap { found: found.clone(), known })
        })
        .collect()
    }
}

/// Events of a log that a program cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Type, version, and how many events.
    pub found: TypeCount,
    /// The latest version of the type that the program knows; `None` if it does not know the type.
    pub known: Option<u32>,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TypeCount { event_type, schema, count } = &self.found;
        let plural = if *count == 1 { "event" } else { "events" };
        write!(f, "{count} {plural} of type {event_type}, schema version {schema}: ")?;
        match self.known {
            Some(known) => write!(f, "known up to version {known}"),
            None => f.write_str("the type is not known"),
        }
    }
}

/// What a store holds that a program cannot read: nothing, if it is to start.
///
/// # Errors
///
/// If the store could not say which types it holds.
pub async fn check_schema<S: EventStore + ?Sized>(
    store: &S,
    known: &Known,
) -> Result<Vec<Gap>, ReadError> {
    Ok(known.gaps(&store.types().await?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    /// Version 1: whole euros.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct DepositedV1 {
        euros: u32,
    }

    /// Version 2: cents.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct DepositedV2 {
        cents: u64,
    }

    /// Version 3: with a currency.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

        fn history() -> Chain<Self> {
            Chain::<DepositedV1>::first().then(DepositedV2::from).then(Self::from)
        }
    }

    fn schema() -> Schema<Deposited> {
        Schema::new().event(|content: Deposited| content).named(
            "deposit.made",
            Chain::<DepositedV1>::first(),
            |old| DepositedV2::from(old).into(),
        )
    }

    fn written<T: Serialize>(name: &str, schema: u32, content: &T, codec: Codec) -> NewEvent {
        let event = NewEvent::json(EventType::new(name).unwrap(), codec.encode(content).unwrap());
        NewEvent { schema, content_type: codec.content_type(), ..event }
    }

    proptest! {
        #[test]
        fn every_version_is_read_as_the_latest_in_every_format(
            amounts in prop::collection::vec((0_u32.., 1_u32..=3, any::<bool>()), 0..20),
        ) {
            let schema = schema();
            let mut sum = 0_u64;
            let mut native = 0_u64;
            for (euros, version, in_postcard) in amounts {
                let codec = if in_postcard { Codec::Postcard } else { Codec::Json };
                let name = "account.deposited";
                let v1 = DepositedV1 { euros };
                let v2 = DepositedV2::from(v1.clone());
                let v3 = Deposited::from(v2.clone());
                let event = match version {
                    1 => written(name, 1, &v1, codec),
                    2 => written(name, 2, &v2, codec),
                    _ => schema.encode(&v3, codec).unwrap(),
                };
                prop_assert_eq!(event.schema, version);
                let read = schema.decode(&event).unwrap();
                prop_assert_eq!(&read, &v3);
                sum += read.cents;
                native += v3.cents;
            }
            prop_assert_eq!(sum, native);
        }
    }

    #[test]
    fn a_type_that_was_renamed_is_still_read() {
        let old = written("deposit.made", 1, &DepositedV1 { euros: 2 }, Codec::Json);
        assert_eq!(schema().decode(&old).unwrap().cents, 200);
    }

    #[test]
    fn unknown_types_versions_and_formats_are_told_apart() {
        let schema = schema();
        let says = |event: &NewEvent| schema.decode(event).unwrap_err().to_string();
        let mut event = written("account.deposited", 4, &1, Codec::Json);
        assert_eq!(
            says(&event),
            "event type account.deposited is known up to schema version 3, and this is version 4"
        );
        event.schema = 0;
        assert!(says(&event).contains("this is version 0"));
        event.schema = 3;
        assert!(says(&event).contains("not the application/json"));
        event.content_type = ContentType::Bytes;
        assert!(says(&event).contains("no content type application/octet-stream"));
        event.event_type = EventType::new("account.frozen").unwrap();
        assert_eq!(says(&event), "no event type account.frozen is known here");
    }

    #[test]
    fn gaps_between_log_and_program_are_found() {
        let count = |name: &str, schema, count| TypeCount {
            event_type: EventType::new(name).unwrap(),
            schema,
            count,
        };
        let log = [
            count("$metadata", 1, 9),
            count("account.deposited", 1, 9),
            count("account.deposited", 4, 1),
            count("account.frozen", 1, 2),
        ];
        let gaps: Vec<String> =
            schema().known().gaps(&log).iter().map(ToString::to_string).collect();
        assert_eq!(
            gaps,
            [
                "1 event of type account.deposited, schema version 4: known up to version 3",
                "2 events of type account.frozen, schema version 1: the type is not known",
            ]
        );
    }

    #[test]
    #[should_panic(expected = "is there twice")]
    fn a_type_named_twice_stops_the_program() {
        let _ = schema().event(|content: Deposited| content);
    }

    #[test]
    fn a_label_that_cannot_be_one_is_an_error_of_the_event() {
        let mut labels = Labels::default();
        labels.add("course:c1");
        labels.add("");
        labels.add("course:c2");
        assert!(matches!(labels.finish(), Err(CodecError::Name(_))));
    }

    use crate::event::ContentType;
}
