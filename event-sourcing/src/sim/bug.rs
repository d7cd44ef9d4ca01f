//! Defects that event stores have had, planted on purpose.
//!
//! None is there by default. A campaign with one of them must end in a violation: that is how we know that the checks can fail. A run
//! is on one thread from its beginning to its end, so the thread says which defect it has, and nothing has to be handed down to the
//! places where the defects are.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

use crate::event::Timestamp;

macro_rules! bugs {
    ($($(#[$about:meta])* $name:ident $text:literal,)*) => {
        /// A defect that a store, or what follows it, can be made to have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum PlantedBug { $($(#[$about])* $name,)* }

        impl PlantedBug {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

bugs! {
    /// Queries of conditions are asked of the log as it was before the group.
    StaleCondition "stale-condition",
    /// What was looked at ahead of an append's turn is taken for sound although a query matched.
    EvaluatedPastMatch "evaluated-past-match",
    /// Readers see events before they are durable.
    HeadBeforeDurable "head-before-durable",
    /// Appends are acknowledged without a sync.
    AckBeforeSync "ack-before-sync",
    /// A refusal is answered although the group that it names events of was not written.
    RefusalBeforeDurable "refusal-before-durable",
    /// The first frame of a group ends behind the first event, in the middle of its append.
    FrameSplitsAppend "frame-splits-append",
    /// Ids of events before a restart are not known after it.
    IdsForgottenAtRestart "ids-forgotten-at-restart",
    /// The last append that recovery has found is not taken for the one that is repeated.
    TailTwice "tail-twice",
    /// A segment with a tombstone and no other decision is taken for one without decisions.
    TombstoneForgotten "tombstone-forgotten",
    /// The numbering of a deleted stream begins again.
    VersionReused "version-reused",
    /// Age is measured by the clock of the machine.
    AgeByLocalClock "age-by-local-clock",
    /// What is left of a scavenged event has the version of the event before it.
    ScavengeShiftsVersions "scavenge-shifts-versions",
    /// What is left of a scavenged event has no leaf of the hash chain.
    ScavengeForgetsLeaf "scavenge-forgets-leaf",
    /// The last event of a limited stream is scavenged with those before it.
    ScavengeTakesLast "scavenge-takes-last",
    /// The leaves of a group go into the hash chain in another order than the log's.
    ChainOutOfOrder "chain-out-of-order",
    /// The filter of an index file denies some of what is in the file.
    FilterFalseNegative "filter-false-negative",
    /// What is asked of labels is asked of complete segments only.
    LabelsOfSealedOnly "labels-of-sealed-only",
    /// An index file is believed whatever it says it is of.
    StaleIndexTrusted "stale-index-trusted",
    /// A subscription that has caught up goes on at the end of the log instead of where it was.
    GapAtLiveSwitch "gap-at-live-switch",
    /// A page of a subscription counts as having looked at the whole log.
    CheckpointPastMatch "checkpoint-past-match",
    /// A projection writes its rows, and then its checkpoint.
    CheckpointApart "checkpoint-apart",
    /// A snapshot is believed whichever program made it.
    NewerSnapshotTrusted "newer-snapshot-trusted",
}

thread_local! {
    static PLANTED: Cell<Option<PlantedBug>> = const { Cell::new(None) };
    static LOCAL_TIME: Cell<Timestamp> = const { Cell::new(Timestamp(0)) };
}

/// Plants a defect, or none, for the run on this thread.
pub(super) fn plant(bug: Option<PlantedBug>) {
    PLANTED.set(bug);
}

/// Whether the run on this thread has this defect.
pub(crate) fn is_planted(bug: PlantedBug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Sets what [`local_time`] says on this thread.
pub(super) fn set_local_time(time: Timestamp) {
    LOCAL_TIME.set(time);
}

/// The clock of the machine, which only defects look at.
pub(crate) fn local_time() -> Timestamp {
    LOCAL_TIME.get()
}

impl fmt::Display for PlantedBug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for PlantedBug {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|bug| bug.name()).collect();
            format!("no planted bug is called {name}; there are {}", names.join(", "))
        })
    }
}
