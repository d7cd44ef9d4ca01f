//! A client's write on its way to the leader.
//!
//! Clients may ask any node; only the leader can write. The core of Raft never forwards, so this edge does: it proposes
//! here if this node leads, else it hands the command to the leader over the peer port. While no leader is known it waits
//! for one, up to the client's deadline.
//!
//! What makes this safe is that a command is handed over again only after an answer that says *it was not applied and will
//! not be*. When an answer stays away after the command was sent (the connection broke, time ran out, the leader lost its
//! office), the outcome is unknown, and the client is told so; only it can know whether to write once more.
//!
//! Writes that wait at the same time travel together (see [`courier`]): a call costs far more than what is in it.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lattice_kv::{Command, KvError, KvReader, Limits, Operation, Outcome};
use raft_consensus::driver::{Consistency, ProposeError, ProposeOptions, Raft, Status};
use raft_consensus::membership::Membership;
use raft_consensus::transport::grpc::Connection;
use raft_consensus::types::{ClusterId, GroupId, NodeId};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Request, Response};

use crate::client::builder;
use crate::members::{MemberView, Members};
use crate::proto::forward::forward_client::ForwardClient;
use crate::proto::forward::forward_server::{Forward, ForwardServer};
use crate::proto::forward::not_applied::Reason;
use crate::proto::forward::propose_outcome::Outcome as Answer;
use crate::proto::forward::{
    ChangeRequest, ChangeResponse, MemberInfo, MembersRequest, MembersResponse, NotApplied,
    ProposeOutcome, ProposeRequest, ProposeResponse, Refused, Unknown,
};

pub(crate) mod change;
mod courier;

pub(crate) use change::{Change, Coordinator};

use courier::{Courier, Parcel};

/// The Raft group of keys and values: the first of a node, and the one that its log was made for.
pub(crate) const KV_GROUP: GroupId = GroupId(0);

/// A command may be a little larger than a client's request: it has a version, a clock and lengths of its own.
pub(crate) const MESSAGE_MAX: usize = 2 << 20;

/// The leader's answer: a delete may return all pairs that it deleted.
const ANSWER_MAX: usize = 512 << 20;

/// After a refusal that may pass, wait for news of a leader, but not longer than this: the news may be old.
const PAUSE: Duration = Duration::from_millis(25);

/// A peer that does not take a connection in this time is not the leader for long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Once another node leads, the answer of the one that led before may still be on its way for this long.
const LATE_ANSWER: Duration = Duration::from_millis(500);

/// Takes writes to the leader.
#[derive(Debug)]
pub(crate) struct Relay {
    me: NodeId,
    cluster: ClusterId,
    members: Members,
    coordinator: Arc<Coordinator>,
    limits: Limits,
    raft: Raft<KvReader>,
    /// The way to whoever led last. Requests share it; the lock is held only to make or to clone it.
    leader: Mutex<Option<WayToLeader>>,
}

/// How a node's requests get to another one, which leads.
#[derive(Clone, Debug)]
struct WayToLeader {
    node: NodeId,
    client: ForwardClient<Channel>,
    /// The queue of whoever takes writes there, on the same connection. Closed once that does not work any more.
    courier: mpsc::Sender<Parcel>,
    /// The same for writes with long answers.
    lone_courier: mpsc::Sender<Parcel>,
}

/// Why a write has no outcome to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteError {
    /// The request is wrong, or the state machine refused it.
    Refused { code: i32, message: String },
    /// No leader was found in time. Nothing was written.
    NoLeader,
    /// It may or may not be written.
    Unknown(Lost),
    /// Too many requests are under way. Nothing was written.
    Overloaded,
    /// The leader's disk is full. Nothing was written.
    NoSpace,
    /// Larger than the log takes. Nothing was written.
    TooLarge,
    /// This node is stopping. Nothing was written.
    Stopped,
    /// A reply that this build does not understand, to a write that was applied.
    Malformed,
}

/// Where the answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The time was up.
    Time,
    /// The leader lost its office, or stopped, with the command in its log.
    Leader,
    /// The connection to the leader broke after the command had been sent.
    Connection,
}

/// What became of a command at the node that was to propose it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// Applied, with this reply.
    Applied(Bytes),
    /// Applied and refused by the state machine.
    Refused { code: i32, message: String },
    /// Not applied, and never will be.
    NotApplied { reason: Reason, leader: Option<NodeId> },
    /// Unknown.
    Lost(Lost),
}

impl WayToLeader {
    /// Both couriers use one connection: when it is of no use to one of them, it is to neither.
    fn is_open(&self) -> bool {
        !self.courier.is_closed() && !self.lone_courier.is_closed()
    }
}

impl Relay {
    pub(crate) fn new(
        me: NodeId,
        cluster: ClusterId,
        members: Members,
        coordinator: Arc<Coordinator>,
        limits: Limits,
        raft: Raft<KvReader>,
    ) -> Self {
        Self { me, cluster, members, coordinator, limits, raft, leader: Mutex::new(None) }
    }

    /// Writes, and returns what the write did.
    pub(crate) async fn write(
        &self,
        operation: Operation,
        deadline: Instant,
    ) -> Result<Outcome, WriteError> {
        let command = Command { wall_clock_ms: wall_clock_ms(), operation };
        command.validate(&self.limits)?;
        let options = propose_options(&command);
        let is_alone = has_long_answer(&command);
        let command = command.encode();
        let mut status = self.raft.watch();
        loop {
            let (leader, term) = {
                let status = status.borrow_and_update();
                (status.leader, status.term)
            };
            let verdict = match leader {
                Some(leader) if leader == self.me => {
                    self.propose(command.clone(), options, deadline).await
                }
                Some(leader) => {
                    let command = command.clone();
                    self.hand_over(leader, &mut status, command, is_alone, deadline).await
                }
                None => not_applied(Reason::NotLeader),
            };
            if let Some(result) = conclude(verdict) {
                return result;
            }
            // Not applied, and a leader may be found yet.
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

    async fn propose(&self, command: Bytes, options: ProposeOptions, deadline: Instant) -> Verdict {
        match timeout_at(deadline, self.raft.propose_with(command, options)).await {
            Ok(result) => verdict(result.map(|applied| applied.reply)),
            Err(_elapsed) => Verdict::Lost(Lost::Time),
        }
    }

    async fn hand_over(
        &self,
        leader: NodeId,
        status: &mut watch::Receiver<Status>,
        command: Bytes,
        is_alone: bool,
        deadline: Instant,
    ) -> Verdict {
        let (answer, verdict) = oneshot::channel();
        let parcel = Parcel { command, deadline, answer };
        // A machine without power refuses nothing, it is silent. Whoever waits for a connection to it, or in the queue
        // for that, stops when it is the leader no more.
        let is_queued = tokio::select! {
            biased;
            is_queued = self.queue(leader, parcel, is_alone) => is_queued,
            _news = status.wait_for(|now| now.leader != Some(leader)) => false,
            () = sleep_until(deadline) => false,
        };
        if !is_queued {
            return not_applied(Reason::NotLeader);
        }
        match timeout_at(deadline, verdict).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_dropped)) => Verdict::Lost(Lost::Leader),
            Err(_elapsed) => Verdict::Lost(Lost::Time),
        }
    }

    /// Gives a parcel to the courier to `leader`. Whether that could be done; it was not sent if not.
    async fn queue(&self, leader: NodeId, parcel: Parcel, is_alone: bool) -> bool {
        let Some(leader) = self.connect(leader).await else { return false };
        let courier = if is_alone { &leader.lone_courier } else { &leader.courier };
        courier.send(parcel).await.is_ok()
    }

    /// The way to `leader`, made if there is none that works. `None` if it cannot be made: nothing was sent then.
    async fn connect(&self, leader: NodeId) -> Option<WayToLeader> {
        let mut slot = self.leader.lock().await;
        let known = slot.as_ref().filter(|known| known.node == leader);
        if let Some(known) = known.filter(|known| known.is_open()) {
            return Some(known.clone());
        }
        for url in &self.members.peer_urls(leader) {
            if let Ok(channel) = builder(url, CONNECT_TIMEOUT).connect().await {
                let client = ForwardClient::new(channel)
                    .max_decoding_message_size(ANSWER_MAX)
                    .max_encoding_message_size(MESSAGE_MAX);
                let courier = |commands_max| {
                    let (cluster, me) = (self.cluster, self.me);
                    let courier = Courier { cluster, me, client: client.clone(), commands_max };
                    let mut status = self.raft.watch();
                    courier.start(async move {
                        // A node that has stopped will not learn who leads.
                        let led = |now: &Status| now.leader.is_some_and(|now| now != leader);
                        drop(status.wait_for(led).await);
                    })
                };
                let (courier, lone_courier) = (courier(courier::COMMANDS_MAX), courier(1));
                let way = WayToLeader { node: leader, client, courier, lone_courier };
                return Some(slot.insert(way).clone());
            }
        }
        None
    }

    async fn forget(&self, leader: NodeId) {
        let mut slot = self.leader.lock().await;
        slot.take_if(|known| known.node == leader);
    }
}

/// Deletes go on when the disk is nearly full: they are how it gets room again.
fn propose_options(command: &Command) -> ProposeOptions {
    let reclaims_space = matches!(command.operation, Operation::DeleteRange(_));
    ProposeOptions { reclaims_space, ..ProposeOptions::default() }
}

/// The answer has what was there before: a value, or all that was deleted.
fn has_long_answer(command: &Command) -> bool {
    match &command.operation {
        Operation::Put(put) => put.prev_kv,
        Operation::DeleteRange(delete) => delete.prev_kv,
        Operation::PublishMember(_) => false,
    }
}

/// The answer for the client; `None` if the command may be handed over again.
fn conclude(verdict: Verdict) -> Option<Result<Outcome, WriteError>> {
    let error = match verdict {
        Verdict::Applied(reply) => {
            return Some(Outcome::decode(reply).map_err(|_malformed| WriteError::Malformed));
        }
        Verdict::Refused { code, message } => WriteError::Refused { code, message },
        Verdict::Lost(lost) => WriteError::Unknown(lost),
        Verdict::NotApplied { reason, leader: _ } => match reason {
            Reason::Unspecified | Reason::NotLeader | Reason::Superseded | Reason::Stopped => {
                return None;
            }
            Reason::Overloaded => WriteError::Overloaded,
            Reason::NoSpace => WriteError::NoSpace,
            Reason::TooLarge => WriteError::TooLarge,
            Reason::Malformed => KvError::MalformedCommand.into(),
        },
    };
    Some(Err(error))
}

/// What the driver's answer means.
fn verdict(result: Result<Bytes, ProposeError>) -> Verdict {
    match result {
        Ok(reply) => Verdict::Applied(reply),
        Err(ProposeError::Refused(error)) => match error.downcast_ref::<KvError>() {
            Some(error) => {
                Verdict::Refused { code: error.code().number(), message: error.to_string() }
            }
            None => Verdict::Refused { code: Code::Internal.into(), message: error.to_string() },
        },
        Err(ProposeError::NotLeader { leader }) => {
            Verdict::NotApplied { reason: Reason::NotLeader, leader }
        }
        Err(ProposeError::Superseded) => not_applied(Reason::Superseded),
        Err(ProposeError::Overloaded) => not_applied(Reason::Overloaded),
        Err(ProposeError::NoSpace) => not_applied(Reason::NoSpace),
        Err(ProposeError::TooLarge { .. }) => not_applied(Reason::TooLarge),
        Err(ProposeError::Stopped) => not_applied(Reason::Stopped),
        // Also for what a later driver may add: who does not know must not claim.
        Err(_unknown) => Verdict::Lost(Lost::Leader),
    }
}

fn not_applied(reason: Reason) -> Verdict {
    Verdict::NotApplied { reason, leader: None }
}

/// A call that failed: unless it is certain that the peer did not propose, nobody knows.
fn lost_or_not_sent(status: &tonic::Status) -> Verdict {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return not_applied(Reason::NotLeader);
        }
        cause = error.source();
    }
    match status.code() {
        // The peer's own checks, made before it proposes.
        Code::FailedPrecondition | Code::Unimplemented => not_applied(Reason::NotLeader),
        _ => Verdict::Lost(Lost::Connection),
    }
}

impl From<ProposeOutcome> for Verdict {
    fn from(outcome: ProposeOutcome) -> Self {
        match outcome.outcome {
            Some(Answer::Applied(reply)) => Self::Applied(reply),
            Some(Answer::Refused(Refused { code, message })) => Self::Refused { code, message },
            Some(Answer::NotApplied(answer)) => Self::NotApplied {
                reason: answer.reason(),
                leader: (answer.leader != 0).then_some(NodeId(answer.leader)),
            },
            // An answer of a later version may mean anything.
            Some(Answer::Unknown(Unknown {})) | None => Self::Lost(Lost::Leader),
        }
    }
}

impl From<Verdict> for ProposeOutcome {
    fn from(verdict: Verdict) -> Self {
        let outcome = match verdict {
            Verdict::Applied(reply) => Answer::Applied(reply),
            Verdict::Refused { code, message } => Answer::Refused(Refused { code, message }),
            Verdict::NotApplied { reason, leader } => Answer::NotApplied(NotApplied {
                reason: reason.into(),
                leader: leader.map_or(0, |leader| leader.0),
            }),
            Verdict::Lost(_) => Answer::Unknown(Unknown {}),
        };
        Self { outcome: Some(outcome) }
    }
}

impl From<KvError> for WriteError {
    fn from(error: KvError) -> Self {
        Self::Refused { code: error.code().number(), message: error.to_string() }
    }
}

/// A member's end: proposes what other members relay, if it leads, and tells who the members are.
#[derive(Debug)]
pub(crate) struct Leader {
    cluster: ClusterId,
    members: Members,
    coordinator: Arc<Coordinator>,
    raft: Raft<KvReader>,
}

impl Leader {
    /// The service for the peer port.
    pub(crate) fn service(
        cluster: ClusterId,
        members: Members,
        coordinator: Arc<Coordinator>,
        raft: Raft<KvReader>,
    ) -> ForwardServer<Self> {
        ForwardServer::new(Self { cluster, members, coordinator, raft })
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(ANSWER_MAX)
    }
}

#[tonic::async_trait]
impl Forward for Leader {
    async fn propose(
        &self,
        request: Request<ProposeRequest>,
    ) -> Result<Response<ProposeResponse>, tonic::Status> {
        let connection = request.extensions().get::<Connection>().cloned();
        let request = request.into_inner();
        self.check(request.cluster, GroupId(request.group))?;
        if let Some(connection) = connection {
            connection.admit();
        }
        if request.commands.len() > courier::COMMANDS_MAX {
            return Err(tonic::Status::failed_precondition("too many commands in one request"));
        }
        // Nothing that this build does not understand goes into the log, and the clock in it is the leader's.
        let wall_clock_ms = wall_clock_ms();
        let stamped = |command| {
            let command = Command { wall_clock_ms, ..Command::decode(command).ok()? };
            Some((command.encode(), propose_options(&command)))
        };
        let proposals: Vec<_> = request.commands.into_iter().map(stamped).collect();
        let mut results =
            self.raft.propose_all(proposals.iter().flatten().cloned()).await.into_iter();
        let outcome = |proposal: Option<_>| {
            let result = proposal.and_then(|_proposed| results.next());
            let malformed = || not_applied(Reason::Malformed);
            result
                .map_or_else(malformed, |result| verdict(result.map(|applied| applied.reply)))
                .into()
        };
        let outcomes = proposals.into_iter().map(outcome).collect();
        Ok(Response::new(ProposeResponse { outcomes }))
    }

    async fn change(
        &self,
        request: Request<ChangeRequest>,
    ) -> Result<Response<ChangeResponse>, tonic::Status> {
        let connection = request.extensions().get::<Connection>().cloned();
        let request = request.into_inner();
        self.check(request.cluster, KV_GROUP)?;
        if let Some(connection) = connection {
            connection.admit();
        }
        let changed = match Change::from_wire(request.change) {
            Some(change) => self.coordinator.change(&change).await,
            None => {
                return Err(tonic::Status::failed_precondition(
                    "not a change that this member knows",
                ));
            }
        };
        Ok(Response::new(changed.into()))
    }

    /// Who asks need not be a member. Its connection is not admitted: it has a few seconds.
    async fn members(
        &self,
        request: Request<MembersRequest>,
    ) -> Result<Response<MembersResponse>, tonic::Status> {
        if request.get_ref().as_known {
            return Ok(Response::new(self.told(&self.members.membership(), &self.raft.reader())));
        }
        let read = self.raft.read(Consistency::Linearizable).await;
        let reader = read.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let membership = self.members.committed();
        if membership.is_joint() {
            return Err(tonic::Status::unavailable("the members are just changing"));
        }
        Ok(Response::new(self.told(&membership, &reader)))
    }
}

impl Leader {
    fn told(&self, membership: &Membership, reader: &KvReader) -> MembersResponse {
        let info = |member: MemberView| MemberInfo {
            id: member.id.0,
            name: member.name,
            peer_urls: member.peer_urls.iter().map(ToString::to_string).collect(),
            is_bound: member.is_bound,
        };
        let members = self.members.list(membership, reader).into_iter().map(info).collect();
        let last_id = membership.last_id().0;
        MembersResponse { cluster: self.cluster.0, last_id, members }
    }

    fn check(&self, cluster: u64, group: GroupId) -> Result<(), tonic::Status> {
        if ClusterId(cluster) == self.cluster && group == KV_GROUP {
            return Ok(());
        }
        Err(tonic::Status::failed_precondition(format!(
            "this is cluster {} and its group {KV_GROUP}, the command is for cluster {} and group {group}",
            self.cluster,
            ClusterId(cluster),
        )))
    }
}

/// Milliseconds since 1970. A clock before that is as good as zero: the state machine never goes back.
fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_verdict() -> Vec<Verdict> {
        let reasons = [
            Reason::NotLeader,
            Reason::Superseded,
            Reason::Overloaded,
            Reason::NoSpace,
            Reason::TooLarge,
            Reason::Stopped,
            Reason::Malformed,
        ];
        let refused = reasons
            .map(|reason| Verdict::NotApplied { reason, leader: Some(NodeId(7)) })
            .into_iter();
        [
            Verdict::Applied(Bytes::from_static(b"reply")),
            Verdict::Refused { code: 3, message: "etcdserver: key not found".into() },
            Verdict::Lost(Lost::Leader),
        ]
        .into_iter()
        .chain(refused)
        .collect()
    }

    #[test]
    fn verdicts_survive_the_wire() {
        for verdict in every_verdict() {
            assert_eq!(Verdict::from(ProposeOutcome::from(verdict.clone())), verdict);
        }
    }

    #[test]
    fn only_what_was_certainly_not_applied_is_handed_over_again() {
        let again: Vec<Verdict> = every_verdict()
            .into_iter()
            .filter(|verdict| conclude(verdict.clone()).is_none())
            .collect();
        for verdict in &again {
            assert!(matches!(verdict, Verdict::NotApplied { .. }), "{verdict:?}");
        }
        assert_eq!(again.len(), 3);
        assert!(conclude(ProposeOutcome { outcome: None }.into()).is_some());
    }

    #[test]
    fn a_failed_call_leaves_the_outcome_unknown() {
        for code in [Code::Unavailable, Code::Cancelled, Code::Internal, Code::Unknown] {
            let verdict = lost_or_not_sent(&tonic::Status::new(code, "broken"));
            assert_eq!(verdict, Verdict::Lost(Lost::Connection), "{code:?}");
        }
        let refused = lost_or_not_sent(&tonic::Status::failed_precondition("other cluster"));
        assert_eq!(refused, not_applied(Reason::NotLeader));
    }
}
