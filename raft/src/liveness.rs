//! Which processes live: watched once for all quiet groups, instead of by each of them.
//!
//! A member of a quiet group runs no election timeout (`raft_node/quiet.rs`): somebody has to notice for it that its leader's process is gone.
//! [`Liveness`] does, for all groups of a process, and speaks for them to the others: one small message to each process that has
//! been asked for quiet, every [`LivenessTiming::beat`], however many groups there are.
//!
//! - A process is in an **epoch**: its start, and a count that rises whenever one of its groups that had asked for quiet is no longer led here, for
//!   whatever reason, a group that failed included, or has removed a member. So who hears from it in the epoch of the agreement knows that
//!   each group it is quiet under is still led there, in the same term, and that it is still one of its members.
//! - A quiet member's agreement is looked at when it is made, when its leader's process is heard from, and when that is due: so nothing
//!   depends on the order in which the agreement and the news of the process arrive.
//! - All members that follow a process are woken together when it is silent. So are all of its groups' when its epoch rises: that is rare
//!   beside what it saves, and costs one round of heartbeats.
//!
//! Pure: time comes in, what is to be done goes out. Memory is bounded by the groups that are started here and the members that they have had.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use lattice_trace::Cause;

use crate::message::{Envelope, Message};
use crate::raft_node::QuietStanding;
use crate::types::{ClusterId, GroupId, NodeEpoch, NodeId, StoreId, Term};

/// Who a process is, to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessId {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its node's id, in all groups.
    pub node: NodeId,
    /// Its data directory.
    pub store: StoreId,
}

/// How often processes are heard from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivenessTiming {
    /// Between two signs of life.
    pub beat: Duration,
    /// Silence after which a process is taken for dead. Several beats long.
    pub timeout: Duration,
}

impl LivenessTiming {
    /// A sign of life with every heartbeat. Two may be lost and the third be late before a process is taken for dead, which wakes all groups
    /// that are quiet under it, however short elections are.
    #[must_use]
    pub fn new(heartbeat: Duration, election_timeout: &Range<Duration>) -> Self {
        Self { beat: heartbeat, timeout: election_timeout.start.max(4 * heartbeat) }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LivenessEffect {
    /// Send this.
    Send(Envelope),
    /// Give this group [`Input::LeaderSilent`](crate::replica::Input::LeaderSilent).
    Wake(GroupId),
    /// Give all groups [`Input::NodeEpoch`](crate::replica::Input::NodeEpoch) with this epoch.
    Epoch(NodeEpoch),
}

/// Watches processes. See the head of the module.
#[derive(Clone, Debug)]
pub struct Liveness {
    process: ProcessId,
    timing: LivenessTiming,
    epoch: NodeEpoch,
    /// What groups have agreed; those that are awake are not here.
    standings: BTreeMap<GroupId, QuietStanding>,
    /// Leaders under which groups here are quiet, and how many groups that are.
    followed: BTreeMap<NodeId, usize>,
    /// Processes that were heard from.
    heard: BTreeMap<NodeId, Heard>,
    /// Processes that were asked for quiet, and for which groups.
    asked: BTreeMap<NodeId, Vec<GroupId>>,
    beat_due: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    /// The latest epoch that it has told; `None` if only its groups have spoken.
    epoch: Option<NodeEpoch>,
    at: Duration,
}

impl Liveness {
    /// For a process that has just started; `boot` is a number that no other start of it has.
    #[must_use]
    pub fn new(process: ProcessId, timing: LivenessTiming, boot: u64) -> Self {
        Self {
            process,
            timing,
            epoch: NodeEpoch { boot, count: 0 },
            standings: BTreeMap::new(),
            followed: BTreeMap::new(),
            heard: BTreeMap::new(),
            asked: BTreeMap::new(),
            beat_due: Duration::ZERO,
        }
    }

    /// The epoch that this process is in.
    #[must_use]
    pub fn epoch(&self) -> NodeEpoch {
        self.epoch
    }

    /// How many groups here are quiet, or have asked for it.
    #[must_use]
    pub fn standings(&self) -> usize {
        self.standings.len()
    }

    /// When it wants [`Self::handle_timeout`]; `None` if there is nothing to say and nobody to watch.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let beat = (!self.asked.is_empty()).then_some(self.beat_due);
        let silence = self.followed.keys().map(|&leader| self.silent_at(leader)).min();
        [beat, silence].into_iter().flatten().min()
    }

    /// A group's standing has changed; one that has ended is [`QuietStanding::Awake`].
    pub fn handle_standing(
        &mut self,
        now: Duration,
        group: GroupId,
        standing: QuietStanding,
        out: &mut Vec<LivenessEffect>,
    ) {
        let before = self.replace_standing(group, standing);
        if before == Some(QuietStanding::Asked) && standing != QuietStanding::Asked {
            self.no_longer_leads(group, out);
        }
        if let QuietStanding::Under { leader, .. } = standing {
            // Its group has just spoken.
            let heard = self.heard.entry(leader).or_insert(Heard { epoch: None, at: now });
            heard.at = heard.at.max(now);
            self.wake_those_that_are_over(now, Some(group), leader, out);
        }
    }

    /// This group has asked that node for quiet: its process wants to hear from us from now on.
    pub fn handle_asked(&mut self, now: Duration, group: GroupId, node: NodeId) {
        if self.standings.get(&group) != Some(&QuietStanding::Asked) {
            return;
        }
        if self.asked.is_empty() {
            self.beat_due = now;
        }
        let groups = self.asked.entry(node).or_default();
        if let Err(place) = groups.binary_search(&group) {
            groups.insert(place, group);
        }
    }

    /// A message for processes has come. Others are ignored.
    pub fn handle_message(
        &mut self,
        now: Duration,
        envelope: &Envelope,
        out: &mut Vec<LivenessEffect>,
    ) {
        let ours = envelope.cluster == self.process.cluster && envelope.to == self.process.node;
        let from = envelope.from;
        let (Message::NodeAlive { epoch }, true) = (&envelope.message, ours) else { return };
        // Who no group here is quiet under need not be remembered.
        if !self.followed.contains_key(&from) {
            self.heard.remove(&from);
            return;
        }
        let heard = self.heard.entry(from).or_insert(Heard { epoch: None, at: now });
        heard.at = heard.at.max(now);
        let is_news = heard.epoch.is_none_or(|known| known.is_over(*epoch));
        if is_news {
            heard.epoch = Some(*epoch);
            self.wake_those_that_are_over(now, None, from, out);
        }
    }

    /// The deadline of [`Self::next_deadline`] has come.
    pub fn handle_timeout(&mut self, now: Duration, out: &mut Vec<LivenessEffect>) {
        if !self.asked.is_empty() && now >= self.beat_due {
            self.beat_due = now + self.timing.beat;
            let nodes: Vec<_> = self.asked.keys().copied().collect();
            out.extend(nodes.into_iter().map(|to| LivenessEffect::Send(self.alive(to))));
        }
        let followed = self.followed.keys().copied();
        let silent: Vec<_> = followed.filter(|&leader| now >= self.silent_at(leader)).collect();
        for leader in silent {
            self.wake_those_that_are_over(now, None, leader, out);
        }
    }

    /// Returns the standing from before.
    fn replace_standing(
        &mut self,
        group: GroupId,
        standing: QuietStanding,
    ) -> Option<QuietStanding> {
        if let QuietStanding::Under { leader, .. } = standing {
            *self.followed.entry(leader).or_default() += 1;
        }
        let before = match standing {
            QuietStanding::Awake => self.standings.remove(&group),
            QuietStanding::Asked | QuietStanding::Under { .. } => {
                self.standings.insert(group, standing)
            }
        };
        if let Some(QuietStanding::Under { leader, .. }) = before {
            let groups = self.followed.get_mut(&leader).expect("counted when it came");
            *groups -= 1;
            if *groups == 0 {
                self.followed.remove(&leader);
            }
        }
        before
    }

    fn silent_at(&self, node: NodeId) -> Duration {
        let heard = self.heard.get(&node).map_or(Duration::ZERO, |heard| heard.at);
        heard.saturating_add(self.timing.timeout)
    }

    /// Wakes what is quiet under `node` and must not be any more: all of it, or this group. What was told to wake is watched no more.
    fn wake_those_that_are_over(
        &mut self,
        now: Duration,
        only: Option<GroupId>,
        node: NodeId,
        out: &mut Vec<LivenessEffect>,
    ) {
        let is_silent = now >= self.silent_at(node);
        let told = self.heard.get(&node).and_then(|heard| heard.epoch);
        let is_over = |standing: &QuietStanding| match *standing {
            QuietStanding::Under { leader, epoch } if leader == node => {
                is_silent || told.is_some_and(|told| epoch.is_over(told))
            }
            _ => false,
        };
        let groups: Vec<_> = match only {
            Some(group) => self.standings.get_key_value(&group).into_iter().collect(),
            None => self.standings.iter().collect(),
        };
        let over = groups.into_iter().filter(|(_, standing)| is_over(standing));
        let over: Vec<GroupId> = over.map(|(&group, _)| group).collect();
        for group in over {
            self.replace_standing(group, QuietStanding::Awake);
            out.push(LivenessEffect::Wake(group));
        }
    }

    /// Who was asked for quiet for this group, and has heard no more of it, must not take our life for its leader's.
    fn no_longer_leads(&mut self, group: GroupId, out: &mut Vec<LivenessEffect>) {
        self.epoch.count += 1;
        out.push(LivenessEffect::Epoch(self.epoch));
        let nodes: Vec<_> = self.asked.keys().copied().collect();
        out.extend(nodes.into_iter().map(|to| LivenessEffect::Send(self.alive(to))));
        self.asked.retain(|_, groups| {
            groups.retain(|&other| other != group);
            !groups.is_empty()
        });
    }

    fn alive(&self, to: NodeId) -> Envelope {
        let ProcessId { cluster, node, store } = self.process;
        Envelope {
            cluster,
            group: GroupId::PROCESS,
            from: node,
            to,
            store,
            term: Term(0),
            cause: Cause::default(),
            can_wait: false,
            message: Message::NodeAlive { epoch: self.epoch },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);
    const TIMING: LivenessTiming =
        LivenessTiming { beat: Duration::from_millis(100), timeout: Duration::from_millis(500) };

    fn process(node: NodeId) -> ProcessId {
        ProcessId { cluster: ClusterId(1), node, store: StoreId(u128::from(node.0)) }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn under(epoch: NodeEpoch) -> QuietStanding {
        QuietStanding::Under { leader: OTHER, epoch }
    }

    fn epoch(boot: u64, count: u64) -> NodeEpoch {
        NodeEpoch { boot, count }
    }

    /// What a process makes of one event.
    fn effects(run: impl FnOnce(&mut Vec<LivenessEffect>)) -> Vec<LivenessEffect> {
        let mut out = Vec::new();
        run(&mut out);
        out
    }

    fn alive(epoch: NodeEpoch) -> Envelope {
        Liveness { epoch, ..Liveness::new(process(OTHER), TIMING, epoch.boot) }.alive(ME)
    }

    #[test]
    fn quiet_groups_wake_when_their_leaders_process_is_silent_and_not_before() {
        let mut me = Liveness::new(process(ME), TIMING, 7);
        assert_eq!(me.next_deadline(), None, "nobody is watched");
        for group in 1..=3 {
            let made = effects(|out| {
                me.handle_standing(ms(0), GroupId(group), under(epoch(5, 0)), out);
            });
            assert_eq!(made, []);
        }
        assert_eq!(me.next_deadline(), Some(ms(500)));
        assert_eq!(effects(|out| me.handle_message(ms(300), &alive(epoch(5, 0)), out)), []);
        assert_eq!(effects(|out| me.handle_timeout(ms(799), out)), []);
        let woken = effects(|out| me.handle_timeout(ms(800), out));
        assert_eq!(woken, [1, 2, 3].map(|group| LivenessEffect::Wake(GroupId(group))));
        assert_eq!(me.next_deadline(), None, "each is told once");
    }

    #[test]
    fn a_process_may_lose_two_signs_of_life_with_any_timing() {
        for (election, heartbeat, timeout) in [(150, 100, 400), (1_000, 100, 1_000)] {
            let timing = LivenessTiming::new(ms(heartbeat), &(ms(election)..ms(2 * election)));
            assert_eq!((timing.beat, timing.timeout), (ms(heartbeat), ms(timeout)));
        }
    }

    #[test]
    fn a_later_epoch_wakes_what_was_agreed_in_an_earlier_one() {
        for (news, wakes) in
            [(epoch(5, 1), false), (epoch(5, 2), false), (epoch(5, 3), true), (epoch(6, 0), true)]
        {
            let mut me = Liveness::new(process(ME), TIMING, 7);
            let _ = effects(|out| me.handle_standing(ms(0), GroupId(1), under(epoch(5, 2)), out));
            let made = effects(|out| me.handle_message(ms(1), &alive(news), out));
            assert_eq!(made == [LivenessEffect::Wake(GroupId(1))], wakes, "{news:?}");
        }
    }

    #[test]
    fn an_agreement_that_comes_after_the_news_that_ends_it_is_woken_at_once() {
        let mut me = Liveness::new(process(ME), TIMING, 7);
        let _ = effects(|out| me.handle_standing(ms(0), GroupId(1), under(epoch(5, 3)), out));
        let _ = effects(|out| me.handle_message(ms(1), &alive(epoch(5, 3)), out));
        let late = effects(|out| me.handle_standing(ms(2), GroupId(2), under(epoch(5, 2)), out));
        assert_eq!(late, [LivenessEffect::Wake(GroupId(2))]);
    }

    #[test]
    fn one_sign_of_life_goes_to_each_process_however_many_groups_are_quiet() {
        let mut me = Liveness::new(process(ME), TIMING, 7);
        for group in 1..=1000 {
            let asked = QuietStanding::Asked;
            let _ = effects(|out| me.handle_standing(ms(0), GroupId(group), asked, out));
            me.handle_asked(ms(0), GroupId(group), NodeId(2));
            me.handle_asked(ms(0), GroupId(group), NodeId(3));
        }
        let sent = effects(|out| me.handle_timeout(ms(0), out));
        let to = sent.iter().map(|effect| match effect {
            LivenessEffect::Send(envelope) => (envelope.to, envelope.group),
            other => panic!("{other:?}"),
        });
        let to: Vec<_> = to.collect();
        assert_eq!(to, [(NodeId(2), GroupId::PROCESS), (NodeId(3), GroupId::PROCESS)]);
        assert_eq!(effects(|out| me.handle_timeout(ms(99), out)), []);
        assert_eq!(effects(|out| me.handle_timeout(ms(100), out)).len(), 2);
    }

    #[test]
    fn a_leader_that_leads_no_more_ends_the_epoch_in_which_it_asked() {
        let mut me = Liveness::new(process(ME), TIMING, 7);
        let before = me.epoch();
        for group in [1, 2] {
            let asked = QuietStanding::Asked;
            let _ = effects(|out| me.handle_standing(ms(0), GroupId(group), asked, out));
            me.handle_asked(ms(0), GroupId(group), OTHER);
        }
        let over = effects(|out| {
            me.handle_standing(ms(5), GroupId(1), QuietStanding::Awake, out);
        });
        assert!(before.is_over(me.epoch()));
        assert_eq!(over[0], LivenessEffect::Epoch(me.epoch()));
        assert_eq!(over[1], LivenessEffect::Send(me.alive(OTHER)), "told at once");
        let _ = effects(|out| me.handle_standing(ms(6), GroupId(2), QuietStanding::Awake, out));
        assert_eq!(me.next_deadline(), None, "nobody needs to hear from us any more");
    }

    #[test]
    fn what_is_for_another_process_or_cluster_is_no_sign_of_life() {
        let for_us = alive(epoch(5, 0));
        for stray in [
            Envelope { cluster: ClusterId(2), ..for_us.clone() },
            Envelope { to: NodeId(3), ..for_us.clone() },
            Envelope { message: Message::Removed, ..for_us.clone() },
        ] {
            let mut me = Liveness::new(process(ME), TIMING, 7);
            let _ = effects(|out| me.handle_standing(ms(0), GroupId(1), under(epoch(5, 0)), out));
            assert_eq!(effects(|out| me.handle_message(ms(300), &stray, out)), []);
            assert_eq!(me.next_deadline(), Some(ms(500)), "{stray:?}");
        }
    }

    #[test]
    fn only_those_that_follow_the_silent_process_are_woken() {
        let mut me = Liveness::new(process(ME), TIMING, 7);
        let other = QuietStanding::Under { leader: NodeId(3), epoch: epoch(6, 0) };
        let _ = effects(|out| me.handle_standing(ms(0), GroupId(1), under(epoch(5, 0)), out));
        let _ = effects(|out| me.handle_standing(ms(100), GroupId(2), other, out));
        assert_eq!(me.standings(), 2);
        let woken = effects(|out| me.handle_timeout(ms(500), out));
        assert_eq!(woken, [LivenessEffect::Wake(GroupId(1))]);
        assert_eq!((me.standings(), me.next_deadline()), (1, Some(ms(600))));
    }

    #[test]
    fn who_was_asked_for_one_group_alone_need_not_hear_from_us_when_that_is_over() {
        let mut me = Liveness::new(process(ME), TIMING, 7);
        let asked = QuietStanding::Asked;
        me.handle_asked(ms(0), GroupId(1), OTHER);
        assert_eq!(me.next_deadline(), None, "that group asks for nothing");
        let _ = effects(|out| me.handle_standing(ms(0), GroupId(1), asked, out));
        me.handle_asked(ms(0), GroupId(1), OTHER);
        assert_eq!(effects(|out| me.handle_timeout(ms(0), out)).len(), 1);
        assert_eq!(me.next_deadline(), Some(ms(100)));
        let _ = effects(|out| me.handle_standing(ms(5), GroupId(1), QuietStanding::Awake, out));
        assert_eq!(me.next_deadline(), None);
    }
}
