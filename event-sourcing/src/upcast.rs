//! The history of one type of event: how each version of its schema is read as the latest.
//!
//! Events are for ever, so every version that was ever written must be read for ever. What says how is a *chain* of upcasters, each
//! from one version to the next. It is typed from end to end, so a version in the middle cannot be forgotten: the program does not
//! compile. And since versions are counted from 1 by the chain itself, the number that is written with an event cannot disagree with
//! the form of its content.
//!
//! ```
//! use event_sourcing::upcast::Chain;
//! # use serde::Deserialize;
//!
//! /// Version 1 had an amount in whole euros.
//! #[derive(Deserialize)]
//! struct DepositedV1 { euros: u64 }
//!
//! /// Version 2 has cents.
//! #[derive(Deserialize)]
//! struct Deposited { cents: u64 }
//!
//! let chain = Chain::<DepositedV1>::first().then(|old| Deposited { cents: old.euros * 100 });
//! assert_eq!(chain.latest(), 2);
//! ```
//!
//! An upcaster cannot fail: what happened has happened, and a later program has to make sense of it. Nor does it see other events.
//! A type that has to be split, or that needs what stood before it, becomes a new type, and
//! [`evolve`](crate::decider::Decider::evolve) knows both.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::codec::{Codec, CodecError};

/// Reads content as a `T`.
pub(crate) type Reader<T> = Box<dyn Fn(Codec, &[u8]) -> Result<T, CodecError> + Send + Sync>;

/// How every version of a schema is read as a `T`, the latest.
pub struct Chain<T> {
    /// The reader of version n is at n - 1.
    readers: Vec<Reader<T>>,
}

impl<T: DeserializeOwned + 'static> Chain<T> {
    /// The first version.
    #[must_use]
    pub fn first() -> Self {
        Self { readers: vec![Box::new(|codec, content| codec.decode(content))] }
    }
}

impl<T: 'static> Chain<T> {
    /// The next version, and how the one before it is read as it.
    #[must_use]
    pub fn then<U: DeserializeOwned + 'static>(
        self,
        upcast: impl Fn(T) -> U + Send + Sync + 'static,
    ) -> Chain<U> {
        let mut chain = self.map(upcast);
        chain.readers.push(Box::new(|codec, content| codec.decode(content)));
        chain
    }

    /// The version that is written today.
    #[must_use]
    pub fn latest(&self) -> u32 {
        u32::try_from(self.readers.len()).expect("a chain is written out in a program")
    }

    pub(crate) fn map<U: 'static>(
        self,
        convert: impl Fn(T) -> U + Send + Sync + 'static,
    ) -> Chain<U> {
        let convert = Arc::new(convert);
        let readers = self.readers.into_iter().map(|read| -> Reader<U> {
            let convert = Arc::clone(&convert);
            Box::new(move |codec, content| read(codec, content).map(&*convert))
        });
        Chain { readers: readers.collect() }
    }

    /// The reader of a version; `None` if there is no such version.
    pub(crate) fn reader(&self, schema: u32) -> Option<&Reader<T>> {
        self.readers.get(usize::try_from(schema.checked_sub(1)?).ok()?)
    }
}

impl<T> fmt::Debug for Chain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({} versions)", self.readers.len())
    }
}
