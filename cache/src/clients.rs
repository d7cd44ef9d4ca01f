//! SKELETON: who is connected, and what is waiting to be sent to them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::types::ClientId;

/// What others have for a client: whole replies and messages, in order.
#[derive(Default)]
pub struct Outbox {
    bytes: Mutex<Vec<u8>>,
    filled: AtomicBool,
    wake: Option<Box<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

impl Outbox {
    /// An empty outbox. `wake` is called when something has been put into it, from whichever thread did.
    #[must_use]
    pub fn new(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { wake: Some(wake), ..Self::default() }
    }

    /// Puts a whole reply or message in.
    pub fn put(&self, bytes: &[u8]) {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        self.filled.store(true, Ordering::Release);
        if let Some(wake) = &self.wake {
            wake();
        }
    }

    /// Moves everything to `out`.
    pub fn drain_into(&self, out: &mut Vec<u8>) {
        if self.filled.swap(false, Ordering::Acquire) {
            out.append(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// What others may know of a client.
#[derive(Debug)]
pub struct Client {
    /// Its number.
    pub id: ClientId,
    /// What others have for it.
    pub outbox: Outbox,
}

/// Everybody who is connected.
#[derive(Debug, Default)]
pub struct Clients {}
