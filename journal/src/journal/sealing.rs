//! Handing out seals: made when a segment is complete, written by whoever has the time.

use super::Journal;
use crate::seal::{PendingSeal, Seal};

impl Journal {
    /// The seals that are not written yet, so that they can be written on another thread: of segments that were completed, replaced,
    /// or found without a seal when the journal was opened. There are none unless
    /// [`trust_seals`](super::JournalOptions::trust_seals) is on.
    ///
    /// To be called now and then; the check whether there is one costs nothing. Seals that nobody takes are written by
    /// [`Journal::close`], and take half as much memory as the index does for the same segments.
    #[must_use]
    pub fn take_seals(&mut self) -> Vec<PendingSeal> {
        let home = &self.home;
        self.seals.drain(..).map(|seal| PendingSeal { seal, home: home.clone() }).collect()
    }

    /// Makes the seal of the active segment, which is complete now: everything in it is durable and in the index, and nothing that
    /// came later is.
    pub(super) fn seal_active(&mut self) {
        if !self.options.trust_seals {
            return;
        }
        let facts = self.segments.last().expect("the active segment is listed");
        let index = self.shared.index();
        if index.mended.iter().any(|run| run.segment == facts.number) {
            // A seal cannot tell of items of other segments: this one is looked through each time.
            return;
        }
        self.seals.push(Seal::new(
            self.options.id,
            facts.number,
            facts.generation,
            facts.length,
            self.last,
            facts.begins,
            &index.runs,
        ));
    }
}
