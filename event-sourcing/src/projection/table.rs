//! Tables of a read model: typed names for ranges of the sink's keys.
//!
//! A table belongs to the version of the projection that writes it. What its rows look like may change from one version to the next
//! and only then, for a new version builds its tables anew: so values are postcard, and carry no schema.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::sink::{SinkError, end_of_prefix};
use crate::event::{Position, StreamName, Timestamp};

/// The name of a table with the types of its keys and values.
///
/// ```
/// use event_sourcing::projection::Table;
///
/// /// The balance of each account, in cents.
/// const BALANCES: Table<str, i64> = Table::new("balances");
/// /// Accounts by the day of their opening and their name.
/// const BY_DAY: Table<(u64, String), ()> = Table::new("by_day");
/// # let _ = (BALANCES, BY_DAY);
/// ```
pub struct Table<K: ?Sized, V> {
    name: &'static str,
    row: PhantomData<fn(&K) -> V>,
}

impl<K: Key + ?Sized, V> Table<K, V> {
    /// The table of this name. Two tables of one projection with the same name are the same rows.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, row: PhantomData }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The table's part of a row's key.
    pub(super) fn prefix(&self) -> Vec<u8> {
        let mut prefix = Vec::with_capacity(self.name.len() + 2);
        self.name.encode(&mut prefix);
        prefix
    }

    /// The key of a row.
    pub(super) fn key(&self, key: &K) -> Vec<u8> {
        let mut bytes = self.prefix();
        key.encode(&mut bytes);
        bytes
    }
}

impl<K: ?Sized, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Table").field(&self.name).finish()
    }
}

/// What can be the key of a row: something whose bytes are in the order of its values.
pub trait Key {
    /// What a key is read as.
    type Owned;

    /// Appends the key's bytes. No key's bytes are the beginning of another's.
    fn encode(&self, out: &mut Vec<u8>);

    /// Takes a key off the front of `bytes`; `None` if there is none.
    fn decode(bytes: &mut &[u8]) -> Option<Self::Owned>;
}

/// Bytes end with two zeros; a zero among them is followed by 255.
impl Key for [u8] {
    type Owned = Vec<u8>;

    fn encode(&self, out: &mut Vec<u8>) {
        for &byte in self {
            out.push(byte);
            if byte == 0 {
                out.push(u8::MAX);
            }
        }
        out.extend([0, 0]);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Vec<u8>> {
        let mut key = Vec::new();
        loop {
            let (&byte, rest) = bytes.split_first()?;
            *bytes = rest;
            if byte == 0 {
                let (&next, rest) = bytes.split_first()?;
                *bytes = rest;
                if next == 0 {
                    return Some(key);
                }
            }
            key.push(byte);
        }
    }
}

impl Key for str {
    type Owned = String;

    fn encode(&self, out: &mut Vec<u8>) {
        self.as_bytes().encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Option<String> {
        String::from_utf8(<[u8]>::decode(bytes)?).ok()
    }
}

impl Key for String {
    type Owned = Self;

    fn encode(&self, out: &mut Vec<u8>) {
        self.as_str().encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        str::decode(bytes)
    }
}

impl Key for StreamName {
    type Owned = Self;

    fn encode(&self, out: &mut Vec<u8>) {
        self.as_str().encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Self::new(str::decode(bytes)?).ok()
    }
}

impl Key for u64 {
    type Owned = Self;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.to_be_bytes());
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(Self::from_be_bytes(*number))
    }
}

impl Key for u32 {
    type Owned = Self;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.to_be_bytes());
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(Self::from_be_bytes(*number))
    }
}

impl Key for Position {
    type Owned = Self;

    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        u64::decode(bytes).map(Self)
    }
}

impl Key for Timestamp {
    type Owned = Self;

    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        u64::decode(bytes).map(Self)
    }
}

/// For tables of one row.
impl Key for () {
    type Owned = Self;

    fn encode(&self, _: &mut Vec<u8>) {}

    fn decode(_: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

impl<A: Key, B: Key> Key for (A, B) {
    type Owned = (A::Owned, B::Owned);

    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self::Owned> {
        Some((A::decode(bytes)?, B::decode(bytes)?))
    }
}

/// A row as a scan shows it: its key and its value.
pub type Row<K, V> = (<K as Key>::Owned, V);
/// What a scan returns: rows in order of their keys.
pub type Scanned<K, V> = Result<Vec<Row<K, V>>, SinkError>;

/// Rows that can be read: those of a [`View`](super::View), and those that a handler sees in its [`Tx`](super::Tx).
///
/// A scan reads so many rows and no more; what comes after them is read by a second one, behind the last key.
pub trait Rows {
    /// The value of a row by its whole key; for backends of this trait.
    ///
    /// # Errors
    ///
    /// If the sink cannot be read.
    fn get_bytes(&self, key: &[u8]) -> Result<Option<Bytes>, SinkError>;

    /// Rows by their whole keys, from `from` to before `until`; for backends of this trait.
    ///
    /// # Errors
    ///
    /// If the sink cannot be read.
    fn scan_bytes(
        &self,
        from: &[u8],
        until: &[u8],
        count_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, SinkError>;

    /// The value of a row.
    ///
    /// # Errors
    ///
    /// If the sink cannot be read, or the row is not of the table's type.
    fn get<K: Key + ?Sized, V: DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        key: &K,
    ) -> Result<Option<V>, SinkError> {
        let value = self.get_bytes(&table.key(key))?;
        value.map(|bytes| decode_value(table, &bytes)).transpose()
    }

    /// The first rows of a table in order of their keys; at most `count_max`.
    ///
    /// # Errors
    ///
    /// As [`Rows::get`].
    fn scan<K: Key + ?Sized, V: DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        count_max: usize,
    ) -> Scanned<K, V> {
        self.scan_between(table, &table.prefix(), count_max)
    }

    /// The first rows of which the key is at least `from`.
    ///
    /// # Errors
    ///
    /// As [`Rows::get`].
    fn scan_from<K: Key + ?Sized, V: DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        from: &K,
        count_max: usize,
    ) -> Scanned<K, V> {
        self.scan_between(table, &table.key(from), count_max)
    }

    /// The first rows of which the key is greater than `after`.
    ///
    /// # Errors
    ///
    /// As [`Rows::get`].
    fn scan_after<K: Key + ?Sized, V: DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        after: &K,
        count_max: usize,
    ) -> Scanned<K, V> {
        self.scan_between(table, &end_of_prefix(&table.key(after)), count_max)
    }

    /// The first rows of which the key has this first part.
    ///
    /// # Errors
    ///
    /// As [`Rows::get`].
    fn scan_within<A: Key, B: Key, V: DeserializeOwned>(
        &self,
        table: &Table<(A, B), V>,
        first: &A,
        count_max: usize,
    ) -> Scanned<(A, B), V> {
        let mut from = table.prefix();
        first.encode(&mut from);
        let rows = self.scan_bytes(&from, &end_of_prefix(&from), count_max)?;
        rows.iter().map(|row| decode_row(table, row)).collect()
    }

    /// Rows from a whole key to the table's end; what the scans above have in common.
    ///
    /// # Errors
    ///
    /// As [`Rows::get`].
    #[doc(hidden)]
    fn scan_between<K: Key + ?Sized, V: DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        from: &[u8],
        count_max: usize,
    ) -> Scanned<K, V> {
        let rows = self.scan_bytes(from, &end_of_prefix(&table.prefix()), count_max)?;
        rows.iter().map(|row| decode_row(table, row)).collect()
    }
}

fn decode_row<K: Key + ?Sized, V: DeserializeOwned>(
    table: &Table<K, V>,
    (key, value): &(Bytes, Bytes),
) -> Result<Row<K, V>, SinkError> {
    let other = SinkError::Row { table: table.name };
    let mut rest = key.strip_prefix(table.prefix().as_slice()).ok_or(other.clone())?;
    let key = K::decode(&mut rest).filter(|_| rest.is_empty()).ok_or(other)?;
    Ok((key, decode_value(table, value)?))
}

fn decode_value<K: ?Sized, V: DeserializeOwned>(
    table: &Table<K, V>,
    bytes: &[u8],
) -> Result<V, SinkError> {
    decode(table.name, bytes)
}

/// A value from its bytes, all of them.
pub(super) fn decode<V: DeserializeOwned>(
    table: &'static str,
    bytes: &[u8],
) -> Result<V, SinkError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) | Err(_) => Err(SinkError::Row { table }),
    }
}

/// The bytes of a value.
pub(super) fn encode<V: Serialize + ?Sized>(
    table: &'static str,
    value: &V,
) -> Result<Bytes, SinkError> {
    match postcard::to_stdvec(value) {
        Ok(bytes) => Ok(bytes.into()),
        Err(_) => Err(SinkError::Row { table }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes<K: Key + ?Sized>(key: &K) -> Vec<u8> {
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn keys_are_in_the_order_of_their_values(
            a in ("[\\x00-\\x02a]{0,4}", any::<u64>()), b in ("[\\x00-\\x02a]{0,4}", any::<u64>()),
        ) {
            prop_assert_eq!(bytes(&a).cmp(&bytes(&b)), a.cmp(&b));
            let mut rest = bytes(&a);
            rest.extend(b"more");
            let mut rest = &rest[..];
            prop_assert_eq!(<(String, u64)>::decode(&mut rest), Some(a));
            prop_assert_eq!(rest, b"more");
        }

        #[test]
        fn any_bytes_can_be_decoded(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = <(String, (u64, u32))>::decode(&mut &bytes[..]);
            let _ = <(StreamName, Position)>::decode(&mut &bytes[..]);
            let _ = decode::<(String, Vec<u64>)>("t", &bytes);
        }
    }
}
