//! A process handles an event, and the world carries out what it asks for.

use std::fmt;

use lattice_trace::{Cause, kind};

use crate::process::{Address, Context, Event, Process};
use crate::recorder::{Origin, Recorder};
use crate::world::queue::{Item, ItemKind};
use crate::world::{Step, StepKind, World};

impl<P: Process> World<P> {
    pub(super) fn start(&mut self, address: Address) -> Step {
        let (now, seed) = (self.now, self.options.seed);
        let node = self.node_mut(address);
        node.start = None;
        node.disk.set_now(now);
        node.make(seed, now);
        self.handle(address, Event::Start, StepKind::Started, Cause::NONE)
    }

    /// Lets a process handle an event, and carries out what it asks for.
    pub(super) fn handle(
        &mut self,
        address: Address,
        event: Event<P::Message>,
        step: StepKind,
        cause: Cause,
    ) -> Step {
        let at = self.now;
        let Self { nodes, recorder, requests, .. } = self;
        let node = nodes.get_mut(&address).expect("only nodes get events");
        node.disk.set_now(at);
        let seq = note_event(recorder, node.origin(at), &event, cause);
        let mut context = Context {
            address,
            boot: node.boot,
            at,
            clock: &node.clock,
            rng: &mut node.rng,
            disk: &node.disk,
            seq: &mut node.seq,
            cause: seq,
            recorder,
            requests,
        };
        node.process.as_mut().expect("only who is up gets events").handle(event, &mut context);
        let stopped = self.carry_out(address, Cause { node: address.0, seq });
        if !stopped {
            self.arm(address);
        }
        Step { at, address, kind: step, stopped }
    }

    /// Carries out what a process asked for; answers whether it ended itself.
    fn carry_out(&mut self, address: Address, cause: Cause) -> bool {
        let mut requests = std::mem::take(&mut self.requests);
        for (to, message) in requests.messages.drain(..) {
            self.depart(address, to, message, cause);
        }
        let boot = self.node(address).boot;
        for (delay, token) in requests.completions.drain(..) {
            let kind = ItemKind::Completed { boot, token, cause };
            self.queue.push(self.now + delay, Item { to: address, kind });
        }
        let stop = requests.stop.take();
        // The vectors keep their room for the next event.
        self.requests = requests;
        let Some(reason) = stop else {
            return false;
        };
        let (now, recorder) = (self.now, &mut self.recorder);
        let node = self.nodes.get_mut(&address).expect("it has just handled an event");
        let detail = format_args!("stopped: {reason}");
        recorder.note(node.origin(now), cause, kind::PROCESS, &[], detail);
        node.end();
        node.disk.kill();
        node.stopped = Some(reason);
        true
    }
}

/// Notes that a process is about to handle an event.
fn note_event<M: fmt::Debug>(
    recorder: &mut Recorder,
    origin: Origin<'_>,
    event: &Event<M>,
    cause: Cause,
) -> u64 {
    match event {
        Event::Start => recorder.note(origin, cause, kind::PROCESS, &[], format_args!("start")),
        Event::Timer => recorder.note(origin, cause, kind::PROCESS, &[], format_args!("timer")),
        Event::Completed(token) => {
            let numbers = [("token", *token)];
            recorder.note(origin, cause, kind::PROCESS, &numbers, format_args!("completed"))
        }
        // Its content was hashed when it was sent.
        Event::Receive { from, message } => {
            let numbers = [("from", from.0)];
            let detail = format_args!("{message:?}");
            recorder.note_received(origin, cause, &numbers, detail)
        }
    }
}
