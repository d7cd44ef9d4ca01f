//! What a test or a nemesis does to the nodes of a world: ends, starts and pauses.

use std::fmt;
use std::time::Duration;

use lattice_trace::{Cause, kind};

use crate::disk::SimDisk;
use crate::process::{Address, Process};
use crate::world::World;
use crate::world::node::origin_of;
use crate::world::queue::ItemKind;

impl<P: Process> World<P> {
    /// The machine at an address loses power: its process is gone, and of its disk what [`SimDisk::crash`] takes.
    pub fn crash(&mut self, address: Address) {
        self.end(address, "crash", SimDisk::crash);
    }

    /// The process at an address is killed; its machine, and so what it has written, stays: [`SimDisk::kill`].
    pub fn kill(&mut self, address: Address) {
        self.end(address, "kill", SimDisk::kill);
    }

    /// The machine at an address loses power and its disk: it will start with a blank one.
    pub fn wipe(&mut self, address: Address) {
        self.end(address, "disk lost", SimDisk::blank);
    }

    /// Two machines lose power, and get each other's disk.
    ///
    /// # Panics
    /// If both are the same.
    pub fn swap_disks(&mut self, one: Address, other: Address) {
        self.end(one, "disk swapped", |_| ());
        self.end(other, "disk swapped", |_| ());
        self.disk(one).swap(self.disk(other));
    }

    fn end(&mut self, address: Address, what: &str, harm: impl FnOnce(&SimDisk)) {
        self.note_fault(address, what);
        let now = self.now;
        let node = self.node_mut(address);
        node.end();
        node.disk.set_now(now);
        harm(&node.disk);
    }

    /// Starts the process at an address now, unless it is up. A start that was to come later comes now instead.
    pub fn restart(&mut self, address: Address) {
        self.node_mut(address).start = None;
        self.restart_after(address, Duration::ZERO);
    }

    /// Starts the process at an address after a while, unless it is up or about to be.
    pub fn restart_after(&mut self, address: Address, delay: Duration) {
        let at = self.now + delay;
        let node = self.node_mut(address);
        if node.process.is_none() && node.start.is_none() {
            let id = node.new_id();
            node.start = Some(id);
            let item = node.item(ItemKind::Start { id });
            self.queue.push(at, item);
        }
    }

    /// Stops the process at an address for a while, as SIGSTOP does: what happens to it waits, and its clock goes on.
    /// A pause during a pause can only make it longer.
    pub fn pause(&mut self, address: Address, length: Duration) {
        self.note_fault(address, "pause");
        let until = self.now + length;
        let node = self.node_mut(address);
        if node.process.is_none() || (node.pause.is_some() && node.paused_until >= until) {
            return;
        }
        let id = node.new_id();
        node.pause = Some(id);
        node.paused_until = until;
        let item = node.item(ItemKind::Resume { id });
        self.queue.push(until, item);
    }

    /// Ends a pause now.
    pub fn resume(&mut self, address: Address) {
        let node = self.node_mut(address);
        let id = node.pause.unwrap_or_default();
        self.end_pause(address, id);
    }

    /// Notes a fault in the trace and in the hash. The methods that end or pause a process do so themselves.
    pub fn note_fault(&mut self, address: Address, what: impl fmt::Display) {
        let origin =
            origin_of(&mut self.nodes, address, self.now, &self.world_clock, &mut self.world_seq);
        self.recorder.note(origin, Cause::NONE, kind::FAULT, &[], format_args!("{what}"));
    }

    pub(super) fn end_pause(&mut self, address: Address, id: u64) {
        let node = self.nodes.get_mut(&address).expect("a pause has a node");
        if node.pause == Some(id) {
            node.pause = None;
            // In the order in which it happened, before anything else that happens now.
            for item in node.backlog.drain(..) {
                self.queue.push_first(self.now, item);
            }
        }
    }
}
