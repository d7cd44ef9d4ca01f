//! Values of a Rust type, written with postcard: compact, and without the names of fields, so a type that changes needs another prefix.

use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Cache, Error, Load};

/// A cache for values of type `T`, under keys with one prefix.
#[derive(Debug)]
pub struct Typed<T> {
    cache: Cache,
    prefix: Box<str>,
    of: PhantomData<fn() -> T>,
}

/// By hand, since no `T` is cloned.
impl<T> Clone for Typed<T> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), prefix: self.prefix.clone(), of: PhantomData }
    }
}

impl<T> Typed<T> {
    pub(super) fn new(cache: Cache, prefix: &str) -> Self {
        Self { cache, prefix: prefix.into(), of: PhantomData }
    }

    fn key(&self, key: &str) -> Vec<u8> {
        let mut whole = Vec::with_capacity(self.prefix.len() + 1 + key.len());
        whole.extend_from_slice(self.prefix.as_bytes());
        whole.push(b':');
        whole.extend_from_slice(key.as_bytes());
        whole
    }

    /// Removes the value of `key`. False if there was none.
    pub fn delete(&self, key: &str) -> bool {
        self.cache.delete(&self.key(key))
    }

    /// Removes all values of this prefix, and returns how many. Looks at every key of the cache.
    pub fn clear(&self) -> usize {
        self.cache.invalidate_prefix(&self.key(""))
    }
}

impl<T: Serialize + DeserializeOwned> Typed<T> {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`Error::Codec`] if what is there was written as another type.
    pub fn get(&self, key: &str) -> Result<Option<T>, Error> {
        let read = self.cache.get_with(&self.key(key), |bytes| postcard::from_bytes(bytes));
        read.transpose().map_err(Error::Codec)
    }

    /// Keeps `value` under `key`, for `ttl` if there is one.
    ///
    /// # Errors
    /// [`Error::Codec`] if it cannot be written, and those of [`Cache::set`].
    pub fn set(&self, key: &str, value: &T, ttl: Option<Duration>) -> Result<(), Error> {
        let bytes = postcard::to_stdvec(value).map_err(Error::Codec)?;
        match ttl {
            Some(ttl) => self.cache.set_for(&self.key(key), &bytes, ttl),
            None => self.cache.set(&self.key(key), &bytes),
        }
    }

    /// The value of `key`; if there is none, what `load` brings: as [`Cache::get_or_load`].
    ///
    /// # Errors
    /// The loader's, or [`Error::Codec`] as one.
    pub fn get_or_load<E: From<Error>>(
        &self,
        key: &str,
        how: &Load,
        load: impl FnOnce() -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        let bytes = self.cache.get_or_load(&self.key(key), how, || write::<T, E>(load()?))?;
        read(bytes.as_deref())
    }

    /// As [`Typed::get_or_load`], for a loader that is a future: as [`Cache::get_or_load_async`].
    ///
    /// # Errors
    /// The loader's, or [`Error::Codec`] as one.
    pub async fn get_or_load_async<E, F>(
        &self,
        key: &str,
        how: &Load,
        load: impl FnOnce() -> F,
    ) -> Result<Option<T>, E>
    where
        E: From<Error>,
        F: Future<Output = Result<Option<T>, E>>,
    {
        let key = self.key(key);
        let load = || async move { write::<T, E>(load().await?) };
        let bytes = self.cache.get_or_load_async(&key, how, load).await?;
        read(bytes.as_deref())
    }
}

fn write<T: Serialize, E: From<Error>>(value: Option<T>) -> Result<Option<Vec<u8>>, E> {
    let bytes = value.map(|value| postcard::to_stdvec(&value)).transpose();
    bytes.map_err(|error| E::from(Error::Codec(error)))
}

fn read<T: DeserializeOwned, E: From<Error>>(bytes: Option<&[u8]>) -> Result<Option<T>, E> {
    let value = bytes.map(postcard::from_bytes).transpose();
    value.map_err(|error| E::from(Error::Codec(error)))
}
