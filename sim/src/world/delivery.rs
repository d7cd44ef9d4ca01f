//! Messages on their way: what becomes of each, and the note that is taken of it.

use lattice_trace::{Cause, kind};

use crate::network::Departure;
use crate::process::{Address, Event, Process};
use crate::world::node::origin_of;
use crate::world::queue::{Item, ItemKind};
use crate::world::{Step, StepKind, World};

impl<P: Process> World<P> {
    /// Puts a message on its way from one address to another, as if a process had sent it.
    pub fn send(&mut self, from: Address, to: Address, message: P::Message) {
        self.depart(from, to, message, Cause::NONE);
    }

    /// A message leaves, or is lost at once.
    pub(super) fn depart(&mut self, from: Address, to: Address, message: P::Message, cause: Cause) {
        match self.network.depart(self.now, from, to) {
            Departure::Cut => self.note_dropped(from, to, &message, cause, "cut"),
            Departure::Lost => self.note_dropped(from, to, &message, cause, "lost"),
            Departure::Corrupt(arrival, bit) => {
                match self.process(to).and_then(|process| process.damaged(&message, bit)) {
                    None => self.note_dropped(from, to, &message, cause, "corrupt"),
                    Some(message) => {
                        let seq = self.note_sent(from, to, &message, cause);
                        let cause = Cause { node: from.0, seq };
                        let kind = ItemKind::Deliver { from, message, cause };
                        self.queue.push(arrival, Item { to, kind });
                    }
                }
            }
            Departure::Reset => self.note_dropped(from, to, &message, cause, "reset"),
            Departure::Arrives(first, copy) => {
                let seq = self.note_sent(from, to, &message, cause);
                let cause = Cause { node: from.0, seq };
                if let Some(copy) = copy {
                    let kind = ItemKind::Deliver { from, message: message.clone(), cause };
                    self.queue.push(copy, Item { to, kind });
                }
                let kind = ItemKind::Deliver { from, message, cause };
                self.queue.push(first, Item { to, kind });
            }
        }
    }

    /// A message arrives, if its link is whole and somebody is there to hear it.
    pub(super) fn arrive(
        &mut self,
        from: Address,
        to: Address,
        message: P::Message,
        cause: Cause,
    ) -> Option<Step> {
        if self.network.is_cut(from, to) {
            self.network.counts.cut += 1;
            self.note_dropped(from, to, &message, cause, "cut");
            None
        } else if !self.is_up(to) {
            self.network.counts.unheard += 1;
            self.note_dropped(from, to, &message, cause, "nobody is up");
            None
        } else {
            self.network.counts.delivered += 1;
            let event = Event::Receive { from, message };
            Some(self.handle(to, event, StepKind::Received { from }, cause))
        }
    }

    fn note_sent(&mut self, from: Address, to: Address, message: &P::Message, cause: Cause) -> u64 {
        let origin =
            origin_of(&mut self.nodes, from, self.now, &self.world_clock, &mut self.world_seq);
        let (kind, detail) = (kind::MESSAGE_SENT, format_args!("{message:?}"));
        self.recorder.note_message(origin, cause, kind, &[("to", to.0)], detail)
    }

    fn note_dropped(
        &mut self,
        from: Address,
        to: Address,
        message: &P::Message,
        cause: Cause,
        why: &str,
    ) {
        let origin =
            origin_of(&mut self.nodes, from, self.now, &self.world_clock, &mut self.world_seq);
        let (kind, detail) = (kind::MESSAGE_DROPPED, format_args!("{why}: {message:?}"));
        self.recorder.note_message(origin, cause, kind, &[("to", to.0)], detail);
    }
}
