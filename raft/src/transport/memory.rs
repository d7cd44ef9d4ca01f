//! Messages between nodes of one process.
//!
//! For examples and tests: every transport of a [`MemoryNetwork`] delivers straight into the inbox
//! of its peer. Links can be cut and healed and nodes stopped, each with immediate effect; what is
//! sent meanwhile is lost, as on a real network. Nothing is delayed or reordered: for that there is
//! the simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Inbox, Transport};
use crate::message::Envelope;
use crate::types::{GroupId, NodeId};

/// A network inside one process. Clones are the same network.
#[derive(Clone, Debug, Default)]
pub struct MemoryNetwork {
    state: Arc<Mutex<State>>,
}

/// One node's access to a [`MemoryNetwork`].
#[derive(Debug)]
pub struct MemoryTransport {
    network: MemoryNetwork,
    node: NodeId,
    incarnation: u64,
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<NodeId, Attached>,
    /// Links that deliver nothing, by sender and receiver.
    cut: BTreeSet<(NodeId, NodeId)>,
    incarnations: u64,
    dropped: u64,
}

/// The transport that speaks for a node at present.
#[derive(Debug)]
struct Attached {
    incarnation: u64,
    inboxes: BTreeMap<GroupId, Inbox>,
}

impl MemoryNetwork {
    /// A network without nodes, in which every link works.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Attaches `node` and returns its transport. An earlier transport of the same node is dead
    /// from now on, as after a restart; cut links stay cut.
    #[must_use]
    pub fn transport(&self, node: NodeId) -> Arc<MemoryTransport> {
        let mut state = self.lock();
        state.incarnations += 1;
        let incarnation = state.incarnations;
        state.nodes.insert(node, Attached { incarnation, inboxes: BTreeMap::new() });
        Arc::new(MemoryTransport { network: self.clone(), node, incarnation })
    }

    /// Cuts the link between two nodes in both directions.
    pub fn cut(&self, a: NodeId, b: NodeId) {
        self.lock().cut.extend([(a, b), (b, a)]);
    }

    /// Cuts the link from one node to another; the way back still works.
    pub fn cut_one_way(&self, from: NodeId, to: NodeId) {
        self.lock().cut.insert((from, to));
    }

    /// Cuts the links between `node` and every node that is attached now.
    pub fn isolate(&self, node: NodeId) {
        let mut state = self.lock();
        let others: Vec<_> = state.nodes.keys().copied().filter(|other| *other != node).collect();
        for other in others {
            state.cut.extend([(node, other), (other, node)]);
        }
    }

    /// Makes every link work again.
    pub fn heal(&self) {
        self.lock().cut.clear();
    }

    /// Takes `node` off the network until [`Self::transport`] is called for it again.
    pub fn stop(&self, node: NodeId) {
        self.lock().nodes.remove(&node);
    }

    /// How many messages found a cut link, an absent node or an unknown group.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Where an envelope from the transport `sender` goes, if anywhere.
    fn route(&self, sender: &MemoryTransport, envelope: &Envelope) -> Option<Inbox> {
        let speaks = |attached: &Attached| attached.incarnation == sender.incarnation;
        if !self.nodes.get(&sender.node).is_some_and(speaks)
            || self.cut.contains(&(sender.node, envelope.to))
        {
            return None;
        }
        self.nodes.get(&envelope.to)?.inboxes.get(&envelope.group).cloned()
    }
}

impl Transport for MemoryTransport {
    fn send(&self, envelope: Envelope) {
        let mut state = self.network.lock();
        let inbox = state.route(self, &envelope);
        state.dropped += u64::from(inbox.is_none());
        // The inbox is the receiver's code: it may send in turn.
        drop(state);
        if let Some(inbox) = inbox {
            inbox.deliver(envelope);
        }
    }

    fn register(&self, group: GroupId, inbox: Inbox) {
        let mut state = self.network.lock();
        if let Some(attached) = state.nodes.get_mut(&self.node)
            && attached.incarnation == self.incarnation
        {
            attached.inboxes.insert(group, inbox);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use lattice_trace::Cause;

    use super::*;
    use crate::message::Message;
    use crate::types::{ClusterId, StoreId, Term};

    fn envelope(from: u64, to: u64, round: u64) -> Envelope {
        Envelope {
            cluster: ClusterId(1),
            group: GroupId(0),
            from: NodeId(from),
            to: NodeId(to),
            store: StoreId(1),
            term: Term(1),
            cause: Cause { node: 0, seq: 0 },
            can_wait: false,
            message: Message::HeartbeatReply { round, is_damaged: false },
        }
    }

    fn listen(transport: &MemoryTransport) -> mpsc::Receiver<Envelope> {
        let (sender, receiver) = mpsc::channel();
        transport.register(GroupId(0), Inbox::new(move |envelope| drop(sender.send(envelope))));
        receiver
    }

    #[test]
    fn messages_reach_the_group_they_are_for() {
        let network = MemoryNetwork::new();
        let (one, two) = (network.transport(NodeId(1)), network.transport(NodeId(2)));
        let heard = listen(&two);
        one.send(envelope(1, 2, 7));
        assert_eq!(heard.try_recv(), Ok(envelope(1, 2, 7)));
        one.send(Envelope { group: GroupId(5), ..envelope(1, 2, 8) });
        one.send(envelope(1, 3, 9));
        assert_eq!(network.dropped(), 2, "an unknown group and an unknown node");
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn cut_links_lose_and_healed_links_deliver() {
        let network = MemoryNetwork::new();
        let (one, two) = (network.transport(NodeId(1)), network.transport(NodeId(2)));
        let (at_one, at_two) = (listen(&one), listen(&two));
        network.cut_one_way(NodeId(1), NodeId(2));
        one.send(envelope(1, 2, 1));
        two.send(envelope(2, 1, 2));
        assert!(at_two.try_recv().is_err());
        assert_eq!(at_one.try_recv(), Ok(envelope(2, 1, 2)));
        network.isolate(NodeId(2));
        two.send(envelope(2, 1, 3));
        assert!(at_one.try_recv().is_err());
        network.heal();
        one.send(envelope(1, 2, 4));
        assert_eq!(at_two.try_recv(), Ok(envelope(1, 2, 4)));
    }

    #[test]
    fn a_stopped_node_neither_hears_nor_speaks_until_it_is_attached_anew() {
        let network = MemoryNetwork::new();
        let (one, two) = (network.transport(NodeId(1)), network.transport(NodeId(2)));
        let (at_one, before) = (listen(&one), listen(&two));
        network.stop(NodeId(2));
        one.send(envelope(1, 2, 1));
        two.send(envelope(2, 1, 1));
        assert!(before.try_recv().is_err() && at_one.try_recv().is_err());
        let again = network.transport(NodeId(2));
        let after = listen(&again);
        two.send(envelope(2, 1, 2));
        assert!(at_one.try_recv().is_err(), "the earlier transport stays dead");
        one.send(envelope(1, 2, 3));
        assert_eq!(after.try_recv(), Ok(envelope(1, 2, 3)));
    }
}
