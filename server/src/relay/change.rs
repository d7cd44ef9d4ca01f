//! Changes of the members, on their way to the leader and there.
//!
//! As with writes, any node may be asked and the leader does it. What a change leads to, a new member's id for one, depends on the
//! members there are, so the leader works that out, one request at a time, and asks Raft; Raft refuses what would put the cluster at
//! risk. Refusals that pass by themselves (another change or a hand-over is under way) are waited for; the others reach the client in
//! etcd's words.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use raft_consensus::effects::OrderError;
use raft_consensus::membership::{ChangeError, ConfChange, MemberChange, Membership};
use raft_consensus::types::NodeId;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Request};

use super::{CONNECT_TIMEOUT, LATE_ANSWER, Lost, PAUSE, Relay, WriteError, lost_or_not_sent};
use crate::members::{Contact, Members, encode};
use crate::proto::forward::change_request::Change as WireChange;
use crate::proto::forward::change_response::Outcome as WireOutcome;
use crate::proto::forward::not_applied::Reason;
use crate::proto::forward::{
    AddMember, ChangeRequest, ChangeResponse, NotApplied, Refused, ReplaceMember, Unknown,
    UpdateMember,
};
use crate::url::Url;

/// Between two tries of a change that waits for another one.
const RETRY: Duration = Duration::from_millis(20);
/// How long the leader waits for changes before this one, and for this one.
const CHANGE_MAX: Duration = Duration::from_secs(10);

/// What an operator may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A new member; unless it is to stay a learner, it gets its vote when it has caught up.
    Add {
        peer_urls: Vec<Url>,
        is_learner: bool,
    },
    Remove(NodeId),
    Promote(NodeId),
    Update {
        id: NodeId,
        peer_urls: Vec<Url>,
    },
    /// A new member in the place of one that is lost, in one change.
    Replace {
        id: NodeId,
        peer_urls: Vec<Url>,
    },
}

/// What became of a change at the node that was to make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// Made; this is the member that it was about.
    Done(NodeId),
    /// Not made, and why.
    Refused { code: Code, message: String },
    /// Not made here, and never will be.
    NotLeader,
    /// Unknown.
    Lost(Lost),
}

/// Makes changes, if this node leads.
#[derive(Debug)]
pub(crate) struct Coordinator {
    members: Members,
    raft: raft_consensus::driver::Raft<lattice_kv::KvReader>,
    /// Whoever has it looks at the members and changes them: nobody else does in between.
    turn: Mutex<()>,
}

impl Relay {
    /// Changes the members, and returns the one that it was about.
    pub(crate) async fn change(
        &self,
        change: &Change,
        deadline: Instant,
    ) -> Result<NodeId, WriteError> {
        let mut status = self.raft.watch();
        loop {
            let (leader, term) = {
                let status = status.borrow_and_update();
                (status.leader, status.term)
            };
            let changed = match leader {
                Some(leader) if leader == self.me => {
                    let changing = self.coordinator.change(change);
                    timeout_at(deadline, changing).await.unwrap_or(Changed::Lost(Lost::Time))
                }
                Some(leader) => self.hand_over_change(leader, change, deadline).await,
                None => Changed::NotLeader,
            };
            match changed {
                Changed::Done(node) => return Ok(node),
                Changed::Refused { code, message } => {
                    return Err(WriteError::Refused { code: code.into(), message });
                }
                Changed::Lost(lost) => return Err(WriteError::Unknown(lost)),
                Changed::NotLeader => {}
            }
            let news = status.wait_for(|now| now.leader != leader || now.term != term);
            let pause = deadline
                .min(Instant::now() + if leader.is_some() { PAUSE } else { CONNECT_TIMEOUT });
            if let Ok(Err(_closed)) = timeout_at(pause, news).await {
                return Err(WriteError::Stopped);
            }
            if Instant::now() >= deadline {
                return Err(WriteError::NoLeader);
            }
        }
    }

    async fn hand_over_change(
        &self,
        leader: NodeId,
        change: &Change,
        deadline: Instant,
    ) -> Changed {
        let Ok(Some(mut way)) = timeout_at(deadline, self.connect(leader)).await else {
            return Changed::NotLeader;
        };
        let mut request = Request::new(ChangeRequest {
            cluster: self.cluster.0,
            from: self.me.0,
            change: Some(change.clone().into()),
        });
        request.set_timeout(deadline.saturating_duration_since(Instant::now()) + LATE_ANSWER);
        match timeout_at(deadline, way.client.change(request)).await {
            Ok(Ok(response)) => response.into_inner().into(),
            Ok(Err(status)) => {
                self.forget(leader).await;
                match lost_or_not_sent(&status) {
                    super::Verdict::Lost(lost) => Changed::Lost(lost),
                    _ => Changed::NotLeader,
                }
            }
            Err(_elapsed) => Changed::Lost(Lost::Time),
        }
    }
}

impl Coordinator {
    pub(crate) fn new(
        members: Members,
        raft: raft_consensus::driver::Raft<lattice_kv::KvReader>,
    ) -> Self {
        Self { members, raft, turn: Mutex::new(()) }
    }

    /// Makes a change if this node leads: within 10 s, or says that it could not.
    pub(super) async fn change(&self, change: &Change) -> Changed {
        let deadline = Instant::now() + CHANGE_MAX;
        let Ok(_turn) = timeout_at(deadline, self.turn.lock()).await else { return busy() };
        loop {
            let status = self.raft.status();
            if status.leader != Some(status.node) {
                return Changed::NotLeader;
            }
            // What is under way may be this very change, whose answer was lost: what becomes of it decides what is left to do.
            let is_settled = status.membership == status.committed_membership;
            if !is_settled || status.membership.is_joint() {
                if Instant::now() >= deadline {
                    return busy();
                }
                sleep(RETRY).await;
                continue;
            }
            let (node, order) = match self.plan(change) {
                Ok(Plan::Order(node, order)) => (node, order),
                Ok(Plan::IsDone(node)) => return Changed::Done(node),
                Err((code, message)) => return Changed::Refused { code, message: message.into() },
            };
            let ordered = timeout_at(deadline, self.raft.change_membership(order)).await;
            let Err(error) = ordered.unwrap_or(Err(OrderError::Unknown)) else {
                tracing::info!(member = format_args!("{:x}", node.0), ?change, "members changed");
                return Changed::Done(node);
            };
            tracing::debug!(%error, ?change, "the members are not changed yet");
            match refusal(&error) {
                Refusal::Final(changed) => return changed,
                Refusal::Passes if Instant::now() < deadline => sleep(RETRY).await,
                Refusal::Passes => return busy(),
            }
        }
    }

    /// What to ask Raft for.
    fn plan(&self, change: &Change) -> Result<Plan, (Code, &'static str)> {
        let membership = self.members.membership();
        let (node, mut wanted) = match change {
            Change::Add { peer_urls, is_learner } => {
                self.refuse_known(&membership, None, peer_urls)?;
                let (node, added) = new_learner(&membership, peer_urls, !is_learner)?;
                (node, vec![added])
            }
            Change::Update { id, peer_urls } => {
                self.refuse_known(&membership, Some(*id), peer_urls)?;
                let context = context(&self.members.name(*id), peer_urls)?;
                (*id, vec![MemberChange::SetContext { node: *id, context }])
            }
            &Change::Remove(id) => (id, vec![MemberChange::Remove(id)]),
            &Change::Promote(id) => (id, vec![MemberChange::Promote(id)]),
            Change::Replace { id, peer_urls } => {
                let is_member = membership.contains(*id);
                if !is_member && !membership.has_removed(*id) {
                    return Err((Code::NotFound, MEMBER_NOT_FOUND));
                }
                if !is_member && let Some(new) = self.who_has(&membership, peer_urls) {
                    return Ok(Plan::IsDone(new));
                }
                self.refuse_known(&membership, Some(*id), peer_urls)?;
                let (node, added) = new_learner(&membership, peer_urls, true)?;
                let removed = is_member.then_some(MemberChange::Remove(*id));
                (node, removed.into_iter().chain([added]).collect())
            }
        };
        let brings_a_member = matches!(change, Change::Add { .. } | Change::Replace { .. });
        if !brings_a_member && !membership.contains(node) {
            return Err((Code::NotFound, MEMBER_NOT_FOUND));
        }
        // What is known of the others and not in the log goes there with this change: whoever joins learns it from there.
        let about: Vec<NodeId> = wanted.iter().map(MemberChange::node).collect();
        let unwritten = self.members.unwritten(&membership).filter(|(id, _)| !about.contains(id));
        wanted.extend(unwritten.map(|(node, context)| MemberChange::SetContext { node, context }));
        Ok(Plan::Order(node, ConfChange::Members(wanted)))
    }

    /// The member with exactly these addresses.
    fn who_has(&self, membership: &Membership, urls: &[Url]) -> Option<NodeId> {
        membership.members().map(|(id, _)| id).find(|id| self.members.peer_urls(*id) == urls)
    }

    /// Two members cannot share an address.
    fn refuse_known(
        &self,
        membership: &Membership,
        except: Option<NodeId>,
        urls: &[Url],
    ) -> Result<(), (Code, &'static str)> {
        let mut others = membership.members().filter(|(id, _)| Some(*id) != except);
        if others.any(|(id, _)| self.members.peer_urls(id).iter().any(|url| urls.contains(url))) {
            return Err((Code::FailedPrecondition, "etcdserver: Peer URLs already exists"));
        }
        Ok(())
    }
}

/// What a change comes to, and the member that it is about.
enum Plan {
    Order(NodeId, ConfChange),
    /// It was made before: the answer was lost, and the operator asks again.
    IsDone(NodeId),
}

/// A new member with an id of its own.
fn new_learner(
    membership: &Membership,
    peer_urls: &[Url],
    promote_when_ready: bool,
) -> Result<(NodeId, MemberChange), (Code, &'static str)> {
    let node = next_id(membership.last_id(), RandomState::new().hash_one(peer_urls))
        .ok_or((Code::FailedPrecondition, "etcdserver: no member ID is left"))?;
    let context = context("", peer_urls)?;
    Ok((node, MemberChange::AddLearner { node, store: None, promote_when_ready, context }))
}

const MEMBER_NOT_FOUND: &str = "etcdserver: member not found";
const BAD_URLS: &str = "etcdserver: given member URLs are invalid";
const NOT_IN_SYNC: &str =
    "etcdserver: can only promote a learner member which is in sync with leader";

fn context(name: &str, peer_urls: &[Url]) -> Result<bytes::Bytes, (Code, &'static str)> {
    let contact = Contact { name: name.to_owned(), peer_urls: peer_urls.to_vec() };
    encode(&contact).filter(|_| !peer_urls.is_empty()).ok_or((Code::InvalidArgument, BAD_URLS))
}

/// An id above `last`, drawn from the first thousandth of those that are left: they do not look alike, and do not run out either.
/// `None` if none is left.
fn next_id(last: NodeId, random: u64) -> Option<NodeId> {
    let left = u64::MAX - last.0;
    (left > 0).then(|| NodeId(last.0 + 1 + random % (left / 1024).max(1)))
}

/// Whether to try again.
enum Refusal {
    Passes,
    Final(Changed),
}

fn refusal(error: &OrderError) -> Refusal {
    let (code, message) = match error {
        OrderError::NotLeader { .. } | OrderError::Superseded => {
            return Refusal::Final(Changed::NotLeader);
        }
        // An id that was used: the members changed under us.
        OrderError::TermNotCommitted
        | OrderError::ChangeInProgress
        | OrderError::Transferring { .. }
        | OrderError::Change(ChangeError::IdUsed { .. }) => return Refusal::Passes,
        OrderError::Change(ChangeError::NotMember(_)) => (Code::NotFound, MEMBER_NOT_FOUND),
        OrderError::Change(ChangeError::AlreadyVoter(_)) => {
            (Code::FailedPrecondition, "etcdserver: can only promote a learner member")
        }
        OrderError::NotInSync(_) | OrderError::Change(ChangeError::NotBound(_)) => {
            (Code::FailedPrecondition, NOT_IN_SYNC)
        }
        OrderError::WouldLoseQuorum | OrderError::Change(ChangeError::NoVoterLeft) => (
            Code::FailedPrecondition,
            "etcdserver: re-configuration failed due to not enough started members",
        ),
        OrderError::Change(ChangeError::TooManyMembers) => {
            (Code::FailedPrecondition, "etcdserver: too many learner members in cluster")
        }
        OrderError::Change(ChangeError::ContextTooLong(_)) => (Code::InvalidArgument, BAD_URLS),
        OrderError::Unknown => return Refusal::Final(Changed::Lost(Lost::Leader)),
        OrderError::Stopped => return Refusal::Final(Changed::NotLeader),
        other => {
            return Refusal::Final(Changed::Refused {
                code: Code::FailedPrecondition,
                message: format!("etcdserver: {other}"),
            });
        }
    };
    Refusal::Final(Changed::Refused { code, message: message.into() })
}

fn busy() -> Changed {
    Changed::Refused {
        code: Code::Unavailable,
        message: "etcdserver: request timed out, another change of the members is under way".into(),
    }
}

/// URLs as somebody else wrote them, sorted; `None` if there is none or one cannot be used.
pub(crate) fn parse_urls(texts: &[String]) -> Option<Vec<Url>> {
    let urls = texts.iter().map(|text| text.parse().ok()).collect::<Option<Vec<Url>>>();
    let mut urls = urls?;
    urls.sort();
    urls.dedup();
    (!urls.is_empty() && !urls.iter().any(Url::is_unspecified)).then_some(urls)
}

/// [`parse_urls`], with etcd's refusal.
pub(crate) fn peer_urls(texts: &[String]) -> Result<Vec<Url>, tonic::Status> {
    parse_urls(texts).ok_or_else(|| tonic::Status::invalid_argument(BAD_URLS))
}

impl From<Change> for WireChange {
    fn from(change: Change) -> Self {
        let strings = |urls: Vec<Url>| urls.iter().map(Url::to_string).collect();
        match change {
            Change::Add { peer_urls, is_learner } => {
                Self::Add(AddMember { peer_urls: strings(peer_urls), is_learner })
            }
            Change::Remove(id) => Self::Remove(id.0),
            Change::Promote(id) => Self::Promote(id.0),
            Change::Update { id, peer_urls } => {
                Self::Update(UpdateMember { id: id.0, peer_urls: strings(peer_urls) })
            }
            Change::Replace { id, peer_urls } => {
                Self::Replace(ReplaceMember { id: id.0, peer_urls: strings(peer_urls) })
            }
        }
    }
}

impl Change {
    /// What another member relays; `None` if this build does not understand it.
    pub(super) fn from_wire(change: Option<WireChange>) -> Option<Self> {
        Some(match change? {
            WireChange::Add(AddMember { peer_urls, is_learner }) => {
                Self::Add { peer_urls: parse_urls(&peer_urls)?, is_learner }
            }
            WireChange::Remove(id) => Self::Remove(NodeId(id)),
            WireChange::Promote(id) => Self::Promote(NodeId(id)),
            WireChange::Update(UpdateMember { id, peer_urls }) => {
                Self::Update { id: NodeId(id), peer_urls: parse_urls(&peer_urls)? }
            }
            WireChange::Replace(ReplaceMember { id, peer_urls }) => {
                Self::Replace { id: NodeId(id), peer_urls: parse_urls(&peer_urls)? }
            }
        })
    }
}

impl From<Changed> for ChangeResponse {
    fn from(changed: Changed) -> Self {
        let outcome = match changed {
            Changed::Done(node) => WireOutcome::Done(node.0),
            Changed::Refused { code, message } => {
                WireOutcome::Refused(Refused { code: code.into(), message })
            }
            Changed::NotLeader => {
                WireOutcome::NotApplied(NotApplied { reason: Reason::NotLeader.into(), leader: 0 })
            }
            Changed::Lost(_) => WireOutcome::Unknown(Unknown {}),
        };
        Self { outcome: Some(outcome) }
    }
}

impl From<ChangeResponse> for Changed {
    fn from(response: ChangeResponse) -> Self {
        match response.outcome {
            Some(WireOutcome::Done(node)) => Self::Done(NodeId(node)),
            Some(WireOutcome::Refused(Refused { code, message })) => {
                Self::Refused { code: Code::from_i32(code), message }
            }
            Some(WireOutcome::NotApplied(_)) => Self::NotLeader,
            // An answer of a later version may mean anything.
            Some(WireOutcome::Unknown(Unknown {})) | None => Self::Lost(Lost::Leader),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_ids_are_greater_than_all_before_and_do_not_run_out() {
        let mut last = NodeId(0);
        for random in 0..5000_u64 {
            let next = next_id(last, random.wrapping_mul(0x9E37_79B9_7F4A_7C15)).unwrap();
            assert!(next > last);
            last = next;
        }
        assert_eq!(next_id(NodeId(u64::MAX - 1), u64::MAX), Some(NodeId(u64::MAX)));
        assert_eq!(next_id(NodeId(u64::MAX), 7), None);
    }

    #[test]
    fn changes_and_their_outcomes_survive_the_wire() {
        let peer_urls: Vec<Url> =
            vec!["http://a:1".parse().unwrap(), "http://b:2".parse().unwrap()];
        for change in [
            Change::Add { peer_urls: peer_urls.clone(), is_learner: true },
            Change::Remove(NodeId(7)),
            Change::Promote(NodeId(8)),
            Change::Update { id: NodeId(9), peer_urls: peer_urls.clone() },
            Change::Replace { id: NodeId(9), peer_urls },
        ] {
            assert_eq!(Change::from_wire(Some(change.clone().into())), Some(change));
        }
        for changed in [
            Changed::Done(NodeId(3)),
            Changed::Refused { code: Code::NotFound, message: MEMBER_NOT_FOUND.into() },
            Changed::NotLeader,
            Changed::Lost(Lost::Leader),
        ] {
            assert_eq!(Changed::from(ChangeResponse::from(changed.clone())), changed);
        }
        assert_eq!(Change::from_wire(None), None);
    }

    #[test]
    fn urls_that_nobody_can_use_are_refused() {
        for urls in [&[][..], &["x"], &["https://a:1"], &["http://0.0.0.0:1"]] {
            let urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
            assert_eq!(parse_urls(&urls), None, "{urls:?}");
        }
    }

    #[test]
    fn refusals_have_etcds_words() {
        for (error, code, text) in [
            (OrderError::NotInSync(NodeId(1)), Code::FailedPrecondition, NOT_IN_SYNC),
            (
                OrderError::Change(ChangeError::AlreadyVoter(NodeId(1))),
                Code::FailedPrecondition,
                "etcdserver: can only promote a learner member",
            ),
            (
                OrderError::WouldLoseQuorum,
                Code::FailedPrecondition,
                "etcdserver: re-configuration failed due to not enough started members",
            ),
        ] {
            let Refusal::Final(Changed::Refused { code: got, message }) = refusal(&error) else {
                panic!("{error} is a refusal");
            };
            assert_eq!((got, message.as_str()), (code, text));
        }
    }
}
