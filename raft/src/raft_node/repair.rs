//! Repair of a damaged log: entries that were durable here and cannot be read any more are fetched from other nodes.
//!
//! A disk may lose what it has acknowledged. If the node took that for a torn tail and went on, it could forget what it had
//! promised: an entry that a majority has, itself among it, would be gone from the majority, and a leader without it could be
//! elected (Alagappan et al., *Protocol-Aware Recovery for Consensus-Based Storage*, FAST 2018; Jepsen's NATS report shows it in the field). If it
//! refused to start, one bad sector in each of three machines would stop a cluster in which every entry is still there three
//! times over. So the node starts, knows what it lacks, and gets it back.
//!
//! **What a node with damage may do.** Its term, its vote and its last entry's id are intact, or it would not have started (if
//! the last entry itself is lost, the latest id that it can have had stands in for it). So:
//!
//! - It *votes*: a vote rests on those three alone. It must, or damage in a minority could keep the others from electing anybody.
//! - It does not *campaign*: a leader has to give its followers, and its state machine, entries that this node does not have.
//! - It does not *acknowledge*: "everything up to `matched` is durable here" would be false, and what commits because of it would
//!   have one copy fewer than everybody believes. It drops appends, for the same reason that it does not need them: repair first.
//! - It does not *apply* from the first lost entry on.
//!
//! A leader that finds damage in its own log while it leads goes on, with the log counting as durable only up to before the damage, and
//! fetches from its followers; if none can help within a few election timeouts, it steps down for one that has all it needs.
//!
//! **Whose entries are believed**, in two ways.
//!
//! 1. *By Log Matching* (Raft §5.3): two logs that hold the same entry, of the same index and term, are identical up to it.
//!    So whoever holds the entry that follows the damage here (the *joint*) holds exactly what was lost. That needs no leader: nodes
//!    that are damaged in different places repair one another and elect one afterwards. Where the lost entries' terms are known, the
//!    last of them is itself the joint, and every id is compared.
//! 2. *By the leader's word*, if it does not hold the joint, or there is none because the damage reaches to the end of the
//!    log. The leader's log has everything that is committed (Leader Completeness, §5.4.3), so what contradicts it may go, as with any append.
//!    But nothing may be missing in between: a follower that had cut its log at the damage and were refilled piece by piece would for a
//!    while lack entries that are committed on its word. So what the leader has is gathered first, from the damage to the end of our log
//!    or the end of the leader's, all of it in the leader's one term, and replaces ours in a single write. A request bears a number
//!    that was never used before, so an answer from before the damage was found is no answer.
//!
//! Whom nobody could help reads its own disk again, for a read may fail once and succeed later.
//!
//! Entries that nobody else ever had were never committed: a leader elected without them says so by the second way.
//! Entries that the others have compacted come with the leader's snapshot: see [`RaftNode::cover`].
//!
//! A damaged range counts as damaged until the write that repairs it is durable. Ranges are repaired from the last to the first, and a long
//! one in steps, each of which stands for itself.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::effects::{Effect, FatalError, IoToken};
use crate::message::{Message, ReadId};
use crate::storage::DamagedEntries;
use crate::trace::TraceEvent;
use crate::types::{Entry, EntryId, LogIndex, NodeId, Payload, SnapshotMeta, Term};

use super::replication::is_consistent;
use super::{RaftNode, Role, RoleState};

/// Bytes of entries that are gathered for one repair.
const GATHERED_BYTES_MAX: usize = 100 << 20;
/// Nodes that are being helped at the same time. Others ask again.
const SERVED_MAX: usize = 16;
/// A leader's log may be damaged for this many longest election timeouts.
const PATIENCE: u32 = 4;

/// What a node does about damage, its own and that of others.
#[derive(Clone, Debug, Default)]
pub(super) struct Repair {
    fetch: Option<Fetch>,
    /// Nothing is asked before this time.
    ask_at: Duration,
    /// Counts those who could not help, since the leader changed: it is asked first.
    turn: usize,
    leader: Option<NodeId>,
    /// Numbers the requests of this start.
    counter: u64,
    /// A repair that is being written, and whose entries it puts there.
    writing: Option<(IoToken, DamagedEntries, NodeId)>,
    /// When damage was found, or last became less.
    since: Duration,
    /// Whom we read entries for.
    serving: BTreeMap<NodeId, Served>,
    /// How often a step had too many bytes, and was halved.
    halvings: u32,
}

/// Entries on their way here.
#[derive(Clone, Debug)]
struct Fetch {
    damage: DamagedEntries,
    source: Source,
    /// What has come, from the first one wanted on.
    entries: Vec<Entry>,
    bytes: usize,
    /// The request that is not answered yet.
    asked: Option<(ReadId, NodeId)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Anybody who holds this entry, of which everything before it follows.
    Joint(EntryId),
    /// The leader of this term, whose log replaces ours from `first` on.
    Leader { node: NodeId, term: Term, first: LogIndex },
}

/// A request that waits for the disk.
#[derive(Clone, Copy, Debug)]
struct Served {
    id: ReadId,
    first: LogIndex,
    holds_joint: bool,
}

/// An answer to [`Message::FetchEntries`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fetched {
    pub(super) id: ReadId,
    pub(super) previous: Option<EntryId>,
    pub(super) entries: Vec<Entry>,
    pub(super) holds_joint: bool,
    pub(super) last: LogIndex,
}

impl Fetch {
    fn new(damage: DamagedEntries, source: Source) -> Self {
        Self { damage, source, entries: Vec::new(), bytes: 0, asked: None }
    }

    /// The next entry wanted.
    fn next(&self) -> LogIndex {
        let first = match self.source {
            Source::Joint(_) => self.damage.first,
            Source::Leader { first, .. } => first,
        };
        first.plus(self.entries.len() as u64)
    }

    fn push(&mut self, entries: Vec<Entry>) {
        self.bytes += entries.iter().map(Entry::size).sum::<usize>();
        self.entries.extend(entries);
    }
}

impl RaftNode {
    /// The node starts on a log with damage: it asks at once.
    pub(super) fn begin_repair(&mut self) {
        self.repair.since = self.now;
        self.repair.ask_at = self.now;
    }

    /// When help should be asked for, or asked for again.
    pub(super) fn repair_deadline(&self) -> Option<Duration> {
        let is_waiting = self.repair.writing.is_none() && self.log.is_damaged();
        is_waiting.then_some(self.repair.ask_at)
    }

    /// Entries that were durable cannot be read.
    pub(super) fn handle_entries_damaged(&mut self, first: LogIndex, last: LogIndex) {
        let covered = self.log.snapshot().map_or(LogIndex::ZERO, |meta| meta.last.index);
        let through = last.min(covered);
        if through >= first && through > self.log.base().index {
            // Nobody needs them but followers, and those get the snapshot instead.
            self.log.compact(through);
            self.trace(TraceEvent::DamageCovered { through });
        }
        if !self.log.mark_damaged(first, last) {
            return;
        }
        self.trace(TraceEvent::DamageFound { first, last });
        self.repair.since = self.now;
        if matches!(self.role(), Role::PreCandidate | Role::Candidate) {
            self.become_follower(self.term(), None);
        }
        self.seek_repair();
    }

    /// There is a newer snapshot of our own: what is damaged before its end need not be repaired, and could not be, since the log
    /// takes no entries there any more.
    pub(super) fn cover_damage(&mut self) {
        let covered = self.log.snapshot().map_or(LogIndex::ZERO, |meta| meta.last.index);
        let lost = self.log.damaged().iter().rev().find(|damage| damage.first <= covered);
        let Some(through) = lost.map(|damage| damage.last.min(covered)) else { return };
        self.log.compact(through);
        self.trace(TraceEvent::DamageCovered { through });
        self.seek_repair();
    }

    /// A leader that nobody could help for too long.
    pub(super) fn is_repair_overdue(&self) -> bool {
        let patience = PATIENCE * self.config.election_timeout.end;
        self.log.is_damaged() && self.now >= self.repair.since + patience
    }

    // Asking.

    /// Asks for the next entries that are lost.
    pub(super) fn seek_repair(&mut self) {
        if self.repair.writing.is_some() {
            return;
        }
        let Some(&damage) = self.log.damaged().last() else {
            self.repair.fetch = None;
            return;
        };
        self.repair.ask_at = self.now + 2 * self.config.heartbeat;
        let leader = self.leader().filter(|&leader| leader != self.config.id);
        if leader != self.repair.leader {
            (self.repair.leader, self.repair.turn) = (leader, 0);
        }
        let goes_on = self.repair.fetch.as_ref().is_some_and(|fetch| {
            fetch.damage == self.wanted(fetch.source, damage)
                && match fetch.source {
                    Source::Joint(_) => true,
                    Source::Leader { node, term, .. } => {
                        leader == Some(node) && term == self.term()
                    }
                }
        });
        if !goes_on {
            let source = match (self.joint(damage), leader) {
                (Some(joint), _) => Source::Joint(joint),
                (None, Some(node)) => self.by_word_of(node, damage.first),
                // Only a leader can help, and there is none yet.
                (None, None) => return,
            };
            self.repair.fetch = Some(Fetch::new(self.wanted(source, damage), source));
        }
        self.ask(leader);
    }

    /// What of the damage is to be repaired next. By Log Matching each piece stands for itself, so one of bounded length is taken,
    /// the last one: what is known of the terms before it still holds when it is back. What the leader decides comes as a whole.
    fn wanted(&self, source: Source, damage: DamagedEntries) -> DamagedEntries {
        let step = (self.config.repaired_at_once >> self.repair.halvings.min(63)).max(1);
        let last_step = LogIndex(damage.last.next().0.saturating_sub(step));
        match source {
            Source::Joint(_) => DamagedEntries { first: damage.first.max(last_step), ..damage },
            Source::Leader { .. } => damage,
        }
    }

    fn ask(&mut self, leader: Option<NodeId>) {
        let Some(fetch) = &self.repair.fetch else { return };
        let others = self.peers().filter(|&peer| leader != Some(peer));
        let helpers: Vec<NodeId> = leader.into_iter().chain(others).collect();
        let (to, through, joint) = match fetch.source {
            Source::Joint(joint) => {
                let Some(place) = self.repair.turn.checked_rem(helpers.len()) else { return };
                (helpers[place], fetch.damage.last, Some(joint))
            }
            Source::Leader { node, .. } => (node, self.log.last().index, None),
        };
        let first = fetch.next();
        self.repair.counter += 1;
        let (node, boot, counter) = (self.config.id, self.config.boot, self.repair.counter);
        let id = ReadId { node, boot, counter };
        if let Some(fetch) = &mut self.repair.fetch {
            fetch.asked = Some((id, to));
        }
        // Long enough for an answer from a disk; whoever is down must not hold up the others for long.
        self.repair.ask_at = self.now + self.config.election_timeout.start;
        // Unlike all else that we say, this is of use whether or not our term is durable. But it reveals the term.
        self.send(to, Message::FetchEntries { id, first, through, joint }, None);
    }

    /// An entry, here and intact, of which everything lost in `damage` follows. `None` if the damage reaches to the end of the
    /// log and its terms are not known.
    fn joint(&self, damage: DamagedEntries) -> Option<EntryId> {
        let index = if damage.terms_known { damage.last } else { damage.last.next() };
        self.log.term_at(index).map(|term| EntryId::new(term, index))
    }

    /// This one could not help: the next one, after a pause when all have been asked.
    fn ask_next(&mut self) {
        self.repair.turn += 1;
        let is_round_over = self.repair.turn.checked_rem(self.peers().count()) == Some(0);
        if is_round_over {
            self.repair.ask_at = self.now + 2 * self.config.heartbeat;
        } else {
            self.seek_repair();
        }
    }

    /// The deadline has come. A request under way was lost, or whoever got it is down.
    pub(super) fn repair_is_due(&mut self) {
        let was_asked =
            self.repair.fetch.as_mut().is_some_and(|fetch| fetch.asked.take().is_some());
        if was_asked {
            self.repair.turn += 1;
        }
        self.read_own_again();
        self.seek_repair();
    }

    // Reading again.

    /// Whoever was asked has not helped so far. What could not be read may be readable again: a cable, a controller, a path that comes
    /// back. Where several nodes failed to read the same entries for a moment, nobody else would ever help.
    fn read_own_again(&mut self) {
        let is_early = self.now < self.repair.since + self.config.election_timeout.start;
        let Some(&damage) = self.log.damaged().last() else { return };
        if damage.terms_known && !is_early {
            let (to, bytes_max) = (self.config.id, self.config.append_bytes_max);
            let (from, through) = (damage.first, damage.last);
            self.outbox.push(Effect::ReadForRepair { to, from, through, bytes_max });
        }
    }

    /// Our own disk has given us these entries after all; none if it has not. The store has verified what it read, and they are the
    /// entries that we know to have been there.
    fn own_entries_read(&mut self, entries: &[Entry]) {
        let Some(&DamagedEntries { first, last, .. }) = self.log.damaged().last() else { return };
        let mut places = entries.iter().zip(first.0..);
        let is_run = places.all(|(entry, at)| entry.id.index.0 == at);
        let are_ours = entries.iter().all(|entry| self.log.contains(entry.id));
        let Some(through) = entries.last().map(|entry| entry.id.index.min(last)) else { return };
        if !is_run || !are_ours || self.repair.writing.is_some() {
            return;
        }
        self.log.mend(first, through);
        self.repair.since = self.now;
        self.trace(TraceEvent::Repaired { first, last: through, by: self.config.id });
        self.seek_repair();
        if matches!(self.role, RoleState::Leader(_)) {
            self.advance_commit();
        }
    }

    // Helping.

    /// Somebody lacks entries. Any node may help, whatever the terms: what is in two logs under the same id is the same.
    pub(super) fn handle_fetch(
        &mut self,
        from: NodeId,
        id: ReadId,
        first: LogIndex,
        through: LogIndex,
        joint: Option<EntryId>,
    ) {
        let holds_joint = joint.is_some_and(|joint| self.log.contains(joint));
        let is_leader = matches!(self.role, RoleState::Leader(_));
        let bytes_max = self.config.append_bytes_max;
        let last = self.log.last().index;
        if first == LogIndex::ZERO {
            return self
                .trace(TraceEvent::Dropped { from, reason: "asks for an entry before the first" });
        }
        if is_leader && first <= self.log.base().index {
            self.start_snapshot_unless_sending(from);
        }
        let through = self.intact_through(first, through.min(last));
        let is_ours = first > self.log.base().index && first <= through;
        if !is_ours || !(holds_joint || is_leader) {
            let served = Served { id, first, holds_joint };
            return self.answer_fetch(from, served, Vec::new());
        }
        let served = Served { id, first, holds_joint };
        if let Some(entries) = self.log.entries(first, through, bytes_max) {
            return self.answer_fetch(from, served, entries.into_vec());
        }
        let is_reading = self.repair.serving.contains_key(&from);
        if is_reading || self.repair.serving.len() < SERVED_MAX {
            self.repair.serving.insert(from, served);
        }
        if !is_reading && self.repair.serving.contains_key(&from) {
            self.outbox.push(Effect::ReadForRepair { to: from, from: first, through, bytes_max });
        }
    }

    /// How far entries from `first` on are intact here, at most to `through`; before `first` if that one is not.
    fn intact_through(&self, first: LogIndex, through: LogIndex) -> LogIndex {
        let next = self.log.damaged().iter().find(|damage| damage.last >= first);
        next.map_or(through, |damage| through.min(damage.first.previous()))
    }

    /// Entries were read for `to`; none if they could not be.
    pub(super) fn handle_repair_read(&mut self, to: NodeId, entries: Vec<Entry>) {
        if to == self.config.id {
            return self.own_entries_read(&entries);
        }
        let Some(served) = self.repair.serving.remove(&to) else { return };
        // A later request may ask for others; the log may have been cut back meanwhile.
        let is_wanted = entries.first().is_some_and(|entry| entry.id.index == served.first)
            && entries.iter().all(|entry| self.log.contains(entry.id));
        let entries = if is_wanted { entries } else { Vec::new() };
        self.answer_fetch(to, served, entries);
    }

    fn answer_fetch(&mut self, to: NodeId, served: Served, entries: Vec<Entry>) {
        let Served { id, first, holds_joint } = served;
        let index = first.previous();
        let previous = self.log.term_at(index).map(|term| EntryId::new(term, index));
        let last = self.log.last().index;
        let after = entries.last().and_then(|entry| self.token_for(entry.id.index));
        if let Some(through) = entries.last() {
            let last = through.id.index;
            self.trace(TraceEvent::RepairServed { to, first, last });
        }
        let answer = Message::FetchedEntries { id, previous, entries, holds_joint, last };
        self.send(to, answer, after);
    }

    // Being helped.

    /// Entries came, or the news that there are none. `is_current` says that the sender is in our term.
    pub(super) fn handle_fetched(&mut self, from: NodeId, fetched: Fetched, is_current: bool) {
        let is_leader = is_current && self.leader() == Some(from);
        // A snapshot may have come first, or a compaction: then it is no longer what we lack.
        let damage = self.log.damaged().last().copied();
        let wanted = |fetch: &Fetch| damage.map(|damage| self.wanted(fetch.source, damage));
        let is_wanted = self.repair.fetch.as_ref().is_some_and(|it| Some(it.damage) == wanted(it));
        let Some(fetch) = self.repair.fetch.as_mut().filter(|_| is_wanted) else {
            return self.seek_repair();
        };
        if fetch.asked != Some((fetched.id, from)) {
            return;
        }
        fetch.asked = None;
        let next = fetch.next();
        let is_run = fetched.entries.iter().zip(next.0..).all(|(entry, at)| entry.id.index.0 == at)
            && fetched.entries.windows(2).all(|pair| pair[0].id.term <= pair[1].id.term);
        if !is_run {
            self.trace(TraceEvent::Dropped { from, reason: "entries out of order" });
            return self.ask_next();
        }
        match fetch.source {
            Source::Joint(joint) if fetched.holds_joint => self.take_by_joint(from, joint, fetched),
            // What is committed is not the leader's to decide any more: others have it, or its snapshot does.
            Source::Joint(_) if is_leader && fetch.damage.last > self.commit => {
                // All of the damage, then, and not the last step of it.
                let Some(damage) = damage else { return };
                let source = self.by_word_of(from, damage.first);
                self.repair.fetch = Some(Fetch::new(damage, source));
                self.seek_repair();
            }
            Source::Leader { first, .. } if is_leader => self.take_by_word(from, first, fetched),
            Source::Joint(_) | Source::Leader { .. } => self.ask_next(),
        }
    }

    /// The sender holds the joint: these are the very entries.
    fn take_by_joint(&mut self, from: NodeId, joint: EntryId, fetched: Fetched) {
        let Some(fetch) = &mut self.repair.fetch else { return };
        let damage = fetch.damage;
        let mut entries = fetched.entries;
        entries.retain(|entry| entry.id.index <= damage.last);
        if entries.is_empty() {
            return self.ask_next();
        }
        let before = fetch.entries.last().map(|entry| entry.id.term);
        let before = before.or_else(|| self.log.term_at(damage.first.previous()));
        let fits = |entry: &Entry| {
            let known = self.log.term_at(entry.id.index).is_none_or(|term| term == entry.id.term);
            known && Some(entry.id.term) >= before && entry.id.term <= joint.term
        };
        if !entries.iter().all(fits) {
            // Log Matching rules this out as long as nobody lies.
            self.trace(TraceEvent::Dropped { from, reason: "does not fit what we have" });
            return self.ask_next();
        }
        if !self.gather(entries) {
            return;
        }
        let fetch = self.repair.fetch.take().expect("it was just added to");
        if fetch.next() <= damage.last {
            self.repair.fetch = Some(fetch);
            return self.seek_repair();
        }
        self.write_repair(from, damage, fetch.entries);
    }

    /// The sender leads our term and does not hold the joint: its log replaces ours from `first` on.
    fn take_by_word(&mut self, from: NodeId, first: LogIndex, fetched: Fetched) {
        let Some(fetch) = &self.repair.fetch else { return };
        let (damage, had) = (fetch.damage, fetch.next());
        let disagrees = match fetched.previous {
            _ if fetched.last < had.previous() => Some(fetched.last.next()),
            // It has compacted what we want, and will send its snapshot.
            None => return self.repair.ask_at = self.now + self.config.election_timeout.start,
            Some(previous) => match fetch.entries.last() {
                None if self.log.contains(previous) => None,
                None => Some(self.last_agreed(previous).next()),
                Some(last) if last.id == previous => None,
                Some(_) => Some(first),
            },
        };
        if let Some(start) = disagrees {
            let source = self.by_word_of(from, start);
            self.repair.fetch = Some(Fetch::new(damage, source));
            return self.seek_repair();
        }
        let previous = fetched.previous.expect("compared just now");
        if !is_consistent(previous, &fetched.entries, self.term()) {
            self.trace(TraceEvent::Dropped { from, reason: "entries out of order" });
            return self.repair.ask_at = self.now + self.config.election_timeout.start;
        }
        if !self.gather(fetched.entries) {
            return;
        }
        let Some(fetch) = self.repair.fetch.take() else { return };
        let goal = self.log.last().index.min(fetched.last);
        if fetch.next() > goal {
            return self.adopt(from, first, fetch.entries);
        }
        let is_progress = fetch.next() > had;
        self.repair.fetch = Some(fetch);
        if is_progress {
            self.seek_repair();
        } else {
            self.repair.ask_at = self.now + 2 * self.config.heartbeat;
        }
    }

    /// The last place at which our log may agree with that of a leader whose entry `theirs` we do not have.
    fn last_agreed(&self, theirs: EntryId) -> LogIndex {
        let before = theirs.index.previous();
        self.log.last_at_most(before, theirs.term).index
    }

    /// The leader's log, if it and ours may differ from `start` on: what precedes that must be intact here, to be compared, and what is
    /// committed is the same.
    fn by_word_of(&self, node: NodeId, start: LogIndex) -> Source {
        let mut damaged = self.log.damaged().iter();
        let lost = damaged.find(|lost| lost.first < start && start <= lost.last.next());
        let first = lost.map_or(start, |lost| lost.first).max(self.commit.next());
        Source::Leader { node, term: self.term(), first }
    }

    /// Adds to what has come. `false` if that is more than is gathered at one time: then a shorter piece is asked for, or if it must be
    /// whole, the node cannot go on.
    fn gather(&mut self, entries: Vec<Entry>) -> bool {
        let Some(fetch) = &mut self.repair.fetch else { return false };
        fetch.push(entries);
        if fetch.bytes <= GATHERED_BYTES_MAX || fetch.entries.len() == 1 {
            return true;
        }
        let DamagedEntries { first, last, .. } = fetch.damage;
        if matches!(fetch.source, Source::Joint(_)) {
            self.repair.halvings += 1;
            self.repair.fetch = None;
            self.seek_repair();
            return false;
        }
        self.stop(FatalError::TooMuchDamage { first, last });
        false
    }

    /// Puts entries where they were lost.
    fn write_repair(&mut self, by: NodeId, damage: DamagedEntries, entries: Vec<Entry>) {
        #[cfg(feature = "sim")]
        let entries = self.with_wrong_terms(entries);
        self.log.learn(entries.iter().map(|entry| entry.id));
        let mut changed = false;
        for entry in &entries {
            if let Payload::Membership(membership) = &entry.payload {
                changed |= self.membership.learn(entry.id.index, membership.clone());
            }
        }
        if changed {
            let membership = self.membership().clone();
            self.outbox.push(Effect::MembershipChanged(membership));
        }
        self.batch().repaired = entries;
        let damage = DamagedEntries { terms_known: true, ..damage };
        self.repair.writing = Some((self.last_token, damage, by));
    }

    /// As they are, but for a planted bug: with the term of the entry behind them.
    #[cfg(feature = "sim")]
    fn with_wrong_terms(&self, mut entries: Vec<Entry>) -> Vec<Entry> {
        let behind = entries.last().and_then(|last| self.log.term_at(last.id.index.next()));
        if let Some(term) = behind
            && self.has_bug(crate::sim::PlantedBug::RepairOfAnotherTerm)
        {
            entries.iter_mut().for_each(|entry| entry.id.term = term);
        }
        entries
    }

    /// The repair is durable.
    pub(super) fn close_repair_if_durable(&mut self) {
        let durable = self.log.durable_token();
        let done = self.repair.writing.take_if(|(token, ..)| *token <= durable);
        let Some((_, DamagedEntries { first, last, .. }, by)) = done else { return };
        self.log.mend(first, last);
        self.repair.since = self.now;
        self.trace(TraceEvent::Repaired { first, last, by });
        self.seek_repair();
    }

    /// The leader's log from `first` on takes the place of ours, in one write.
    fn adopt(&mut self, leader: NodeId, first: LogIndex, entries: Vec<Entry>) {
        if first <= self.commit {
            // It has told us since that this is committed, which its own log contradicts.
            let reason = "contradicts what is committed here";
            return self.trace(TraceEvent::Dropped { from: leader, reason });
        }
        let last = entries.last().map_or(first.previous(), |entry| entry.id.index);
        self.truncate(first);
        for entry in entries {
            self.append_entry(entry);
        }
        self.repair.since = self.now;
        self.trace(TraceEvent::Repaired { first, last, by: leader });
        self.seek_repair();
    }

    /// A snapshot from the leader, of an entry that we have, covers damage before it: the state machine goes on from there, and what is
    /// behind it in the log stays.
    pub(super) fn cover(&mut self, meta: SnapshotMeta) {
        let index = meta.last.index;
        self.batch().snapshot = Some(meta.clone());
        if self.membership.rebase(index, meta.membership.clone()) {
            let membership = self.membership().clone();
            self.outbox.push(Effect::MembershipChanged(membership));
        }
        self.log.set_snapshot(meta.clone());
        self.log.compact(index);
        self.commit = self.commit.max(index);
        self.note_removal();
        self.note_binding();
        self.compaction = None;
        self.trace(TraceEvent::SnapshotInstalled { last: meta.last });
        self.trace(TraceEvent::DamageCovered { through: index });
        if self.applied < index {
            // What is being applied may take the machine past it before this is durable: see `restore_if_durable`.
            self.restoring = Some((self.last_token, meta));
        }
        self.repair.since = self.now;
        self.seek_repair();
    }
}
