//! The log of refusals that `ACL LOG` shows: latest first, and the same refusal within a minute is one entry that counts.

use std::collections::VecDeque;

use crate::types::Now;

/// Refusals of one kind closer together than this are one entry.
const SAME_WITHIN_US: u64 = 60_000_000;

/// Where a command was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogContext {
    /// As the client sent it.
    TopLevel,
    /// In a transaction.
    Multi,
    /// In one of the scripts that are carried out natively.
    Script,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its number.
    pub id: u64,
    /// How often it has happened.
    pub count: u64,
    /// `command`, `key`, `channel` or `auth`.
    pub reason: &'static str,
    /// Where.
    pub context: LogContext,
    /// Which command, key or channel, or who failed to authenticate.
    pub object: Box<[u8]>,
    /// Who.
    pub user: Box<[u8]>,
    /// When it happened first.
    pub created: Now,
    /// When it happened last.
    pub updated: Now,
    /// The client that did it last, as `CLIENT INFO` shows it.
    pub client: String,
}

/// The log.
#[derive(Debug, Default)]
pub(super) struct Log {
    latest_first: VecDeque<LogEntry>,
    next_id: u64,
}

impl Log {
    pub(super) fn note(&mut self, mut entry: LogEntry, length: usize) {
        let same = self.latest_first.iter().position(|old| {
            old.reason == entry.reason
                && old.context == entry.context
                && old.object == entry.object
                && old.user == entry.user
                && entry.updated.monotonic_us.saturating_sub(old.updated.monotonic_us)
                    <= SAME_WITHIN_US
        });
        if let Some(old) = same.and_then(|at| self.latest_first.remove(at)) {
            entry.id = old.id;
            entry.count = old.count + 1;
            entry.created = old.created;
        } else {
            entry.id = self.next_id;
            self.next_id += 1;
        }
        self.latest_first.push_front(entry);
        self.latest_first.truncate(length);
    }

    pub(super) fn latest(&self, count: usize) -> Vec<LogEntry> {
        self.latest_first.iter().take(count).cloned().collect()
    }

    pub(super) fn reset(&mut self) {
        self.latest_first.clear();
    }
}
