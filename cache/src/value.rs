//! What a key can hold, and what the store asks of it.
//!
//! Each kind of collection has two forms. While it is small it is *packed*: one run of bytes that lies in the store's memory like
//! a string, so that a small collection costs no more than its elements. Once it is large it is a structure of its own on the heap.
//! The change is one-way, as in Redis: a collection that shrinks stays what it is until it is gone.
//!
//! A command never holds a value: it borrows a view to read, or edits the value in place through [`Keyspace::edit`]
//! (`crate::store`), which puts it back, notes the change, and removes it when it has become empty.
//!
//! [`Keyspace::edit`]: crate::store::Keyspace::edit

pub mod hash;
pub mod list;
pub mod packed;
pub mod set;
pub mod small_bytes;
pub mod sorted_set;
pub mod string;
pub mod table;

pub use hash::{Hash, HashView};
pub use list::{List, ListView};
pub use set::{Set, SetView};
pub use sorted_set::{SortedSet, SortedSetView};
pub use string::Text;

use crate::types::UnixMillis;

/// The kinds of values, as `TYPE` tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Bytes: `string`.
    String,
    /// Elements in an order of the clients' making: `list`.
    List,
    /// Members without order: `set`.
    Set,
    /// Members with a score, ordered by it: `zset`.
    SortedSet,
    /// Fields with values: `hash`.
    Hash,
}

impl Kind {
    /// The name that `TYPE` answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::SortedSet => "zset",
            Self::Hash => "hash",
        }
    }
}

/// An owned value of any kind: to create, copy, dump and restore.
#[derive(Clone, Debug)]
pub enum Value {
    /// Bytes.
    String(Text),
    /// A list.
    List(List),
    /// A set.
    Set(Set),
    /// A sorted set.
    SortedSet(SortedSet),
    /// A hash.
    Hash(Hash),
}

/// A borrowed value of any kind.
#[derive(Clone, Copy, Debug)]
pub enum View<'v> {
    /// Bytes.
    String(&'v [u8]),
    /// A list.
    List(ListView<'v>),
    /// A set.
    Set(SetView<'v>),
    /// A sorted set.
    SortedSet(SortedSetView<'v>),
    /// A hash.
    Hash(HashView<'v>),
}

impl View<'_> {
    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::String(_) => Kind::String,
            Self::List(_) => Kind::List,
            Self::Set(_) => Kind::Set,
            Self::SortedSet(_) => Kind::SortedSet,
            Self::Hash(_) => Kind::Hash,
        }
    }

    /// The name of its form, as `OBJECT ENCODING` tells it.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match self {
            Self::String(bytes) => string::encoding(bytes),
            Self::List(view) => view.encoding(),
            Self::Set(view) => view.encoding(),
            Self::SortedSet(view) => view.encoding(),
            Self::Hash(view) => view.encoding(),
        }
    }

    /// An owned copy.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            Self::String(bytes) => Value::String(Text::from(bytes.to_vec())),
            Self::List(view) => Value::List(view.to_owned()),
            Self::Set(view) => Value::Set(view.to_owned()),
            Self::SortedSet(view) => Value::SortedSet(view.to_owned()),
            Self::Hash(view) => Value::Hash(view.to_owned()),
        }
    }
}

impl Value {
    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::String(_) => Kind::String,
            Self::List(_) => Kind::List,
            Self::Set(_) => Kind::Set,
            Self::SortedSet(_) => Kind::SortedSet,
            Self::Hash(_) => Kind::Hash,
        }
    }

    /// A view of it.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        match self {
            Self::String(text) => View::String(text.bytes()),
            Self::List(list) => View::List(list.view()),
            Self::Set(set) => View::Set(set.view()),
            Self::SortedSet(set) => View::SortedSet(set.view()),
            Self::Hash(hash) => View::Hash(hash.view()),
        }
    }
}

/// What the store must know of a kind of value in order to keep it.
///
/// Implementations: [`Text`], [`List`], [`Set`], [`SortedSet`], [`struct@Hash`].
pub trait Stored: Default {
    /// Its kind.
    const KIND: Kind;

    /// The value whose packed form is `bytes`. Takes the vector over; `bytes` came from [`Stored::packed`].
    fn from_packed(bytes: Vec<u8>) -> Self;

    /// The packed form, while it has one. An empty value is packed.
    fn packed(&self) -> Option<&[u8]>;

    /// The vector of the packed form back, to be used again, while it has one.
    fn into_packed(self) -> Result<Vec<u8>, Self>;

    /// Whether nothing is left, so that the key goes. A string is never empty in this sense.
    fn is_empty(&self) -> bool;

    /// Whether anything was changed since the last call.
    fn take_changed(&mut self) -> bool;

    /// Bytes on the heap beyond the value itself, allocator's rounding included as well as it is known. Kept as a running
    /// count: the store asks after every edit.
    fn heap_bytes(&self) -> usize;

    /// The earliest deadline of a part of the value (a field of a hash), for the store's timing wheel.
    fn next_deadline(&self) -> Option<UnixMillis> {
        None
    }

    /// Removes parts that are due at `now`, those due first and at most `most` of them (or a few more that share a deadline and a
    /// hash), and says how many they were; the value may then be empty. The store calls it
    /// when the wheel says so, and before it lends out or edits a value whose [`Stored::next_deadline`] has come: so a
    /// view or an edit never meets a part at or after its deadline.
    fn expire_parts(&mut self, now: UnixMillis, most: usize) -> usize {
        let _ = (now, most);
        0
    }

    /// Wraps it.
    fn into_value(self) -> Value;

    /// The wrapped value, if it is of this kind.
    fn from_value(value: &mut Value) -> Option<&mut Self>;
}
