//! A client: its session, and what it believes.

use std::collections::BTreeMap;

use super::model::Name;
use super::operation::Operation;
use super::reply::Answer;
use super::scan::Scan;
use crate::clients::{Origin, Outbox};
use crate::engine::Engine;
use crate::session::Session;

/// Which of what it reads a client caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caching {
    Nothing,
    All,
    /// All, and it is not told of its own writes.
    NoLoop,
    /// What it has asked for with `CLIENT CACHING YES`.
    OptIn,
    /// Keys with the prefix.
    Broadcast,
}

/// The keys that a client in broadcast mode caches.
pub(super) const PREFIX: &[u8] = b"s:1";

#[derive(Debug)]
pub(super) struct SimClient {
    pub(super) session: Session,
    pub(super) is_resp3: bool,
    pub(super) database: u8,
    pub(super) caching: Caching,
    pub(super) cache: BTreeMap<Vec<u8>, Answer>,
    /// Commands that wait for `EXEC`.
    pub(super) queue: Option<Vec<Operation>>,
    /// Whether a command of the queue was refused.
    pub(super) is_broken: bool,
    /// Keys that it watches, and whether they were there when that began.
    pub(super) watched: BTreeMap<Name, bool>,
    pub(super) is_dirty: bool,
    pub(super) scan: Option<Scan>,
    /// Leases that it was granted, and may have lost.
    pub(super) leases: Vec<(Name, Vec<u8>)>,
}

impl SimClient {
    pub(super) fn new(engine: &Engine) -> Self {
        let now = engine.clock.now();
        let client = engine.clients.connect(Origin::default(), now, Outbox::default());
        Self {
            session: Session::new(engine, client, engine.totals.tally()),
            is_resp3: false,
            database: 0,
            caching: Caching::Nothing,
            cache: BTreeMap::new(),
            queue: None,
            is_broken: false,
            watched: BTreeMap::new(),
            is_dirty: false,
            scan: None,
            leases: Vec::new(),
        }
    }

    /// Reads a message: forgets what it says.
    pub(super) fn hear(&mut self, message: &[Answer]) -> Option<bool> {
        if message.first()?.bytes()? != b"invalidate" {
            return None;
        }
        match message.get(1)? {
            Answer::Null => {
                self.cache.clear();
                Some(true)
            }
            Answer::List(keys) => {
                for key in keys {
                    self.cache.remove(key.bytes()?);
                }
                Some(false)
            }
            _ => None,
        }
    }

    /// Whether it caches what it reads under `key`, `asked` if it has asked for that.
    pub(super) fn caches(&self, key: &[u8], asked: bool) -> bool {
        match self.caching {
            Caching::Nothing => false,
            Caching::All | Caching::NoLoop => true,
            Caching::OptIn => asked,
            Caching::Broadcast => key.starts_with(PREFIX),
        }
    }
}
