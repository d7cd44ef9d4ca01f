//! Quiet groups: one that has nothing to do sends nothing and waits for nothing.
//!
//! A process with a thousand idle groups would otherwise spend its time on heartbeats. So a leader whose group has been idle for
//! a while asks all members to be quiet, instead of sending a heartbeat; and once all have agreed it sends nothing more. A member that
//! has agreed runs no election timeout. (CockroachDB calls it quiescence, TiKV hibernation.)
//!
//! **Who wakes whom.** What a quiet member no longer watches is watched once for all groups, by the process: each process tells
//! the others now and then that it is alive, and in which *epoch* it is ([`NodeEpoch`], `liveness`). A member's quiet is
//! under the epoch that its leader's process named when it asked. It ends when that process is silent for an election
//! timeout or is in another epoch, which it is after a restart, and also as soon as one of its groups that had asked for quiet is
//! led by it no longer, or has removed a member: what became of that is then found out in the usual way. Apart from that, whatever a group is asked for
//! wakes it: a command, a read, an order, a message of anybody. A member that wakes for another reason than its leader's word runs
//! its election timeout from then on, and says so to the leader, which wakes and sends heartbeats. If that is lost, or the member
//! has restarted and knows no leader, its election timeout ends: then it asks all voters for a pre-vote, or, if it may not campaign (a learner,
//! say), tells all members that it is there, at every election timeout until it hears from a leader. Either wakes whoever is quiet.
//!
//! **Why it is safe.** Quiet is about timers only. It gives no vote, commits nothing that the leader has not named as
//! committed in a log equal to its own, and never shortens the time for which votes are refused: a quiet member refuses them *longer*, as if
//! it heard its leader all the time. Elections, commitment and reads go by their own rules, which know nothing of it. Leases
//! run out meanwhile, since they count from when a round was sent; and no read is served in quiet, because it wakes the leader first.
//!
//! **Why it ends.** Say a member is quiet for ever. Then its leader's process is heard from, in the epoch that it asked in, so it
//! has led the group in the same term all the time, and has removed nobody; and nobody has asked either of them for anything, nor has any other member run
//! into its election timeout, for that is told to the leader again and again. So there was nothing to do.
//!
//! **All or nothing.** The leader asks only if every member has its whole log, all of it is committed and applied here, and nothing
//! else is under way; each member compares for itself before it agrees. So a member that is behind, or is down when the group would go quiet,
//! keeps it awake. Of one that goes down later a quiet group takes no notice: nobody needs it, and it wakes the group when it is back.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::message::{Envelope, Message};
use crate::progress::ProgressState;
use crate::trace::TraceEvent;
use crate::types::{EntryId, NodeEpoch, NodeId, StoreId, Term};

use super::{Event, RaftNode, RoleState};

/// What a group's process has to do for its quiet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuietStanding {
    /// Nothing.
    #[default]
    Awake,
    /// This node leads, and has asked for quiet in this term: others may be quiet under this process's epoch. It must be heard from, and
    /// must have another epoch when this standing is over.
    Asked,
    /// This node is quiet as long as the process of `leader` is alive in `epoch`.
    Under {
        /// Whom it follows.
        leader: NodeId,
        /// The epoch that the leader named.
        epoch: NodeEpoch,
    },
}

/// What a node knows of quiet.
#[derive(Clone, Debug, Default)]
pub(super) struct Quiet {
    /// This process's epoch; without one there is nobody who watches, and so no quiet.
    epoch: Option<NodeEpoch>,
    /// When the group was last asked for something, or woken.
    active: Duration,
    state: State,
    /// The term in which this node, as leader, has asked for quiet.
    asked_in: Option<Term>,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Awake,
    /// The leader has asked, with this last entry, and these have agreed.
    Asking { last: EntryId, agreed: BTreeSet<NodeId> },
    /// The leader is quiet.
    Leading,
    /// A follower is quiet.
    Under { leader: NodeId, epoch: NodeEpoch },
}

impl Quiet {
    /// Whether nothing is sent and nothing is waited for.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.state, State::Leading | State::Under { .. })
    }

    /// The role is another one: whatever was agreed was agreed with the old one.
    pub(super) fn is_over(&mut self) {
        self.state = State::Awake;
    }
}

impl RaftNode {
    /// Whether this node is quiet: it sends nothing and waits for nothing.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.quiet.is_quiet()
    }

    /// What the process has to do for this group's quiet.
    #[must_use]
    pub fn quiet_standing(&self) -> QuietStanding {
        match (&self.role, &self.quiet.state) {
            _ if self.is_stopped => QuietStanding::Awake,
            (RoleState::Leader(_), _) if self.quiet.asked_in == Some(self.term()) => {
                QuietStanding::Asked
            }
            (RoleState::Follower { .. }, &State::Under { leader, epoch }) => {
                QuietStanding::Under { leader, epoch }
            }
            _ => QuietStanding::Awake,
        }
    }

    // The leader's side.

    /// As leader, when heartbeats are due: asks for quiet instead, if there is nothing to do.
    pub(super) fn ask_for_quiet(&mut self) -> bool {
        let (Some(epoch), true) = (self.quiet.epoch, self.may_be_quiet()) else {
            self.quiet.is_over();
            return false;
        };
        let last = self.log.last();
        self.quiet.asked_in = Some(self.term());
        if !matches!(self.quiet.state, State::Asking { last: asked, .. } if asked == last) {
            self.quiet.state = State::Asking { last, agreed: BTreeSet::new() };
        }
        let question = Message::Quiet { last, epoch };
        self.for_each_peer(|node, peer| node.send_in_time(peer, question.clone(), true));
        self.be_quiet_if_all_agree();
        true
    }

    /// Whether the group is idle and every member has everything.
    fn may_be_quiet(&self) -> bool {
        let (last, commit) = (self.log.last().index, self.commit);
        let RoleState::Leader(leader) = &self.role else { return false };
        let is_idle = self
            .config
            .quiet_after
            .is_some_and(|after| self.now >= self.quiet.active.saturating_add(after));
        let members = self.membership();
        let (id, store) = (self.config.id, self.config.store);
        let is_settled = members.counts(id, store)
            && !members.is_joint()
            && members.is_fully_bound()
            && leader.unbound.is_empty()
            && leader.leaving.is_empty()
            && leader.change.is_none()
            && leader.transfer.is_none();
        let is_done = commit == last
            && self.applied == last
            && self.log.sound() == last
            && leader.term_start <= commit
            && self.restoring.is_none()
            && self.repair_deadline().is_none()
            && self.lease_deadline().is_none()
            && leader.reads.is_empty();
        is_idle && is_settled && is_done && (self.is_everywhere() || self.ignores_who_is_behind())
    }

    /// Whether all members have the whole log, and nothing is on its way to them.
    fn is_everywhere(&self) -> bool {
        let last = self.log.last().index;
        let mut others = self.progress();
        others.all(|(_, progress)| {
            progress.state == ProgressState::Replicate
                && progress.matched == last
                && progress.is_idle()
                && !progress.is_reading
        })
    }

    /// Never, but for a planted bug.
    fn ignores_who_is_behind(&self) -> bool {
        #[cfg(feature = "sim")]
        return self.has_bug(crate::sim::PlantedBug::QuietWithFollowerBehind);
        #[cfg(not(feature = "sim"))]
        false
    }

    pub(super) fn handle_quiet_agreed(&mut self, from: NodeId, store: StoreId, last: EntryId) {
        let speaks = self.membership().speaks(from, store);
        if let State::Asking { last: asked, agreed } = &mut self.quiet.state
            && speaks
            && *asked == last
        {
            agreed.insert(from);
            self.be_quiet_if_all_agree();
        }
    }

    fn be_quiet_if_all_agree(&mut self) {
        let State::Asking { last, agreed } = &self.quiet.state else { return };
        let all_agree = self.peers().all(|peer| agreed.contains(&peer));
        if all_agree && *last == self.log.last() && self.may_be_quiet() {
            self.quiet.state = State::Leading;
            let term = self.term();
            self.trace(TraceEvent::WentQuiet { term });
        }
    }

    /// As leader: heartbeats go out at once, and who agreed to be quiet has an election timeout from now on to be heard from. That is
    /// for check-quorum alone: whoever wants to change the members or to hand over has to wait until they are heard from.
    fn wake_as_leader(&mut self) {
        self.quiet.state = State::Awake;
        let now = self.now;
        let RoleState::Leader(leader) = &mut self.role else { return };
        (leader.heartbeat_due, leader.woken_at) = (now, now);
        self.trace(TraceEvent::Woken { by_silence: false });
        self.heartbeat_is_due();
    }

    /// Who is no member any more may be quiet under this process, and may never hear that it was removed: the process's epoch rises, which
    /// ends what they have agreed to, and they are not beaten to any more.
    pub(super) fn wake_who_has_left(&mut self) {
        self.quiet.is_over();
        self.quiet.asked_in = None;
    }

    // The follower's side.

    /// The leader asks for quiet: its log ends with `last`, and all of it is committed.
    pub(super) fn handle_quiet(&mut self, from: NodeId, last: EntryId, epoch: NodeEpoch) {
        if !self.follow(from) {
            return;
        }
        if self.log.last() == last && self.log.sound() == last.index {
            self.commit_to(last.index);
        }
        let is_equal = self.log.last() == last && self.commit == last.index;
        let has_everything = is_equal || self.ignores_who_is_behind();
        let is_done = self.applied == self.commit
            && self.log.sound() == self.log.last().index
            && self.restoring.is_none()
            && self.repair_deadline().is_none()
            && !self.is_writing_snapshot;
        let is_watched = self.quiet.epoch.is_some() && self.config.quiet_after.is_some();
        if !(has_everything && is_done && is_watched) {
            self.quiet.is_over();
            // As to a heartbeat: we live, and are not quiet.
            return self.answer_heartbeat_in_time(from, 0, true);
        }
        if !self.is_quiet() {
            let term = self.term();
            self.trace(TraceEvent::WentQuiet { term });
        }
        self.quiet.state = State::Under { leader: from, epoch };
        self.send_in_time(from, Message::QuietAgreed { last }, true);
    }

    /// As follower: the election timeout runs from now on, and the leader is told, unless it was the leader who woke us.
    fn wake_as_follower(&mut self, leader: NodeId, by_silence: bool, tell: bool) {
        #[cfg(feature = "sim")]
        if tell && self.has_bug(crate::sim::PlantedBug::QuietFollowerNeverWakes) {
            return;
        }
        self.quiet.state = State::Awake;
        self.reset_election_deadline();
        self.trace(TraceEvent::Woken { by_silence });
        if tell {
            self.answer_heartbeat(leader, 0);
        }
    }

    /// Nobody was heard from for an election timeout, and we may not campaign. A quiet leader sends nothing to whoever has restarted or has
    /// spoken to it in vain: so all members hear that we are there. A quiet one that does not lead passes it on.
    pub(super) fn call_quiet_leader(&mut self) {
        #[cfg(feature = "sim")]
        if self.has_bug(crate::sim::PlantedBug::QuietFollowerNeverWakes) {
            return;
        }
        if self.config.quiet_after.is_some() && !self.is_removed {
            self.for_each_peer(|node, peer| node.answer_heartbeat(peer, 0));
        }
    }

    // Both.

    /// What comes from this process: whether a group is quiet is nothing that events of its own disk change.
    pub(super) fn note_activity(&mut self, event: &Event) {
        match event {
            Event::Propose(_)
            | Event::ReadIndex(_)
            | Event::ChangeMembership(..)
            | Event::TransferLeader(..)
            | Event::EntriesDamaged { .. } => self.is_asked(),
            Event::Timeout
            | Event::Receive(_)
            | Event::Persisted(_)
            | Event::PersistFailed(_)
            | Event::Applied(_)
            | Event::EntriesRead { .. }
            | Event::RepairRead { .. }
            | Event::SnapshotBuilt(_)
            | Event::SnapshotRead { .. }
            | Event::SnapshotWritten { .. }
            | Event::NodeEpoch(_)
            | Event::LeaderSilent
            | Event::LowSpace(_) => {}
        }
    }

    /// The group is asked for something.
    pub(super) fn is_asked(&mut self) {
        self.quiet.active = self.now;
        match self.quiet.state {
            State::Awake => {}
            State::Asking { .. } => self.quiet.is_over(),
            State::Leading => self.wake_as_leader(),
            State::Under { leader, .. } => self.wake_as_follower(leader, false, true),
        }
    }

    /// A message for us, before anything is made of it.
    pub(super) fn hear_in_quiet(&mut self, envelope: &Envelope) {
        match (&mut self.quiet.state, &envelope.message) {
            (State::Awake, _)
            | (State::Asking { .. } | State::Leading, Message::QuietAgreed { .. }) => {}
            // It answers something from before, or does not agree.
            (State::Asking { agreed, .. }, _) => {
                agreed.remove(&envelope.from);
            }
            (State::Leading, _) => {
                self.quiet.active = self.now;
                self.wake_as_leader();
            }
            (&mut State::Under { leader, .. }, message) => {
                let is_leader = envelope.from == leader;
                if is_leader && matches!(message, Message::Quiet { .. }) {
                    return;
                }
                // Until now it was as if the leader had been heard from.
                self.leader_contact = self.now;
                self.wake_as_follower(leader, false, !is_leader);
            }
        }
    }

    /// The process that we are quiet under is silent, or in another epoch.
    pub(super) fn handle_leader_silent(&mut self) {
        if let State::Under { leader, .. } = self.quiet.state {
            self.wake_as_follower(leader, true, true);
        }
    }

    /// This process's epoch. Who agreed to be quiet agreed under the old one.
    pub(super) fn handle_node_epoch(&mut self, epoch: NodeEpoch) {
        self.quiet.epoch = Some(epoch);
        if matches!(self.quiet.state, State::Asking { .. }) {
            self.quiet.is_over();
        }
    }
}
