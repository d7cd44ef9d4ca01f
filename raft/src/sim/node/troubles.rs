//! What befalls a node at the worst moment, which no plan made from outside meets often enough: a leader that falls between winning and ruling, news
//! that are late, and operators with ideas.

use lattice_trace::kind;

use super::{Host, Pending, Running, Workload};
use crate::effects::ProposalId;
use crate::message::Envelope;
use crate::raft_node::Role;
use crate::replica::Input;
use crate::sim::orders::{self, Order};
use crate::trace::TraceEvent;
use crate::types::GroupId;

impl<W: Workload> Running<W> {
    /// An operator who wants another leader now and then.
    pub(super) fn hand_over_at_times(&mut self, event: &TraceEvent, context: &mut Host<'_>) {
        let is_time = matches!(event, TraceEvent::HeartbeatsSent { .. });
        // A lease of a second, and a leader less than a second old, are nobody's progress.
        if is_time && !self.setup.is_calm.get() && self.setup.hand_over.happens(context.rng()) {
            self.last_request += 1;
            let id = ProposalId(self.last_request);
            self.inputs.push_back(Input::TransferLeader(id, None));
        }
    }

    /// A fault that no plan made from outside meets often enough: a node falls between winning and ruling.
    pub(super) fn fall_if_elected(&mut self, event: &TraceEvent, context: &mut Host<'_>) {
        let is_elected = matches!(event, TraceEvent::ElectionWon { .. });
        if is_elected && !self.setup.is_calm.get() && self.setup.falls.happens(context.rng()) {
            let delay = self.setup.falls_after.draw(context.rng());
            self.later(delay, Pending::Fall, context);
        }
    }

    /// Another fault of that kind: links that lose their order let a leader hear everything but that it is one no longer.
    pub(super) fn receive(&mut self, envelope: Envelope, context: &mut Host<'_>) {
        if envelope.group == GroupId::PROCESS {
            let mut effects = Vec::new();
            self.liveness.handle_message(context.now(), &envelope, &mut effects);
            return self.watch(effects, context);
        }
        let node = self.replica.node();
        let is_news = node.role() == Role::Leader && envelope.term > node.term();
        if is_news && !self.setup.is_calm.get() && self.setup.late_news.happens(context.rng()) {
            let delay = self.setup.late_by.draw(context.rng());
            return self.later(delay, Pending::Input(Input::Receive(envelope)), context);
        }
        self.inputs.push_back(Input::Receive(envelope));
    }

    /// Who wins an election will be given orders.
    pub(super) fn order_later(&mut self, event: &TraceEvent, context: &mut Host<'_>) {
        if let (TraceEvent::ElectionWon { .. }, Some(orders)) = (event, self.setup.orders) {
            let delay = orders.draw(context.rng());
            self.later(delay, Pending::Order, context);
        }
    }

    pub(super) fn take_order(&mut self, context: &mut Host<'_>) {
        let raft = self.replica.node();
        let (Role::Leader, Some(orders), false) =
            (raft.role(), self.setup.orders, self.setup.is_calm.get())
        else {
            return;
        };
        let order = orders::draw(raft, self.setup.last_node, context.rng());
        context.trace(kind::MEMBERSHIP, format_args!("ordered: {order:?}"));
        self.last_request += 1;
        let id = ProposalId(self.last_request);
        self.inputs.push_back(match order {
            Order::Change(change) => Input::ChangeMembership(id, change),
            Order::Transfer(to) => Input::TransferLeader(id, to),
        });
        let delay = orders.draw(context.rng());
        self.later(delay, Pending::Order, context);
    }
}
