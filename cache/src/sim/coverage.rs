//! What has to happen sometimes: a check of something that never happens checks nothing.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! events {
    ($($name:ident $text:literal,)*) => {
        /// Something that a campaign is expected to meet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each has its text")]
        pub enum Sometimes { $($name,)* }

        impl Sometimes {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What happened.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

events! {
    ExpiredByWheel "a key expired in the wheel",
    ExpiredByRead "a key expired because somebody asked for it",
    Cascaded "a key expired that was filed further than one turn of the wheel's first level away",
    Evicted "a key was evicted",
    Refused "a command was refused at the limit",
    Compacted "a block of cells was emptied",
    TableGrown "a slot held more than a hundred keys",
    TableShrunk "most of a large slot's keys were removed",
    Collided "two keys of one slot and one hash were there at once",
    Pushed "a client-side cache was told of a change",
    CacheFlushed "a client-side cache was told to forget all",
    Executed "a transaction with watches ran",
    Aborted "a transaction with watches did not run",
    Blocked "a client had to wait for an element",
    Served "a client that waited was served",
    Chained "serving one waiting client served another one",
    TimedOut "a client waited in vain",
    Leased "a lease was granted",
    LeaseWaited "a client waited for a lease's holder",
    LeasePublished "a lease's holder published",
    LeaseVoided "a lease's holder came too late",
    ScannedAmidWrites "a scan ended that keys changed under",
    ScannedInQuiet "a scan ended that nothing changed under",
    ElementsScanned "a scan over a large collection ended",
    Swapped "two databases were exchanged",
    Flushed "a database was flushed",
    Left "a client left in the middle of things",
}

/// How often each event has happened, over all runs.
#[derive(Debug)]
pub struct Coverage(Vec<AtomicU64>);

impl Default for Coverage {
    fn default() -> Self {
        Self(Sometimes::ALL.iter().map(|_| AtomicU64::new(0)).collect())
    }
}

impl Coverage {
    pub(super) fn note(&self, event: Sometimes) {
        self.0[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often `event` has happened.
    #[must_use]
    pub fn count(&self, event: Sometimes) -> u64 {
        self.0[event as usize].load(Ordering::Relaxed)
    }

    /// What has never happened.
    #[must_use]
    pub fn missing(&self) -> Vec<Sometimes> {
        Sometimes::ALL.iter().copied().filter(|event| self.count(*event) == 0).collect()
    }
}
