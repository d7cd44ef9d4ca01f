//! The slow log: the latest commands that took longer than `slowlog-log-slower-than`.
//!
//! An entry keeps at most 32 arguments of at most 128 bytes, and as many of the client's name, so that a thousand slow commands with huge
//! arguments still fit into a few megabytes.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::settings::Settings;
use crate::types::Now;

/// The most arguments that an entry keeps; the last then tells how many are missing.
const ARGUMENTS_MAX: usize = 32;
/// The most bytes of an argument, or of a client's name, that an entry keeps.
const ARGUMENT_BYTES_MAX: usize = 128;

/// One slow command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number; numbers are never used twice.
    pub id: u64,
    /// When it began, in seconds since the Unix epoch.
    pub at_s: u64,
    /// What it took, in microseconds.
    pub us: u64,
    /// The command, shortened.
    pub arguments: Vec<Vec<u8>>,
    /// The client's address.
    pub address: String,
    /// The client's name.
    pub name: Vec<u8>,
}

#[derive(Debug, Default)]
struct Entries {
    latest_first: VecDeque<Entry>,
    next_id: u64,
}

/// Commands that took long.
#[derive(Debug, Default)]
pub struct SlowLog {
    entries: Mutex<Entries>,
}

impl SlowLog {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a command, whose arguments are without secrets, that began at `began` and took `us` microseconds, if that is long. `client` tells its address and name, and is
    /// only asked then.
    pub fn note(
        &self,
        settings: &Settings,
        arguments: &[&[u8]],
        us: u64,
        began: Now,
        client: impl FnOnce() -> (String, Vec<u8>),
    ) {
        let threshold = settings.slowlog_log_slower_than.load(Ordering::Relaxed);
        if u64::try_from(threshold).is_ok_and(|threshold| us >= threshold) {
            self.take(settings, arguments, us, began, client());
        }
    }

    #[cold]
    fn take(
        &self,
        settings: &Settings,
        arguments: &[&[u8]],
        us: u64,
        began: Now,
        (address, name): (String, Vec<u8>),
    ) {
        let mut entries = self.lock();
        let id = entries.next_id;
        entries.next_id += 1;
        let arguments = shortened(arguments);
        let at_s = began.unix.0 / 1000;
        let name = name[..name.len().min(ARGUMENT_BYTES_MAX)].to_vec();
        entries.latest_first.push_front(Entry { id, at_s, us, arguments, address, name });
        let length = settings.slowlog_max_len.load(Ordering::Relaxed);
        entries.latest_first.truncate(usize::try_from(length).unwrap_or(0));
    }

    /// The latest `count` entries, latest first.
    pub fn latest(&self, count: usize) -> Vec<Entry> {
        self.lock().latest_first.iter().take(count).cloned().collect()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.lock().latest_first.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all entries.
    pub fn reset(&self) {
        self.lock().latest_first.clear();
    }
}

fn shortened(arguments: &[&[u8]]) -> Vec<Vec<u8>> {
    let shown = if arguments.len() > ARGUMENTS_MAX { ARGUMENTS_MAX - 1 } else { arguments.len() };
    let mut kept: Vec<Vec<u8>> = arguments[..shown]
        .iter()
        .map(|argument| match argument.get(..ARGUMENT_BYTES_MAX) {
            Some(head) if argument.len() > ARGUMENT_BYTES_MAX => {
                let rest = argument.len() - ARGUMENT_BYTES_MAX;
                [head, format!("... ({rest} more bytes)").as_bytes()].concat()
            }
            _ => argument.to_vec(),
        })
        .collect();
    if shown < arguments.len() {
        kept.push(format!("... ({} more arguments)", arguments.len() - shown).into_bytes());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(log: &SlowLog, settings: &Settings, arguments: &[&[u8]], us: u64) {
        log.note(settings, arguments, us, Now::default(), || ("a:1".to_owned(), b"n".to_vec()));
    }

    #[test]
    fn only_what_took_long_is_kept_and_the_oldest_goes_first() {
        let (log, settings) = (SlowLog::default(), Settings::default());
        settings.slowlog_log_slower_than.store(100, Ordering::Relaxed);
        settings.slowlog_max_len.store(2, Ordering::Relaxed);
        for us in [99, 100, 200, 300] {
            note(&log, &settings, &[b"get", b"a"], us);
        }
        let kept: Vec<_> = log.latest(10).iter().map(|entry| (entry.id, entry.us)).collect();
        assert_eq!(kept, [(2, 300), (1, 200)]);
        settings.slowlog_log_slower_than.store(-1, Ordering::Relaxed);
        note(&log, &settings, &[b"get", b"a"], u64::MAX);
        assert_eq!(log.len(), 2);
        log.reset();
        assert!(log.is_empty());
    }

    #[test]
    fn long_arguments_and_many_of_them_are_shortened() {
        let long = vec![b'x'; 1000];
        let arguments: Vec<&[u8]> = (0..100).map(|_| long.as_slice()).collect();
        let kept = shortened(&arguments);
        assert_eq!(kept.len(), ARGUMENTS_MAX);
        assert!(kept[0].ends_with(b"... (872 more bytes)"));
        assert_eq!(kept[31], b"... (69 more arguments)");
        assert_eq!(shortened(&arguments[..32]).len(), 32);
        assert_eq!(shortened(&[&long[..128]])[0].len(), 128);
    }
}
