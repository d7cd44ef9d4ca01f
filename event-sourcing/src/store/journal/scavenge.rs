//! Taking back the space of events that nobody can see any more.
//!
//! A segment that is complete is rewritten beside the writer, with a [`Stub`] in the place of each hidden event: all but what it said
//! stays, and of that a digest and its leaf. So numbering, time, idempotency and the hash chain are as before. What is
//! hidden is decided by the log at one moment, and what is hidden stays hidden, so that it does not matter how much later the new
//! segment is installed.
//!
//! A segment is rewritten if that frees a part of it that is worth the trouble ([`WORTHWHILE`]). Nothing is freed before the new
//! file is durable, so on a full disk it is refused.

use std::sync::Arc;

use bytes::Bytes;
use lattice_journal::{JournalError, Prepared, Rewriter};

use super::part::{Access, Part};
use super::view::{Shared, View};
use crate::event::{Position, Recorded};
use crate::machine::scan::Visibility;
use crate::machine::{Entry, Stub};
use crate::read::ReadError;
use crate::record;

/// A segment is rewritten if at least one byte in so many of its events' is freed.
const WORTHWHILE: u64 = 8;

/// A complete segment that may hold hidden events.
#[derive(Debug)]
pub struct ScavengeTask {
    pub(super) shared: Arc<Shared>,
    pub(super) part: Arc<Part>,
    pub(super) rewriter: Rewriter,
    /// Rewrite it for the sake of one event.
    pub(super) thorough: bool,
}

/// A rewritten segment that waits to be installed.
#[derive(Debug)]
pub struct Scavenged {
    pub(super) part: Arc<Part>,
    pub(super) prepared: Prepared,
    /// How many events give their space back.
    pub events: u64,
}

/// Why a segment was not rewritten. It is as it was.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScavengeError {
    /// Its events could not be read.
    #[error("the events of the segment could not be read")]
    Read(#[from] ReadError),
    /// The segment could not be written or put in its place.
    #[error("the segment could not be rewritten")]
    Journal(#[from] JournalError),
}

impl ScavengeTask {
    /// The segment that it rewrites.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.part.segment
    }

    /// Looks for hidden events and rewrites the segment without them, if that is worth it. On any thread, while the log goes on.
    ///
    /// # Errors
    ///
    /// If the segment cannot be read, or there is no room for its successor. It is as it was then.
    pub fn run(self) -> Result<Option<Scavenged>, ScavengeError> {
        let Self { shared, part, rewriter, thorough } = self;
        let Some(positions) = part.frozen_positions() else { return Ok(None) };
        let view = View::new(&shared, Access::Disk);
        let mut visibility = Visibility::new(&view)?;
        let (mut hidden, mut freed, mut whole) = (Vec::new(), 0, 0);
        let mut next = positions.start;
        while next < positions.end {
            let mut failed = None;
            next = super::records::read(
                &shared.reader,
                next..positions.end,
                1 << 20,
                |bytes, decoded| {
                    whole += length(bytes);
                    let Entry::Event(recorded) = &decoded.entry else { return };
                    match visibility.shows(recorded) {
                        Ok(true) if !takes_last(recorded) => {}
                        Ok(_) => {
                            let stub = Stub::of(recorded, [0; 32]);
                            let left = record::encode_stub(&stub, decoded.key.as_ref());
                            hidden.push(recorded.position);
                            freed += length(bytes).saturating_sub(length(&left));
                        }
                        Err(error) => failed = Some(error),
                    }
                },
            )?;
            if let Some(error) = failed {
                return Err(error.into());
            }
        }
        let worthwhile = freed > 0 && (thorough || freed * WORTHWHILE >= whole);
        if !worthwhile {
            return Ok(None);
        }
        let prepared = rewriter.prepare(&mut |position, bytes| {
            hidden.binary_search(&Position(position)).ok()?;
            // The item was read and decoded a moment ago, and bytes of a segment never change.
            let decoded = record::decode(&Bytes::copy_from_slice(bytes)).ok()?;
            let Entry::Event(recorded) = &decoded.entry else { return None };
            #[cfg_attr(
                not(feature = "sim"),
                expect(unused_mut, reason = "but for planted defects")
            )]
            let mut stub = Stub::of(recorded, record::leaf_hash(bytes));
            #[cfg(feature = "sim")]
            spoil(&mut stub);
            let left = record::encode_stub(&stub, decoded.key.as_ref());
            // An event may be smaller than what would be left of it.
            (left.len() < bytes.len()).then_some(left)
        })?;
        let events = u64::try_from(hidden.len()).expect("a count");
        Ok(Some(Scavenged { part, prepared, events }))
    }
}

/// A defect that is planted: events that can be seen are taken for hidden.
fn takes_last(recorded: &Recorded) -> bool {
    planted!(ScavengeTakesLast) && recorded.version.0 % 3 == 2 && !recorded.stream.is_system()
}

/// Defects that are planted.
#[cfg(feature = "sim")]
fn spoil(stub: &mut Stub) {
    if planted!(ScavengeShiftsVersions) {
        stub.version.0 = stub.version.0.saturating_sub(1);
    }
    if planted!(ScavengeForgetsLeaf) {
        stub.leaf = [0; 32];
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a length fits 64 bits")
}
