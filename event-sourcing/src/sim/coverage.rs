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
    Recorded "an append was acknowledged",
    Conflicted "an append was refused because of others",
    ConflictedInGroup "an append was refused because of one of its own group",
    Repeated "a repeated append was answered with its places",
    Reused "an append was refused because its id or key was taken by another",
    Tombstoned "an append to a closed stream was refused",
    BroughtBack "a decision that would bring something back was refused",
    DiskFull "a group was refused by a full disk",
    SyncFailed "a sync failed under a group",
    Crashed "the power failed",
    Killed "the process was killed",
    CrashedWhileOpening "the power failed while the log was being opened",
    UnknownRecorded "an append without an answer was found recorded",
    UnknownInPart "of a group without an answer the first appends were found recorded, and not the last",
    UnknownLost "an append without an answer was found lost",
    UnknownRepeated "an append without an answer was repeated",
    Rotated "a segment was complete",
    Scavenged "space of hidden events came back",
    ScavengedAmidAppends "appends came between the rewriting of a segment and its installation",
    IndexDamaged "an index file was damaged or missing",
    SealLost "a seal was damaged or missing",
    SegmentDamaged "events of a complete segment were damaged",
    ClockBack "the clock went back",
    CaughtUp "a subscriber caught up",
    FellBehind "a subscriber fell behind",
    Checkpointed "a subscriber was told a checkpoint",
    Resumed "a subscriber went on from an old checkpoint",
    ProjectionStopped "a projection's sink failed in a commit",
    SnapshotUsed "a state was loaded from a snapshot",
    SnapshotIgnored "a snapshot of another program was ignored",
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
